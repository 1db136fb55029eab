"""Two group commits in a row: the pack thread makes bytes durable, then the writer thread makes rows durable (RECORD.md 1.4).

    submit ──► packs ──► (pack thread: append, sync) ──► chunks ─┐
    workers' answers ────────────────────────────────► settled ──┼─► (writer thread: one transaction) ──► apply
    deaths, claims, leftovers ───────────────────────────────────┘

Whatever waits goes into the next transaction. A group waits to gather more only while workers have work to do.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from onceseen.domain.ids import new_id, text_of
from onceseen.errors import OnceseenError, StoreError
from onceseen.flow.work import Chunk, Group, Outcome
from onceseen.hub.units import Unit
from onceseen.ports.blobs import Blobs
from onceseen.ports.database import Database, Transaction

log = structlog.get_logger()
T = TypeVar("T")

LINGER_SECONDS = 0.025
GATHER_SECONDS = 0.2
ITEMS_AT_ONCE = 1000
BYTES_AT_ONCE = 32 << 20
RETRY_SECONDS = 0.5
PLACED_SECONDS = 1800.0
"""Half of the hour that unnamed bytes and those of deleted images are kept at least: a place is never believed for longer."""


@dataclass(slots=True, eq=False)
class Pending:
    """A chunk on its way into the record.

    Attributes:
        blobs: digest -> bytes that came with it.
        done: the outcome of its transaction.
        size: bytes of its images.
        early: its images that workers have begun already.
        after: `done` of the chunk before it in the same job.
    """

    chunk: Chunk
    blobs: dict[bytes, bytes]
    done: asyncio.Future[Outcome]
    size: int = 0
    early: list[Unit] = field(default_factory=list)
    after: asyncio.Future[Outcome] | None = None

    @property
    def is_orphan(self) -> bool:
        """Whether the chunk before it was refused: its items would belong to no job."""
        before = self.after
        return before is not None and before.done() and (before.cancelled() or before.exception() is not None)


class PackStage:
    """Appends images to packs, group after group."""

    def __init__(
        self, blobs: Blobs, database: Database, hand_on: Callable[[list[Pending]], None], linger: Callable[[], float]
    ) -> None:
        self._blobs = blobs
        self._database = database
        self._hand_on = hand_on
        self._linger = linger
        self._waiting: list[Pending] = []
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "packs")
        self._placed: dict[
            bytes, tuple[str, float]
        ] = {}  # where it lies, rows perhaps not yet written; until when to believe it

    def push(self, pending: Pending) -> None:
        """Queue a chunk."""
        self._waiting.append(pending)
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            if (delay := self._linger()) > 0:
                await asyncio.sleep(delay)
            group = self._take()
            if not group:
                continue
            try:
                await loop.run_in_executor(self._thread, self._store, group)
            except Exception as error:
                log.warning("packs.refused", error=str(error), chunks=len(group))
                for pending in group:
                    fail(pending.done, error)
                continue
            self._hand_on(group)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    async def place(self, project: int, blobs: dict[bytes, bytes]) -> dict[bytes, str]:
        """Make bytes durable whose rows are there already; digest -> where they lie."""

        def write() -> dict[bytes, str]:
            wanted = {digest: (project, data) for digest, data in blobs.items() if not self._is_placed(digest)}
            if wanted:
                self._write(wanted)
            return {digest: self._placed[digest][0] for digest in blobs}

        return await asyncio.get_running_loop().run_in_executor(self._thread, write)

    def forget(self, digest: bytes) -> None:
        """The bytes of an image turned out to be gone: store them anew when they come again."""
        self._placed.pop(digest, None)

    def _take(self) -> list[Pending]:
        size, count = 0, 0
        for pending in self._waiting:
            if count and size + pending.size > BYTES_AT_ONCE:
                break
            size += pending.size
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        if not self._waiting:
            self._wake.clear()
        return group

    def _store(self, group: list[Pending]) -> None:
        """In the pack thread: write what is not stored yet, sync once, note the places in the chunks' images."""
        wanted: dict[bytes, tuple[int, bytes]] = {}
        for pending in group:
            for digest, data in pending.blobs.items():
                if digest not in wanted and not self._is_placed(digest):
                    wanted[digest] = (pending.chunk.job.project, data)
        if wanted:
            self._write(wanted)
        for pending in group:
            for entry in pending.chunk.entries:
                if entry.image is not None and entry.image.digest in pending.blobs:
                    entry.image = entry.image._replace(location=self._placed[entry.image.digest][0])
            pending.blobs = {}

    def _is_placed(self, digest: bytes) -> bool:
        found = self._placed.get(digest)
        return found is not None and time.monotonic() < found[1]

    def _write(self, wanted: dict[bytes, tuple[int, bytes]]) -> None:
        project = next(iter(wanted.values()))[0]
        with self._database.read() as reader:
            found = reader.images.locate(project, list(wanted))
        new = [(digest, owner, data) for digest, (owner, data) in wanted.items() if digest not in found]
        if new:
            names = [f"{owner}/{digest.hex()}-{text_of(new_id())}" for digest, owner, _ in new]
            places = self._blobs.put([(name, data) for name, (_, _, data) in zip(names, new, strict=True)])
            found |= {digest: place for (digest, _, _), place in zip(new, places, strict=True)}
        until = time.monotonic() + PLACED_SECONDS
        self._placed |= {digest: (place, until) for digest, place in found.items()}
        while len(self._placed) > 100_000:  # a cache; what is dropped is asked of the record again
            del self._placed[next(iter(self._placed))]


class WriterStage:
    """Runs one transaction after another, each with everything that waits."""

    def __init__(
        self,
        database: Database,
        commit: Callable[[Transaction, Group], Outcome],
        gather: Callable[[], tuple[Group, list[Pending]]],
        apply: Callable[[Group, list[Pending], Outcome], None],
        refused: Callable[[Group, list[Pending], Exception], None],
        linger: Callable[[], float],
        took: Callable[[float], None],
    ) -> None:
        self._database = database
        self._took = took
        self._commit = commit
        self._gather = gather
        self._apply = apply
        self._refused = refused
        self._linger = linger
        self._wake = asyncio.Event()
        self._soon: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1, "writer")

    def wake(self) -> None:
        """Something waits."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        self._wake.set()

    def wake_soon(self) -> None:
        """Something waits that may gather for a while: local answers, which nobody was promised yet."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(GATHER_SECONDS, self.wake)

    async def run(self) -> None:
        """Work until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            if (delay := self._linger()) > 0:
                await asyncio.sleep(delay)
            self._wake.clear()
            group, pendings = self._gather()
            if not group:
                continue
            try:
                outcome = await loop.run_in_executor(self._thread, self._transact, group)
            except Exception as error:
                if not isinstance(error, OnceseenError):
                    log.exception("writer.failed")
                else:
                    log.warning("writer.refused", error=str(error))
                self._refused(group, pendings, error)
                await asyncio.sleep(RETRY_SECONDS)
                self._wake.set()
                continue
            self._apply(group, pendings, outcome)

    async def call(self, function: Callable[[Transaction], T]) -> T:
        """Run a transaction of its own in the writer's thread: control, sweep, models."""

        def transact() -> T:
            with self._database.begin() as tx:
                return function(tx)

        return await asyncio.get_running_loop().run_in_executor(self._thread, transact)

    def close(self) -> None:
        """End the thread, after what it runs."""
        self._thread.shutdown()

    def _transact(self, group: Group) -> Outcome:
        began = time.perf_counter()
        with self._database.begin() as tx:
            outcome = self._commit(tx, group)
        self._took(time.perf_counter() - began)
        return outcome


def fail(future: asyncio.Future[Outcome], error: Exception) -> None:
    """End a future with an error that others understand, unless it has ended."""
    if not future.done():
        future.set_exception(error if isinstance(error, OnceseenError) else StoreError(f"The record refused: {error}"))
