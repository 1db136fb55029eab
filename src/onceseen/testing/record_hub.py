"""A real hub on an in-memory record and store, with workers that do what a test tells them: no processes, no model, no network."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from onceseen.domain.ids import new_id
from onceseen.domain.job import ItemRow, JobRow
from onceseen.domain.task import ORDINARY, TaskRow
from onceseen.errors import OnceseenError
from onceseen.hub.hub import Hub
from onceseen.hub.links import WorkerLink
from onceseen.hub.settings import HubSettings
from onceseen.hub.submission import Request, Submission
from onceseen.ports.blobs import Blobs
from onceseen.ports.database import Database, Transaction
from onceseen.ports.link import Frame
from onceseen.testing.blobs_memory import BlobsMemory
from onceseen.testing.database_memory import database_in_memory
from onceseen.testing.record import SCORES, tiny_catalog
from onceseen.testing.signal_memory import SignalMemory
from onceseen.wire import link as wire

SECONDS = 20.0
"""How long a test waits for what takes milliseconds: the machine may be busy."""


class Worker:
    """The hub's end of a link to a worker that a test plays.

    Args:
        hub: the hub that it joins at once.
        auto: loads every model and answers every batch by itself, in the next round of the loop.
        ms: what an image costs.

    Attributes:
        batches: leases that came and are not answered, by number: the images' bytes, or paths.
        seen: the bytes of all images so far, in order; `sizes`: of all batches so far.
        loads: lanes that it was told to load; `killed`: pids that it was told to kill (as a supervisor).
        poison: bytes, or paths, that end it when it begins them.
        looks: numbers of looks that it was asked for.
    """

    local = True

    def __init__(self, hub: Hub, *, auto: bool = True, ms: float = 10.0, kind: str = "worker", of: bytes = b"") -> None:
        self.auto, self.ms = auto, ms
        self.batches: dict[int, list[bytes | str]] = {}
        self.seen: list[bytes | str] = []
        self.sizes: list[int] = []
        self.loads: list[bytes] = []
        self.killed: list[int] = []
        self.poison: set[bytes | str] = set()
        self.looks: list[int] = []
        self.ended = False
        self.loop = asyncio.get_running_loop()
        self.id = new_id()
        self.link: WorkerLink = hub.accept(self)
        self.say(wire.Hello(wire.LINK_VERSION, "test", self.id, "host", 4711, kind, of))

    # -- ports.link.Link -----------------------------------------------------------------------------------------------

    def send(self, header: bytes, payload: Sequence[bytes] = ()) -> None:
        """The hub says something."""
        message = wire.decode_from_server(header)
        if self.ended:
            return
        match message:
            case wire.Load():
                self.loads.append(message.lane)
                if self.auto:
                    self.loop.call_soon(self.say, wire.Ready(message.lane, self.ms))
            case wire.Batch():
                data, at = b"".join(payload), 0
                images: list[bytes | str] = []
                for image in message.images:
                    images.append(image.path or data[at : at + image.size])
                    at += image.size
                self.batches[message.lease] = images
                self.seen += images
                self.sizes.append(len(images))
                if self.auto:
                    self.loop.call_soon(self._work, message.lease)
            case wire.Look():
                self.looks.append(message.look)
            case wire.Kill():
                self.killed.append(message.pid)
            case _:
                pass

    def close(self) -> None:
        """The hub ends the link."""
        self.loop.call_soon(self.die)

    # -- what a test has it do -----------------------------------------------------------------------------------------

    def say(self, message: wire.Message) -> None:
        """Tell the hub something."""
        if not self.ended:
            self.link.received(Frame(wire.encode(message), b""))

    def begin(self, lease: int) -> None:
        """Start a batch; it may be its death."""
        self.say(wire.Begin(lease))
        if self.poison & set(self.batches[lease]):
            self.die()

    def answer(self, lease: int, error: str = "") -> None:
        """Answer a batch: cat 0.25, dog 0.75, or all failed."""
        answers = [self._answer(image, error) for image in self.batches.pop(lease)]
        self.say(wire.Done(lease, answers))

    def _answer(self, image: bytes | str, error: str) -> wire.Answer:
        read = hashlib.sha256(image.encode()).digest() if isinstance(image, str) else b""
        if error:
            return wire.Answer(error_kind=error, error=f"it is {error}", digest=read)
        seen = {"width": 3, "height": 4, "media_type": "image/png", "size": 1 if read else 0}
        return wire.Answer(index=1, score=0.75, scores=SCORES, run_ms=self.ms, digest=read, **seen)  # type: ignore[arg-type]

    def die(self) -> None:
        """End without a word."""
        if not self.ended:
            self.ended = True
            self.link.closed()

    def _work(self, lease: int) -> None:
        if lease in self.batches and not self.ended:
            self.begin(lease)
        if lease in self.batches and not self.ended:
            self.answer(lease)


class HubBench:
    """A started hub and its doubles. Models: m:1 and m:2 share a lane; other:1 has a lane of its own."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    def worker(self, **how: object) -> Worker:
        """A worker joins."""
        return Worker(self.hub, **how)  # type: ignore[arg-type]

    def submission(self, model: str = "m:1", priority: int = ORDINARY, *, fresh: bool = False) -> Submission:
        """A job that is being received."""
        return Submission(self.hub, Request(self.hub.catalog.resolve(model), "job", priority, fresh=fresh))

    async def submit(self, *images: bytes, model: str = "m:1", priority: int = ORDINARY) -> bytes:
        """A job over these images, durable; its id. Nothing of it is left when it is refused."""
        submission = self.submission(model, priority)
        try:
            for number, image in enumerate(images):
                await submission.add(f"{number}", image)
            await submission.finish()
        except OnceseenError:
            submission.abandon()
            raise
        return submission.head.id

    async def until(self, look: Callable[[], object]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(SECONDS):
            while not look():
                await asyncio.sleep(0.005)

    async def ended(self, job: bytes) -> JobRow:
        """The job once it is finished."""
        await self.until(lambda: (row := self.job(job)) is None or row.finished_at is not None)
        row = self.job(job)
        assert row is not None
        return row

    async def idle(self) -> None:
        """Wait until nothing is in anybody's hands or waits for the writer."""
        hub = self.hub
        await self.until(lambda: not (hub.held or hub.open or hub.outbox or hub.errands))

    def job(self, job: bytes) -> JobRow | None:
        """A job's row."""
        with self.hub.database.read() as reader:
            return reader.jobs.get(job)

    def items(self, job: bytes) -> list[ItemRow]:
        """A job's items."""
        with self.hub.database.read() as reader:
            return cast("Transaction", reader).items.slice(job, 0, 2_000_000)

    def tasks(self, job: bytes) -> list[TaskRow]:
        """The tasks of a job's items, in the items' order."""
        items = self.items(job)
        with self.hub.database.read() as reader:
            found = {row.id: row for row in reader.tasks.get(sorted({item.task for item in items if item.task}))}
        return [found[item.task] for item in items if item.task]


@asynccontextmanager
async def running_hub(
    database: Database | None = None,
    blobs: Blobs | None = None,
    *,
    settings: HubSettings | None = None,
    grace: float = 0.0,
) -> AsyncIterator[HubBench]:
    """A hub that runs on these, or on a record and a store of its own in memory."""
    if database is None:
        with database_in_memory() as own:
            async with running_hub(own, blobs, settings=settings, grace=grace) as bench:
                yield bench
        return
    with database.begin() as tx:
        for model in tiny_catalog().models:
            tx.models.add(model.row)
    with tempfile.TemporaryDirectory(prefix="onceseen-") as folder:
        hub = Hub(database, blobs or BlobsMemory(), SignalMemory(), Path(folder), settings or HubSettings())
        await hub.start()
        try:
            yield HubBench(hub)
        finally:
            await hub.stop(grace)
