"""The link over a Unix socket, for workers on the server's own machine.

Nobody but this user gets in: the socket is 0600 in a directory of 0700, and the kernel is asked who comes.
"""

import asyncio
import contextlib
import os
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import structlog

from onceseen.errors import SettingsError
from onceseen.ports.link import Accept, Frame, LinkHandler, Listener, Stream
from onceseen.wire.frames import MAX_PAYLOAD, PREFIX, AbsurdFrameError, Decoder, buffers_of, sizes

log = structlog.get_logger()

SCHEME = "unix:"
MAX_PATH = 103 if sys.platform == "darwin" else 107  # bytes; sockaddr_un has room for no more
SOCKET_BUFFER = 1 << 20  # bytes, each way; the kernel gives what it allows
FLUSH_SECONDS = 1.0  # how long a closed link may still hand over what was queued before
BACKLOG = 1024
PARTS_PER_CALL = 512  # IOV_MAX is 1024 on Linux and macOS


def path_of(address: str) -> str:
    """The file system path in `unix:PATH`.

    Raises:
        SettingsError: it is not such an address, or the path is too long for a socket.
    """
    path = address.removeprefix(SCHEME)
    if path == address or not path:
        raise SettingsError(f"{address!r} is not the address of a Unix socket; write unix:/PATH.")
    length = len(os.fsencode(path))
    if length > MAX_PATH:
        raise SettingsError(
            f"The socket's path {path!r} has {length} bytes and the system takes {MAX_PATH}; "
            "set the runtime directory (XDG_RUNTIME_DIR) to a short one."
        )
    return path


def peer_uid(connection: socket.socket) -> int:
    """The user id of the process at the other end, as the kernel saw it when it connected."""
    if sys.platform == "darwin":
        # struct xucred { u_int version; uid_t uid; ... }; SOL_LOCAL = 0, LOCAL_PEERCRED = 1
        return int(struct.unpack_from("=II", connection.getsockopt(0, 1, 76))[1])
    return int(struct.unpack("=3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])


def _widen(connection: socket.socket) -> None:
    """Ask for larger socket buffers; a system that refuses keeps its own."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)


class UnixLink(asyncio.Protocol):
    """The server's end of one connection (ports/link.py: Link)."""

    local = True

    def __init__(self, accept: Accept, links: "Links") -> None:
        self._accept = accept
        self._links = links
        self._handler: LinkHandler | None = None
        self._transport: asyncio.Transport | None = None
        self._decoder = Decoder()
        self._open = False
        self.ended = asyncio.Event()

    def send(self, header: bytes, payload: Sequence[bytes] = ()) -> None:
        """Queue one frame. Raises ValueError for one over the limits."""
        buffers = buffers_of(header, payload)
        if self._open and self._transport is not None:
            self._transport.writelines(buffers)

    def close(self) -> None:
        """End the connection, after what is queued; a peer that does not read gets a second for that."""
        if self._open and self._transport is not None:
            self._open = False
            self._transport.close()
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.abort)

    def abort(self) -> None:
        """End the connection at once."""
        self._open = False
        if self._transport is not None and not self.ended.is_set():
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer is there: ask who it is, then ask who is told about it."""
        self._transport = cast("asyncio.Transport", transport)
        self._links.add(self)
        # send() must never block or fail for a slow reader; how much may be under way is the hub's credit.
        self._transport.set_write_buffer_limits(high=MAX_PAYLOAD)
        try:
            # A socket object of our own, since not every loop's stand-in takes options.
            with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as connection:
                uid = peer_uid(connection)
                _widen(connection)
            if self._links.closed:
                self.abort()  # it knocked while the door was being shut
                return
            if uid != os.geteuid():
                log.warning("link.refused", uid=uid, reason="another user")
                self.abort()
                return
            self._open = True
            self._handler = self._accept(self)
        except Exception:
            log.exception("link.accept_failed")
            self.abort()

    def data_received(self, data: bytes) -> None:
        """Hand on the frames that are whole now; none after close()."""
        try:
            for frame in self._decoder.feed(data):
                if not self._open or self._handler is None:
                    return
                self._handler.received(frame)
        except AbsurdFrameError as error:
            log.warning("link.absurd_frame", reason=str(error))
            self.abort()
        except Exception:
            log.exception("link.handler_failed")
            self.abort()

    def eof_received(self) -> None:
        """The peer is gone; what is queued for it has no reader any more."""
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, whoever ended it."""
        self._open = False
        self.ended.set()
        self._links.discard(self)
        if self._handler is not None:
            handler, self._handler = self._handler, None
            handler.closed()


class Links(set[UnixLink]):
    """All links of one listener. `closed`: no more are taken."""

    closed = False


class UnixListener:
    """A listening socket and the links that came in by it (ports/link.py: Listener)."""

    def __init__(self, address: str, path: Path, server: asyncio.Server, links: Links) -> None:
        self.address = address
        self._path = path
        self._inode = path.stat().st_ino
        self._server = server
        self._links = links

    async def close(self) -> None:
        """Stop listening, remove the socket, end all links and wait for their end. Idempotent."""
        self._links.closed = True
        self._server.close()
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        links = list(self._links)
        for link in links:
            link.close()
        for link in links:
            await link.ended.wait()
        await self._server.wait_closed()


async def listen(address: str, accept: Accept) -> Listener:
    """Listen at `unix:PATH` on the running loop; a socket file that is left over there is removed.

    The caller holds the lock of whatever the socket stands for, so a file that exists belongs to a dead server.

    Raises:
        SettingsError: the path is too long, or its directory is not this user's alone.
    """
    path = Path(path_of(address))
    links = Links()
    door = _bind(path)
    try:
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: UnixLink(accept, links), sock=door, backlog=BACKLOG)
    except BaseException:
        door.close()
        raise
    return UnixListener(address, path, server, links)


def _bind(path: Path) -> socket.socket:
    """A socket at `path` that only this user can reach."""
    _check_directory(path.parent)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SettingsError(f"{path} exists and is no socket; remove it or choose another path.")
        path.unlink()
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        door.bind(str(path))
        path.chmod(0o600)
        door.setblocking(False)
    except BaseException:
        door.close()
        raise
    return door


def _check_directory(directory: Path) -> None:
    """Make the directory if it is not there, and refuse one that others may enter."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.stat()
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise SettingsError(
            f"The socket's directory {directory} must belong to this user alone (uid {os.geteuid()}, mode 0700); "
            f"it has uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}."
        )


class UnixStream:
    """The worker's end of one connection (ports/link.py: Stream)."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        # Re-entrant: a signal handler may close the stream while its own thread waits in receive().
        self._reading = threading.RLock()
        self._sending = threading.RLock()

    def send(self, header: bytes, payload: Sequence[bytes] = ()) -> None:
        """Send one frame from any thread.

        Raises:
            ConnectionError: the link has ended.
            ValueError: the frame is over the limits.
        """
        left = [memoryview(part) for part in buffers_of(header, payload) if part]
        with self._sending:
            try:
                while left:
                    sent = self._socket.sendmsg(left[:PARTS_PER_CALL])
                    left = _without(left, sent)
            except BaseException as error:
                self._shut()  # half a frame may be out: nothing that follows could be read
                if isinstance(error, OSError) and not isinstance(error, ConnectionError):
                    raise ConnectionError(f"The link has ended: {error}") from error
                raise

    def receive(self) -> Frame | None:
        """The next frame; None at the link's end, also in the middle of a frame."""
        with self._reading:
            try:
                prefix = self._exactly(PREFIX.size)
                header_size, payload_size = sizes(prefix)
                return Frame(self._exactly(header_size), self._exactly(payload_size))
            except AbsurdFrameError as error:
                log.warning("link.absurd_frame", reason=str(error))
                self._shut()
            except (EOFError, OSError):
                self._shut()
        return None

    def close(self) -> None:
        """End the connection, from any thread."""
        self._shut()  # wakes who reads or sends
        with self._reading, self._sending:  # its number may be given away again only when nobody uses it
            self._socket.close()

    def _shut(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _exactly(self, size: int) -> bytes:
        """`size` bytes, in one system call and without a copy as a rule. Raises EOFError at the end."""
        parts: list[bytes] = []
        while size:
            part = self._socket.recv(size, socket.MSG_WAITALL)
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _without(buffers: list[memoryview], sent: int) -> list[memoryview]:
    """The buffers less their first `sent` bytes."""
    for at, part in enumerate(buffers):
        if sent < len(part):
            return [part[sent:], *buffers[at + 1 :]]
        sent -= len(part)
    return []


def connect(address: str, timeout: float) -> Stream:
    """Connect to the server that listens at `unix:PATH`, waiting at most `timeout` seconds for it to take us in.

    Raises:
        SettingsError: it is not such an address, or the path is too long.
        ConnectionError: nobody listens there.
    """
    path = path_of(address)
    deadline = time.monotonic() + timeout
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _widen(connection)
        connection.settimeout(timeout)
        while True:
            try:
                connection.connect(path)
                break
            except BlockingIOError:  # the door's queue is full: Linux says so at once instead of waiting
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        connection.settimeout(None)
    except OSError as error:
        connection.close()
        raise ConnectionError(f"No server answers at {address}: {error}") from error
    return UnixStream(connection)
