"""One submission: items come one by one, go into the record in chunks, and are promised when the last chunk is durable."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onceseen.domain.fetch import FetchRow, name_of
from onceseen.domain.ids import new_id, now
from onceseen.domain.job import JobRow, NewImage
from onceseen.domain.machine import is_answered
from onceseen.domain.task import CLASSIFICATION, ORDINARY, NewTask, TaskState, task_key
from onceseen.errors import FetchRefused, TooBusy, TooLarge
from onceseen.flow.work import Chunk, DoneItem, Entry, Failure, JobHead, LocalFile, Outcome
from onceseen.hub import answers
from onceseen.hub.state import HubState
from onceseen.hub.units import Unit
from onceseen.hub.writer import Pending
from onceseen.inference.registry import Model

CHUNK_ITEMS = 500
CHUNK_BYTES = 8 << 20
CHUNKS_IN_FLIGHT = 2
PARAMS = "{}"


@dataclass(frozen=True)
class Request:
    """What somebody asks for. `fresh`: answer anew, whatever is remembered."""

    model: Model
    name: str = ""
    priority: int = ORDINARY
    source: str = "http"
    owner: str = "local"
    fresh: bool = False


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

    def _entry(self, name: str, digest: bytes, data: bytes) -> Entry:
        hub, model, n = self.hub, self.request.model, self._next()
        own = (self.head.id, n) if self._own else None
        key = task_key(self.head.project, digest, None, model.lane, PARAMS, own)
        moment = now()
        early = self._start_early(key, digest, data, moment)
        if early is None and key not in hub.open:
            hub.cache.keep(digest, data)
        task = NewTask(
            key=key,
            id=new_id(),
            project=self.head.project,
            lane=model.lane,
            kind=CLASSIFICATION,
            input=digest,
            frame=None,
            params=PARAMS,
            state=TaskState.QUEUED if early is None else TaskState.RUNNING,
            priority=self.request.priority,
            attempt=0 if early is None else 1,
            server=None if early is None else hub.me,
            queued_at=moment,
            started_at=None,
        )
        if early is None:
            hub.dispatcher.lane(model.lane).uncommitted.append(self.request.priority)
        image = NewImage(self.head.project, digest, None, None, None, len(data), None, moment)
        return Entry(n, name, key=key, task=task, image=image, digest=digest)

    def _start_early(self, key: bytes, digest: bytes, data: bytes, moment: int) -> Unit | None:
        """Hand the image to a worker before its rows are written; no answer leaves before they are (RECORD.md 2)."""
        hub, model = self.hub, self.request.model
        if key in hub.open or hub.draining:
            return None
        lane = hub.dispatcher.lane(model.lane)
        link = hub.dispatcher.early_link(hub.workers(), lane, self.request.priority)
        if link is None or lane.broken or (not self._own and self._is_answered(key)):  # an own key is a new one
            return None
        unit = Unit(model.lane, self.head.project, digest, key, queued_at=moment, data=data)
        if not hub.lease(link, [unit]):
            return None
        hub.open[key] = unit
        self._early.append(unit)
        return unit

    def _is_answered(self, key: bytes) -> bool:
        """One look by a unique key, 10 us: cheaper than a run for nothing."""
        row = self.hub.peek(key)
        return row is not None and is_answered(row.state, row.error_kind)

    async def _flush(self, *, last: bool) -> None:
        hub = self.hub
        if hub.pending_bytes + self._size > hub.settings.max_pending_bytes:
            self._drop()
            raise TooBusy(
                f"{hub.pending_bytes >> 20} MB of submissions wait for the disk already; try again in a moment."
            )
        chunk = Chunk(self.head, self._entries, first=self._sent == 0, last=last)
        self._sent += 1
        pending = Pending(chunk, self._blobs, asyncio.get_running_loop().create_future(), self._size, self._early)
        pending.after, self._last = self._last, pending.done
        hub.pending_bytes += self._size
        pending.done.add_done_callback(lambda _: _landed(hub, pending))
        self._entries, self._blobs, self._early, self._size = [], {}, [], 0
        self._flying.append(pending.done)
        hub.pack.push(pending)
        while len(self._flying) > CHUNKS_IN_FLIGHT:
            await self._flying.pop(0)

    def _drop(self) -> None:
        """Forget what was not flushed yet: early starts count for nothing, nothing waits for its rows."""
        for unit in self._early:
            answers.drop(self.hub, unit)
        _forget_uncommitted(self.hub, self._entries)
        self._early, self._entries = [], []


def _landed(hub: HubState, pending: Pending) -> None:
    hub.pending_bytes -= pending.size
    _forget_uncommitted(hub, pending.chunk.entries)


def _forget_uncommitted(hub: HubState, entries: Sequence[Entry]) -> None:
    for entry in entries:
        if entry.task is not None and entry.task.server is None:
            waiting = hub.dispatcher.lane(entry.task.lane).uncommitted
            if entry.task.priority in waiting:
                waiting.remove(entry.task.priority)


async def submit_paths(
    hub: HubState, request: Request, files: Sequence[tuple[str, Path]], told: Callable[[DoneItem, bytes | None], None]
) -> JobRow:
    """The second way in: local files, named and not read by the server (RECORD.md 6). Returns when the job is written.

    Args:
        hub: the hub.
        request: what is asked.
        files: (name, path) of each item, in order.
        told: called on the event loop for each item once its answer is committed, with the packed scores.

    Files that were answered before, by this model and unchanged since, are not read again.
    """
    model = request.model
    head = JobHead(
        new_id(), hub.settings.project, request.name, hub.me, model.ref, request.priority, "local", request.owner, now()
    )
    own = request.fresh or not model.manifest.cache
    known = {} if own else await _known(hub, model, files)
    facts = await hub.read(lambda: [_facts(path) for _, path in files])
    entries, units = [], []
    for n, (name, path) in enumerate(files):
        if n % CHUNK_ITEMS == 0:
            await asyncio.sleep(0)  # a million files must not hold up everybody else
        place = str(path.absolute())
        answered = known.get(place)
        if answered is not None:
            entries.append((n, name, place, answered))
            continue
        size, modified = facts[n]
        file = LocalFile(head, n, name, place, size, modified, PARAMS, told, own)
        units.append(Unit(model.lane, head.project, queued_at=head.created_at, path=place, local=file))
    row = await _open_local(hub, head, model, len(units), entries, told)
    if units:
        hub.dispatcher.return_local(model.lane, units)
        hub.feed_local()
    return row


def _facts(path: Path) -> tuple[int, int]:
    """(size, time of change); zeros where there is no file: the worker will say what is wrong."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


async def _known(hub: HubState, model: Model, files: Sequence[tuple[str, Path]]) -> dict[str, bytes]:
    """Path -> digest of files that are unchanged and answered by this model."""
    places = [str(path.absolute()) for _, path in files]

    def read() -> dict[str, bytes]:
        found = {}
        with hub.database.read() as reader:
            for place, row in reader.files.find(hub.settings.project, places).items():
                if _facts(Path(place)) != (row.size, row.mtime_ns):
                    continue
                task = reader.tasks.find(task_key(hub.settings.project, row.digest, None, model.lane, PARAMS, None))
                if task is not None and is_answered(task.state, task.error_kind):
                    found[place] = row.digest
        return found

    return await hub.read(read)


async def _open_local(
    hub: HubState,
    head: JobHead,
    model: Model,
    expected: int,
    answered: Sequence[tuple[int, str, str, bytes]],
    told: Callable[[DoneItem, bytes | None], None],
) -> JobRow:
    """Write the job, and at once the items that are answered already."""
    moment = now()
    entries = []
    for n, name, place, digest in answered:
        key = task_key(head.project, digest, None, model.lane, PARAMS, None)
        task = NewTask(
            key,
            new_id(),
            head.project,
            model.lane,
            CLASSIFICATION,
            digest,
            None,
            PARAMS,
            TaskState.QUEUED,
            head.priority,
            0,
            None,
            moment,
            None,
        )
        image = NewImage(head.project, digest, None, None, None, 0, f"path:{place}", moment)
        entries.append(Entry(n, name, key=key, task=task, image=image, digest=digest))
    chunks = [entries[start : start + CHUNK_ITEMS] for start in range(0, len(entries), CHUNK_ITEMS)] or [[]]
    row: JobRow | None = None
    for place_in_job, group in enumerate(chunks):
        last = place_in_job == len(chunks) - 1
        chunk = Chunk(head, group, first=place_in_job == 0, last=last, expect=expected if last else 0)
        pending = Pending(chunk, {}, asyncio.get_running_loop().create_future())
        hub.pack.push(pending)
        outcome = await pending.done
        row = outcome.jobs[head.id]
        results = {task.id: task.result for task in outcome.tasks.values()}
        for done in outcome.done:
            if done.finished.job == head.id:
                told(done, results.get(done.item.task))
    assert row is not None
    return row
