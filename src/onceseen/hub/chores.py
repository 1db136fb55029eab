"""What a hub does by itself, once a second, an hour and a day: the sweep, and what is forgotten for good."""

import asyncio
import time
from contextlib import suppress

import structlog

from onceseen.domain.events import TOPIC
from onceseen.domain.ids import now
from onceseen.domain.job import JobRow
from onceseen.flow import control, sweep
from onceseen.flow.idempotency import KEPT
from onceseen.hub.state import HubState
from onceseen.ports.database import Transaction

log = structlog.get_logger()

SWEEP_SECONDS = 1.0
FIRST_CHORES = 60.0  # seconds after the start
HOUR, DAY = 3600.0, 86_400.0  # seconds
YOUNG_SECONDS = 3600.0
"""Bytes younger than this may still get a row (RECORD.md 1.4)."""
NAMES_AT_ONCE = 500


async def run(hub: HubState) -> None:
    """Work until cancelled."""
    hourly_at = daily_at = hub.clock() + FIRST_CHORES
    while True:
        with suppress(TimeoutError):  # a cancel, delete or retry is followed at once
            async with asyncio.timeout(SWEEP_SECONDS):  # wait_for of Python 3.11 may swallow the end of this task
                await hub.controlled.wait()
        try:
            await sweep_once(hub)
            if hub.clock() >= hourly_at:
                hourly_at += HOUR
                await forget(hub)
            if hub.clock() >= daily_at:
                daily_at += DAY
                await remove_unnamed(hub)
        except Exception as error:
            log.warning("sweep.failed", error=str(error))
            await asyncio.sleep(SWEEP_SECONDS)


async def sweep_once(hub: HubState) -> None:
    """What nobody else will do: lost rows, submissions that broke off, controls step by step."""
    hub.check_held = True
    for job in [job for job, at in hub.last_chunks.items() if hub.clock() - at > HOUR or job not in hub.open_jobs]:
        hub.open_jobs.discard(job)
        del hub.last_chunks[job]
    hub.open_keys = {key: job for key, job in hub.open_keys.items() if job in hub.open_jobs}
    hub.writer.wake()

    def transact(tx: Transaction) -> tuple[bool, list[JobRow]]:
        sweep.broken_off(tx, hub.me, hub.open_jobs)
        adopted = tx.fetches.adopt(hub.me, sweep.STEP)
        jobs = tx.jobs.controlled()
        done = [job.id for job in jobs if control.step(tx, job, now())]
        return bool(jobs) or adopted == sweep.STEP, [row for job in done if (row := tx.jobs.get(job)) is not None]

    hub.controlled.clear()
    more, ended = await hub.writer.call(transact)
    hub.waiters.tell_jobs(row for row in ended if row.finished_at is not None)
    if more:
        hub.controlled.set()
        hub.signal.notify(TOPIC)
        await hub.refresh_heads()


async def forget(hub: HubState) -> None:
    """Old events and idempotency keys, and images that were deleted an hour ago: rows first, then bytes."""
    kept_from = now() - int(hub.settings.event_days * DAY * 1e6)

    def transact(tx: Transaction) -> dict[bytes, str | None]:
        tx.events.prune(kept_from)
        tx.keys.prune(now() - KEPT)
        return sweep.forgotten_images(tx, now())

    while gone := await hub.writer.call(transact):
        hub.pack.forget(gone)
        places = [place for place in gone.values() if place]
        await hub.read(lambda: hub.blobs.delete(places))  # noqa: B023  (awaited here)
        if len(gone) < sweep.STEP:
            return


async def remove_unnamed(hub: HubState) -> int:
    """Give back the room of bytes that no row names: a kill between the two commits leaves such. How many there were."""
    before = time.time() - YOUNG_SECONDS

    def look() -> list[str]:
        old = [stat.location for stat in hub.blobs.list() if stat.modified < before]
        with hub.database.read() as reader:
            groups = [old[start : start + NAMES_AT_ONCE] for start in range(0, len(old), NAMES_AT_ONCE)]
            return [location for group in groups for location in reader.images.unnamed(group)]

    gone = await hub.read(look)
    if gone:
        log.info("blobs.unnamed", count=len(gone))
        await hub.read(lambda: hub.blobs.delete(gone))
    return len(gone)
