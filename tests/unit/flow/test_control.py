"""Cancel, delete, retry, dead letters: shown at once, carried out 500 items at a time, stopped by no kill (RECORD.md 3.4)."""

import pytest

from onceseen.domain.job import Control, ItemState, JobState
from onceseen.domain.task import TaskState
from onceseen.domain.views import ItemFilter
from onceseen.errors import NotFound
from onceseen.flow import control
from onceseen.flow.work import Chunk, Group
from onceseen.testing.database_rows import digest, ident
from onceseen.testing.record import DIED, Killed

MANY = 1200


def dead_letters(record):
    with record.database.read() as reader:
        return reader.views.dead_letters(ItemFilter(1))


def retry_dead_letters(record):
    left, first, items = dead_letters(record), True, 0
    while left:
        record.time += 1000
        with record.database.begin() as tx:
            step = control.retry_dead_letters(tx, left, record.time, first=first)
        left, first, items = step.left, False, items + step.items
    return items


def states(record, job):
    return [item.state for item in record.items(job)]


def counters_match(record, job):
    row, found = record.job(job), states(record, job)
    counted = [found.count(state) for state in (0, 2, 3, 4)]
    return [row.total, row.pending, row.succeeded, row.failed, row.cancelled] == [len(found), *counted]


def fill(record):
    """A job of 1,200 images, 100 of them also another job's; the first 10 have succeeded, the next 10 failed."""
    job = record.submit(range(MANY))
    other = record.submit(range(100))
    tasks = record.claim(25)
    record.settle(*tasks[:10])
    record.settle(*tasks[10:19], error="model-failed")
    record.settle(tasks[19], error="unreadable-image")
    return job, other


def test_cancel_ends_what_waits_and_leaves_what_is_settled(record):
    job, other = fill(record)
    asked = record.ask(job, Control.CANCEL)
    assert (asked.state, asked.finished_at) == (JobState.CANCELLED, None)
    assert states(record, job).count(ItemState.CANCELLED) == 0
    assert record.carry_out(job, Control.CANCEL) == 3
    assert states(record, job) == [2] * 10 + [3] * 10 + [4] * (MANY - 20)
    assert counters_match(record, job)
    row = record.job(job)
    assert (row.state, row.control) == (JobState.FAILED, 0)
    assert row.finished_at is not None
    # 20 to 24 run and 25 to 99 wait for the other job; nobody wants the rest
    assert [record.task(image).state for image in (22, 50, 99, 100, MANY - 1)] == [1, 0, 0, 4, 4]
    record.settle(*record.claim(MANY), record.task(20))
    assert states(record, other)[20:21] == [2]
    assert states(record, job)[20:21] == [4]
    assert counters_match(record, other)


def test_delete_removes_items_and_forgets_images_that_nobody_names(record):
    job, other = fill(record)
    record.ask(job, Control.DELETE)
    with pytest.raises(NotFound):
        record.ask(job, Control.RETRY)
    steps = 1
    while not record.step(job):
        steps += 1
    assert steps == 3
    assert record.items(job) == []
    with record.database.begin() as tx:
        assert tx.jobs.get(job) is None
        gone = {row[1] for row in tx.images.deleted(record.time, 9999)}
        assert gone == {digest(image) for image in range(100, MANY)}
        assert tx.events.after(tx.events.bounds()[1] - 1, 1)[0].kind == "job.deleted"
    assert [record.task(image).state for image in (0, 10, 50, 100)] == [2, 3, 0, 4]
    assert counters_match(record, other)


def test_retry_queues_failures_but_not_what_is_remembered(record):
    job, other = fill(record)
    before = record.items(other)
    assert record.carry_out(job, Control.RETRY) == 3
    assert states(record, job)[8:21] == [2, 2, *[0] * 9, 3, 0]
    assert counters_match(record, job)
    assert [record.task(image).state for image in (9, 10, 18, 19)] == [2, 0, 0, 3]
    assert record.items(other) == before
    record.settle(*record.claim(MANY))
    # what the other job had settled stays as it was (RECORD.md 3.2)
    assert record.items(other)[:20] == before[:20]
    assert states(record, job)[10:20] == [2] * 9 + [3]


def test_a_job_without_items_left_is_done_in_one_step(record):
    head = record.head()
    record.commit(Group(chunks=[Chunk(head, [])]))
    assert record.job(head.id).state == JobState.SUCCEEDED
    assert record.carry_out(head.id, Control.CANCEL) == 1
    assert record.job(head.id).state == JobState.SUCCEEDED


def test_only_jobs_that_are_there_can_be_asked(record):
    head = record.head()
    record.commit(Group(chunks=[Chunk(head, [record.entry(head, 0, 1)], last=False)]))
    for job in (head.id, ident(999)):
        with pytest.raises(NotFound):
            record.ask(job, Control.CANCEL)


@pytest.mark.parametrize("what", [Control.CANCEL, Control.DELETE, Control.RETRY])
def test_a_kill_between_any_two_steps_changes_nothing_in_the_end(record, what):
    """Each step is tried with a kill at each of its statements; the step itself then finds what it would have found."""
    job, other = fill(record)
    record.ask(job, what)

    def everything():
        with record.database.begin() as tx:
            return tx.items.slice(job, 0, 9999), tx.items.slice(other, 0, 9999), tx.jobs.get(job), tx.events.bounds()

    done, steps, kills = False, 0, 0
    while not done:
        before, statement = everything(), 0
        while True:
            try:
                with record.broken_after(statement):
                    done = record.step(job)
                break
            except Killed:
                assert everything() == before
                statement, kills = statement + 1, kills + 1
        steps += 1
    assert (steps, kills > 10) == (3, True)
    ended = {Control.CANCEL: 4, Control.DELETE: None, Control.RETRY: 0}[what]
    assert [item.state for item in record.items(job)[20:]] == ([] if ended is None else [ended] * (MANY - 20))
    if ended is not None:
        assert counters_match(record, job)
        assert record.job(job).control == 0


def test_answers_that_come_between_the_steps_of_a_cancel_count(record):
    job = record.submit(range(MANY))
    tasks = record.claim(MANY)
    record.ask(job, Control.CANCEL)
    record.step(job)
    outcome = record.settle(*tasks[:1], *tasks[1100:])
    assert len(outcome.done) == 100
    while not record.step(job):
        pass
    assert states(record, job) == [4] * 1100 + [2] * 100
    assert counters_match(record, job)


def test_a_cancelled_question_that_is_asked_again_runs_again(record):
    job = record.submit([1])
    (old,) = record.claim()
    record.carry_out(job, Control.CANCEL)
    assert record.task(1).state == TaskState.CANCELLED
    again = record.submit([1])
    (new,) = record.claim()
    assert (new.id, new.attempt) == (old.id, old.attempt + 1)
    assert record.settle(old).passed == set()
    record.settle(new)
    assert (states(record, job), states(record, again)) == ([4], [2])


def test_a_settled_item_never_changes_by_another_jobs_doing(record):
    """RECORD.md 3.2: its task is asked again, runs, succeeds, and the item keeps its own failure."""
    first = record.submit([1])
    record.settle(*record.claim(), error="model-failed")
    before = record.items(first), record.job(first)
    second = record.submit([1])
    assert (record.items(first), record.job(first)) == before
    record.settle(*record.claim())
    assert states(record, second) == [2]
    record.carry_out(second, Control.DELETE)
    assert (record.items(first), record.job(first)) == before


def test_retry_of_an_item_whose_task_has_been_answered_since_takes_the_answer(record):
    first = record.submit([1])
    record.settle(*record.claim(), error="model-failed")
    record.submit([1])
    record.settle(*record.claim())
    record.carry_out(first, Control.RETRY)
    (item,) = record.items(first)
    assert (item.state, item.label, item.error) == (ItemState.SUCCEEDED, "dog", None)
    assert counters_match(record, first)
    assert record.job(first).state == JobState.SUCCEEDED


def test_dead_letters_are_failures_of_another_kind_than_the_images_own(record):
    job = record.submit([1, 2, 3])
    one, two, three = record.claim(3)
    record.settle(one, error="unreadable-image")
    record.settle(two, error="model-failed")
    for _ in range(4):
        record.give_back(three, DIED)
        three = (record.claim() or [three])[0]
    assert dead_letters(record) == sorted([two.id, three.id])
    assert retry_dead_letters(record) == 2
    assert dead_letters(record) == []
    assert states(record, job) == [3, 0, 0]
    assert counters_match(record, job)
    assert record.job(job).state == JobState.PENDING
    assert (record.task(3).deaths, record.task(3).suspect, record.task(3).attempt) == (0, 0, 4)
    record.settle(*record.claim(9))
    assert states(record, job) == [3, 2, 2]


def test_retry_of_dead_letters_opens_the_items_of_all_jobs(record):
    jobs = [record.submit([1] * 600), record.submit([1])]
    record.settle(*record.claim(), error="model-failed")
    assert retry_dead_letters(record) == 601
    record.settle(*record.claim())
    for job in jobs:
        assert set(states(record, job)) == {2}
        assert counters_match(record, job)


@pytest.mark.parametrize("what", [Control.CANCEL, Control.DELETE])
def test_retry_of_dead_letters_stops_no_control_that_is_under_way(record, what):
    job = record.submit([*range(1000), 0])
    record.settle(record.claim()[0], error="model-failed")
    record.ask(job, what)
    record.step(job)
    assert retry_dead_letters(record) == (2 if what == Control.CANCEL else 1)
    while not record.step(job):
        pass
    record.settle(*record.claim(9))
    if what == Control.DELETE:
        assert record.items(job) == []
        assert record.task(0).state == TaskState.CANCELLED
    else:
        assert states(record, job) == [2, *[4] * 999, 4]


def test_retry_of_dead_letters_leaves_a_job_that_is_received_hidden(record):
    head = record.head()
    record.commit(Group(chunks=[Chunk(head, [record.entry(head, 0, 1)], last=False)]))
    record.settle(*record.claim(), error="model-failed")
    assert retry_dead_letters(record) == 1
    row = record.job(head.id)
    assert (row.state, row.pending, row.failed) == (JobState.RECEIVING, 1, 0)


def test_a_purged_dead_letter_leaves_the_list_and_its_item_keeps_its_failure(record):
    job = record.submit([1, 2, 3])
    one, two, three = record.claim(3)
    record.settle(one, error="unreadable-image")
    record.settle(two, three, error="model-failed")
    with record.database.begin() as tx:
        row, items = tx.jobs.get(job), tx.views.items(ItemFilter(1, job), 9)
        assert control.purge_dead_letters(tx, [one.id, two.id, ident(99)]).items == 1
        kept = tx.views.items(ItemFilter(1, job), 9)
        assert [item._replace(task_state=None) for item in kept] == [item._replace(task_state=None) for item in items]
        assert kept[1].attempt == 1
        assert tx.jobs.get(job) == row
    assert dead_letters(record) == [three.id]
    record.carry_out(job, Control.RETRY)
    assert states(record, job) == [3, 0, 0]
    record.settle(*record.claim(9))
    assert states(record, job) == [3, 2, 2]
    assert counters_match(record, job)


def test_a_dead_letter_is_not_purged_before_all_its_items_know(record):
    job = record.submit([1] * 600)
    (task,) = record.claim()
    outcome = record.commit(Group(settled=[record.answer(task, error="model-failed")]))
    with record.database.begin() as tx:
        assert control.purge_dead_letters(tx, [task.id]).items == 0
    record.follow(outcome)
    assert set(states(record, job)) == {3}
    with record.database.begin() as tx:
        assert control.purge_dead_letters(tx, [task.id]).items == 600


def test_dead_letters_whose_other_items_are_deleted_between_two_steps_are_queued_all_the_same(record):
    first, second = record.submit([1] * 500), record.submit([1] * 100)
    record.settle(*record.claim(), error="model-failed")
    (task,) = dead_letters(record)
    with record.database.begin() as tx:
        left = control.retry_dead_letters(tx, [task], record.time).left
    assert left == [task]
    (gone,) = [job for job in (first, second) if 3 in states(record, job)]
    record.carry_out(gone, Control.DELETE)
    with record.database.begin() as tx:
        assert control.retry_dead_letters(tx, left, record.time, first=False) == (0, [])
    assert record.task(1).state == TaskState.QUEUED
