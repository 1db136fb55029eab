"""One transaction for everything that waits: submit, join, early start, settle, give back (RECORD.md 1 to 3, 5)."""

import json

import pytest

from onceseen.domain.job import Control, ImageFacts, ItemState, JobState
from onceseen.domain.machine import INNOCENT, Blame
from onceseen.domain.task import TaskState
from onceseen.flow.work import Chunk, ClaimWish, Entry, Failure, Group
from onceseen.testing.database_rows import LANE, LANE_2, digest, ident
from onceseen.testing.record import DIED, SCORES, Killed


def events(record, after=0):
    with record.database.read() as reader:
        return [(event.kind, json.loads(event.data)) for event in reader.events.after(after, 10_000)]


def newest(record):
    with record.database.read() as reader:
        return reader.events.bounds()[1]


def test_a_submission_writes_job_items_tasks_and_images(record):
    chunk = record.chunk([1, 2, 1])
    chunk.entries.append(Entry(3, "bad", failure=Failure("too-large", "It is too large.")))
    outcome = record.commit(Group(chunks=[chunk], lanes={LANE}))
    row = record.job(chunk.job.id)
    assert (row.state, row.total, row.pending, row.failed) == (JobState.PENDING, 4, 3, 1)
    items = record.items(chunk.job.id)
    assert [item.state for item in items] == [0, 0, 0, 3]
    assert items[0].task == items[2].task != items[1].task
    assert (items[3].error_kind, items[3].error, items[3].finished_at) == ("too-large", "It is too large.", record.time)
    assert outcome.heads[LANE].priority == 5
    with record.database.read() as reader:
        assert len(reader.images.locate(1, [digest(1), digest(2)])) == 2


@pytest.mark.parametrize("order", [1, -1])
def test_an_image_takes_what_every_submission_of_a_group_brings(record, order):
    plain, looked = record.chunk([1]), record.chunk([1])
    looked.entries[0].image = looked.entries[0].image._replace(location=None, pixel_digest=digest(9))
    record.commit(Group(chunks=[plain, looked][::order]))
    with record.database.read() as reader:
        assert reader.images.alike(1, digest(9), 2) == [digest(1)]
        assert reader.images.locate(1, [digest(1)])


def test_a_job_is_hidden_until_its_last_chunk(record):
    head = record.head()
    first = Chunk(head, [record.entry(head, 0, 1)], first=True, last=False)
    record.commit(Group(chunks=[first]))
    (task,) = record.claim()
    record.settle(task)
    assert (record.job(head.id).state, record.job(head.id).succeeded) == (JobState.RECEIVING, 1)
    assert events(record) == []
    record.commit(Group(chunks=[Chunk(head, [], first=False, last=True)]))
    assert record.job(head.id).state == JobState.SUCCEEDED
    assert [kind for kind, _ in events(record)] == ["job.created", "job.finished"]


def test_equal_questions_share_one_task_and_one_run(record):
    jobs = [record.chunk([1]), record.chunk([1], priority=0), record.chunk([1], "m:2")]
    record.commit(Group(chunks=jobs[:2]))
    record.commit(Group(chunks=jobs[2:]))
    (task,) = record.claim(9)
    assert task.priority == 0
    record.settle(task)
    for chunk in jobs:
        (item,) = record.items(chunk.job.id)
        assert (item.state, item.label, item.reused, item.task) == (ItemState.SUCCEEDED, "dog", 0, task.id)
        assert record.job(chunk.job.id).state == JobState.SUCCEEDED


def test_a_job_of_its_own_lane_shares_nothing(record):
    record.submit([1], "m:1")
    record.submit([1], "other:1")
    assert record.task(1).id != record.task(1, "other:1").id
    assert len(record.claim(9)) == len(record.claim(9, LANE_2)) == 1


def test_a_later_question_takes_the_answer_with_the_originals_times(record):
    record.submit([1])
    (task,) = record.claim()
    record.settle(task)
    original = record.task(1)
    record.time += 5_000_000
    job = record.submit([1], "m:2")
    (item,) = record.items(job)
    assert (item.state, item.reused, item.finished_at, item.worker) == (2, 1, original.finished_at, ident(88))
    assert record.job(job).state == JobState.SUCCEEDED
    assert record.task(1) == original


def test_risk_and_found_follow_the_version_that_was_asked_for(record):
    jobs = {model: record.submit([1], model) for model in ("m:1", "m:2")}
    jobs["other:1"] = record.submit([1], "other:1")
    record.settle(*record.claim())
    record.settle(*record.claim(lane=LANE_2))
    late = {model: record.submit([1], model) for model in jobs}
    expected = {"m:1": (0.75, 1), "m:2": (0.25, 0), "other:1": (None, None)}
    for model, (risk, found) in expected.items():
        for job in (jobs[model], late[model]):
            (item,) = record.items(job)
            assert (item.risk, item.found) == (risk, found)


@pytest.mark.parametrize("state", ["answered", "unreadable", "queued", "elsewhere", "failed", "cancelled"])
def test_an_early_start_meets_what_is_there(record, state):
    """RECORD.md 2.3: answered, or running elsewhere: this run is dropped; else the task runs here under a new attempt."""
    first = record.submit([1])
    if state != "queued":
        (task,) = record.claim()
        record.me += 1 if state == "elsewhere" else 0
        if state in ("answered", "unreadable", "failed"):
            kinds = {"answered": None, "unreadable": "unreadable-image", "failed": "model-failed"}
            record.settle(task, error=kinds[state])
        elif state == "cancelled":
            record.carry_out(first, Control.CANCEL)
    before = record.task(1)
    chunk = record.chunk([1], early=True)
    met = record.commit(Group(chunks=[chunk])).tasks[record.key(1)]
    (item,) = record.items(chunk.job.id)
    if state in ("answered", "unreadable"):
        assert met == before
        assert item.state == before.state
        return
    assert item.state == ItemState.PENDING
    assert (met.state, met.server) == (TaskState.RUNNING, before.server if state == "elsewhere" else record.me)
    assert met.attempt == before.attempt + (state != "elsewhere")
    outcome = record.settle(met) if state != "elsewhere" else record.settle(met._replace(server=record.me - 1))
    assert len(outcome.done) == (0 if state == "elsewhere" else 2 if state == "queued" else 1)


def test_an_answer_reaches_items_that_come_with_it_in_one_group(record):
    record.submit([1])
    (task,) = record.claim()
    joins = record.chunk([1, 1])
    outcome = record.commit(Group(chunks=[joins], settled=[record.answer(task)]))
    assert len(outcome.done) == 3
    assert record.job(joins.job.id).state == JobState.SUCCEEDED
    assert [item.state for item in record.items(joins.job.id)] == [2, 2]


def test_a_question_that_comes_with_the_news_of_a_death_is_not_lost(record):
    first = record.submit([1])
    (task,) = record.claim()
    with record.database.begin() as tx:  # nobody else waits for it
        tx.items.remove(first, [0])
    joins = record.chunk([1])
    record.commit(Group(chunks=[joins], given_back=[record.given(task, DIED)]))
    assert record.task(1).state == TaskState.QUEUED
    record.settle(*record.claim())
    assert record.job(joins.job.id).state == JobState.SUCCEEDED


def test_a_late_twin_changes_no_row(record):
    job = record.submit([1])
    (task,) = record.claim()
    record.give_back(task)
    (again,) = record.claim()
    late = record.commit(Group(settled=[record.answer(task, error="model-failed")]))
    assert (late.passed, late.done, late.events, late.jobs) == (set(), [], [], {})
    record.settle(again)
    before = (record.task(1), record.items(job), record.job(job), newest(record))
    record.commit(Group(settled=[record.answer(task), record.answer(again)]))
    assert (record.task(1), record.items(job), record.job(job), newest(record)) == before


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("twin", ["stale", "same"])
def test_a_twin_in_the_same_group_speaks_for_nobody(record, twin, order):
    """A stale attempt's answer beside the one that counts; or the same attempt answered twice: then the first counts."""
    first = record.submit([1])
    (stale,) = record.claim()
    if twin == "stale":
        record.carry_out(first, Control.CANCEL)
        record.submit([1])
    (task,) = record.claim() or [stale]
    answers = [record.answer(task), record.answer(stale, error="model-failed")][::order]
    outcome = record.commit(Group(settled=answers))
    row = record.task(1)
    failed = twin == "same" and order == -1
    assert row.state == (TaskState.FAILED if failed else TaskState.SUCCEEDED)
    assert [(done.finished.state, done.finished.error_kind) for done in outcome.done] == [(row.state, row.error_kind)]


@pytest.mark.parametrize("error", [None, "model-failed"])
def test_a_thousand_items_wait_for_one_task(record, error):
    """RECORD.md 1.1: at most 500 items a transaction; the rest follows."""
    jobs = [record.submit([1] * 400) for _ in range(3)]
    (task,) = record.claim()
    outcome = record.commit(Group(settled=[record.answer(task, error=error)]))
    assert len(outcome.done) == 500
    assert outcome.leftovers == [task.id]
    assert record.follow(outcome) == 2
    for job in jobs:
        row = record.job(job)
        assert (row.pending, row.succeeded, row.failed) == ((0, 400, 0) if error is None else (0, 0, 400))
    with record.database.begin() as tx:
        assert tx.items.stranded(9) == []


def test_leftovers_of_a_task_that_is_asked_again_wait_for_the_new_answer(record):
    """Failed with 600 items waiting, opened by a submission before the rest was settled: the rest takes the second answer."""
    job = record.submit([1] * 600)
    (task,) = record.claim()
    outcome = record.commit(Group(settled=[record.answer(task, error="model-failed")]))
    record.submit([1])
    assert record.follow(outcome) == 1
    assert (record.job(job).failed, record.job(job).pending) == (500, 100)
    record.settle(*record.claim())
    assert (record.job(job).failed, record.job(job).succeeded) == (500, 100)


def test_what_nobody_waits_for_is_cancelled_when_it_comes_back(record):
    job = record.submit([1])
    (task,) = record.claim()
    with record.database.begin() as tx:  # its item is gone; the cancel of the task has not come yet
        tx.items.remove(job, [0])
    outcome = record.give_back(task)
    assert outcome.verdicts[task.id].state == TaskState.CANCELLED
    assert record.task(1).state == TaskState.CANCELLED
    assert record.claim() == []


def test_three_deaths_alone_fail_the_items_and_are_kept(record):
    """RECORD.md 5.1: the first death, in a batch, only makes it a suspect."""
    job = record.submit([1])
    for death in range(4):
        (task,) = record.claim()
        assert bool(task.suspect) == (death > 0)
        assert record.job(job).state == JobState.PENDING
        record.give_back(task, DIED)
    (item,) = record.items(job)
    assert (item.state, item.error_kind) == (ItemState.FAILED, "worker-died")
    assert "died 3 times" in (item.error or "")
    assert record.job(job).state == JobState.FAILED
    with record.database.read() as reader:
        attempts = reader.views.attempts(task.id)
    assert [attempt.n for attempt in attempts] == [1, 2, 3, 4]
    assert {attempt.why for attempt in attempts} == {DIED.why}


def test_a_stale_attempt_that_comes_back_hides_no_failure(record):
    """Cancelled while it ran and asked again, the task has two attempts out; both workers die at once."""
    first = record.submit([1])
    (stale,) = record.claim()
    record.carry_out(first, Control.CANCEL)
    job = record.submit([1])
    for _ in range(3):
        (task,) = record.claim()
        record.give_back(task, DIED)
    (task,) = record.claim()
    record.commit(Group(given_back=[record.given(task, DIED), record.given(stale, INNOCENT)]))
    assert record.task(1).state == TaskState.FAILED
    assert record.items(job)[0].error_kind == "worker-died"
    assert record.job(job).state == JobState.FAILED


def test_lost_links_are_forgiven_nineteen_times(record):
    job = record.submit([1])
    lost = Blame(begun=True, death=False, why="cut off")
    for _ in range(20):
        assert record.job(job).state == JobState.PENDING
        (task,) = record.claim()
        record.give_back(task, lost)
    assert record.job(job).state == JobState.FAILED
    assert record.task(1).losses == 20


def test_claims_bring_the_places_of_the_bytes(record):
    record.submit([1, 2, 3], priority=9)
    record.submit([4], priority=0)
    outcome = record.commit(Group(claims=[ClaimWish(LANE, 3, 1), ClaimWish(LANE_2, 2)], lanes={LANE, LANE_2}))
    claimed = outcome.claimed[LANE]
    assert [task.input for task in claimed] == [digest(1), digest(4), digest(2)]
    assert set(outcome.places) == {digest(1), digest(4), digest(2)}
    assert outcome.heads[LANE].priority == 9
    assert LANE_2 not in outcome.heads


def test_a_run_describes_its_image_only_when_its_answer_counts(record):
    record.submit([1])
    (task,) = record.claim()
    facts = ImageFacts("image/png", 3, 4, 1, digest(1))
    late = record.answer(task)._replace(facts=facts)
    record.commit(Group(settled=[late._replace(settlement=late.settlement._replace(attempt=7))]))
    with record.database.read() as reader:
        assert reader.views.image(1, digest(1)).width is None
    record.commit(Group(settled=[late]))
    with record.database.read() as reader:
        assert reader.views.image(1, digest(1)).width == 3
    assert record.task(1).result == SCORES


def test_there_is_one_event_a_job_and_transaction(record):
    """RECORD.md 1.6: its data are the job; progress names at most 100 items."""
    jobs = [record.submit(range(150)), record.submit([0, 1000])]
    tasks = record.claim(200)
    after = newest(record)
    record.settle(*(task for task in tasks if task.input != digest(1000) and task.input != digest(149)))
    progress = events(record, after)
    assert [kind for kind, _ in progress] == ["job.progress", "job.progress"]
    numbers = {data["id"]: data["items"] for _, data in progress}
    assert sorted(map(len, numbers.values())) == [1, 100]
    assert {data["succeeded"] for _, data in progress} == {149, 1}
    after = newest(record)
    record.settle(*(task for task in tasks if task.input in (digest(1000), digest(149))))
    assert [kind for kind, _ in events(record, after)] == ["job.finished", "job.finished"]
    assert all(record.job(job).state == JobState.SUCCEEDED for job in jobs)


def test_a_transaction_that_changes_no_job_writes_no_event(record):
    record.submit([1])
    after = newest(record)
    record.give_back(record.claim()[0])
    assert newest(record) == after


def test_a_kill_at_any_statement_of_a_group_leaves_all_or_nothing(record):
    record.submit([1, 2])
    tasks = record.claim(2)
    chunk = record.chunk([1, 3])
    died = record.given(tasks[1], DIED)
    work = Group(chunks=[chunk], settled=[record.answer(tasks[0])], given_back=[died], claims=[ClaimWish(LANE, 5)])

    def everything():
        with record.database.begin() as tx:
            rows = tx.tasks.get([ident(number) for number in range(40)])
            items = [tx.items.slice(ident(number), 0, 99) for number in range(40)]
            return sorted(rows), items, tx.jobs.get(chunk.job.id), tx.events.bounds(), tx.views.attempts(tasks[1].id)

    before, statement = everything(), 0
    while True:
        try:
            with record.broken_after(statement):
                record.commit(work)
        except Killed:
            assert everything() == before
            statement += 1
        else:
            break
    assert statement > 12
    assert record.job(chunk.job.id).succeeded == 1
