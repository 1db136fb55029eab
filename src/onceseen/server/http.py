"""uvicorn, made to take photographs from strangers: what it reads ahead, how it keeps a body, how long it waits, how it ends.

head  ── whole within `read_timeout`, at most MAX_HEAD bytes, MAX_HEADERS lines, MAX_URL of address ──► 408, 431, 414
body  ── MIN_BYTES more in each `read_timeout`, as long as we are ready to read ─────────────────────► 408
answer before the body is in ── the connection ends: the rest is thrown away for a moment, never read to its end
answer that nobody takes ── READER_SECONDS, then the connection is cut
"""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, Self, cast

import uvicorn
from uvicorn.protocols.http import httptools_impl

from onceseen.errors import HeadTooLarge, InvalidRequest, OnceseenError, TooSlow, UrlTooLong
from onceseen.server.asgi import PROBLEM, App, Scope, header, problem
from onceseen.wire.http import encode

BODY_AHEAD = 1 << 20
"""Bytes of a request that are read before somebody takes them. uvicorn's 64 kB would stop and resume the reading of nearly
every photograph; it has no setting for it."""
MAX_HEAD = 64 << 10
MAX_HEADERS = 100
MAX_URL = 16 << 10
MIN_BYTES = 1000
READER_SECONDS = 30.0
SWEEP_TICKS = 5
"""uvicorn ticks ten times a second."""
FROZEN_SECONDS = 2.0
"""Without a sweep for so long it was we who were slow: nobody is judged by that time."""
LINGER_SECONDS, LINGER_BYTES = 2.0, 64 << 20
"""What a refused client may still send. Closed at once, the connection would be reset and the refusal lost on its way."""
KEPT_BODY = 1 << 20
"""A body announced as no longer than this is read to its end after a refusal, and the connection is used again."""
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


class Cycle(httptools_impl.RequestResponseCycle):
    """One request and its answer."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.body: Any = Body()  # taken once; what comes later is a bytearray again
        self.ends = False
        """The connection ends with this answer, but not before the client had a moment to read it."""

    async def send(self, message: Any) -> None:
        """Send a part of the answer; one that begins before the body is in ends the connection."""
        if self.response_started or not self.more_body or self._is_short():
            await super().send(message)
            return
        self.ends, self.keep_alive = True, False
        await super().send(message)  # says `connection: close`
        self.keep_alive = True  # and does not do it yet

    def _is_short(self) -> bool:
        announced = header(cast("Scope", self.scope), b"content-length")
        return announced.isdecimal() and int(announced) <= KEPT_BODY


httptools_impl.RequestResponseCycle = Cycle  # type: ignore[assignment, misc]


class Protocol(httptools_impl.HttpToolsProtocol):
    """One connection. `read_timeout`: see settings.py; `most`: connections at a time."""

    read_timeout = 10.0
    most = 10_000

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody is there; one too many is sent away."""
        super().connection_made(transport)
        self._head_since: float | None = self.loop.time()  # None: no head is being read
        self._head = self._chunk = self._received = 0
        self.url = b""
        self._mark, self._mark_at = 0, 0.0  # bytes received, and when there were last enough of them
        self._unsent, self._unsent_at = 0, 0.0
        self._spare: int | None = None  # bytes that may still run into nothing; None: we listen
        self._refusal: OnceseenError | None = None
        if len(self.connections) > self.most:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes of requests, or of one that is refused already."""
        self._chunk = len(data)
        self._received += self._chunk
        if self._spare is not None:
            self._spare -= self._chunk
            if self._spare < 0:
                self.transport.close()
            return
        super().data_received(data)
        if self._head_since is not None and self._spare is None:
            self._head += self._chunk
            if len(self.url) > MAX_URL:
                self._refuse(UrlTooLong(_long_url(len(self.url))))
            elif self._head > MAX_HEAD:
                self._refuse(HeadTooLarge())

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._head_since, self._head = self.loop.time(), 0

    def on_headers_complete(self) -> None:
        """A head is whole: a request begins."""
        self._refusal = self._fault()
        if self._refusal is not None:
            raise self._refusal  # the parser makes an error of its own of it, which ends in send_400_response
        super().on_headers_complete()
        self._head_since, self._mark_at, self._mark = None, self.loop.time(), self._received

    def _fault(self) -> OnceseenError | None:
        """What is wrong with a head that is whole."""
        if len(self.url) > MAX_URL:
            return UrlTooLong(_long_url(len(self.url)))
        if len(self.headers) > MAX_HEADERS:
            return HeadTooLarge(f"The request has {len(self.headers)} headers; at most {MAX_HEADERS} are read.")
        if (
            self._head + self._chunk > MAX_HEAD
            and sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD
        ):
            return HeadTooLarge()
        return None

    def on_response_complete(self) -> None:
        """An answer is out."""
        super().on_response_complete()
        if isinstance(self.cycle, Cycle) and self.cycle.ends:
            self._linger()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self._refuse(self._refusal or InvalidRequest("What was sent is no HTTP request that can be read."))

    def check(self, now: float) -> None:
        """Called twice a second: does the client do its part?"""
        self._check_reader(now)
        if self._spare is not None or self.transport.is_closing():
            return
        busy = self.cycle is not None and not self.cycle.response_complete
        if self._head_since is not None:
            if busy:  # the next request may take its time until this one is answered
                self._head_since = now
            elif now - self._head_since > self.read_timeout:
                self._refuse(TooSlow(f"The head of the request did not come within {self.read_timeout:g} s."))
        elif not busy:
            if self.timeout_keep_alive_task is None:  # a blank line has ended it, or a body that nobody wants
                self._head_since = now
        elif not self._awaits_body() or self._received - self._mark >= MIN_BYTES:
            self._mark, self._mark_at = self._received, now
        elif now - self._mark_at > self.read_timeout:
            self._refuse(TooSlow(f"Less than {MIN_BYTES:,} bytes of the body came in {self.read_timeout:g} s."))

    def forgive(self, now: float) -> None:
        """The time until now does not count."""
        self._head_since = None if self._head_since is None else now
        self._mark, self._mark_at, self._unsent_at = self._received, now, now

    def _awaits_body(self) -> bool:
        """Whether it is the client's turn; not while we are too busy to read, nor while it waits for our "100 Continue"."""
        return self.cycle.more_body and not self.flow.read_paused and not self.cycle.waiting_for_100_continue

    def _check_reader(self, now: float) -> None:
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._unsent_at = unsent, now
        elif now - self._unsent_at > READER_SECONDS:
            self.transport.abort()

    def _refuse(self, error: OnceseenError) -> None:
        """Say no, if it can still be said, and listen no longer."""
        cycle = self.cycle
        busy = cycle is not None and not cycle.response_complete
        if busy and not cycle.more_body:  # an answer to an earlier request is on its way: it is the last one
            cycle.keep_alive = False
            self._spare = 0
            self.flow.pause_reading()
            return
        if busy:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started or self.pipeline:
                self.transport.abort()
                return
        self.transport.write(_whole(error))
        self._linger()

    def _linger(self) -> None:
        """End this side; what the other one still sends is thrown away for a moment."""
        self._unset_keepalive_if_required()
        self._spare = LINGER_BYTES
        self.flow.resume_reading()
        if not self.transport.is_closing():
            self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)


def _long_url(length: int) -> str:
    return (
        f"The address of the request has more than {min(length, MAX_URL):,} bytes, the limit; ask for less at a time."
    )


def _whole(error: OnceseenError) -> bytes:
    """An answer as it goes over the wire."""
    body = encode(problem(error))
    head = f"HTTP/1.1 {error.status} \r\ncontent-type: {PROBLEM}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + body


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: it would raise a caught SIGTERM again and end with another code than 0."""

    def __init__(self, app: App, read_timeout: float = Protocol.read_timeout, most: int = Protocol.most) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            http=type("Protocol", (Protocol,), {"read_timeout": read_timeout, "most": most}),
            ws="none",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=2,
            timeout_keep_alive=75,
        )
        super().__init__(config)
        self._swept = 0.0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if counter % SWEEP_TICKS == 0:
            now = asyncio.get_running_loop().time()
            was_frozen, self._swept = now - self._swept > FROZEN_SECONDS, now
            for connection in list(self.server_state.connections):
                assert isinstance(connection, Protocol)
                (connection.forgive if was_frozen else connection.check)(now)
        return await super().on_tick(counter)
