"""One submission: items come one by one, go into the record in chunks, and are promised when the last chunk is durable."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from onceseen.domain.fetch import FetchRow, name_of
from onceseen.domain.ids import new_id, now
from onceseen.domain.job import JobRow, NewImage
from onceseen.domain.machine import is_answered
from onceseen.domain.task import CLASSIFICATION, NO_PARAMS, ORDINARY, NewTask, TaskState, params_of, picture_key
from onceseen.errors import FetchRefused, StoreError, TooBusy, TooLarge
from onceseen.flow.work import Chunk, Entry, Failure, JobHead, Outcome
from onceseen.hub import answers, stacks
from onceseen.hub.state import HubState
from onceseen.hub.units import Unit
from onceseen.hub.writer import Pending
from onceseen.inference.registry import Model
from onceseen.inference.sniff import is_hdf5, may_hold_frames

CHUNK_ITEMS = 500
CHUNK_BYTES = 8 << 20
CHUNKS_IN_FLIGHT = 2


@dataclass(frozen=True)
class Request:
    """What somebody asks for.

    Attributes:
        fresh: answer anew, whatever is remembered.
        frames: each frame of a file is an item of its own.
        dataset: which one of an HDF5 file; "" for the only one.
    """

    model: Model
    name: str = ""
    priority: int = ORDINARY
    source: str = "http"
    owner: str = "local"
    fresh: bool = False
    frames: bool = False
    dataset: str = ""


class Submission:
    """A job that is being received. Use: `add` or `refuse` for every item, then `finish`; `abandon` if its sender is lost.

    Raises:
        TooBusy: the server holds as many bytes that wait for the disk as it may; from `add` and `finish`.
        StorageFull, DatabaseAway: the record cannot take it; nothing was promised.
    """

    running = 0  # hub/intake.py: nobody has looked how many of its items run already

    def __init__(self, hub: HubState, request: Request) -> None:
        self.hub = hub
        self.request = request
        model = request.model
        self.head = JobHead(
            new_id(),
            hub.settings.project,
            request.name,
            hub.me,
            model.ref,
            request.priority,
            request.source,
            request.owner,
            now(),
        )
        self._own = request.fresh or not model.manifest.cache
        self._entries: list[Entry] = []
        self._blobs: dict[bytes, bytes] = {}
        self._early: list[Unit] = []
        self._size = 0
        self._n = 0
        self._sent = 0
        self._flying: list[asyncio.Future[Outcome]] = []
        self._last: asyncio.Future[Outcome] | None = None
        hub.open_jobs.add(self.head.id)
        hub.last_chunks[self.head.id] = hub.clock()

    @property
    def count(self) -> int:
        """Items so far."""
        return self._n

    async def add(self, name: str, data: bytes) -> None:
        """Take one image. Waits while two chunks are on their way to the disk."""
        if len(data) > self.hub.settings.max_image_bytes:
            limit = self.hub.settings.max_image_bytes
            self.refuse(name, TooLarge.code, f"The image has {len(data):,} bytes, over the limit of {limit:,}.")
            return
        digest = hashlib.sha256(data).digest()
        if self.request.frames and may_hold_frames(data):
            await self._add_frames(name, digest, data)
            return
        self._entries.append(self._entry(name, digest, data))
        self._blobs[digest] = data
        self._size += len(data)
        await self._flush_if_full()

    async def add_url(self, url: str, name: str = "") -> None:
        """Take one image by its URL: an item that waits until it is fetched (hub/fetching.py). A URL that may not be fails.

        Without a name it is called as its URL, without a user's name and password.
        """
        try:
            if self.hub.fetcher is None:
                raise FetchRefused("This server fetches no URLs; send the image itself.")
            place = self.hub.fetcher.check(url)
        except FetchRefused as error:
            self._fail(name or name_of(url), error.code, error.message)
        else:
            n, fresh = self._next(), int(self.request.fresh)
            row = FetchRow(self.head.id, n, place, fresh, self.hub.me, 0, now())
            self._entries.append(Entry(n, name or name_of(url), fetch=row))
        await self._flush_if_full()

    def refuse(self, name: str, kind: str, message: str) -> None:
        """Take an item that has failed already."""
        self._fail(name, kind, message)

    async def _add_frames(self, name: str, digest: bytes, data: bytes) -> None:
        """Take a file's frames; the file waits here until a worker has counted them (RECORD.md 2.5)."""
        hub, request = self.hub, self.request
        dataset = request.dataset if is_hdf5(data) else ""
        found = await stacks.count(hub, data, digest, dataset, hub.settings.max_items - self._n)
        self._blobs[digest] = data
        self._size += len(data)
        image = NewImage(self.head.project, digest, None, None, None, len(data), None, now())
        if isinstance(found, Failure):
            self._entries.append(Entry(self._next(), name, failure=found, image=image, digest=digest))
            return
        params = params_of(dataset)
        for frame in range(found):
            n, moment = self._next(), now()
            key = self._question(digest, frame, params, n)
            task = self._task(key, digest, frame, params, moment)
            hub.dispatcher.lane(request.model.lane).uncommitted.append(request.priority)
            self._entries.append(Entry(n, name, key=key, task=task, image=image, digest=digest, frame=frame))
            await self._flush_if_full()

    async def finish(self) -> JobRow:
        """Send what is left, wait until all of it is durable; the job as it was written."""
        await self._flush(last=True)
        outcome = None
        while self._flying:
            outcome = await self._flying.pop(0)
        assert outcome is not None
        self.hub.open_jobs.discard(self.head.id)
        self.hub.metrics.submitted(self._n)
        self.hub.to_fetch.set()
        return outcome.jobs[self.head.id]

    def abandon(self) -> None:
        """The sender is lost: the sweep detaches what has come so far."""
        self._drop()
        hub, job, flying = self.hub, self.head.id, {future for future in self._flying if not future.done()}

        def landed(future: asyncio.Future[Outcome]) -> None:
            flying.discard(future)
            if not flying:  # not before: a chunk that lands after its job was swept would leave orphans
                hub.open_jobs.discard(job)
            if not future.cancelled():
                future.exception()  # somebody has looked at it

        if not flying:
            hub.open_jobs.discard(job)
        for future in list(flying):
            future.add_done_callback(landed)

    def _fail(self, name: str, kind: str, message: str) -> None:
        self._entries.append(Entry(self._next(), name, failure=Failure(kind, message)))

    async def _flush_if_full(self) -> None:
        if len(self._entries) >= CHUNK_ITEMS or self._size >= CHUNK_BYTES:
            await self._flush(last=False)

    def _next(self) -> int:
        n, self._n = self._n, self._n + 1
        return n

    def _question(self, digest: bytes, frame: int | None, params: str, n: int) -> bytes:
        own = (self.head.id, n) if self._own else None
        return picture_key(self.head.project, digest, frame, self.request.model.lane, params, own)

    def _task(
        self, key: bytes, digest: bytes, frame: int | None, params: str, moment: int, *, early: bool = False
    ) -> NewTask:
        return NewTask(
            key=key,
            id=new_id(),
            project=self.head.project,
            lane=self.request.model.lane,
            kind=CLASSIFICATION,
            input=digest,
            frame=frame,
            params=params,
            state=TaskState.RUNNING if early else TaskState.QUEUED,
            priority=self.request.priority,
            attempt=int(early),
            server=self.hub.me if early else None,
            queued_at=moment,
            started_at=None,
        )

    def _entry(self, name: str, digest: bytes, data: bytes) -> Entry:
        hub, lane, n = self.hub, self.request.model.lane, self._next()
        params = params_of(self.request.dataset) if self.request.dataset and is_hdf5(data) else NO_PARAMS
        key = self._question(digest, None, params, n)
        moment = now()
        early = self._start_early(key, digest, params, data, moment)
        if early is None and key not in hub.open:
            hub.cache.keep(digest, data)
        task = self._task(key, digest, None, params, moment, early=early is not None)
        if early is None:
            hub.dispatcher.lane(lane).uncommitted.append(self.request.priority)
        image = NewImage(self.head.project, digest, None, None, None, len(data), None, moment)
        frame = 0 if self.request.frames else None
        return Entry(n, name, key=key, task=task, image=image, digest=digest, frame=frame)

    def _start_early(self, key: bytes, digest: bytes, params: str, data: bytes, moment: int) -> Unit | None:
        """Hand the image to a worker before its rows are written; no answer leaves before they are (RECORD.md 2)."""
        hub, model = self.hub, self.request.model
        if key in hub.open or hub.draining:
            return None
        lane = hub.dispatcher.lane(model.lane)
        link = hub.dispatcher.early_link(hub.workers(), lane, self.request.priority)
        if link is None or lane.broken or (not self._own and self._must_wait(key)):  # an own key is a new one
            return None
        unit = Unit(model.lane, self.head.project, digest, key=key, params=params, queued_at=moment, data=data)
        if not hub.lease(link, [unit]):
            return None
        hub.open[key] = unit
        self._early.append(unit)
        return unit

    def _must_wait(self, key: bytes) -> bool:
        """Whether the record has the answer, or a suspect, which runs alone. One look by a unique key, 10 us."""
        row = self.hub.peek(key)
        return row is not None and (is_answered(row.state, row.error_kind) or bool(row.suspect))

    async def _flush(self, *, last: bool) -> None:
        hub = self.hub
        if self.head.id not in hub.open_jobs:
            self._drop()
            raise StoreError("The next part of the submission did not come in time; send it again.")
        hub.last_chunks[self.head.id] = hub.clock()
        if hub.pending_bytes + self._size > hub.settings.max_pending_bytes:
            self._drop()
            raise TooBusy(
                f"{hub.pending_bytes >> 20} MB of submissions wait for the disk already; try again in a moment."
            )
        entries, blobs, early = self._entries, self._blobs, {unit.key: unit for unit in self._early}
        self._blobs, self._size = {}, 0
        starts = range(0, len(entries) or 1, CHUNK_ITEMS)  # more than one when many items were refused
        for start in starts:
            part = entries[start : start + CHUNK_ITEMS]
            data = {entry.digest: blobs[entry.digest] for entry in part if entry.digest in blobs}
            units = [unit for entry in part if entry.key and (unit := early.pop(entry.key, None))]
            self._send(part, data, units, last=last and start == starts[-1])
            self._entries, self._early = (
                entries[start + CHUNK_ITEMS :],
                list(early.values()),
            )  # dropped if a chunk is refused
            while len(self._flying) > CHUNKS_IN_FLIGHT:
                await self._flying.pop(0)

    def _send(self, entries: list[Entry], blobs: dict[bytes, bytes], early: list[Unit], *, last: bool) -> None:
        hub = self.hub
        chunk = Chunk(self.head, entries, first=self._sent == 0, last=last)
        self._sent += 1
        size = sum(map(len, blobs.values()))
        pending = Pending(chunk, blobs, asyncio.get_running_loop().create_future(), size, early)
        pending.after, self._last = self._last, pending.done
        hub.pending_bytes += size
        pending.done.add_done_callback(lambda _: _landed(hub, pending))
        self._flying.append(pending.done)
        hub.pack.push(pending)

    def _drop(self) -> None:
        """Forget what was not flushed yet: early starts count for nothing, nothing waits for its rows."""
        for unit in self._early:
            answers.drop(self.hub, unit)
        _forget_uncommitted(self.hub, self._entries)
        self._early, self._entries = [], []


def _landed(hub: HubState, pending: Pending) -> None:
    hub.pending_bytes -= pending.size
    _forget_uncommitted(hub, pending.chunk.entries)
    if pending.done.cancelled() or pending.done.exception() is not None:
        answers.drop_early(hub, pending)


def _forget_uncommitted(hub: HubState, entries: Sequence[Entry]) -> None:
    for entry in entries:
        if entry.task is not None and entry.task.server is None:
            waiting = hub.dispatcher.lane(entry.task.lane).uncommitted
            if entry.task.priority in waiting:
                waiting.remove(entry.task.priority)
