"""Submissions, workers, deaths and controls in any order, against a perfect model of the record (RECORD.md 2 to 5)."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from onceseen.domain.job import Control, job_state
from onceseen.domain.machine import INNOCENT
from onceseen.domain.views import ItemFilter, JobFilter
from onceseen.flow import control, settle, sweep
from onceseen.flow.work import ClaimWish
from onceseen.testing.database_memory import database_in_memory
from onceseen.testing.database_rows import LANE
from onceseen.testing.record import DIED, Record
from onceseen.testing.record_model import (
    CANCELLED,
    FAILED,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    UNREADABLE,
    Item,
    Job,
    Task,
    Unit,
    Waiting,
)

FEW = 3  # items a transaction settles, and a control's step follows, at most: 500 in earnest


class RecordMachine(RuleBasedStateMachine):
    """The hub in miniature on the real flow and database; the model says what every row must be."""

    def __init__(self):
        super().__init__()
        self._limits = settle.ITEMS_AT_ONCE, control.ITEMS_AT_ONCE
        settle.ITEMS_AT_ONCE = control.ITEMS_AT_ONCE = FEW
        self._memory = database_in_memory()
        self.record = Record(self._memory.__enter__())
        self.record.max_deaths = 1  # so that chance finds dead letters
        self.tasks: dict[int, Task] = {}  # by image
        self.jobs: dict[bytes, Job] = {}
        self.held: list[Unit] = []
        self.past: list[Unit] = []  # attempts that are over, whose answers may still come
        self.waiting = Waiting()

    def teardown(self):
        settle.ITEMS_AT_ONCE, control.ITEMS_AT_ONCE = self._limits
        self._memory.__exit__(None, None, None)

    # -- what people do ------------------------------------------------------------------------------------------------

    @rule(
        images=st.lists(st.integers(0, 4), min_size=1, max_size=7),
        priority=st.sampled_from([0, 5, 9]),
        early=st.booleans(),
    )
    def submit(self, images, priority, early):
        chunk = self.record.chunk(images, priority=priority)
        for entry, image in zip(chunk.entries, images, strict=True):
            if early and not any(unit.image == image for unit in self.held + self.waiting.early):
                known = self.tasks.get(image)
                if known is None or not known.answered:
                    assert entry.task is not None
                    entry.task = entry.task._replace(state=RUNNING, attempt=1, server=self.record.me)
                    self.waiting.early.append(Unit(image, None, self.record.me))
        self.waiting.work.chunks.append(chunk)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), what=st.sampled_from([Control.CANCEL, Control.DELETE, Control.RETRY]))
    def ask(self, data, what):
        jobs = sorted(job for job, known in self.jobs.items() if known.control != Control.DELETE)
        if jobs:
            job = data.draw(st.sampled_from(jobs))
            self.record.ask(job, what)
            self.jobs[job].control, self.jobs[job].control_n = what, 0

    @precondition(lambda self: any(job.control for job in self.jobs.values()))
    @rule(data=st.data())
    def step(self, data):
        job = data.draw(st.sampled_from(sorted(job for job, known in self.jobs.items() if known.control)))
        known = self.jobs[job]
        part = [n for n in sorted(known.items) if n >= known.control_n][:FEW]
        done = self.record.step(job)
        assert done == (len(part) < FEW)
        follow = {Control.CANCEL: self._cancel, Control.DELETE: self._delete, Control.RETRY: self._retry}
        follow[Control(known.control)](known, part)
        if part:
            known.control_n = part[-1] + 1
        if done and known.control == Control.DELETE:
            del self.jobs[job]
        elif done:
            known.control = known.control_n = 0

    @rule(purge=st.booleans())
    def dead_letters(self, purge):
        with self.record.database.begin() as tx:
            tasks = tx.views.dead_letters(ItemFilter(1))
            control.purge_dead_letters(tx, tasks) if purge else control.retry_dead_letters(tx, tasks, self.record.time)
        for image, task in self.tasks.items():
            failed = [item for item in self._items(image) if item.state == FAILED]
            if task.state == FAILED and not task.answered and failed and not (purge and self._wanted(image)):
                task.purge() if purge else task.retry(failed)

    def _cancel(self, job, part):
        items = [job.items[n] for n in part if job.items[n].state == QUEUED]
        for item in items:
            item.state, item.error = CANCELLED, "cancelled"
        self._release(items)

    def _delete(self, job, part):
        self._release([item for item in (job.items.pop(n) for n in part) if item.state == QUEUED])

    def _release(self, items):
        for image in {item.image for item in items}:
            if not self._wanted(image) and self.tasks[image].state in (QUEUED, RUNNING):
                self.tasks[image].state = CANCELLED

    def _retry(self, job, part):
        items = [job.items[n] for n in part if job.items[n].state == FAILED]
        items = [item for item in items if self.tasks[item.image].error != UNREADABLE]
        for item in items:
            task = self.tasks[item.image]
            item.state, item.error = (SUCCEEDED if task.state == SUCCEEDED else QUEUED), None
            if task.state in (FAILED, CANCELLED):
                task.open()
                task.suspect = 0

    # -- what workers do -----------------------------------------------------------------------------------------------

    @rule(n=st.integers(1, 3), oldest=st.integers(0, 1))
    def wish(self, n, oldest):
        self.waiting.work.claims = [ClaimWish(LANE, n, oldest)]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def begin(self, data):
        data.draw(st.sampled_from(self.held)).begun = True

    @precondition(lambda self: self.held + self.waiting.early)
    @rule(data=st.data(), error=st.sampled_from([None, None, "model-failed", UNREADABLE]))
    def answer(self, data, error):
        unit = data.draw(st.sampled_from(self.held + self.waiting.early))
        if unit.task is None:
            unit.answer, unit.answered = error, not unit.lost
        else:
            self._end(unit)
            self.waiting.work.settled.append(self.record.answer(unit.task, error=error))

    @precondition(lambda self: self.past)
    @rule(data=st.data(), error=st.sampled_from([None, "model-failed"]))
    def late_twin(self, data, error):
        unit = data.draw(st.sampled_from(self.past))
        self.waiting.work.settled.append(self.record.answer(unit.task, error=error, server=unit.server))

    @precondition(lambda self: self.held + self.waiting.early)
    @rule(data=st.data())
    def crash_of_worker(self, data):
        for unit in data.draw(st.lists(st.sampled_from(self.held + self.waiting.early), min_size=1, max_size=3)):
            if unit.task is None:
                unit.lost = not unit.answered
            elif unit in self.held:
                self._give_back(unit)

    def _give_back(self, unit):
        self._end(unit)
        blame = DIED if unit.begun else INNOCENT
        self.waiting.work.given_back.append(self.record.given(unit.task, blame))

    def _end(self, unit):
        self.held.remove(unit)
        self.past.append(unit)

    @rule()
    def crash_of_server(self):
        """What was not committed is lost; the next server puts the tasks of the dead one back."""
        self.past += self.held
        self.held, self.waiting = [], Waiting()
        with self.record.database.begin() as tx:
            self.record.me = tx.servers.begin("host", 1, self.record.time)
            self.waiting.work.given_back = sweep.of_dead_servers(tx)
            self.waiting.work.leftovers = tx.items.stranded(500)
        running = [task for task in self.tasks.values() if task.state == RUNNING]
        assert {given.fence.id for given in self.waiting.work.given_back} == {task.id for task in running}
        assert set(self.waiting.work.leftovers) == self._stranded()

    # -- the transaction -----------------------------------------------------------------------------------------------

    @rule()
    def commit(self):
        work, early, self.waiting = self.waiting.work, self.waiting.early, Waiting()
        outcome = self.record.commit(work)
        before = {image: task.answered for image, task in self.tasks.items()}
        self._upsert(work.chunks, outcome)
        answered_at_once = {image for image, task in self.tasks.items() if task.answered and before.get(image)}
        passed = self._settle(work.settled)
        assert outcome.passed == passed
        self._insert(work.chunks, answered_at_once)
        final = {task.id for task in self.tasks.values() if task.state in (SUCCEEDED, FAILED)}
        leftovers = self._finish(passed | (set(work.leftovers) & final), outcome)
        failed = self._take_back(work.given_back)
        leftovers |= self._finish(failed, outcome)
        assert set(outcome.leftovers) == leftovers
        assert not outcome.done, "items were settled that nobody answered"
        self.waiting.work.leftovers = outcome.leftovers
        self._claim(work.claims, outcome)
        self._early_rows(early, outcome)

    def _upsert(self, chunks, outcome):
        wanted: dict[int, tuple[int, int]] = {}
        for chunk in chunks:
            for entry in chunk.entries:
                image = entry.image.digest[-1]
                early, priority = wanted.get(image, (0, 9))
                wanted[image] = (max(early, entry.task.state), min(priority, entry.task.priority))
        for image, (early, priority) in wanted.items():
            row = outcome.tasks[self.record.key(image)]
            task = self.tasks.setdefault(image, Task(row.id))
            task.priority = min(task.priority, priority)
            free = task.state in (QUEUED, CANCELLED) or (task.state == FAILED and not task.answered)
            if task.state != QUEUED and free:
                task.open()
            if free and early:
                task.state, task.server, task.attempt = RUNNING, self.record.me, task.attempt + 1
            assert (row.id, row.state, row.attempt) == (task.id, task.state, task.attempt)

    def _settle(self, settled):
        passed = set()
        for answer in (settled.settlement for settled in settled):
            for task in self.tasks.values():
                if task.state == RUNNING and answer[:3] == (task.id, task.attempt, task.server):
                    task.state, task.error = answer.state, answer.error_kind
                    task.successes += task.state == SUCCEEDED
                    passed.add(task.id)
        return passed

    def _insert(self, chunks, answered):
        for chunk in chunks:
            job = self.jobs[chunk.job.id] = Job({})
            for entry in chunk.entries:
                image = entry.image.digest[-1]
                item = job.items[entry.n] = Item(image)
                if image in answered:
                    item.state, item.error = self.tasks[image].state, self.tasks[image].error

    def _finish(self, ids, outcome):
        """At most FEW items take their answers, whichever come first; the tasks whose items must follow."""
        waiting = {
            (job, n): item
            for job, known in self.jobs.items()
            for n, item in known.items.items()
            if item.state == QUEUED and self.tasks[item.image].id in ids
        }
        inserted = [done for done in outcome.done if (done.finished.job, done.finished.n) not in waiting]
        done = [done for done in outcome.done if (done.finished.job, done.finished.n) in waiting]
        assert len(done) == min(FEW, len(waiting))
        for end in done:
            item = waiting[end.finished.job, end.finished.n]
            task = self.tasks[item.image]
            item.state, item.error = task.state, task.error
            assert (end.finished.state, end.finished.error_kind) == (task.state, task.error)
        known = {(job, n): item for job, all_ in self.jobs.items() for n, item in all_.items.items()}
        outcome.done = [end for end in inserted if known[end.finished.job, end.finished.n].state == QUEUED]
        return ids if len(waiting) >= FEW else set()

    def _take_back(self, given_back):
        failed = set()
        for given in given_back:
            for image, task in self.tasks.items():
                if task.state != RUNNING or given.fence != (task.id, task.attempt, task.server):
                    continue
                if given.blame.begun:
                    task.deaths += task.suspect
                    task.suspect = 1
                task.state = QUEUED if self._wanted(image) else CANCELLED
                task.server = None
                if task.deaths == self.record.max_deaths:
                    task.state, task.error = FAILED, "worker-died"
                    failed.add(task.id)
        return failed

    def _claim(self, wishes, outcome):
        for wish in wishes:
            for oldest, n in ((True, wish.oldest), (False, wish.n - wish.oldest)):
                queued = [task for task in self.tasks.values() if task.state == QUEUED]
                queued.sort(key=lambda task: (0 if oldest else task.priority, task.id))
                for task in queued[:n]:
                    task.state, task.server, task.attempt = RUNNING, self.record.me, task.attempt + 1
                    claimed = outcome.claimed[LANE].pop(0)
                    assert (claimed.id, claimed.attempt, claimed.priority) == (task.id, task.attempt, task.priority)
                    self.held.append(Unit(claimed.input[-1], claimed, self.record.me))
        assert not any(outcome.claimed.values())

    def _early_rows(self, early, outcome):
        """What the hub does when the rows of early starts are written."""
        for unit in early:
            row = outcome.tasks[self.record.key(unit.image)]
            if row.state != RUNNING or row.server != self.record.me:
                continue
            unit.task = row
            self.held.append(unit)
            if unit.answered:
                self._end(unit)
                self.waiting.work.settled.append(self.record.answer(row, error=unit.answer))
            elif unit.lost:
                self._give_back(unit)

    # -- what must hold ------------------------------------------------------------------------------------------------

    def _items(self, image):
        return [item for job in self.jobs.values() for item in job.items.values() if item.image == image]

    def _wanted(self, image):
        return any(item.state == QUEUED for item in self._items(image))

    def _stranded(self):
        final = {image: task for image, task in self.tasks.items() if task.state in (SUCCEEDED, FAILED)}
        return {task.id for image, task in final.items() if self._wanted(image)}

    @invariant()
    def every_task_is_what_the_model_says(self):
        for image, task in self.tasks.items():
            row = self.record.task(image)
            assert (row.id, row.state, row.attempt, row.error_kind) == (task.id, task.state, task.attempt, task.error)
            assert (row.suspect, row.deaths, row.losses) == (task.suspect, task.deaths, 0)
            if task.state == RUNNING:
                assert row.server == task.server

    @invariant()
    def every_job_and_item_is_what_the_model_says(self):
        with self.record.database.begin() as tx:
            listed = {row.id for row, _ in tx.views.jobs(JobFilter(), 999)} | {row.id for row in tx.jobs.controlled()}
            assert listed == set(self.jobs)
            for job, known in self.jobs.items():
                items = tx.items.slice(job, 0, 999)
                assert {item.n: (item.state, item.error_kind) for item in items} == {
                    n: (item.state, item.error) for n, item in known.items.items()
                }
                row = tx.jobs.get(job)
                assert row is not None
                assert (row.control, row.control_n) == (known.control, known.control_n)
                if known.control == Control.DELETE:
                    continue
                states = [item.state for item in items]
                counted = [states.count(state) for state in (QUEUED, SUCCEEDED, FAILED, CANCELLED)]
                if not known.control:  # while a control is under way its items run ahead of the counters
                    assert [row.pending, row.succeeded, row.failed, row.cancelled] == counted
                    assert row.total == len(items)
                    assert (row.finished_at is None) == (counted[0] > 0)
                assert row.state == job_state(row.pending, row.failed, row.cancelled, row.control)

    @invariant()
    def a_task_succeeds_at_most_once(self):
        assert all(task.successes <= 1 for task in self.tasks.values())

    @invariant()
    def nothing_that_is_wanted_is_lost(self):
        """Each pending item has a task that waits or runs, or an answer that the next transaction gives it."""
        for image, task in self.tasks.items():
            if self._wanted(image) and task.state not in (QUEUED, RUNNING):
                assert task.id in self.waiting.work.leftovers

    @invariant()
    def what_runs_is_in_somebodys_hands(self):
        """On this server in a worker's, or on its way back; on no dead server but until the sweep's transaction."""
        coming: set[object] = {answer.settlement[:3] for answer in self.waiting.work.settled}
        coming |= {tuple(given.fence) for given in self.waiting.work.given_back}
        coming |= {(unit.task.id, unit.task.attempt, unit.server) for unit in self.held if unit.task}
        for task in self.tasks.values():
            if task.state == RUNNING:
                assert (task.id, task.attempt, task.server) in coming

    @invariant()
    def a_recount_finds_nothing_to_correct(self):
        with self.record.database.begin() as tx:
            for job, known in self.jobs.items():
                if not known.control:
                    assert tx.jobs.get(job) == tx.jobs.recount(job, self.record.time)


def profile(examples, steps):
    """Found by chance, not by the clock: a slow machine fails nothing."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=slow)


@pytest.mark.timeout(900)  # seconds when all is well; a failure takes minutes to be made small
def test_the_record_keeps_its_promises_in_any_order_of_events():
    run_state_machine_as_test(RecordMachine, settings=profile(80, 50))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_record_keeps_its_promises_for_long():
    run_state_machine_as_test(RecordMachine, settings=profile(2000, 120))
