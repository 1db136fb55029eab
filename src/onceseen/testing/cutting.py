"""A TCP proxy on loopback that cuts connections after a number of bytes, in either direction."""

import socket
import threading
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

PIECE = 1 << 16


class CuttingProxy:
    """A context manager. While `cuts` last, a connection ends once it has moved `up` or `down` bytes.

    `sent` and `received` count what clients sent and received since they were last set. Each attribute may be changed
    between two connections.

    Args:
        url: of the server behind it.
    """

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._target = (place.hostname, place.port)
        self._door = socket.create_server(("127.0.0.1", 0))
        self._open: dict[
            tuple[socket.socket, socket.socket], int
        ] = {}  # (client, server) -> directions that still move
        self._lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self._door.getsockname()[1]}"
        self.up: int | None = None
        self.down: int | None = None
        self.cuts = 0
        self.sent = 0
        self.received = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self.drop()

    def cut(self, *, up: int | None = None, down: int | None = None, cuts: int = 1) -> None:
        """Cut the next connections; those that are open end now, so that none is used again."""
        self.drop()
        self.up, self.down, self.cuts, self.sent, self.received = up, down, cuts, 0, 0

    def drop(self) -> None:
        """End all connections."""
        with self._lock:
            for pair in self._open:
                _shut(pair)

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            pair = (client, server)
            with self._lock:
                self._open[pair] = 2
            threading.Thread(target=self._move, args=(client, server, "sent", pair), daemon=True).start()
            threading.Thread(target=self._move, args=(server, client, "received", pair), daemon=True).start()

    def _move(
        self, source: socket.socket, target: socket.socket, what: str, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        moved = 0
        limit = self.up if what == "sent" else self.down
        with suppress(OSError):
            while data := source.recv(PIECE):
                allowed = len(data) if limit is None or self.cuts < 1 else min(len(data), limit - moved)
                moved += allowed
                setattr(self, what, getattr(self, what) + allowed)  # first: whoever gets the bytes may ask at once
                target.sendall(data[:allowed])
                if allowed < len(data) or (limit is not None and self.cuts > 0 and what == "sent" and moved >= limit):
                    self.cuts -= 1
                    break
        with self._lock:
            _shut(pair)
            self._open[pair] -= 1
            if not self._open[pair]:  # nobody waits in them any more
                del self._open[pair]
                for connection in pair:
                    connection.close()


def _shut(pair: tuple[socket.socket, socket.socket]) -> None:
    """End both connections at once, also for a thread that waits in one."""
    for connection in pair:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
