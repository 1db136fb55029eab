"""What nobody else will do: tasks of dead servers, submissions that broke off, local jobs, forgotten bytes."""

import pytest

from onceseen.domain.job import Control, JobState
from onceseen.domain.machine import INNOCENT
from onceseen.domain.task import TaskState
from onceseen.errors import NotFound
from onceseen.flow import sweep
from onceseen.flow.work import Chunk, Group
from onceseen.testing.database_rows import digest


def test_rows_that_no_lease_names_go_back(record):
    """RECORD.md 1.5: the answer to COMMIT was lost; what the hub holds stays."""
    record.submit([1, 2, 3])
    known, lost = record.claim(2)
    with record.database.begin() as tx:
        found = sweep.lost(tx, record.me, {(known.id, known.attempt), (lost.id, lost.attempt + 1)})
    assert [(given.fence.id, given.blame) for given in found] == [(lost.id, INNOCENT)]
    record.commit(Group(given_back=found))
    assert [record.task(image).state for image in (1, 2, 3)] == [TaskState.RUNNING, TaskState.QUEUED, TaskState.QUEUED]


def test_tasks_of_dead_servers_go_back_without_a_death(record):
    record.submit([1, 2])
    (theirs,) = record.claim()
    dead = record.me
    with record.database.begin() as tx:
        record.me = tx.servers.begin("host", 2, record.time)
    (mine,) = record.claim()
    with record.database.begin() as tx:
        assert sweep.of_dead_servers(tx) == []
        assert tx.servers.bury(record.me) == [dead]
        found = sweep.of_dead_servers(tx)
    assert [given.fence for given in found] == [(theirs.id, 1, dead)]
    record.commit(Group(given_back=found))
    row = record.task(1)
    assert (row.state, row.suspect, row.deaths, row.losses) == (TaskState.QUEUED, 0, 0, 0)
    assert record.task(2).server == record.me
    assert record.commit(Group(settled=[record.answer(theirs, server=dead)])).passed == set()
    record.settle(*record.claim(), mine)


def test_submissions_that_broke_off_are_deleted(record):
    """RECORD.md 2.4: of dead servers, or of this one with nobody sending; what is sent or finished stays."""
    heads = [record.head() for _ in range(3)]
    for head in heads:
        record.commit(Group(chunks=[Chunk(head, [record.entry(head, 0, head.id[-1])], last=head is heads[2])]))
    with record.database.begin() as tx:
        assert sweep.broken_off(tx, record.me, {heads[0].id}) == 1
    with pytest.raises(NotFound):
        record.ask(heads[1].id, Control.RETRY)
    assert record.step(heads[1].id)
    with record.database.begin() as tx:
        assert tx.jobs.get(heads[1].id) is None
        other = tx.servers.begin("host", 2, record.time)
        assert sweep.broken_off(tx, other, ()) == 0, "its server lives"
        tx.servers.bury(other)
        assert sweep.broken_off(tx, other, ()) == 1
        assert sweep.broken_off(tx, other, ()) == 0, "a delete that is under way would begin anew"
    assert record.task(heads[1].id[-1]).state == TaskState.CANCELLED
    assert record.job(heads[2].id).control == 0


def test_local_jobs_of_a_dead_server_end_with_what_is_there(record):
    folder = record.head(source="local")
    record.commit(Group(chunks=[Chunk(folder, [record.entry(folder, 0, 1)], expect=7)]))
    ordinary = record.submit([2])
    record.settle(*record.claim(2))
    ordinary = record.submit([3])
    with record.database.begin() as tx:
        sweep.unfinished_local(tx)
    assert record.job(folder.id).pending == 7
    with record.database.begin() as tx:
        tx.servers.bury(0)
        sweep.unfinished_local(tx)
    row = record.job(folder.id)
    assert (row.state, row.total, row.pending) == (JobState.SUCCEEDED, 1, 0)
    assert record.job(ordinary).state == JobState.PENDING


def test_a_retry_that_a_death_interrupted_goes_on_in_a_local_job_too(record):
    folder = record.head(source="local")
    record.commit(Group(chunks=[Chunk(folder, [record.entry(folder, n, n) for n in range(600)])]))
    record.settle(*record.claim(500), error="model-failed")
    record.settle(*record.claim(100), error="model-failed")
    record.ask(folder.id, Control.RETRY)
    record.step(folder.id)
    with record.database.begin() as tx:
        tx.servers.bury(0)
        sweep.unfinished_local(tx)
    while not record.step(folder.id):
        pass
    assert (record.job(folder.id).pending, record.job(folder.id).failed) == (600, 0)


def test_bytes_are_forgotten_an_hour_after_their_image(record):
    job = record.submit([1, 2])
    kept = record.submit([2])
    record.carry_out(job, Control.DELETE)
    with record.database.begin() as tx:
        assert sweep.forgotten_images(tx, record.time + sweep.HOUR - 1) == {}
        assert tx.views.image(1, digest(1)) is not None
        assert sweep.forgotten_images(tx, record.time + sweep.HOUR) == {digest(1): "pack:1"}
        assert tx.views.image(1, digest(1)) is None
        assert tx.views.image(1, digest(2)) is not None
    assert record.job(kept).pending == 1


def test_a_users_own_file_is_forgotten_and_left_alone(record):
    head = record.head()
    record.commit(Group(chunks=[Chunk(head, [record.entry(head, 0, 1, location="path:/a")])]))
    record.carry_out(head.id, Control.DELETE)
    with record.database.begin() as tx:
        assert sweep.forgotten_images(tx, record.time + sweep.HOUR) == {digest(1): None}
        assert tx.views.image(1, digest(1)) is None
