"""Images from http and https URLs. Nothing is sent to an address before it was checked, and then to that very address.

One call goes `check` (the form of the URL) -> `_Door.connect_tcp` (names to addresses, each checked, one connected), anew for
every redirect. No cookies, no proxies, no credentials: each hop is a bare GET.
"""

import asyncio
import socket
import ssl
import threading
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from ipaddress import ip_address
from typing import Any, NamedTuple

import httpcore2
import httpx2

from onceseen.domain.addresses import Allowance, literal, why_not_public
from onceseen.domain.fetch import MAX_URL, USER, name_of
from onceseen.errors import FetchFailed, FetchRefused, TooLarge
from onceseen.ports.fetcher import FetchLater

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""(host, port) -> its addresses, as text; raises OSError."""

REDIRECTS = (301, 302, 303, 307, 308)
PASSING = (408, 425, 429, *range(500, 600))
"""HTTP statuses that may be another one later."""
PORTS = (80, 443)
FREE_PORTS = 1024
"""Below, only 80 and 443 are web servers; a GET to another service (mail, files, ...) is mischief."""
KEEPALIVE_SECONDS = 5.0
CONNECT_SECONDS = 5.0
"""For one address of a host: it may have others that answer."""
ADDRESSES = 4
SMALL_BYTES = 4 << 20
"""Images of up to this size need no share of the memory budget."""
SLICE_BYTES = 1 << 20
HEADERS = [
    (b"Accept", b"image/*, application/octet-stream;q=0.9, */*;q=0.5"),
    (b"Accept-Encoding", b"identity"),
    (b"User-Agent", b"onceseen"),
]
RETRIED_LOOKUPS = (socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_MEMORY, socket.EAI_SYSTEM)


class Limits(NamedTuple):
    """What one call may cost. `seconds`: in all, with redirects; `connections`: calls that run at once."""

    max_bytes: int = 256_000_000
    seconds: float = 20.0
    redirects: int = 5
    connections: int = 16


class FetchHttp:
    """ports.fetcher.Fetcher.

    Args:
        allowance: what may be reached although it is not public.
        limits: of one call.
        resolve: names to addresses; a test's own.
        backend: what opens connections to checked addresses; a test's own.
        tls: whom to trust; by default the system's authorities.
    """

    def __init__(
        self,
        allowance: Allowance,
        limits: Limits,
        resolve: Resolve | None = None,
        backend: httpcore2.AsyncNetworkBackend | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allowance = allowance
        self._limits = limits
        self._door = _Door(allowance, resolve or lookup, backend or httpcore2.AnyIOBackend())
        self._tls = tls
        self._memory = _Memory(limits.max_bytes)
        self._pool: httpcore2.AsyncConnectionPool | None = None

    def check(self, url: str) -> str:
        """See the port."""
        return str(self._checked(url))

    async def fetch(self, url: str) -> bytes:
        """See the port."""
        host = ""
        try:
            target = self._checked(url)
            host = target.host
            async with asyncio.timeout(self._limits.seconds) as clock:
                return await self._follow(target, clock)
        except (TimeoutError, httpcore2.TimeoutException) as error:
            raise FetchLater(f"{host} did not give the image within {self._limits.seconds:g} seconds.") from error
        except httpcore2.ConnectError as error:
            if error.args and isinstance(error.args[0], ssl.SSLCertVerificationError):
                raise FetchFailed(f"The certificate of {host} is not to be trusted: {error}.") from error
            raise FetchLater(f"{host} cannot be connected: {error or 'the connection was refused'}.") from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise FetchLater(f"The connection to {host} broke: {error or type(error).__name__}.") from error

    async def close(self) -> None:
        """See the port."""
        if self._pool is not None:
            await self._pool.aclose()

    def _checked(self, url: str) -> httpx2.URL:
        """The URL, read once: what is checked here is what is asked for."""
        if len(url) > MAX_URL:
            raise FetchRefused(f"The URL has {len(url):,} characters, over the limit of {MAX_URL:,}.")
        shown = repr(name_of(url)[:80])
        try:
            target = httpx2.URL(url.partition("#")[0])
            scheme, host, port = target.scheme, target.raw_host.decode("ascii"), target.port
        except (httpx2.InvalidURL, ValueError, TypeError) as error:
            raise FetchRefused(f"{shown} is no URL: {error}.") from error
        if scheme not in ("http", "https"):
            raise FetchRefused(f"{shown}: only URLs that begin with http:// or https:// are fetched.")
        if target.userinfo or USER.match(url):
            raise FetchRefused("A URL with a user's name or password is not fetched; give one that works without.")
        try:
            address = literal(host)
        except ValueError as error:
            raise FetchRefused(f"The host {host[:80]!r} of the URL is refused: {error}.") from error
        if port is not None and not 0 < port < 1 << 16:
            raise FetchRefused(f"The URL's port {port} is none; give 1 to 65535.")
        trusted = self._allowance.host(host)
        if address is not None and not trusted:
            if words := self._allowance.refuses(address):
                raise FetchRefused(
                    f"{host} is {words}; the setting `fetch_allow` lists those that may be fetched from."
                )
            trusted = bool(why_not_public(address))  # then it is allowed by name
        if port is not None and port not in PORTS and port < FREE_PORTS and not trusted:
            raise FetchRefused(
                f"Port {port} of {host} belongs to no web server; use 80, 443 or one from {FREE_PORTS} on."
            )
        return target

    async def _follow(self, target: httpx2.URL, clock: asyncio.Timeout) -> bytes:
        for _ in range(self._limits.redirects + 1):
            async with self._asked(target) as response:
                location = _header(response, b"location")
                if response.status in REDIRECTS and location:
                    target = self._joined(target, location)
                    continue
                _judge(response, target.host)
                return await self._read(response, target.host, clock)
        raise FetchFailed(f"The URL leads from one to the next more than {self._limits.redirects} times.")

    def _joined(self, target: httpx2.URL, location: str) -> httpx2.URL:
        if USER.match(location):
            raise FetchRefused(f"{target.host} leads to a URL with a user's name; such are not fetched.")
        try:
            return self._checked(str(target.join(location)))
        except (httpx2.InvalidURL, ValueError, TypeError) as error:
            raise FetchFailed(f"{target.host} leads to {name_of(location)[:80]!r}, which is no URL.") from error

    @asynccontextmanager
    async def _asked(self, target: httpx2.URL) -> AsyncIterator[httpcore2.Response]:
        if self._pool is None:
            self._pool = httpcore2.AsyncConnectionPool(
                ssl_context=self._tls or httpx2.create_ssl_context(),
                max_connections=self._limits.connections,
                keepalive_expiry=KEEPALIVE_SECONDS,
                network_backend=self._door,
            )
        place = httpcore2.URL(scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path)
        async with self._pool.stream("GET", place, headers=[(b"Host", target.netloc), *HEADERS]) as response:
            yield response

    async def _read(self, response: httpcore2.Response, host: str, clock: asyncio.Timeout) -> bytes:
        limit = self._limits.max_bytes
        announced = _header(response, b"content-length")
        packed = bool(_header(response, b"content-encoding"))
        expected = limit if packed or not announced.isdigit() else int(announced)
        if expected > limit:
            raise TooLarge(f"The image has {expected:,} bytes, over the limit of {limit:,}.")
        parts: list[bytes] = []
        size = 0
        async with self._memory.share() as share, aclosing(_unpacked(response, limit)) as stream:
            async for part in stream:
                size += len(part)
                if size > limit:
                    raise TooLarge(f"The image has more than {limit:,} bytes, the limit.")
                if size > SMALL_BYTES and not share.taken:
                    await share.take(expected, clock)
                parts.append(part)
            data = b"".join(parts)
        if not data:
            raise FetchFailed(f"{host} sent no bytes.")
        if _header(response, b"content-type").lower().startswith("text/") and data[:512].lstrip()[:1] == b"<":
            raise FetchFailed(f"{host} sent a web page and no image; give the image's own URL.")
        return data


def _header(response: httpcore2.Response, name: bytes) -> str:
    """The first header of a name, as text; empty when there is none."""
    return next((value.decode(errors="replace") for key, value in response.headers if key.lower() == name), "")


def _judge(response: httpcore2.Response, host: str) -> None:
    status = response.status
    if status in PASSING:
        after = _header(response, b"retry-after")
        seconds = float(after) if after.isdigit() and len(after) < 7 else 0.0
        raise FetchLater(f"{host} answered with HTTP status {status}.", seconds)
    if not 200 <= status < 300:
        raise FetchFailed(f"{host} answered with HTTP status {status}.")


async def _unpacked(response: httpcore2.Response, limit: int) -> AsyncGenerator[bytes, None]:
    """The body; of gzip, which nobody asked for but stores of files send, never more than a slice at once."""
    encoding = _header(response, b"content-encoding").strip().lower()
    if encoding in ("", "identity"):
        async for part in response.aiter_stream():
            yield part
        return
    if encoding not in ("gzip", "x-gzip"):
        raise FetchFailed(f"The bytes came packed as {encoding[:40]!r}, which nobody asked for.")
    unpack, sent = zlib.decompressobj(wbits=31), 0
    try:
        async for part in response.aiter_stream():
            sent += len(part)
            if sent > limit:
                raise TooLarge(f"The packed image has more than {limit:,} bytes, the limit.")
            packed = part
            while packed:  # a small packet may hold a thousand times as much
                yield unpack.decompress(packed, SLICE_BYTES)
                packed = unpack.unconsumed_tail
        yield unpack.flush()
    except zlib.error as error:
        raise FetchFailed("The bytes came packed as gzip, and damaged.") from error
    if not unpack.eof:
        raise FetchFailed("The bytes came packed as gzip, and not whole.")


class _Door(httpcore2.AsyncNetworkBackend):
    """Opens connections: looks a name up once, checks what came of it, connects to that and nothing else."""

    def __init__(self, allowance: Allowance, resolve: Resolve, backend: httpcore2.AsyncNetworkBackend) -> None:
        self._allowance = allowance
        self._resolve = resolve
        self._backend = backend

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        last: Exception | None = None
        for address in (await self._addresses(host, port))[:ADDRESSES]:
            try:
                return await self._backend.connect_tcp(address, port, CONNECT_SECONDS, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                last = error
        raise last or httpcore2.ConnectError(f"{host} has no address")

    async def _addresses(self, host: str, port: int) -> list[str]:
        """Where a host may be reached; if one of its addresses is refused, all are: who can set one can change them."""
        if literal(host) is not None:
            found = [host]
        else:
            try:
                found = await self._resolve(host, port)
            except socket.gaierror as error:
                kind = FetchLater if error.errno in RETRIED_LOOKUPS else FetchFailed
                raise kind(f"The name {host} cannot be looked up: {error.strerror}.") from error
        if not self._allowance.host(host):
            for text in found:
                if words := self._allowance.refuses(ip_address(text)):
                    raise FetchRefused(
                        f"{host} leads to {text}, {words}; the setting `fetch_allow` lists those that may be fetched from."
                    )
        return found


async def lookup(host: str, port: int) -> list[str]:
    """The system's resolver, in a thread that nobody waits for: a lookup cannot be broken off, and the program must end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[str]] = loop.create_future()

    def tell(found: list[str] | OSError) -> None:
        if done.done():
            return
        if isinstance(found, OSError):
            done.set_exception(found)
        else:
            done.set_result(found)

    def look() -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found: list[str] | OSError = list(dict.fromkeys(str(row[4][0]) for row in rows))
        except OSError as error:
            found = error
        except UnicodeError as error:
            found = socket.gaierror(socket.EAI_NONAME, str(error))
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, found)

    threading.Thread(target=look, name="lookup", daemon=True).start()
    return await done


class _Memory:
    """Bytes that all calls together may hold; those of small images do not count."""

    def __init__(self, room: int) -> None:
        self._left = room
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def share(self) -> AsyncIterator["_Share"]:
        """One call's part of it."""
        share = _Share(self)
        try:
            yield share
        finally:
            self._left += share.taken
            self._freed.set()

    async def take(self, size: int) -> None:
        """Wait, in turn, until there is room."""
        async with self._turn:
            while self._left < size:
                self._freed.clear()
                await self._freed.wait()
            self._left -= size


class _Share:
    def __init__(self, memory: _Memory) -> None:
        self._memory = memory
        self.taken = 0

    async def take(self, size: int, clock: asyncio.Timeout) -> None:
        """Take what the call will need, once: who holds some and wants more could wait for another who does.

        To wait for others is nobody's fault: the clock stands still meanwhile.
        """
        loop = asyncio.get_running_loop()
        left = (clock.when() or loop.time()) - loop.time()
        clock.reschedule(None)
        await self._memory.take(size)
        self.taken = size
        clock.reschedule(loop.time() + left)
