"""Local paths: rows are written once, in their final state, and meet what submissions asked (RECORD.md 6)."""

import pytest

from onceseen.domain.job import Control, ItemState, JobState
from onceseen.domain.task import TaskState
from onceseen.flow.work import Chunk, ClaimWish, Group
from onceseen.testing.database_rows import LANE, digest


class Folder:
    """A local job over so many files."""

    def __init__(self, record, files):
        self.record = record
        self.head = record.head(source="local")
        record.commit(Group(chunks=[Chunk(self.head, [], expect=files)]))

    def answer(self, n, image, error=None):
        """A worker has read file n, which is this image."""
        return self.record.local_answer(self.head, n, image, error)

    def unread(self, n):
        """File n could not even be read."""
        return self.answer(n, 0, "unread")

    @property
    def job(self):
        return self.record.job(self.head.id)

    @property
    def items(self):
        return self.record.items(self.head.id)


def test_a_local_job_expects_its_files_and_ends_with_the_last(record):
    folder = Folder(record, 3)
    assert (folder.job.state, folder.job.total, folder.job.pending, folder.items) == (JobState.PENDING, 3, 3, [])
    record.commit(Group(local=[folder.answer(0, 1), folder.unread(2)]))
    assert (folder.job.state, folder.job.pending, folder.job.succeeded, folder.job.failed) == (1, 1, 1, 1)
    record.commit(Group(local=[folder.answer(1, 1)]))
    assert (folder.job.state, folder.job.pending, folder.job.total) == (JobState.FAILED, 0, 3)
    assert [(item.state, item.reused) for item in folder.items] == [(2, 0), (2, 1), (3, 0)]
    with record.database.read() as reader:
        assert set(reader.files.find(1, ["/folder/0", "/folder/1", "/folder/2"])) == {"/folder/0", "/folder/1"}
        assert reader.views.image(1, digest(1)).location == "path:/folder/1"


@pytest.mark.parametrize("error", ["model-failed", "too-many-pixels", "unreadable-image"])
def test_a_local_file_that_fails_is_failed(record, error):
    """Also for a reason that is not remembered: nothing will run it again by itself."""
    folder = Folder(record, 1)
    outcome = record.commit(Group(local=[folder.answer(0, 1, error)]))
    (item,) = folder.items
    assert (item.state, item.error_kind, item.error) == (ItemState.FAILED, error, f"it is {error}")
    assert [done.finished.state for done in outcome.done] == [ItemState.FAILED]
    assert (folder.job.state, folder.job.failed, folder.job.pending) == (JobState.FAILED, 1, 0)


@pytest.mark.parametrize("state", ["queued", "running", "failed", "cancelled"])
def test_a_local_answer_settles_who_waited_for_the_question(record, state):
    """The twin that runs is fenced out; what was settled before stays as it is."""
    job = record.submit([1])
    if state != "queued":
        (task,) = record.claim()
        if state == "failed":
            record.settle(task, error="model-failed")
        elif state == "cancelled":
            with record.database.begin() as tx:
                tx.tasks.cancel([task.id])
    before = record.task(1)
    folder = Folder(record, 1)
    record.commit(Group(local=[folder.answer(0, 1)]))
    row = record.task(1)
    assert (row.id, row.state, row.attempt) == (before.id, TaskState.SUCCEEDED, before.attempt + 1)
    assert (folder.items[0].task, folder.items[0].reused) == (before.id, 0)
    assert (folder.job.state, folder.items[0].state) == (JobState.SUCCEEDED, ItemState.SUCCEEDED)
    if state == "failed":
        assert record.job(job).state == JobState.FAILED
    else:
        assert (record.job(job).state, record.items(job)[0].label) == (JobState.SUCCEEDED, "dog")
    assert record.settle(before).passed == set()


def test_a_local_answer_takes_the_answer_that_is_there(record):
    job = record.submit([1])
    record.settle(*record.claim())
    before = record.task(1), record.items(job)
    folder = Folder(record, 1)
    record.commit(Group(local=[folder.answer(0, 1, "model-failed")]))
    (item,) = folder.items
    assert (item.state, item.reused, item.finished_at) == (ItemState.SUCCEEDED, 1, before[0].finished_at)
    assert (record.task(1), record.items(job)) == before


def test_a_submission_in_the_same_group_takes_the_local_answer(record):
    folder, chunk = Folder(record, 1), record.chunk([1])
    record.commit(Group(chunks=[chunk], local=[folder.answer(0, 1)]))
    assert (folder.job.state, record.job(chunk.job.id).state) == (JobState.SUCCEEDED, JobState.SUCCEEDED)
    assert [item.state for item in folder.items + record.items(chunk.job.id)] == [2, 2]
    assert record.claim() == []


def test_six_hundred_items_that_wait_for_a_local_answer_follow(record):
    job = record.submit([1] * 600)
    folder = Folder(record, 1)
    outcome = record.commit(Group(local=[folder.answer(0, 1)]))
    assert len(outcome.done) == 501
    record.follow(outcome)
    assert (record.job(job).succeeded, record.job(job).pending) == (600, 0)


def test_a_retry_of_a_local_file_reads_the_users_own_file_again(record):
    folder = Folder(record, 1)
    record.commit(Group(local=[folder.answer(0, 1, "model-failed")]))
    record.carry_out(folder.head.id, Control.RETRY)
    assert (folder.items[0].state, folder.job.pending) == (ItemState.PENDING, 1)
    outcome = record.commit(Group(claims=[ClaimWish(LANE, 1)]))
    assert outcome.places == {digest(1): "path:/folder/0"}
    record.settle(*outcome.claimed[LANE])
    assert (folder.items[0].state, folder.job.state) == (ItemState.SUCCEEDED, JobState.SUCCEEDED)
