"""RECORD.md 2.7: a key with the first chunk, its body's hash with the last; who may take it over."""

from dataclasses import replace

import pytest

from onceseen.domain.job import Control, JobState
from onceseen.flow import idempotency
from onceseen.flow.idempotency import KEPT, BodyHash
from onceseen.flow.work import Chunk, Group, JobKey
from onceseen.testing.database_rows import digest
from onceseen.testing.record import Killed


def keyed(record, images, key="k", **more):
    """A job over these images under a key; its body's hash is digest(99)."""
    head = record.head()
    head.key = JobKey(key, digest(99) if more.get("last", True) else None)
    return Chunk(head, [record.entry(head, n, image) for n, image in enumerate(images)], **more)


def look(record, key="k"):
    with record.database.read() as reader:
        return idempotency.look(reader, 1, key)


def test_a_key_is_written_with_the_first_chunk_and_completed_with_the_last(record):
    first = keyed(record, [1], last=False)
    record.commit(Group(chunks=[first]))
    held = look(record)
    assert (held.key.job, held.key.server, held.key.body_hash) == (first.job.id, record.me, None)
    assert held.is_in_flight(record.me, is_open=True)
    assert not held.is_in_flight(record.me, is_open=False)
    assert not held.is_done(record.time)
    first.job.key.body_hash = digest(99)
    record.commit(Group(chunks=[Chunk(first.job, [record.entry(first.job, 1, 2)], first=False)]))
    held = look(record)
    assert (held.key.body_hash, held.job.total, held.running) == (digest(99), 2, 0)
    assert held.is_done(record.time)
    assert not held.is_in_flight(record.me, is_open=True)
    assert not held.is_done(held.key.created_at + KEPT)


def test_of_two_jobs_with_one_key_one_is_written_and_of_the_other_nothing(record):
    one, other, alone = keyed(record, [1]), keyed(record, [1, 2]), record.chunk([3])
    outcome = record.commit(Group(chunks=[one, other, alone]))
    assert outcome.refused == {other.job.id}
    assert set(outcome.jobs) == {one.job.id, alone.job.id}
    assert record.items(other.job.id) == []
    with pytest.raises(AssertionError):
        record.task(2)
    later = keyed(record, [4])
    assert record.commit(Group(chunks=[later])).refused == {later.job.id}
    assert look(record).key.job == one.job.id


def test_later_chunks_of_a_refused_job_are_refused_with_it(record):
    one, other = keyed(record, [1]), keyed(record, [2], last=False)
    rest = Chunk(other.job, [record.entry(other.job, 1, 3)], first=False)
    outcome = record.commit(Group(chunks=[one, other, rest]))
    assert (outcome.refused, set(outcome.jobs)) == ({other.job.id}, {one.job.id})
    assert record.items(other.job.id) == []
    assert look(record).key.body_hash == digest(99)


def test_a_kill_at_any_statement_leaves_key_and_job_or_neither(record):
    statement = 0
    while True:
        chunk = keyed(record, [statement], key=f"k{statement}")
        try:
            with record.broken_after(statement):
                record.commit(Group(chunks=[chunk]))
        except Killed:
            assert look(record, f"k{statement}") is None
        else:
            break
        statement += 1
    assert statement > 5
    assert look(record, f"k{statement}").is_done(record.time)


def test_another_servers_open_job_holds_its_key_while_that_server_lives(record):
    record.commit(Group(chunks=[keyed(record, [1], last=False)]))
    theirs = record.me
    held = look(record)
    assert held.is_in_flight(theirs + 1, is_open=False)
    record.time += 1
    with record.database.begin() as tx:
        tx.servers.bury(tx.servers.begin("host", 2, record.time))
    assert not look(record).is_in_flight(theirs + 1, is_open=False)


def test_taking_over_sweeps_what_had_come_and_frees_the_key(record):
    lost = keyed(record, [1, 2], last=False)
    record.commit(Group(chunks=[lost]))
    with record.database.begin() as tx:
        idempotency.take_over(tx, look(record).key)
    assert look(record) is None
    assert record.job(lost.job.id).control == Control.DELETE
    again = keyed(record, [1, 2])
    assert record.commit(Group(chunks=[again])).refused == set()
    assert record.step(lost.job.id)
    assert record.job(again.job.id).state == JobState.PENDING
    assert [item.name for item in record.items(again.job.id)] == ["image 1", "image 2"]


def test_taking_over_a_key_that_somebody_else_took_meanwhile_changes_nothing(record):
    lost = keyed(record, [1], last=False)
    record.commit(Group(chunks=[lost]))
    old = look(record).key
    with record.database.begin() as tx:
        idempotency.take_over(tx, old)
    again = keyed(record, [1])
    record.commit(Group(chunks=[again]))
    with record.database.begin() as tx:
        idempotency.take_over(tx, old)
    assert look(record).key.job == again.job.id


def test_a_deleted_job_gives_its_key_free(record):
    chunk = keyed(record, [1])
    record.commit(Group(chunks=[chunk]))
    record.ask(chunk.job.id, Control.DELETE)
    assert not look(record).is_done(record.time)
    record.step(chunk.job.id)
    held = look(record)
    assert held.job is None
    assert not held.is_done(record.time)
    assert not held.is_in_flight(record.me, is_open=False)


def test_bodies_are_compared_by_what_was_asked_and_names_and_digests_in_order():
    def hashed(asked, *items):
        body = BodyHash(asked)
        for name, value in items:
            body.add(name, value)
        return body.digest()

    items = [("a", digest(1)), ("b", digest(2))]
    same = hashed(b"m", *items)
    assert same == hashed(b"m", *items)
    others = [
        hashed(b"n", *items),
        hashed(b"m", *reversed(items)),
        hashed(b"m", items[0]),
        hashed(b"m", ("a", digest(1)), ("c", digest(2))),
        hashed(b"m", ("a", digest(1)), ("b", digest(3))),
        hashed(b"m", ("a", digest(1)), ("b", b"")),
        hashed(b"m", *items, ("c", b"")),
        hashed(b"m", ("a" + digest(1).hex(), b""), ("b", digest(2))),
    ]
    assert len({same, *others}) == 9


def test_a_key_is_of_its_project(record):
    one, other = keyed(record, [1]), keyed(record, [2])
    other.job = replace(other.job, project=2)
    assert record.commit(Group(chunks=[one, other])).refused == set()
