"""source -> record: jobs, items, tasks and images of everything that was sent, in one durable commit."""

from collections.abc import Mapping, Sequence

from onceseen.domain.job import (
    Counts,
    FinishedItem,
    ItemRow,
    ItemState,
    JobRow,
    JobState,
    NewImage,
    PendingItem,
    job_state,
)
from onceseen.domain.machine import is_answered
from onceseen.domain.task import TaskRow
from onceseen.flow.work import CANCELLED, Chunk, DoneItem, Entry, JobHead, Outcome, Tally, unique_tasks
from onceseen.inference.registry import Catalog
from onceseen.ports.database import Transaction


def upsert_tasks(tx: Transaction, chunks: Sequence[Chunk], outcome: Outcome) -> None:
    """Phase 1: every question once; what the record knows already comes back with it."""
    tasks = unique_tasks(chunks)
    if tasks:
        outcome.tasks = {row.key: row for row in tx.tasks.upsert(tasks)}


def upsert_images(tx: Transaction, chunks: Sequence[Chunk]) -> None:
    """Phase 2: every image once, in the order of the digests; of equal ones all that any of them brings."""
    found: dict[bytes, NewImage] = {}
    for chunk in chunks:
        for entry in chunk.entries:
            image = entry.image
            if image is None:
                continue
            known = found.get(image.digest)
            if known is None or image.location is not None:
                found[image.digest] = image
            if known is not None and (pixels := known.pixel_digest or image.pixel_digest):
                found[image.digest] = found[image.digest]._replace(pixel_digest=pixels)
    if found:
        tx.images.upsert([found[digest] for digest in sorted(found)])


def insert_items(
    tx: Transaction, chunks: Sequence[Chunk], outcome: Outcome, tally: Tally, catalog: Catalog, now: int
) -> None:
    """Phase 3, first half: the items; one whose question is answered is final at once."""
    rows: list[ItemRow] = []
    for chunk in chunks:
        if chunk.fetched:
            continue
        for entry in chunk.entries:
            row = item_row(chunk.job, entry, outcome.tasks, catalog, now)
            rows.append(row)
            if row.state == ItemState.PENDING:
                tally.add(row.job, 1, 1, 0, 0, 0)
            else:
                tally.move(row.job, row.state, new=True)
                outcome.done.append(done_item(row))
        if chunk.expect:
            tally.add(chunk.job.id, chunk.expect, chunk.expect, 0, 0, 0)
        if chunk.last:
            tally.complete(chunk.job.id)
    if rows:
        tx.items.insert(rows)
    urls = [entry.fetch for chunk in chunks for entry in chunk.entries if entry.fetch]
    if urls:
        tx.fetches.insert(urls)


def new_job(head: JobHead, added: Counts, now: int) -> JobRow:
    """A job's row with what its first chunk, and answers that came with it, make of it."""
    state = JobState.RECEIVING
    if added.complete:
        state = job_state(added.pending, added.failed, added.cancelled, 0)
    return JobRow(
        id=head.id,
        project=head.project,
        name=head.name,
        state=state,
        control=0,
        control_n=0,
        server=head.server,
        model=head.model,
        priority=head.priority,
        total=added.total,
        pending=added.pending,
        succeeded=added.succeeded,
        failed=added.failed,
        cancelled=added.cancelled,
        source=head.source,
        owner=head.owner,
        created_at=head.created_at,
        finished_at=max(now, head.created_at) if state > JobState.PENDING else None,
    )


def item_row(job: JobHead, entry: Entry, tasks: Mapping[bytes, TaskRow], catalog: Catalog, now: int) -> ItemRow:
    """An item as it is inserted: waiting, or final when its task is answered or it has none."""
    if entry.fetch is not None:
        return _waiting(job, entry, None)
    if entry.key is None:
        failure = entry.failure
        assert failure is not None
        row = _waiting(job, entry, None)
        state = ItemState.CANCELLED if failure == CANCELLED else ItemState.FAILED
        return row._replace(state=state, error_kind=failure.kind, error=failure.message or None, finished_at=now)
    task = tasks[entry.key]
    row = _waiting(job, entry, task.id)
    if is_answered(task.state, task.error_kind):
        return answered(row, task, catalog)
    # Somebody else's question that waits or runs: its answer will be a shared one (RECORD.md 1.7).
    joined = entry.task is not None and task.id != entry.task.id and task.queued_at != entry.task.queued_at
    return row._replace(reused=int(joined))


def answered(row: ItemRow, task: TaskRow, catalog: Catalog) -> ItemRow:
    """An item with the answer that its task has already."""
    risk, found = catalog.judge(row.model, task.result)
    return row._replace(
        state=task.state,
        label=task.label,
        score=task.score,
        risk=risk,
        found=found,
        error_kind=task.error_kind,
        error=task.error,
        reused=1,
        worker=task.worker,
        finished_at=task.finished_at,
    )


def _waiting(job: JobHead, entry: Entry, task: bytes | None) -> ItemRow:
    return ItemRow(
        project=job.project,
        job=job.id,
        n=entry.n,
        name=entry.name,
        digest=entry.digest,
        frame=entry.frame,
        task=task,
        owner=job.owner,
        state=ItemState.PENDING,
        label=None,
        score=None,
        risk=None,
        found=None,
        error_kind=None,
        error=None,
        reused=0,
        model=job.model,
        worker=None,
        finished_at=None,
    )


def done_item(row: ItemRow) -> DoneItem:
    """An inserted item that was final from the start."""
    item = PendingItem(row.task or b"", row.job, row.n, row.name, row.digest, row.frame, row.model, row.reused)
    finished = FinishedItem(
        row.state,
        row.label,
        row.score,
        row.risk,
        row.found,
        row.error_kind,
        row.error,
        row.worker,
        row.finished_at or 0,
        row.job,
        row.n,
    )
    return DoneItem(item, finished, reused=bool(row.reused))
