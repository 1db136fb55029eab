"""Two group commits in a row: the pack thread makes bytes durable, then the writer thread makes rows durable (RECORD.md 1.4).

    submit ──► packs ──► (pack thread: append, sync) ──► chunks ─┐
    workers' answers ────────────────────────────────► settled ──┼─► (writer thread: one transaction) ──► apply
    deaths, claims, leftovers ───────────────────────────────────┘

Whatever waits goes into the next transaction. A group waits to gather more only while workers have work to do.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import structlog

from onceseen.domain.ids import new_id, text_of
from onceseen.errors import DatabaseAway, OnceseenError, StoreError
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
TRIES = 3
"""How often a transaction is repeated whose outcome was unknown and which was not written, before its submissions are refused."""
KNOWN_SECONDS = 600.0
KNOWN_PLACES = 100_000
"""The pack thread remembers where bytes lie for so long at most: far shorter than the hour after which deleted ones go."""


@dataclass(slots=True, eq=False)
class Pending:
    """A chunk on its way into the record.

    Attributes:
        blobs: digest -> bytes that came with it.
        done: the outcome of its transaction.
        size: bytes of its images.
        early: its images that workers have begun already.
        after: `done` of the chunk before it in the same job.
        tries: transactions so far whose outcome was unknown, and which turned out not to be written.
    """

    chunk: Chunk
    blobs: dict[bytes, bytes]
    done: asyncio.Future[Outcome]
    size: int = 0
    early: list[Unit] = field(default_factory=list)
    after: asyncio.Future[Outcome] | None = None

    tries: int = 0

    @property
    def is_orphan(self) -> bool:
        """Whether the chunk before it was refused: its items would belong to no job."""
        before = self.after
        return before is not None and before.done() and (before.cancelled() or before.exception() is not None)


class PackStage:
    """Appends images to packs, group after group."""

    def __init__(
        self,
        blobs: Blobs,
        database: Database,
        hand_on: Callable[[list[Pending]], None],
        refused: Callable[[list[Pending], Exception], None],
        linger: Callable[[], float],
    ) -> None:
        self._blobs = blobs
        self._database = database
        self._hand_on = hand_on
        self._refused = refused
        self._linger = linger
        self._waiting: list[Pending] = []
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "packs")
        self._placed: dict[
            bytes, tuple[str, float]
        ] = {}  # where bytes lie, since when it is known; of the pack thread alone

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
                self._refused(group, error)
                continue
            self._hand_on(group)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    async def place(self, project: int, blobs: dict[bytes, bytes]) -> dict[bytes, str]:
        """Make bytes durable whose rows are there already; digest -> where they lie."""
        wanted = {digest: (project, data) for digest, data in blobs.items()}
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._place, wanted)

    def forget(self, digests: Iterable[bytes]) -> None:
        """The bytes of these images are gone: store them anew when they come again."""
        for digest in digests:
            self._thread.submit(self._placed.pop, digest, None)

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
                wanted.setdefault(digest, (pending.chunk.job.project, data))
        places = self._place(wanted)
        for pending in group:
            for entry in pending.chunk.entries:
                if entry.image is not None and entry.image.digest in pending.blobs:
                    entry.image = entry.image._replace(location=places[entry.image.digest])
            pending.blobs = {}

    def _place(self, wanted: dict[bytes, tuple[int, bytes]]) -> dict[bytes, str]:
        """Where these bytes lie durably: as is known here, as the record says, or as they are written now."""
        moment = time.monotonic()
        places = {}
        for digest in wanted:
            place, since = self._placed.get(digest, ("", 0.0))
            if place and moment - since < KNOWN_SECONDS:
                places[digest] = place
        missing = [digest for digest in wanted if digest not in places]
        if not missing:
            return places
        with self._database.read() as reader:
            places |= reader.images.locate(wanted[missing[0]][0], missing)
        new = [(digest, *wanted[digest]) for digest in missing if digest not in places]
        if new:
            names = [f"{owner}/{digest.hex()}-{text_of(new_id())}" for digest, owner, _ in new]
            found = self._blobs.put([(name, data) for name, (_, _, data) in zip(names, new, strict=True)])
            places |= {digest: place for (digest, _, _), place in zip(new, found, strict=True)}
        for digest in missing:
            self._placed.pop(digest, None)  # so that the oldest stand first
            self._placed[digest] = (places[digest], moment)
        while len(self._placed) > KNOWN_PLACES:  # a cache; what is dropped is asked of the record again
            del self._placed[next(iter(self._placed))]
        return places


class UnknownOutcomeError(Exception):
    """The answer to COMMIT was lost. What the transaction would have changed is known, whether it has is not."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


class Work(Protocol):
    """Whose transactions these are: the hub."""

    def commit(self, tx: Transaction, group: Group) -> Outcome:
        """In the writer's thread: run a group's phases."""

    def is_written(self, tx: Transaction) -> bool:
        """In the writer's thread: whether the newest `commit` is in the record."""

    def gather(self) -> tuple[Group, list[Pending]]:
        """What waits, for the next transaction."""

    def apply(self, group: Group, pendings: list[Pending], outcome: Outcome) -> None:
        """It is committed."""

    def again(self, group: Group, pendings: list[Pending]) -> None:
        """It was not written, for no fault of its own: all of it waits again."""

    def refused(self, group: Group, pendings: list[Pending], error: Exception) -> None:
        """It was not written, and its submissions hear why."""


class WriterStage:
    """Runs one transaction after another, each with everything that waits."""

    def __init__(
        self, database: Database, work: Work, linger: Callable[[], float], took: Callable[[float], None]
    ) -> None:
        self._database = database
        self._work = work
        self._linger = linger
        self._took = took
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
            group, pendings = self._work.gather()
            if not group:
                continue
            try:
                outcome = await loop.run_in_executor(self._thread, self._transact, group)
            except UnknownOutcomeError as unknown:
                log.warning("writer.unknown", error=str(unknown.__cause__))
                if await self._is_written():
                    self._work.apply(group, pendings, unknown.outcome)
                else:
                    self._work.again(group, pendings)
                    self._wake.set()
            except Exception as error:
                if not isinstance(error, OnceseenError):
                    log.exception("writer.failed")
                else:
                    log.warning("writer.refused", error=str(error))
                self._work.refused(group, pendings, error)
                await asyncio.sleep(RETRY_SECONDS)
                self._wake.set()
            else:
                self._work.apply(group, pendings, outcome)

    async def _is_written(self) -> bool:
        """Ask until somebody knows; nothing else could be written meanwhile (RECORD.md 1.5)."""
        while True:
            try:
                return await self.call(self._work.is_written)
            except StoreError as error:
                log.warning("writer.still_unknown", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)

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
        outcome = None
        try:
            with self._database.begin() as tx:
                outcome = self._work.commit(tx, group)
        except DatabaseAway as error:
            if outcome is None:
                raise
            raise UnknownOutcomeError(outcome) from error
        self._took(time.perf_counter() - began)
        return outcome


def fail(future: asyncio.Future[Outcome], error: Exception) -> None:
    """End a future with an error that others understand, unless it has ended."""
    if not future.done():
        future.set_exception(error if isinstance(error, OnceseenError) else StoreError(f"The record refused: {error}"))
