"""uvicorn, made to take photographs: what it reads ahead, how it keeps a body, how it ends."""

import contextlib
from collections.abc import Iterator
from typing import Self

import uvicorn
from uvicorn.protocols.http import httptools_impl

from onceseen.server.asgi import App

BODY_AHEAD = 1 << 20
"""Bytes of a request that are read before somebody takes them. uvicorn's 64 kB would stop and resume the reading of nearly
every photograph; it has no setting for it."""
httptools_impl.HIGH_WATER_LIMIT = BODY_AHEAD  # type: ignore[attr-defined]


class Body:
    """What has come of a body, in the parts in which it came: a bytearray copies each byte twice more."""

    __slots__ = ("_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def __iadd__(self, part: bytes) -> Self:
        self._parts.append(part)
        self._size += len(part)
        return self

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)


class Protocol(httptools_impl.HttpToolsProtocol):
    """One connection."""

    def on_headers_complete(self) -> None:
        """A request begins."""
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            self.cycle.body = Body()  # type: ignore[assignment]  # taken once; what comes later is a bytearray again


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: it would raise a caught SIGTERM again and end with another code than 0."""

    def __init__(self, app: App) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            http=Protocol,
            ws="none",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=2,
            timeout_keep_alive=75,
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's."""
        yield
