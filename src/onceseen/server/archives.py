"""zip and tar: spooled to a file, then read entry by entry within limits; links and special files are never followed."""

import asyncio
import bz2
import gzip
import lzma
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import IO, TypeVar, cast

from onceseen.domain.names import clean_name, is_image_name
from onceseen.errors import InvalidRequest, PayloadTooLarge
from onceseen.hub.intake import Intake
from onceseen.settings import Settings

T = TypeVar("T")
Entry = tuple[str, bytes | None, str]  # name, bytes, and the reason where there are none
ENTRIES_AT_ONCE = 32
BYTES_AT_ONCE = 8 << 20
FREE_BYTES = 64 << 20
"""What an archive may unpack to whatever its own size: small ones of flat pictures pack very well."""
MOST_DIRECTORY = 100 << 20
"""Bytes of a zip's directory: a million names, and the most of it that is held in memory."""
MOST_TAR_HEADER = 1 << 20
"""Bytes of an extended header of a tar: it is a name and a few numbers."""
XZ_MEMORY = 256 << 20
"""What the preset `xz -9` needs is a quarter of it; an archive may ask for gigabytes."""
READ_ERRORS = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, RuntimeError, NotImplementedError, OSError, ValueError, OverflowError, IndexError),
)
"""What the archive modules raise for damaged ones; ValueError also for names that are not UTF-8, IndexError for none."""


async def receive_images(submission: Intake, body: AsyncIterator[bytes], kind: str, settings: Settings) -> None:
    """Take every image file of an archive, in its order.

    Raises:
        InvalidRequest: it is no archive, or holds no image.
        PayloadTooLarge: it unpacks to more than its limits allow.
    """
    with ExitStack() as stack:
        directory = settings.data / "tmp"
        spool = stack.enter_context(tempfile.TemporaryFile(dir=directory if directory.is_dir() else None))
        size = 0
        async for part in body:
            await asyncio.to_thread(spool.write, part)
            size += len(part)
        if not size:
            return
        spool.seek(0)
        read = _zip_entries if kind in ("application/zip", "application/x-zip-compressed") else _tar_entries
        entries = read(spool, settings, size)
        while group := await asyncio.to_thread(_take, entries):
            for name, data, reason in group:
                if submission.count >= settings.max_items:
                    raise PayloadTooLarge(f"The archive has more than {settings.max_items:,} images; send it in parts.")
                if data is None:
                    submission.refuse(clean_name(name), *_kind(reason))
                else:
                    await submission.add(clean_name(name), data)
    if not submission.count:
        raise InvalidRequest("The archive holds no file with the name of an image (.jpg, .png, .tif, ...).")


def _kind(reason: str) -> tuple[str, str]:
    return ("too-large" if "limit" in reason else "unreadable-image"), reason


def _take(entries: Iterator[Entry]) -> list[Entry]:
    """The next few entries, in a thread."""
    group: list[Entry] = []
    size = 0
    for entry in entries:
        group.append(entry)
        size += len(entry[1] or b"")
        if len(group) >= ENTRIES_AT_ONCE or size >= BYTES_AT_ONCE:
            break
    return group


class _Budget:
    """How much an archive may still unpack to."""

    def __init__(self, settings: Settings, size: int) -> None:
        self.left = max(FREE_BYTES, int(min(size * settings.archive_ratio, settings.max_submission_bytes)))
        self._total = self.left
        self._per_image = settings.max_image_bytes

    def read(self, name: str, open_entry: Callable[[], IO[bytes] | None]) -> Entry:
        """One entry, never more of it than the limits; one that cannot be read fails alone."""
        try:
            stream = open_entry()
            if stream is None:
                return name, None, "The archive's entry is no file."
            with stream:
                data = stream.read(min(self._per_image, self.left) + 1)
        except READ_ERRORS as error:
            return name, None, f"The archive's entry cannot be read: {error}."
        if len(data) > self._per_image:
            self.left -= self._per_image
            return name, None, f"The image has more than {self._per_image:,} bytes, the limit."
        self.left -= len(data)
        if self.left < 0:
            raise PayloadTooLarge(f"The archive unpacks to more than {self._total:,} bytes, its limit.")
        return name, data, ""


def _zip_entries(spool: IO[bytes], settings: Settings, size: int) -> Iterator[Entry]:
    budget = _Budget(settings, size)
    try:
        archive = zipfile.ZipFile(cast("IO[bytes]", _Metered(spool, MOST_DIRECTORY, size)))
    except READ_ERRORS as error:
        raise InvalidRequest(f"This is no zip archive that can be read: {error}.") from error
    with archive:
        _check_overlap(archive)
        for info in archive.infolist():
            if is_image_name(info.filename) and not info.is_dir():
                yield budget.read(info.filename, lambda info=info: archive.open(info))  # type: ignore[misc]


def _check_overlap(archive: zipfile.ZipFile) -> None:
    """Refuse a zip that shows the same bytes as several files: so a small one can hold thousands of large ones."""
    end = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise InvalidRequest(f"The archive's entry {info.filename[:100]!r} overlaps another one; pack it anew.")
        end = info.header_offset + max(1, info.compress_size)


class _Metered:
    """An archive's bytes for a module that reads headers whole and skips what it is not asked for by unpacking it.

    Never more than `most` at once, and nothing beyond `in_all`.
    """

    def __init__(self, stream: IO[bytes], most: int, in_all: int) -> None:
        self._stream = stream
        self._in_all = in_all
        self.most = most
        self.tell, self.seekable, self.close = stream.tell, stream.seekable, stream.close

    def read(self, size: int = -1) -> bytes:
        if size > self.most:
            raise PayloadTooLarge(f"The archive has a header of more than {self.most:,} bytes, the limit.")
        return self._stream.read(self.most if size < 0 else size)

    def seek(self, place: int, whence: int = 0) -> int:
        if whence == 0 and place > self._in_all:
            raise PayloadTooLarge(f"The archive unpacks to more than {self._in_all:,} bytes, its limit.")
        return self._stream.seek(place, whence)


def _unpacked(spool: IO[bytes]) -> IO[bytes]:
    """The tar inside gzip, bzip2 or xz, or as it is."""
    head = spool.read(6)
    spool.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=spool))
    if head.startswith(b"BZh"):
        return bz2.BZ2File(spool)
    if head.startswith((b"\xfd7zXZ", b"]\0\0\x80")):
        beginning = spool.read(65_536)
        spool.seek(0)
        lzma.LZMADecompressor(memlimit=XZ_MEMORY).decompress(beginning, max_length=1)
        return lzma.LZMAFile(spool)
    return spool


def _tar_entries(spool: IO[bytes], settings: Settings, size: int) -> Iterator[Entry]:
    budget = _Budget(settings, size)
    try:
        metered = _Metered(_unpacked(spool), MOST_TAR_HEADER, size + budget.left)
        with tarfile.open(fileobj=cast("IO[bytes]", metered), mode="r:") as archive:
            for info in archive:
                if info.isreg() and is_image_name(info.name):
                    metered.most = settings.max_image_bytes + tarfile.RECORDSIZE
                    yield budget.read(info.name, lambda info=info: archive.extractfile(info))  # type: ignore[misc]
                    metered.most = MOST_TAR_HEADER
    except READ_ERRORS as error:
        raise InvalidRequest(f"This is no tar archive that can be read: {error}.") from error
