"""people -> record: cancel, delete, retry. The job shows it at once; its items follow 500 at a time (RECORD.md 3.4)."""

from collections.abc import Sequence
from typing import NamedTuple

from onceseen.domain.events import JOB_DELETED, JOB_FINISHED, JOB_PROGRESS, NewEvent
from onceseen.domain.fetch import FetchRow, is_url
from onceseen.domain.ids import text_of
from onceseen.domain.job import Control, Counts, FinishedItem, ItemRow, ItemState, JobRow, JobState
from onceseen.domain.machine import is_answered
from onceseen.domain.task import TaskRow, TaskState
from onceseen.errors import FetchFailed, NotFound
from onceseen.flow.settle import finished
from onceseen.inference.registry import Catalog
from onceseen.ports.database import Transaction
from onceseen.wire.http import encode_text, job_out

ITEMS_AT_ONCE = 500


def ask(tx: Transaction, job: bytes, control: Control, now: int) -> JobRow:
    """Set what is asked of a job, in one short transaction; `step` does it.

    Raises:
        NotFound: there is no such job, or it is being received or deleted.
    """
    row = tx.jobs.get(job)
    if row is None or row.state == JobState.RECEIVING or row.control == Control.DELETE:
        raise NotFound(f"There is no job {text_of(job)}.")
    changed = tx.jobs.control(job, control, 0)
    assert changed is not None
    tx.events.append([_event(JOB_PROGRESS, changed, now)])
    return changed


def step(tx: Transaction, job: JobRow, now: int) -> bool:
    """Carry a job's control 500 items further; True when it is done."""
    if job.control in (Control.CANCEL, Control.DELETE):  # before the items: who takes a URL first decides
        tx.fetches.forget(job.id, job.control_n, ITEMS_AT_ONCE)
    items = tx.items.slice(job.id, job.control_n, ITEMS_AT_ONCE)
    if items:
        _STEPS[Control(job.control)](tx, job, items, now)
        tx.jobs.control(job.id, job.control, items[-1].n + 1)
    if len(items) == ITEMS_AT_ONCE:
        return False
    if job.control == Control.DELETE:
        tx.jobs.remove(job.id)
        tx.events.append([_event(JOB_DELETED, job, now)])
        return True
    final = tx.jobs.recount(job.id, now)
    assert final is not None
    tx.events.append([_event(JOB_PROGRESS if final.finished_at is None else JOB_FINISHED, final, now)])
    return True


class Step(NamedTuple):
    """How many items a step over dead letters took, and the tasks that have more."""

    items: int
    left: Sequence[bytes] = ()


def retry_dead_letters(tx: Transaction, tasks: Sequence[bytes], now: int, *, first: bool = True) -> Step:
    """Queue failed tasks again, with their failed items, also remembered failures: somebody asked for it.

    At most 500 items a step; a task is queued with the last of its items, so after a kill it is a dead letter still.
    One whose failure has not yet reached all of its items is left out of the `first` step, and so of all.
    """
    failed = [row.id for row in tx.tasks.get(sorted(tasks)) if row.state == TaskState.FAILED]
    if first:
        wanted = tx.items.wanted(failed)
        failed = [task for task in failed if task not in wanted]
    items = tx.items.of_tasks(sorted(failed), ItemState.FAILED, ITEMS_AT_ONCE)
    by_job: dict[bytes, list[int]] = {}
    for item in items:
        by_job.setdefault(item.job, []).append(item.n)
    for job, numbers in sorted(by_job.items()):
        tx.items.reopen(job, numbers)
    left = tx.items.wanted(failed, ItemState.FAILED)
    tx.tasks.reopen(
        sorted(tx.items.wanted(failed) - left)
    )  # also those whose last failed items somebody deleted meanwhile
    # counted, not recounted: a recount would end a control that is under way, and the receiving of a job
    counts = [Counts(job, pending=len(by_job[job]), failed=-len(by_job[job])) for job in sorted(by_job)]
    visible = [row for row in tx.jobs.count(counts, now) if row.state != JobState.RECEIVING]
    tx.events.append([_event(JOB_PROGRESS, row, now) for row in visible])
    return Step(len(items), sorted(left))


def purge_dead_letters(tx: Transaction, tasks: Sequence[bytes]) -> Step:
    """Take dead letters off their list. The items keep their failure, and nobody's count changes.

    Such a task is cancelled: nobody wants it any more. The next submission of the image, or a retry of the job, runs it again.
    One whose failure has not yet reached all of its items stays.
    """
    wanted = tx.items.wanted(sorted(tasks))
    purged = tx.tasks.purge(sorted(set(tasks) - wanted))
    return Step(tx.items.count(sorted(purged), ItemState.FAILED))


def _cancel(tx: Transaction, _job: JobRow, items: list[ItemRow], now: int) -> None:
    pending = [item for item in items if item.state == ItemState.PENDING]
    ended = FinishedItem(ItemState.CANCELLED, None, None, None, None, "cancelled", None, None, now, b"", 0)
    tx.items.finish([ended._replace(job=item.job, n=item.n) for item in pending])
    _release(tx, pending)


def _delete(tx: Transaction, job: JobRow, items: list[ItemRow], now: int) -> None:
    tx.items.remove(job.id, [item.n for item in items])
    _release(tx, [item for item in items if item.state == ItemState.PENDING])
    tx.images.orphan(job.project, sorted({item.digest for item in items if item.digest}), now)


def _retry(tx: Transaction, job: JobRow, items: list[ItemRow], now: int) -> None:
    _fetch_again(tx, job, items, now)
    failed = [item for item in items if item.state == ItemState.FAILED and item.task]
    tasks = {row.id: row for row in tx.tasks.get(sorted({item.task for item in failed if item.task}))}
    again = [item for item in failed if not _remembered(tasks, item)]
    tx.items.reopen(job.id, [item.n for item in again])
    tx.tasks.reopen(sorted({item.task for item in again if item.task}))
    answered = [(item, tasks[item.task or b""]) for item in again]
    answered = [(item, row) for item, row in answered if row.state == TaskState.SUCCEEDED]
    if answered:  # for somebody else, since they failed: nothing is left to run
        catalog = Catalog(tx.models.all())
        tx.items.finish([finished(item, row, catalog) for item, row in answered])


def _fetch_again(tx: Transaction, job: JobRow, items: list[ItemRow], now: int) -> None:
    """URLs that failed for good are asked for anew; an item whose name is not its whole URL keeps its failure."""
    failed = [item for item in items if item.error_kind == FetchFailed.code and not item.task and is_url(item.name)]
    if failed:
        tx.items.reopen(job.id, [item.n for item in failed])
        tx.fetches.insert([FetchRow(job.id, item.n, item.name, 0, job.server, 0, now) for item in failed])


def _remembered(tasks: dict[bytes, TaskRow], item: ItemRow) -> bool:
    row = tasks.get(item.task or b"")
    return row is None or (row.state == TaskState.FAILED and is_answered(row.state, row.error_kind))


def _release(tx: Transaction, items: Sequence[ItemRow]) -> None:
    """A task is cancelled only when no live item wants it."""
    tasks = sorted({item.task for item in items if item.task})
    if tasks:
        wanted = tx.items.wanted(tasks)
        tx.tasks.cancel([task for task in tasks if task not in wanted])


_STEPS = {Control.CANCEL: _cancel, Control.DELETE: _delete, Control.RETRY: _retry}


def _event(kind: str, row: JobRow, now: int) -> NewEvent:
    return NewEvent(now, kind, row.project, text_of(row.id), encode_text(job_out(row)))
