"""One transaction for everything that waits. The order of its phases is the order of the locks (RECORD.md 1.2)."""

from dataclasses import replace

from onceseen.domain.events import JOB_CREATED, JOB_FINISHED, JOB_PROGRESS, NewEvent
from onceseen.domain.ids import text_of
from onceseen.domain.job import JobRow, JobState
from onceseen.domain.machine import MAX_DEATHS
from onceseen.flow import fetch, idempotency, lease, local, settle, submit, sweep
from onceseen.flow.work import Group, Outcome, Tally
from onceseen.inference.registry import Catalog
from onceseen.ports.database import Transaction
from onceseen.wire.http import encode_text, job_out

ITEMS_IN_EVENT = 100


def commit(
    tx: Transaction, group: Group, server: int, catalog: Catalog, now: int, max_deaths: int = MAX_DEATHS
) -> Outcome:
    """Run a group's phases; what it returns is true once the transaction is committed."""
    outcome, tally = Outcome(), Tally()
    if group.held is not None:
        group.given_back += sweep.lost(tx, server, group.held)
    # 0: idempotency keys
    outcome.refused = idempotency.claim(tx, group.chunks, now)
    if outcome.refused:
        group = replace(group, chunks=[chunk for chunk in group.chunks if chunk.job.id not in outcome.refused])
    # 0: URLs whose bytes have come, or never will
    group = replace(group, chunks=fetch.take(tx, group.chunks, server))
    # 1: task rows, submits before settles
    submit.upsert_tasks(tx, group.chunks, outcome)
    local.upsert_tasks(tx, group, outcome)
    settle.settle_tasks(tx, group, outcome)
    held = lease.lock_given_back(tx, group) if group.given_back else {}
    # 2: images
    submit.upsert_images(tx, group.chunks)
    local.upsert_images(tx, group)
    settle.describe_images(tx, group, outcome)
    # 3: items, inserts first
    submit.insert_items(tx, group.chunks, outcome, tally, catalog, now)
    fetch.end_items(tx, group.chunks, outcome, tally, catalog, now)
    local.insert_items(tx, group, outcome, tally, catalog, now)
    settle.settle_items(tx, group, outcome, tally, catalog)
    failed = lease.give_back(tx, group.given_back, held, outcome, now, max_deaths)
    settle.fail_items(tx, failed, outcome, tally, catalog, now)
    # 4: jobs, by id
    created = _write_jobs(tx, group, outcome, tally, now)
    # 5: claims
    lease.claim(tx, group.claims, server, outcome)
    outcome.heads = tx.tasks.heads(sorted(group.lanes)) if group.lanes else {}
    # 6: events
    _write_events(tx, outcome, created, now)
    return outcome


def _write_jobs(tx: Transaction, group: Group, outcome: Outcome, tally: Tally, now: int) -> set[bytes]:
    """Insert new jobs, add to the counters of others; returns those that are visible from now on."""
    counts = tally.counts()
    heads = {chunk.job.id: chunk.job for chunk in group.chunks if chunk.first}
    new = [submit.new_job(heads[job], counts[job], now) for job in sorted(heads)]
    if new:
        tx.jobs.insert(new)
    old = [count for job, count in counts.items() if job not in heads]
    rows = new + (tx.jobs.count(old, now) if old else [])
    outcome.jobs = {row.id: row for row in rows}
    return {job for job, count in counts.items() if count.complete}


def _write_events(tx: Transaction, outcome: Outcome, created: set[bytes], now: int) -> None:
    """One event per job; those still received are nobody's business yet."""
    numbers: dict[bytes, list[int]] = {}
    for done in outcome.done:
        numbers.setdefault(done.finished.job, []).append(done.finished.n)
    for job, row in outcome.jobs.items():
        if row.state == JobState.RECEIVING:
            continue
        if job in created:
            outcome.events.append(_event(JOB_CREATED, row, now))
        if row.finished_at is not None:
            outcome.events.append(_event(JOB_FINISHED, row, now))
        elif job in numbers:
            outcome.events.append(_event(JOB_PROGRESS, row, now, numbers[job][:ITEMS_IN_EVENT]))
    if outcome.events:
        tx.events.append(outcome.events)


def _event(kind: str, row: JobRow, now: int, items: list[int] | None = None) -> NewEvent:
    return NewEvent(now, kind, row.project, text_of(row.id), encode_text(job_out(row, items=items)))
