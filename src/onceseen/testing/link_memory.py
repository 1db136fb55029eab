"""Links inside one process, for tests: the server's end on its loop, the worker's end in any thread."""

import asyncio
import queue
from collections.abc import Sequence

from onceseen.ports.link import Accept, Frame, LinkHandler, Listener, Stream


class MemoryLinks:
    """A small world of addresses; listen() and connect() in the same one find each other."""

    def __init__(self) -> None:
        self._doors: dict[str, _Door] = {}

    async def listen(self, address: str, accept: Accept) -> Listener:
        """Listen on the running loop; `address` is any text."""
        door = _Door(self._doors, address, accept)
        self._doors[address] = door
        return door

    def connect(self, address: str, timeout: float = 5.0) -> Stream:
        """Connect from any thread. Raises ConnectionError: nobody listens there."""
        door = self._doors.get(address)
        if door is None:
            raise ConnectionError(f"No server answers at {address}.")
        return door.knock()


class _Door:
    """See ports/link.py: Listener."""

    def __init__(self, doors: "dict[str, _Door]", address: str, accept: Accept) -> None:
        self.address = address
        self.accept = accept
        self.links: set[MemoryLink] = set()
        self.loop = asyncio.get_running_loop()
        self._doors = doors

    def knock(self) -> "MemoryStream":
        """A new pair of ends."""
        link = MemoryLink(self)
        self.loop.call_soon_threadsafe(link.begin)
        return link.stream

    async def close(self) -> None:
        """Stop listening and end all links."""
        if self._doors.get(self.address) is self:
            del self._doors[self.address]
        await asyncio.sleep(0)  # those who knocked already are let in, then out
        for link in list(self.links):
            link.close()
        await asyncio.sleep(0)


class MemoryLink:
    """The server's end."""

    local = True

    def __init__(self, door: _Door) -> None:
        self.stream = MemoryStream(self, door.loop)
        self._door = door
        self._handler: LinkHandler | None = None
        self._open = True

    def begin(self) -> None:
        """Ask who is told about it."""
        self._door.links.add(self)
        self._handler = self._door.accept(self)

    def send(self, header: bytes, payload: Sequence[bytes] = ()) -> None:
        """Put a frame before the worker."""
        if self._open:
            self.stream.arrived.put(Frame(header, b"".join(payload)))

    def close(self) -> None:
        """End it; the handler hears of it in the next round of the loop."""
        if self._open:
            self._open = False
            self.stream.end()
            self._door.loop.call_soon(self._finish)

    def take(self, frame: Frame) -> None:
        """A frame from the worker, on the loop."""
        if self._open and self._handler is not None:
            self._handler.received(frame)

    def _finish(self) -> None:
        self._door.links.discard(self)
        if self._handler is not None:
            self._handler.closed()


class MemoryStream:
    """The worker's end."""

    def __init__(self, link: MemoryLink, loop: asyncio.AbstractEventLoop) -> None:
        self.arrived: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._link = link
        self._loop = loop
        self._ended = False  # no more is sent
        self._closed = False  # no more is read

    def send(self, header: bytes, payload: Sequence[bytes] = ()) -> None:
        """Put a frame before the server. Raises ConnectionError: the link has ended."""
        if self._ended:
            raise ConnectionError("The link has ended.")
        self._call(self._link.take, Frame(header, b"".join(payload)))

    def receive(self) -> Frame | None:
        """The next frame; None at the end."""
        frame = None if self._closed else self.arrived.get()
        if frame is None:
            self.arrived.put(None)  # for whoever asks next
        return None if self._closed else frame

    def close(self) -> None:
        """End it, from any thread."""
        if not self._closed:
            self._closed = True
            self.end()
            if not self._loop.is_closed():
                self._call(self._link.close)

    def end(self) -> None:
        """No more frames either way; those that have arrived may still be read."""
        self._ended = True
        self.arrived.put(None)

    def _call(self, *call: object) -> None:
        try:
            self._loop.call_soon_threadsafe(*call)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise ConnectionError("The server's loop has ended.") from error
