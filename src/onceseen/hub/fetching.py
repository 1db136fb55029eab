"""URLs that wait -> images (RECORD.md 2.6): a bounded number at once, every job in its turn; what fails for now, later again."""

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import structlog

from onceseen.domain.fetch import FetchRow, Postponed
from onceseen.domain.ids import new_id, now
from onceseen.domain.job import JobRow, NewImage
from onceseen.domain.task import CLASSIFICATION, NO_PARAMS, NewTask, TaskState, task_key
from onceseen.errors import FetchFailed, ImageError, OnceseenError
from onceseen.flow.work import Chunk, Entry, Failure, JobHead, Outcome
from onceseen.hub.state import HubState
from onceseen.hub.writer import Pending
from onceseen.ports.fetcher import Fetcher, FetchLater

log = structlog.get_logger()

POLL_SECONDS = 1.0
GATHER_SECONDS = 0.02
"""What failed for now is written together, not one transaction each."""
FIRST_DELAY, DELAY_FACTOR, MAX_DELAY = 1.0, 5.0, 3600.0  # seconds
STORE_SECONDS = 1.0
"""Between two attempts to write what was fetched while the record cannot take it."""


class Candidate(NamedTuple):
    """A URL whose time has come, and the job that wants it."""

    row: FetchRow
    job: JobRow


async def run(hub: HubState, fetcher: Fetcher) -> None:
    """Work until cancelled."""
    fetching = Fetching(hub, fetcher)
    try:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(hub.to_fetch.wait(), POLL_SECONDS)
            hub.to_fetch.clear()
            try:
                await fetching.refill()
            except Exception as error:
                log.warning("fetch.refill_failed", error=str(error))
                await asyncio.sleep(POLL_SECONDS)
    finally:
        await fetching.stop()


class Fetching:
    """What is being fetched now.

    Attributes:
        busy: (job, n) of each URL that is being fetched, stored or postponed, with its task.
    """

    def __init__(self, hub: HubState, fetcher: Fetcher) -> None:
        self._hub = hub
        self._fetcher = fetcher
        self._slots = hub.settings.fetch_connections
        self._postponed: list[Postponed] = []
        self._after = b""  # the last job that was looked at
        self.busy: dict[tuple[bytes, int], asyncio.Task[None]] = {}

    async def refill(self) -> None:
        """Write down what failed for now, then fill the free slots."""
        hub = self._hub
        if self._postponed:
            await asyncio.sleep(GATHER_SECONDS)
            late, self._postponed = self._postponed, []
            try:
                await hub.writer.call(lambda tx: tx.fetches.postpone(late))
            except OnceseenError:
                self._postponed += late  # they are fetched again, when that could be written
                raise
            for ended in late:
                del self.busy[ended.job, ended.n]
        crowded = hub.pending_bytes > hub.settings.max_pending_bytes // 2
        if hub.draining or crowded or len(self.busy) >= self._slots:
            return
        busy = set(self.busy)  # as of before the look: what ends while it runs was still there
        candidates = await hub.read(lambda: self._look(busy))
        for row, job in choose(candidates, [job for job, _ in self.busy], self._slots):
            self.busy[row.job, row.n] = asyncio.create_task(self._one(row, job))

    async def stop(self) -> None:
        """Break off what is on its way; its rows stay, and are fetched after the next start."""
        tasks = list(self.busy.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._fetcher.close()

    def _look(self, busy: set[tuple[bytes, int]]) -> list[Candidate]:
        """The next jobs in turn, and of each as many URLs as there are slots; runs in a thread."""
        found = []
        moment, me, slots = now(), self._hub.me, self._slots
        with self._hub.database.read() as reader:
            jobs = reader.fetches.jobs(me, self._after, slots)
            if len(jobs) < slots and self._after:  # and on from the first
                jobs += [job for job in reader.fetches.jobs(me, b"", slots - len(jobs)) if job <= self._after]
            for job in jobs:
                head = reader.jobs.get(job)
                due = reader.fetches.due(me, job, moment, slots + len(busy))
                found += [Candidate(row, head) for row in due if head and (job, row.n) not in busy]
        self._after = jobs[-1] if jobs else b""
        return found

    async def _one(self, row: FetchRow, job: JobRow) -> None:
        try:
            data: bytes | Failure = await self._fetcher.fetch(row.url)
        except FetchLater as error:
            if row.tries + 1 < self._hub.settings.fetch_tries:
                self._later(row, error)
                return
            data = Failure(error.code, f"{error.message} It was tried {row.tries + 1} times.")
        except ImageError as error:
            data = Failure(error.code, error.message)
        except Exception:
            log.exception("fetch.failed", url=row.url)
            data = Failure(FetchFailed.code, "The URL cannot be fetched; the server's log has the details.")
        try:
            await self._write(row, job, data)
        finally:
            del self.busy[row.job, row.n]
            self._hub.to_fetch.set()

    def _later(self, row: FetchRow, error: FetchLater) -> None:
        delay = max(error.after, FIRST_DELAY * DELAY_FACTOR**row.tries * random.uniform(0.8, 1.2))
        moment = now() + int(min(delay, MAX_DELAY) * 1e6)
        self._postponed.append(Postponed(row.tries + 1, moment, row.job, row.n, row.server))
        self._hub.to_fetch.set()

    async def _write(self, row: FetchRow, job: JobRow, data: bytes | Failure) -> None:
        """Bytes first, then rows, like any submission's; again and again while there is no room for them."""
        hub = self._hub
        entry, size = self._entry(row, job, data), 0 if isinstance(data, Failure) else len(data)
        head = JobHead(
            job.id, job.project, job.name, hub.me, job.model, job.priority, job.source, job.owner, job.created_at
        )
        hub.pending_bytes += size
        try:
            while True:
                blobs = {entry.digest: data} if entry.digest and not isinstance(data, Failure) else {}
                done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
                hub.pack.push(Pending(Chunk(head, [entry], first=False, last=False, fetched=True), blobs, done, size))
                try:
                    await done
                except OnceseenError as error:
                    log.warning("fetch.not_stored", error=error.message)
                    await asyncio.sleep(STORE_SECONDS)
                else:
                    return
        finally:
            hub.pending_bytes -= size

    def _entry(self, row: FetchRow, job: JobRow, data: bytes | Failure) -> Entry:
        if isinstance(data, Failure):
            return Entry(row.n, "", failure=data)
        hub = self._hub
        try:
            model = hub.catalog.resolve(job.model)
        except OnceseenError as error:
            return Entry(row.n, "", failure=Failure(error.code, error.message))
        digest, moment = hashlib.sha256(data).digest(), now()
        own = (job.id, row.n) if row.fresh or not model.manifest.cache else None
        key = task_key(job.project, digest, None, model.lane, NO_PARAMS, own)
        if key not in hub.open:
            hub.cache.keep(digest, data)
        task = NewTask(
            key=key,
            id=new_id(),
            project=job.project,
            lane=model.lane,
            kind=CLASSIFICATION,
            input=digest,
            frame=None,
            params=NO_PARAMS,
            state=TaskState.QUEUED,
            priority=job.priority,
            attempt=0,
            server=None,
            queued_at=moment,
            started_at=None,
        )
        image = NewImage(job.project, digest, None, None, None, len(data), None, moment)
        return Entry(row.n, "", key=key, task=task, image=image, digest=digest)


def choose(candidates: Sequence[Candidate], running: Sequence[bytes], slots: int) -> list[Candidate]:
    """Which to begin: the job with the fewest on their way is next, of those the one with the smaller priority number.

    No job takes more than three quarters of the slots, so that one whose servers are slow does not keep out the next job.
    """
    held, most = Counter(running), max(1, slots * 3 // 4)
    queues: dict[bytes, list[Candidate]] = {}
    for candidate in candidates:
        queues.setdefault(candidate.job.id, []).append(candidate)
    chosen: list[Candidate] = []
    while len(running) + len(chosen) < slots:
        free = [job for job, queue in queues.items() if queue and held[job] < most]
        if not free:
            break
        job = min(free, key=lambda job: (held[job], queues[job][0].job.priority))
        chosen.append(queues[job].pop(0))
        held[job] += 1
    return chosen
