"""RECORD.md 2.6: a URL is durable like bytes, and its item ends once, by whoever takes the row."""

from dataclasses import replace

import pytest

from onceseen.domain.fetch import FetchRow
from onceseen.domain.job import Control, ItemState, JobState
from onceseen.errors import ModelInUse
from onceseen.flow import models, sweep
from onceseen.flow.work import Chunk, Entry, Failure, Group
from onceseen.testing.database_rows import digest
from onceseen.testing.record import Killed

URL = "https://pictures.example/a.png"


def listed(record, count=1, *, last=True, fresh=0):
    """A job over URLs."""
    head = record.head()
    rows = [FetchRow(head.id, n, f"{URL}?{n}", fresh, record.me, 0, record.time) for n in range(count)]
    return Chunk(head, [Entry(row.n, row.url, fetch=row) for row in rows], last=last)


def submit(record, count=1):
    """Such a job in the record."""
    chunk = listed(record, count)
    record.commit(Group(chunks=[chunk]))
    return chunk.job


def came(record, head, n, image):
    """What fetching hands to the writer: the picture of a URL."""
    return Chunk(head, [replace(record.entry(head, n, image), name="")], first=False, last=False, fetched=True)


def failed(head, n):
    """What fetching hands to the writer: a URL that gave none."""
    entry = Entry(n, "", failure=Failure("fetch-failed", "It answered with HTTP status 404."))
    return Chunk(head, [entry], first=False, last=False, fetched=True)


def waiting(record, server=None):
    """(job, n) of all URLs that wait."""
    with record.database.begin() as tx:
        tx.fetches._cursor.execute("SELECT job, n, server FROM fetch")
        rows = tx.fetches._cursor.fetchall()
    return {(job, n) for job, n, owner in rows if server in (None, owner)}


def test_an_item_waits_without_a_task_until_its_bytes_have_come(record):
    head = submit(record, 2)
    job = record.job(head.id)
    assert (job.state, job.total, job.pending) == (JobState.PENDING, 2, 2)
    assert [(item.name, item.state, item.task, item.digest) for item in record.items(head.id)] == [
        (f"{URL}?0", ItemState.PENDING, None, None),
        (f"{URL}?1", ItemState.PENDING, None, None),
    ]
    assert waiting(record) == {(head.id, 0), (head.id, 1)}
    outcome = record.commit(Group(chunks=[came(record, head, 1, 5)]))
    assert outcome.events == []  # nobody can see a difference
    assert waiting(record) == {(head.id, 0)}
    first, second = record.items(head.id)
    assert (first.task, second.task, second.digest) == (None, record.task(5).id, digest(5))
    assert second.name == f"{URL}?1"
    record.settle(*record.claim())
    job = record.job(head.id)
    assert (job.state, job.pending, job.succeeded) == (JobState.PENDING, 1, 1)
    record.commit(Group(chunks=[failed(head, 0)]))
    job, first = record.job(head.id), record.items(head.id)[0]
    assert (job.state, job.total, job.pending, job.succeeded, job.failed) == (JobState.FAILED, 2, 0, 1, 1)
    assert (first.state, first.error_kind, first.error) == (
        ItemState.FAILED,
        "fetch-failed",
        "It answered with HTTP status 404.",
    )
    assert waiting(record) == set()


def test_an_answered_question_ends_the_item_at_once(record):
    record.submit([5])
    record.settle(*record.claim())
    head = submit(record)
    outcome = record.commit(Group(chunks=[came(record, head, 0, 5)]))
    (item,) = record.items(head.id)
    assert (item.state, item.label, item.reused, item.digest) == (ItemState.SUCCEEDED, "dog", 1, digest(5))
    assert record.job(head.id).state == JobState.SUCCEEDED
    assert len(outcome.done) == 1
    assert record.claim() == []


def test_one_answer_is_for_all_that_lead_to_the_same_picture(record):
    head = submit(record, 3)
    record.commit(Group(chunks=[came(record, head, 0, 5), came(record, head, 1, 5)]))
    record.commit(Group(chunks=[came(record, head, 2, 5)], settled=[]))
    tasks = record.claim(5)
    assert len(tasks) == 1
    record.settle(*tasks)
    assert record.job(head.id).succeeded == 3


def test_bytes_that_come_with_the_answer_of_their_question_lose_nothing(record):
    record.submit([5])
    task = record.claim()[0]
    head = submit(record)
    record.commit(Group(chunks=[came(record, head, 0, 5)], settled=[record.answer(task)]))
    assert record.job(head.id).state == JobState.SUCCEEDED


def test_what_is_fetched_twice_counts_once(record):
    head = submit(record, 2)
    record.commit(Group(chunks=[came(record, head, 0, 5)]))
    record.commit(Group(chunks=[came(record, head, 0, 6), failed(head, 0)]))
    with pytest.raises(AssertionError):
        record.task(6)
    assert [item.digest for item in record.items(head.id)] == [digest(5), None]
    record.commit(Group(chunks=[failed(head, 1)]))
    record.commit(Group(chunks=[came(record, head, 1, 7)]))
    job = record.job(head.id)
    assert (job.total, job.pending, job.failed) == (2, 1, 1)


def test_a_server_that_was_declared_dead_hands_in_nothing(record):
    head = submit(record, 2)
    mine = record.me
    with record.database.begin() as tx:
        other = tx.servers.begin("host", 2, record.time)
        tx.servers.bury(other)
        assert tx.fetches.adopt(other, 10) == 2
    record.commit(Group(chunks=[came(record, head, 0, 5), failed(head, 1)]))
    assert waiting(record, other) == {(head.id, 0), (head.id, 1)}
    with pytest.raises(AssertionError):
        record.task(5)
    assert record.job(head.id).pending == 2
    record.me = other
    record.commit(Group(chunks=[came(record, head, 0, 5), failed(head, 1)]))
    assert waiting(record) == set()
    assert mine != other


@pytest.mark.parametrize("control", [Control.CANCEL, Control.DELETE])
def test_cancel_and_delete_take_the_urls_along(record, control):
    head, other = submit(record, 1300), submit(record, 1)
    record.commit(Group(chunks=[came(record, head, n, n) for n in (0, 700)]))
    steps = record.carry_out(head.id, control)
    assert steps == 3
    assert waiting(record) == {(other.id, 0)}
    record.commit(Group(chunks=[came(record, head, 1, 5), failed(head, 2)]))  # what was on its way
    assert record.claim(10) == []
    if control == Control.CANCEL:
        job = record.job(head.id)
        assert (job.state, job.total, job.cancelled) == (JobState.CANCELLED, 1300, 1300)
    else:
        assert record.items(head.id) == []


def test_bytes_that_come_while_a_cancel_is_under_way_are_cancelled_with_it(record):
    head = submit(record, 600)
    record.ask(head.id, Control.CANCEL)
    record.step(head.id)
    record.commit(Group(chunks=[came(record, head, 10, 5), came(record, head, 550, 6)]))  # 550 is not cancelled yet
    while not record.step(head.id):
        pass
    assert record.job(head.id).cancelled == 600
    assert record.claim(10) == []
    assert waiting(record) == set()


def test_a_submission_that_broke_off_leaves_no_url(record):
    chunk = listed(record, 3, last=False)
    record.commit(Group(chunks=[chunk]))
    record.commit(Group(chunks=[came(record, chunk.job, 0, 5)]))  # fetching begins on each chunk at once
    assert record.job(chunk.job.id).state == JobState.RECEIVING
    with record.database.begin() as tx:
        assert sweep.broken_off(tx, record.me, ()) == 1
    while not record.step(chunk.job.id):
        pass
    assert waiting(record) == set()
    assert record.items(chunk.job.id) == []


def test_a_retry_asks_for_failed_urls_again(record):
    head = submit(record, 3)
    record.commit(Group(chunks=[failed(head, 0), came(record, head, 1, 5)]))
    entry = Entry(2, "", failure=Failure("fetch-refused", "no"))
    record.commit(Group(chunks=[Chunk(head, [entry], first=False, last=False, fetched=True)]))
    record.settle(*record.claim())
    record.carry_out(head.id, Control.RETRY)
    assert waiting(record) == {(head.id, 0)}
    job = record.job(head.id)
    assert (job.pending, job.succeeded, job.failed) == (1, 1, 1)
    with record.database.read() as reader:
        assert reader.fetches.due(record.me, head.id, record.time, 9)[0].url == f"{URL}?0"


def test_a_model_stays_while_urls_wait_for_it(record):
    head = submit(record)
    with record.database.begin() as tx, pytest.raises(ModelInUse):
        models.remove(tx, "m:1", record.time)
    record.commit(Group(chunks=[failed(head, 0)]))
    with record.database.begin() as tx:
        models.remove(tx, "m:1", record.time)


def test_a_kill_after_any_statement_leaves_all_or_nothing(record):
    head, statement, outcome = submit(record, 2), 0, None
    while outcome is None:
        try:
            with record.broken_after(statement):
                outcome = record.commit(Group(chunks=[came(record, head, 0, 5), failed(head, 1)]))
        except Killed:
            statement += 1
            assert waiting(record) == {(head.id, 0), (head.id, 1)}
            assert record.job(head.id).pending == 2
            with pytest.raises(AssertionError):
                record.task(5)
    assert statement > 5
    assert waiting(record) == set()
    assert record.job(head.id).pending == 1
