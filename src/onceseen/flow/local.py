"""The second way in: local paths. Names went out, (digest, answer) came back; rows are written once, in their final state."""

from onceseen.domain.job import NewImage
from onceseen.flow.settle import finish_items
from onceseen.flow.submit import answered, done_item, item_row
from onceseen.flow.work import Group, Outcome, Tally
from onceseen.inference.registry import Catalog
from onceseen.ports.database import Transaction

ROWS_AT_ONCE = 256
"""Answers a transaction writes at most."""


def upsert_tasks(tx: Transaction, group: Group, outcome: Outcome) -> None:
    """Phase 1: answers under their keys; what the record had answered before stays, and comes back instead."""
    tasks = {answer.task.key: answer.task for answer in group.local if answer.task}
    if tasks:
        outcome.tasks |= {row.key: row for row in tx.tasks.answer([tasks[key] for key in sorted(tasks)])}


def upsert_images(tx: Transaction, group: Group) -> None:
    """Phase 2: images by reference to the user's own file, and what is remembered of the files."""
    images: dict[bytes, NewImage] = {
        answer.entry.image.digest: answer.entry.image for answer in group.local if answer.entry.image
    }
    if images:
        tx.images.upsert([images[digest] for digest in sorted(images)])
    files = {answer.row.path: answer.row for answer in group.local if answer.row}
    if files:
        tx.files.put([files[path] for path in sorted(files)])


def insert_items(tx: Transaction, group: Group, outcome: Outcome, tally: Tally, catalog: Catalog, now: int) -> None:
    """Phase 3: the items, final; and items of submissions that waited for a task that a local file has now answered."""
    if not group.local:
        return
    rows, met = [], {}
    for answer in group.local:
        row = item_row(answer.job, answer.entry, outcome.tasks, catalog, now)
        if answer.task:
            task = outcome.tasks[answer.task.key]
            row = answered(row, task, catalog)  # also a failure that no submission would take: the file was tried
            if (task.worker, task.finished_at) == (answer.task.worker, answer.task.finished_at):
                row = row._replace(reused=0)
            if task.id != answer.task.id:
                met[task.id] = task
        rows.append(row)
        tally.move(row.job, row.state, new=False)  # the job expected it
        outcome.done.append(done_item(row))
    tx.items.insert(rows)
    finish_items(tx, met, outcome, tally, catalog)
