"""A worker's end of a link that is the test itself: it keeps what it is sent, and says what it is told to say."""

from collections.abc import Sequence
from typing import Any, TypeVar

from onceseen.domain.ids import new_id
from onceseen.hub.hub import Hub
from onceseen.hub.links import WorkerLink
from onceseen.ports.link import Frame
from onceseen.wire import link as wire

M = TypeVar("M")


class FakeWorker:
    """A worker's end of a link: what it was sent, and what it says."""

    local = True

    def __init__(self, hub: Hub) -> None:
        self.sent: list[tuple[Any, bytes]] = []
        self.open = True
        self.link: WorkerLink = hub.accept(self)
        self.say(wire.Hello(wire.LINK_VERSION, "test", new_id(), "here", 1))

    def send(self, header: bytes, payload: Sequence[bytes] = ()) -> None:
        """See ports.link.Link."""
        self.sent.append((wire.decode_from_server(header), b"".join(payload)))

    def close(self) -> None:
        """See ports.link.Link."""
        if self.open:
            self.open = False
            self.link.closed()

    def say(self, message: Any, payload: bytes = b"") -> None:
        """A message to the hub."""
        self.link.received(Frame(wire.encode(message), payload))

    def got(self, kind: type[M]) -> list[tuple[M, bytes]]:
        """What it was sent of one kind, with the payloads."""
        return [(message, payload) for message, payload in self.sent if isinstance(message, kind)]
