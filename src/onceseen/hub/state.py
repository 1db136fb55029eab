"""What a hub knows and holds; the functions of `answers`, `looks`, `reception` and `submission` work on it."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import structlog

from onceseen.domain.task import TaskRow
from onceseen.hub.cache import ImageCache
from onceseen.hub.dispatch import Dispatcher
from onceseen.hub.links import WorkerLink
from onceseen.hub.metrics import Metrics
from onceseen.hub.outbox import Outbox
from onceseen.hub.settings import HubSettings
from onceseen.hub.totals import Counted
from onceseen.hub.units import Looks, Unit
from onceseen.hub.waiters import Waiters
from onceseen.hub.writer import PackStage, WriterStage
from onceseen.inference import manifest
from onceseen.inference.registry import Catalog
from onceseen.ports.blobs import Blobs
from onceseen.ports.database import Database, Reader
from onceseen.ports.fetcher import Fetcher
from onceseen.ports.signal import Signal

log = structlog.get_logger()
T = TypeVar("T")


class HubState:
    """One server's models, links, leases and queues, and what everybody does with them.

    Args:
        database: the record; this hub is its only writer on SQLite.
        blobs: where bytes lie.
        signal: wakes whoever watches events.
        models: the directory that holds models' own directories.
        settings: limits and times.
        fetcher: gets images from URLs; without one every URL is refused.

    Attributes:
        me: this server's id in this life.
        catalog: the models, as of the last change.
        links: workers and supervisors, by the peer's id.
        open: keys that run here or are about to.
        held: (task, attempt) from its claim or insert until its settle is committed.
        open_jobs: submissions that are being received.
        last_chunks: when each of them sent its last chunk, by `clock`.
        open_keys: (project, idempotency key) -> the submission that came with it; it counts while that one is open.
        pending_bytes: of submissions on their way to the disk.
        joined: a worker is warm, or will never be.
        check_held: the next transaction puts back running rows that no lease names.
        to_fetch: there are URLs that may wait to be fetched.
        controlled: there are jobs that a cancel, delete or retry has still to follow through.
        draining: nothing new goes to workers any more.
    """

    pack: PackStage
    writer: WriterStage
    loop: asyncio.AbstractEventLoop

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        signal: Signal,
        models: Path,
        settings: HubSettings,
        fetcher: Fetcher | None = None,
    ) -> None:
        self.database = database
        self.fetcher = fetcher
        self.blobs = blobs
        self.signal = signal
        self.models = models
        self.settings = settings
        self.metrics = Metrics()
        self.totals = Counted(database)
        self.me = 0
        self.catalog = Catalog()
        self.links: dict[bytes, WorkerLink] = {}
        self.dispatcher = Dispatcher()
        self.waiters = Waiters()
        self.outbox = Outbox()
        self.looks = Looks()
        self.open: dict[bytes, Unit] = {}
        self.held: dict[tuple[bytes, int], Unit] = {}
        self.cache = ImageCache(settings.cache_bytes)
        self.pending_bytes = 0
        self.open_jobs: set[bytes] = set()
        self.last_chunks: dict[bytes, float] = {}
        self.open_keys: dict[tuple[int, str], bytes] = {}
        self.joined = asyncio.Event()
        self.check_held = False
        self.to_fetch = asyncio.Event()
        self.controlled = asyncio.Event()
        self.draining = False
        self.stopped = False
        self._peek_stack = ExitStack()
        self._peeking: Reader | None = None
        self._readers = ThreadPoolExecutor(4, "readers")
        self.errands: set[asyncio.Task[None]] = set()

    def clock(self) -> float:
        """The loop's clock, seconds."""
        return self.loop.time()

    async def reload_catalog(self) -> None:
        """Read the models anew."""

        def read() -> Catalog:
            with self.database.read() as reader:
                return Catalog(reader.models.all(), reader.models.defaults())

        self.catalog = await self.read(read)
        for model in self.catalog.models:
            self.dispatcher.lane(model.lane).timeout = model.manifest.timeout

    def peek(self, key: bytes) -> TaskRow | None:
        """What the record says of a key, now, on the event loop: one look in memory-mapped pages."""
        if self._peeking is None:
            self._peeking = self._peek_stack.enter_context(self.database.read())
        return self._peeking.tasks.find(key)

    async def refresh_heads(self) -> None:
        """Ask the record anew which lanes have waiting tasks.

        In the writer's thread: a reader's answer might be older than what the newest transaction has just told.
        """
        self.dispatcher.heads = await self.writer.call(lambda tx: tx.tasks.heads())
        self.writer.wake()

    async def read(self, function: Callable[[], T]) -> T:
        """Run a blocking read in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, function)

    def errand(self, coroutine: Coroutine[None, None, None]) -> None:
        """Run a coroutine beside everything else; it ends with the hub at the latest."""
        if self.stopped:
            coroutine.close()
            return
        task = asyncio.create_task(coroutine)
        self.errands.add(task)
        task.add_done_callback(self._errand_ended)

    def _errand_ended(self, task: asyncio.Task[None]) -> None:
        self.errands.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("hub.errand_failed", error=str(error))

    async def end_errands(self) -> None:
        """The hub ends: cancel what still runs beside it, end the reading threads."""
        self.stopped = True
        for task in list(self.errands):
            task.cancel()
        await asyncio.gather(*self.errands, return_exceptions=True)
        self._readers.shutdown()
        self._peek_stack.close()

    def workers(self) -> list[WorkerLink]:
        """Links of workers."""
        return [link for link in self.links.values() if link.is_worker]

    def forgive(self, lane: bytes) -> None:
        """A model was added or promoted again: a lane that was given up is tried anew."""
        state = self.dispatcher.lane(lane)
        state.broken, state.load_deaths = None, 0
        self.writer.wake()

    def place_of(self, lane: bytes) -> tuple[str, bytes] | None:
        """Where a worker finds a model: its directory and its manifest."""
        model = self.catalog.of_lane(lane)
        if model is None:
            return None
        return str(self.models / model.row.location), manifest.to_json(model.manifest)

    def lease(self, link: WorkerLink, units: list[Unit]) -> bool:
        """Hand units of one lane to a worker; False when it cannot take them."""
        lane = units[0].lane
        state = self.dispatcher.lane(lane)
        if self.draining or link.left or link.hello is None or link.hello.id not in self.links or not link.load(lane):
            return False
        for batch in self.dispatcher.batches(units, state.cost_ms):
            link.lease(lane, batch, state.cost_ms, self.dispatcher.batch_images(state.cost_ms))
        return True

    def feed_local(self) -> None:
        """Hand files of local jobs to workers with free credit; no transaction is needed for them."""
        for lane in list(self.dispatcher.local):
            for link in sorted(self.workers(), key=lambda link: link.held_ms):
                credit = 0 if self.draining or link.left else self.dispatcher.credit(link, self.dispatcher.lane(lane))
                if credit and (units := self.dispatcher.take_local(lane, credit)) and not self.lease(link, units):
                    self.dispatcher.return_local(lane, units)
