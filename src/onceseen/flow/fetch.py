"""URL -> record: what was fetched becomes an image and a task, once, and only while its item still waits (RECORD.md 2.6)."""

from collections.abc import Sequence
from dataclasses import replace

from onceseen.domain.job import AssignedItem, ItemState
from onceseen.flow.submit import done_item, item_row
from onceseen.flow.work import Chunk, Outcome, Tally
from onceseen.inference.registry import Catalog
from onceseen.ports.database import Transaction


def take(tx: Transaction, chunks: Sequence[Chunk], server: int) -> list[Chunk]:
    """Phase 0, in key order: of what was fetched only those items stay whose URL was still waiting, here."""
    fetched = {(chunk.job.id, entry.n) for chunk in chunks if chunk.fetched for entry in chunk.entries}
    if not fetched:
        return list(chunks)
    ours = tx.fetches.take(sorted(fetched), server)
    return [
        replace(chunk, entries=[entry for entry in chunk.entries if (chunk.job.id, entry.n) in ours])
        if chunk.fetched
        else chunk
        for chunk in chunks
    ]


def end_items(
    tx: Transaction, chunks: Sequence[Chunk], outcome: Outcome, tally: Tally, catalog: Catalog, now: int
) -> None:
    """Phase 3: the items get their tasks; one that failed, or whose question is answered, is final at once."""
    rows = [
        item_row(chunk.job, entry, outcome.tasks, catalog, now)
        for chunk in chunks
        if chunk.fetched
        for entry in chunk.entries
    ]
    if not rows:
        return
    tx.items.assign([AssignedItem(row.digest, row.task, row.reused, row.job, row.n) for row in rows if row.task])
    done = [done_item(row) for row in rows if row.state != ItemState.PENDING]
    tx.items.finish([ended.finished for ended in done])
    for ended in done:
        tally.move(ended.finished.job, ended.finished.state, new=False)
    outcome.done += done
