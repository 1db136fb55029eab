"""One pack file: records one after the other, and what the system offers to write, sync, read and hole it.

    record = magic 4 | state 1 | 0 | name length u16 | data length u64 | time u64 | crc u32 | name | data

The crc covers the header without the state, and the name; the data is covered by the SHA-256 in the name. The state is
the only byte that ever changes: one byte cannot be torn, so a record is always either live or deleted.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import struct
import sys
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from onceseen.errors import BlobMissing

MAGIC = b"OSb1"
LIVE = 0xA5
DELETED = 0x5A  # every bit differs from LIVE: no single flipped bit deletes a blob
MAX_NAME = 1024  # bytes
BLOCK = 4096  # bytes; holes begin and end on such a boundary, so that no neighbour's byte is touched
STATE_AT = len(MAGIC)

NAME = re.compile(r"[^\0]+/([0-9a-f]{64})-[0-9a-f-]+")

_header = struct.Struct("<4sBBHQQI")
_without_crc = struct.Struct("<4sBBHQQ")
_WINDOW = 4096  # bytes read at once while hopping from header to header
_SEARCH = 1 << 20  # bytes read at once while looking for the next record after damage
_PARTS_PER_CALL = 512  # IOV_MAX is 1024 on Linux and macOS


class Record(NamedTuple):
    """One record's header. Offsets and sizes in bytes, `modified` in microseconds since 1970."""

    offset: int
    name: str
    size: int
    modified: int
    crc: int
    state: int
    data_at: int

    @property
    def end(self) -> int:
        """Where the next record begins."""
        return self.data_at + self.size


class Gap(NamedTuple):
    """Bytes in which no record can be read: a torn tail, or damage."""

    offset: int
    end: int


def digest_of(name: str) -> str:
    """The SHA-256 in hex that a blob of this name must have.

    Raises:
        ValueError: the name is not `PROJECT/DIGEST-UUID`.
    """
    found = NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"A blob's name is PROJECT/DIGEST-UUID, not {name!r}.")
    return found[1]


def head_of(name: str, size: int, modified: int) -> tuple[bytes, int]:
    """The bytes before the data of a new record, and their crc."""
    text = name.encode()
    if len(text) > MAX_NAME:
        raise ValueError(f"A blob's name has at most {MAX_NAME} bytes: {name!r}.")
    bare = _without_crc.pack(MAGIC, 0, 0, len(text), size, modified)
    crc = zlib.crc32(text, zlib.crc32(bare))
    return _header.pack(MAGIC, LIVE, 0, len(text), size, modified, crc) + text, crc


def parse(raw: bytes, at: int, offset: int) -> Record | None:
    """The record whose header begins at `raw[at]`, which is the file's byte `offset`; None if there is none."""
    if len(raw) - at < _header.size:
        return None
    magic, state, zero, name_size, size, modified, crc = _header.unpack_from(raw, at)
    text = raw[at + _header.size : at + _header.size + name_size]
    if magic != MAGIC or zero or len(text) < name_size or state not in (LIVE, DELETED):
        return None
    if zlib.crc32(text, zlib.crc32(_without_crc.pack(magic, 0, 0, name_size, size, modified))) != crc:
        return None
    name = text.decode(errors="replace")
    if NAME.fullmatch(name) is None:
        return None
    return Record(offset, name, size, modified, crc, state, offset + _header.size + name_size)


def read_head(fd: int, offset: int) -> Record | None:
    """The record that begins at `offset`; None if there is none."""
    return parse(read_at(fd, _header.size + MAX_NAME, offset), 0, offset)


def scan(fd: int, end: int) -> Iterator[Record | Gap]:
    """All records before `end`, deleted ones too, and the gaps between them. A record over the end is a gap."""
    window, window_at, at = b"", 0, 0
    while at < end:
        if at < window_at or at + _header.size + MAX_NAME > window_at + len(window):
            window, window_at = read_at(fd, _WINDOW, at), at
        record = parse(window, at - window_at, at)
        if record is not None and record.end <= end:
            yield record
            at = record.end
        else:
            # A sound header whose data is cut off: what follows is its own data, not records.
            following = end if record is not None else _next_record(fd, at + 1, end)
            yield Gap(at, following)
            at = following


def _next_record(fd: int, at: int, end: int) -> int:
    """Where the next sound record begins, or the end."""
    while at < end:
        chunk = read_at(fd, min(_SEARCH, end - at), at)
        found = chunk.find(MAGIC)
        while found >= 0:
            record = read_head(fd, at + found)
            if record is not None and record.end <= end:
                return at + found
            found = chunk.find(MAGIC, found + 1)
        if len(chunk) < len(MAGIC):
            break
        at += len(chunk) - len(MAGIC) + 1
    return end


def read_at(fd: int, size: int, offset: int) -> bytes:
    """`size` bytes from `offset`, fewer only at the end of the file."""
    data = os.pread(fd, size, offset)
    while 0 < len(data) < size:
        more = os.pread(fd, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def write_at(fd: int, buffers: Sequence[bytes], offset: int) -> None:
    """Write all buffers one after the other from `offset`."""
    left = [memoryview(part) for part in buffers if part]
    while left:
        written = os.pwritev(fd, left[:_PARTS_PER_CALL], offset)
        offset += written
        done = 0
        while done < len(left) and written >= len(left[done]):
            written -= len(left[done])
            done += 1
        left = left[done:]
        if written:
            left[0] = left[0][written:]


def sync(fd: int) -> None:
    """Bring data and size to the medium."""
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync there leaves the bytes in the drive's cache
    else:
        os.fdatasync(fd)


def sync_directory(directory: Path) -> None:
    """Bring a directory's entries to the medium."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def punch(fd: int, start: int, end: int) -> bool:
    """Give the whole blocks between two offsets back to the file system; False where it cannot do that."""
    start, end = -(-start // BLOCK) * BLOCK, end // BLOCK * BLOCK
    if end <= start:
        return True
    if sys.platform == "darwin":
        try:
            # struct fpunchhole { u32 flags; u32 reserved; off_t offset; off_t length; }; F_PUNCHHOLE = 99
            fcntl.fcntl(fd, 99, struct.pack("=IIqq", 0, 0, start, end - start))
        except OSError:
            return False
        return True
    if _fallocate is None:
        return False
    # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    while _fallocate(fd, 0x02 | 0x01, start, end - start) != 0:
        if ctypes.get_errno() != errno.EINTR:
            return False
    return True


def _find_fallocate() -> "ctypes._NamedFuncPointer | None":
    """The C library's fallocate; Python has only posix_fallocate, which cannot make holes."""
    if not sys.platform.startswith("linux"):
        return None
    found = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)
    if found is None:  # musl has one name for both sizes
        found = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if found is not None:
        found.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        found.restype = ctypes.c_int
    return found


_fallocate = _find_fallocate()


class Readers:
    """Packs open for reading, the least used closed first; a file in use stays open until its last reader is done."""

    def __init__(self, path_of: Callable[[int], Path], limit: int) -> None:
        self._path_of = path_of
        self._limit = limit
        self._lock = threading.Lock()
        self._open: OrderedDict[int, _Reader] = OrderedDict()

    @contextlib.contextmanager
    def use(self, number: int) -> Iterator[int]:
        """The descriptor of a pack, valid inside the `with`. Raises BlobMissing if there is no such pack."""
        reader = self._take(number)
        try:
            yield reader.fd
        finally:
            with self._lock:
                reader.users -= 1
                reader.close_if_unused()

    def forget(self, number: int) -> None:
        """Close a pack that was removed."""
        with self._lock:
            self._drop(number)

    def close(self) -> None:
        """Close all."""
        with self._lock:
            for number in list(self._open):
                self._drop(number)

    def _take(self, number: int) -> "_Reader":
        with self._lock:
            reader = self._open.get(number)
            if reader is None:
                try:
                    fd = os.open(self._path_of(number), os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError as error:
                    raise BlobMissing from error
                reader = self._open[number] = _Reader(fd)
                if len(self._open) > self._limit:
                    self._drop(next(iter(self._open)))
            self._open.move_to_end(number)
            reader.users += 1
            return reader

    def _drop(self, number: int) -> None:
        reader = self._open.pop(number, None)
        if reader is not None:
            reader.kept = False
            reader.close_if_unused()


class _Reader:
    """One open pack. `users`: how many read it now; `kept`: it is in the table."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 0
        self.kept = True

    def close_if_unused(self) -> None:
        if not self.users and not self.kept:
            os.close(self.fd)
