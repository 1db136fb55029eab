"""A kill between any two statements of what takes several transactions; the next server brings it to the same end."""

import pytest

from onceseen.domain.job import Control, JobState
from onceseen.domain.task import TaskState
from onceseen.flow import control, settle, sweep
from onceseen.flow.work import Chunk, Group
from onceseen.testing.database_memory import database_in_memory
from onceseen.testing.record import DIED, Killed, Record

FEW = 5  # items a transaction settles, and a step follows, at most: 500 in earnest
EQUAL = 13


@pytest.fixture(autouse=True)
def _few_at_once(monkeypatch):
    for module in (settle, control):
        monkeypatch.setattr(module, "ITEMS_AT_ONCE", FEW)


def restart(record):
    """The next server on the same record; what was under way goes on (hub.start and the sweep)."""
    with record.database.begin() as tx:
        record.me = tx.servers.begin("host", 2, record.time)
        tx.servers.bury(record.me)
        back = sweep.of_dead_servers(tx)
        sweep.broken_off(tx, record.me, ())
        sweep.unfinished_local(tx)
        stranded = tx.items.stranded(1_000_000)
    record.follow(record.commit(Group(given_back=back, leftovers=stranded)))
    finish_controls(record)


def finish_controls(record):
    def controlled():
        with record.database.read() as reader:
            return reader.jobs.controlled()

    while jobs := controlled():
        for job in jobs:
            record.step(job.id)


def finish(record):
    """Workers answer whatever waits."""
    while tasks := record.claim(500):
        record.settle(*tasks)


def check(record, jobs):
    """Counters are exact, nobody waits for a final task, no task is wanted and not on its way."""
    with record.database.begin() as tx:
        assert tx.items.stranded(9) == []
        assert tx.jobs.receiving() == []
        for job in jobs:
            row = tx.jobs.get(job)
            if row is None:
                assert tx.items.slice(job, 0, 9) == []
                continue
            states = [item.state for item in tx.items.slice(job, 0, 9999)]
            counted = [len(states), *(states.count(state) for state in (0, 2, 3, 4))]
            assert [row.total, row.pending, row.succeeded, row.failed, row.cancelled] == counted
            assert (row.finished_at is None) == (row.pending > 0)
            for item in tx.items.slice(job, 0, 9999):
                if item.state == 0:
                    (task,) = tx.tasks.get([item.task])
                    assert task.state in (TaskState.QUEUED, TaskState.RUNNING)


def answer(record):
    job = record.submit([1] * EQUAL)
    tasks = record.claim()
    return [job], lambda: record.settle(*tasks), {2: EQUAL}


def last_death(record):
    """The task fails for good while many items wait."""
    record.max_deaths = 1
    job = record.submit([1] * EQUAL)
    record.give_back(record.claim()[0], DIED)
    (task,) = record.claim()
    return [job], lambda: record.give_back(task, DIED), None


def asked(what):
    def prepare(record):
        job = record.submit(range(EQUAL))
        other = record.submit(range(7))
        tasks = record.claim(6)
        record.settle(*tasks[:3])
        record.settle(*tasks[3:], error="model-failed")

        def act():
            if not record.job(job).control:
                record.ask(job, what)
            finish_controls(record)

        ended = {Control.CANCEL: {2: 3, 3: 3, 4: EQUAL - 6}, Control.DELETE: {}, Control.RETRY: {2: EQUAL}}[what]
        return [job, other], act, ended

    return prepare


def dead_letter(record):
    """Its sender hears 200 only after all steps, and asks again."""
    job = record.submit([1] * EQUAL)
    record.settle(*record.claim(), error="model-failed")
    task = record.task(1).id

    def act():
        left, first = [task], True
        while left:
            record.time += 1
            with record.database.begin() as tx:
                left, first = control.retry_dead_letters(tx, left, record.time, first=first).left, False

    return [job], act, {2: EQUAL}


def submission(record):
    """Three chunks; without the last one nothing of it stays."""
    head = record.head()

    def act():
        for number in range(3):
            entries = [record.entry(head, n, n) for n in range(EQUAL)[5 * number : 5 * number + 5]]
            record.commit(Group(chunks=[Chunk(head, entries, first=number == 0, last=number == 2)]))

    return [head.id], act, {2: EQUAL}


SCENARIOS = {
    "settle": answer,
    "last death": last_death,
    "cancel": asked(Control.CANCEL),
    "delete": asked(Control.DELETE),
    "retry": asked(Control.RETRY),
    "dead letter": dead_letter,
    "submission": submission,
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_at_any_statement_leads_to_the_same_end(name):
    position, kills = 0, 0
    while True:
        with database_in_memory() as database:
            record = Record(database)
            jobs, act, ended = SCENARIOS[name](record)
            killed = False
            try:
                with record.broken_after(position):
                    act()
            except Killed:
                killed = True
                restart(record)
                check(record, jobs)
                with database.begin() as tx:
                    there = tx.jobs.get(jobs[0])
                if name in ("cancel", "delete", "retry", "dead letter") and there is not None:
                    act()  # whoever asked got no answer, and asks again
            finish(record)
            check(record, jobs)
            with database.begin() as tx:
                row, items = tx.jobs.get(jobs[0]), tx.items.slice(jobs[0], 0, 9999)
            states = {state: sum(item.state == state for item in items) for state in {item.state for item in items}}
            if name == "submission" and killed:
                assert row is None or row.state == JobState.SUCCEEDED
                assert states in ({}, ended)
            elif ended is None:
                assert states in ({3: EQUAL}, {2: EQUAL}), "all of them one way"
            else:
                assert states == ended
        kills += killed
        if not killed:
            break
        position += 1
    assert kills > 10
