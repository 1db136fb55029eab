"""Wrappers that make a sound driver fail on purpose."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from onceseen.errors import DatabaseAway, OnceseenError, StorageFull
from onceseen.ports.blobs import Blobs, Stat
from onceseen.ports.database import Database, Reader, Transaction
from onceseen.ports.link import Frame, Link, Stream
from onceseen.ports.signal import Signal


class FlakyBlobs:
    """A store that fails on cue.

    `fail`: {"put": {2}, "get": {1, 5}} lets the second put and the first and fifth get raise `error`, counted from 1;
    `room`: bytes that puts may still store before StorageFull; `delay`: seconds that each call takes longer.
    Each is an attribute that a test may change as it goes.
    """

    def __init__(
        self,
        inner: Blobs,
        *,
        fail: dict[str, set[int]] | None = None,
        error: Callable[[], Exception] = OnceseenError,
        room: int | None = None,
        delay: float = 0.0,
    ) -> None:
        self.inner = inner
        self.fail = fail or {}
        self.error = error
        self.room = room
        self.delay = delay
        self.calls: dict[str, int] = {}

    def put(self, blobs: Sequence[tuple[str, bytes]]) -> list[str]:
        """Put, unless it is to fail."""
        self._step("put")
        size = sum(len(data) for _, data in blobs)
        if self.room is not None and size > self.room:
            raise StorageFull
        locations = self.inner.put(blobs)
        if self.room is not None:
            self.room -= size
        return locations

    def get(self, location: str, start: int = 0, length: int | None = None) -> bytes:
        """Get, unless it is to fail."""
        self._step("get")
        return self.inner.get(location, start, length)

    def stat(self, location: str) -> Stat:
        """Stat, unless it is to fail."""
        self._step("stat")
        return self.inner.stat(location)

    def list(self) -> Iterator[Stat]:
        """List, unless it is to fail."""
        self._step("list")
        return self.inner.list()

    def delete(self, locations: Sequence[str]) -> None:
        """Delete, unless it is to fail."""
        self._step("delete")
        self.inner.delete(locations)

    def close(self) -> None:
        """Close, always."""
        self.inner.close()

    def _step(self, call: str) -> None:
        self.calls[call] = self.calls.get(call, 0) + 1
        if self.delay:
            time.sleep(self.delay)
        if self.calls[call] in self.fail.get(call, ()):
            raise self.error()


class LossySignal:
    """A signal that loses notifications: those for whose number (from 1) `loses` is true. `lost` counts them."""

    def __init__(self, inner: Signal, loses: Callable[[int], bool] = lambda _: True) -> None:
        self.inner = inner
        self.loses = loses
        self.lost = 0
        self._count = 0

    def notify(self, topic: str) -> None:
        """Hand it on or lose it."""
        self._count += 1
        if self.loses(self._count):
            self.lost += 1
        else:
            self.inner.notify(topic)

    async def wait(self, topics: Iterable[str], timeout: float) -> bool:
        """Wait."""
        return await self.inner.wait(topics, timeout)


class CutLink:
    """A server's end that ends itself instead of sending its frame number `after` + 1."""

    def __init__(self, inner: Link, after: int) -> None:
        self.inner = inner
        self.local = inner.local
        self.left = after

    def send(self, header: bytes, payload: Sequence[bytes] = ()) -> None:
        """Send, or end the link."""
        if self.left <= 0:
            self.inner.close()
            return
        self.left -= 1
        self.inner.send(header, payload)

    def close(self) -> None:
        """Close."""
        self.inner.close()


class CutStream:
    """A worker's end that ends itself after `after` frames, those sent and those received together."""

    def __init__(self, inner: Stream, after: int) -> None:
        self.inner = inner
        self.left = after

    def send(self, header: bytes, payload: Sequence[bytes] = ()) -> None:
        """Send, or end the link. Raises ConnectionError then."""
        self._step()
        self.inner.send(header, payload)

    def receive(self) -> Frame | None:
        """Receive, or end the link."""
        frame = self.inner.receive()
        if frame is not None:
            try:
                self._step()
            except ConnectionError:
                return None
        return frame

    def close(self) -> None:
        """Close."""
        self.inner.close()

    def _step(self) -> None:
        if self.left <= 0:
            self.inner.close()
            raise ConnectionError("Cut on purpose.")
        self.left -= 1


class UncertainDatabase:
    """A record whose commits may lose their answer: DatabaseAway after the commit, or in its place.

    `outcomes`: what becomes of the commits to come, in order: "written" (and the answer is lost), "lost" (and so is the
    transaction), "good". Then all are good. `silent`: so many transactions that follow an unknown one cannot even begin.
    """

    def __init__(self, inner: Database, outcomes: Sequence[str] = (), silent: int = 0) -> None:
        self.inner = inner
        self.outcomes = list(outcomes)
        self.silent = silent
        self.met: list[str] = []
        self._away = 0

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """A transaction whose end is as `outcomes` says; those of calls that are not the writer's group count too."""
        if self._away:
            self._away -= 1
            raise DatabaseAway
        outcome = self.outcomes.pop(0) if self.outcomes else "good"
        try:
            with self.inner.begin() as tx:
                yield tx
                if outcome == "lost":
                    raise _LostError
        except _LostError:
            self._fail(outcome)
        if outcome == "written":
            self._fail(outcome)

    def _fail(self, outcome: str) -> None:
        self.met.append(outcome)
        self._away = self.silent
        raise DatabaseAway(f"The answer to COMMIT was lost; it was {outcome}.")

    def read(self) -> AbstractContextManager[Reader]:
        """Read."""
        return self.inner.read()

    def close(self) -> None:
        """Close."""
        self.inner.close()


class _LostError(Exception):
    """Ends a transaction that is to be lost."""
