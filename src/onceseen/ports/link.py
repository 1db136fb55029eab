from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol


class Frame(NamedTuple):
    """One message: an encoded header (wire/link.py) and raw bytes that belong to it, often images."""

    header: bytes
    payload: bytes


class Link(Protocol):
    """The server's end of one connection to a worker or supervisor; lives on the event loop."""

    local: bool  # on the same machine, so that its end is a death, seen at once

    def send(self, header: bytes, payload: Sequence[bytes] = ()) -> None:
        """Queue one frame; the payload is the parts joined. Never blocks; after the link's end it does nothing."""

    def close(self) -> None:
        """End the connection; `LinkHandler.closed` follows. Idempotent."""


class LinkHandler(Protocol):
    """What the hub is told about one link, on the event loop, in order."""

    def received(self, frame: Frame) -> None:
        """A whole frame arrived."""

    def closed(self) -> None:
        """The connection ended, whoever ended it; called exactly once, last."""


class Listener(Protocol):
    """The server's door for workers."""

    address: str  # what a worker is given to connect, e.g. unix:/run/.../x.sock

    async def close(self) -> None:
        """Stop listening and end all links."""


Accept = Callable[[Link], LinkHandler]
"""Called for each new connection; returns who is told about it."""


class Stream(Protocol):
    """The worker's end: blocking, one thread reads, any thread sends."""

    def send(self, header: bytes, payload: Sequence[bytes] = ()) -> None:
        """Send one frame; returns when the system has taken it.

        Raises:
            ConnectionError: the link has ended.
        """

    def receive(self) -> Frame | None:
        """The next frame, waiting for it; None at the link's end."""

    def close(self) -> None:
        """End the connection; a waiting `receive` returns None. Idempotent."""
