"""The embedded blob store: a directory that one server owns (its caller holds the lock).

    store-id               a UUID, written once
    packs/000001.pack      records (blobs_pack_file.py), appended; the newest is the open one
    files/3f/PROJECT%2F... blobs of more than 4 MB, a file each, by the first two digits of their digest
    tmp/                   such files before they are whole

A location is `pack:NUMBER:OFFSET:SIZE:CRC` or `file:NAME`; the crc makes sure that what lies there is what was meant.
"""

import contextlib
import errno
import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4

import structlog

from onceseen.drivers import blobs_pack_file as packfile
from onceseen.drivers.blobs_pack_file import Gap, Record
from onceseen.drivers.blobs_pack_own import FileBlobs
from onceseen.errors import BlobDamaged, BlobMissing, SettingsError, StorageFull, StoreError
from onceseen.ports.blobs import Stat

log = structlog.get_logger()

PACK_BYTES = 256_000_000
OWN_FILE_BYTES = 4_000_000
READERS = 64  # packs kept open for reading
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_LOCATION = re.compile(r"pack:(\d+):(\d+):(\d+):([0-9a-f]{8})")


class Place(NamedTuple):
    """A parsed location in a pack."""

    pack: int
    offset: int
    size: int  # bytes of data
    crc: int

    @classmethod
    def parse(cls, location: str) -> "Place | None":
        """The place that a location in a pack names; None if it is none."""
        found = _LOCATION.fullmatch(location)
        return found and cls(int(found[1]), int(found[2]), int(found[3]), int(found[4], 16))

    def __str__(self) -> str:
        return f"pack:{self.pack:06d}:{self.offset}:{self.size}:{self.crc:08x}"


class BlobsPack:
    """See ports/blobs.py. Puts are serialised, so are deletes; any number of threads may read meanwhile."""

    store_id: str
    """A UUID that tells this store from every other one."""

    @classmethod
    def open(
        cls, directory: Path, *, pack_bytes: int = PACK_BYTES, own_file_bytes: int = OWN_FILE_BYTES
    ) -> "BlobsPack":
        """Open the store in a directory, made if it is not there; the open pack loses its torn tail.

        Raises:
            SettingsError: the directory holds packs but no `store-id`.
            StorageFull: there is no room for a new store.
        """
        return cls(directory, pack_bytes, own_file_bytes)

    def __init__(self, directory: Path, pack_bytes: int, own_file_bytes: int) -> None:
        self._directory = directory
        self._packs = directory / "packs"
        self._files = FileBlobs(directory)
        self._pack_bytes = pack_bytes
        self._own_file_bytes = own_file_bytes
        self._putting = threading.Lock()
        self._deleting = threading.Lock()
        self._readers = packfile.Readers(self._path, READERS)
        self._fd = -1  # of the open pack; -1: none is, the next put begins one
        self._end = 0  # where its next record begins
        self._live: dict[int, int] = {}  # closed pack -> records (and gaps) that are not deleted
        self._perhaps_dead: set[int] = set()  # packs to look at in the next delete()
        with _storage(directory):
            self._packs.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.store_id = _store_id(directory, new=not any(self._packs.iterdir()))
            self._files.open()
            packfile.sync_directory(directory)
            numbers = self._numbers()
            self._newest = numbers[-1] if numbers else 0
            if self._newest:
                self._reopen()

    def put(self, blobs: Sequence[tuple[str, bytes]]) -> list[str]:
        """Append a group, sync it, then say where it lies: see the port. StoreError: the disk failed to write."""
        for name, _ in blobs:
            packfile.digest_of(name)
        small = [(name, data) for name, data in blobs if len(data) <= self._own_file_bytes]
        large = [(name, data) for name, data in blobs if len(data) > self._own_file_bytes]
        with self._putting, _storage(self._directory), contextlib.ExitStack() as undo:
            # Files first, but under their names last: what fails in between leaves nothing that counts.
            ready = self._files.prepare(large, undo)
            places = iter(self._append(small, undo)) if small else iter(())
            self._files.publish(ready, undo)
            undo.pop_all()
        return [
            str(next(places)) if len(data) <= self._own_file_bytes else FileBlobs.location(name) for name, data in blobs
        ]

    def get(self, location: str, start: int = 0, length: int | None = None) -> bytes:
        """The bytes at a location, verified when they are the whole blob: see the port."""
        if start < 0 or (length is not None and length < 0):
            raise ValueError(f"start and length count from 0: {start}, {length}.")
        try:
            if location.startswith(FileBlobs.SCHEME):
                name, data = self._files.read(location, start, length)
            else:
                name, data = self._read(_place(location), start, length)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise BlobDamaged(f"The disk cannot read {location}: {error}.") from error
        if start == 0 and length is None and hashlib.sha256(data).hexdigest() != packfile.digest_of(name):
            raise BlobDamaged
        return data

    def stat(self, location: str) -> Stat:
        """Name, size and age of one blob: see the port."""
        if location.startswith(FileBlobs.SCHEME):
            return self._files.stat(location)
        place = _place(location)
        with self._readers.use(place.pack) as fd:
            record = _find(fd, place)
        return _stat(record, place.pack)

    def list(self) -> Iterator[Stat]:
        """All blobs that are not deleted: see the port. Damaged records are passed over."""
        with self._putting:
            newest, end = self._newest, self._end
        for number in self._numbers():
            if number > newest:
                break
            with contextlib.suppress(BlobMissing), self._readers.use(number) as fd:
                size = end if number == newest else os.fstat(fd).st_size
                seen = False
                for record in packfile.scan(fd, size):
                    seen = seen or isinstance(record, Gap) or record.state == packfile.LIVE
                    if isinstance(record, Record) and record.state == packfile.LIVE:
                        yield _stat(record, number)
                if not seen:
                    self._perhaps_dead.add(number)
        yield from self._files.list()

    def delete(self, locations: Sequence[str]) -> None:
        """Give the room of these blobs back: see the port. First the mark, durably, then the hole.

        A crash between the two costs room until the blob is deleted again or its pack is all dead.
        StoreError: the disk failed to write.
        """
        places = sorted(place for place in map(Place.parse, locations) if place is not None)
        with self._deleting, _storage(self._directory):
            self._files.delete([location for location in locations if location.startswith(FileBlobs.SCHEME)])
            for number, group in groupby(places, key=lambda place: place.pack):
                with contextlib.suppress(FileNotFoundError):
                    self._delete_in(number, list(group))
                self._perhaps_dead.add(number)
            self._remove_dead()

    def close(self) -> None:
        """Release the files. Idempotent."""
        with self._putting:
            self._leave_pack()
        self._readers.close()

    def _path(self, number: int) -> Path:
        return self._packs / f"{number:06d}.pack"

    def _numbers(self) -> Sequence[int]:
        return sorted(int(path.stem) for path in self._packs.glob("*.pack") if path.stem.isdigit())

    def _reopen(self) -> None:
        """Go on with the newest pack, behind its last sound record. No other pack is ever cut."""
        path = self._path(self._newest)
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        size = os.fstat(self._fd).st_size
        self._end = max((found.end for found in packfile.scan(self._fd, size) if isinstance(found, Record)), default=0)
        if self._end < size:
            log.warning("blobs.torn_tail_cut", pack=path.name, bytes=size - self._end)
            os.ftruncate(self._fd, self._end)
            packfile.sync(self._fd)

    def _begin_pack(self) -> None:
        self._leave_pack()
        self._newest += 1
        path = self._path(self._newest)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._end = 0
        try:
            packfile.sync_directory(self._packs)
        except OSError:
            self._leave_pack()
            raise
        log.info("blobs.pack_begun", pack=path.name)

    def _leave_pack(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, blobs: Sequence[tuple[str, bytes]], undo: contextlib.ExitStack) -> Sequence[Place]:
        """Write one group behind the last record and sync it once."""
        modified = time.time_ns() // 1000
        heads = [packfile.head_of(name, len(data), modified) for name, data in blobs]
        size = sum(len(head) + len(data) for (head, _), (_, data) in zip(heads, blobs, strict=True))
        if self._fd < 0 or (self._end and self._end + size > self._pack_bytes):
            self._begin_pack()
        start = at = self._end
        undo.callback(self._cut, start)
        places: list[Place] = []
        buffers: list[bytes] = []
        for (head, crc), (_, data) in zip(heads, blobs, strict=True):
            places.append(Place(self._newest, at, len(data), crc))
            buffers += (head, data)
            at += len(head) + len(data)
        packfile.write_at(self._fd, buffers, start)
        try:
            packfile.sync(self._fd)
        except OSError as error:
            # The kernel reports a failed write-back once and may then call the lost pages clean: a later sync of
            # this file proves nothing. What was synced before stays readable; new blobs go to a new pack.
            log.exception("blobs.pack_abandoned", pack=self._path(self._newest).name, errno=error.errno)
            self._leave_pack()
            raise
        self._end = at
        return places

    def _cut(self, start: int) -> None:
        """Take a group that failed off the open pack again."""
        if self._fd < 0:
            return
        try:
            os.ftruncate(self._fd, start)
            self._end = start
        except OSError:
            log.exception("blobs.pack_abandoned", pack=self._path(self._newest).name)
            self._leave_pack()

    def _read(self, place: Place, start: int, length: int | None) -> tuple[str, bytes]:
        with self._readers.use(place.pack) as fd:
            record = _find(fd, place)
            size = max(0, min(record.size - start, record.size if length is None else length))
            data = packfile.read_at(fd, size, record.data_at + start)
            _find(fd, place)  # a deletion marks first and makes the hole then: still live, so no hole was read
        if len(data) < size:
            raise BlobDamaged
        return record.name, data

    def _delete_in(self, number: int, places: Sequence[Place]) -> None:
        """Mark records of one pack as deleted, sync the marks, then make the holes."""
        fd = os.open(self._path(number), os.O_RDWR | os.O_CLOEXEC)
        try:
            records = []
            for place in places:
                record = packfile.read_head(fd, place.offset)
                if record is None or record.crc != place.crc:
                    continue  # damaged, or something else: not ours to touch
                if record.state == packfile.LIVE:
                    os.pwrite(fd, bytes([packfile.DELETED]), record.offset + packfile.STATE_AT)
                    if number in self._live:
                        self._live[number] -= 1
                records.append(record)
            packfile.sync(fd)
            for record in records:
                if not packfile.punch(fd, record.data_at, record.end):
                    log.debug("blobs.no_holes", pack=number)
                    break
        finally:
            os.close(fd)

    def _remove_dead(self) -> None:
        """Unlink packs that hold nothing any more, never the newest one."""
        gone = False
        for number in [number for number in list(self._perhaps_dead) if number < self._newest]:
            self._perhaps_dead.discard(number)
            with contextlib.suppress(BlobMissing):
                if number not in self._live:
                    with self._readers.use(number) as fd:
                        found = packfile.scan(fd, os.fstat(fd).st_size)
                        # A gap counts as live: it may be a damaged header with sound data behind it.
                        self._live[number] = sum(isinstance(it, Gap) or it.state == packfile.LIVE for it in found)
                if self._live[number] == 0:
                    self._path(number).unlink(missing_ok=True)
                    self._readers.forget(number)
                    del self._live[number]
                    gone = True
                    log.info("blobs.pack_removed", pack=self._path(number).name)
        if gone:
            packfile.sync_directory(self._packs)


@contextlib.contextmanager
def _storage(directory: Path) -> Iterator[None]:
    """Errors of the system in the words of the port."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull(
                f"The disk of {directory} is full ({error.strerror}); free some space, nothing was half-written."
            ) from error
        raise StoreError(f"The disk of {directory} failed: {error}; look at the system's log.") from error


def _place(location: str) -> Place:
    place = Place.parse(location)
    if place is None:
        raise BlobMissing(f"{location!r} is no location in this store; submit the image again.")
    return place


def _find(fd: int, place: Place) -> Record:
    """The live record at a place. Raises BlobMissing, BlobDamaged."""
    record = packfile.read_head(fd, place.offset)
    if record is None:
        if os.fstat(fd).st_size <= place.offset:
            raise BlobMissing
        raise BlobDamaged
    if record.crc != place.crc or record.state == packfile.DELETED:
        raise BlobMissing
    return record


def _stat(record: Record, number: int) -> Stat:
    location = str(Place(number, record.offset, record.size, record.crc))
    return Stat(record.name, location, record.size, record.modified / 1e6)


def _store_id(directory: Path, *, new: bool) -> str:
    """The store's id; a new store gets one."""
    path = directory / "store-id"
    if path.exists():
        try:
            return str(UUID(path.read_text().strip()))
        except ValueError as error:
            raise SettingsError(f"{path} does not hold a UUID; put it back from a backup or the database.") from error
    if not new:
        raise SettingsError(f"{path} is missing though there are packs; put it back from a backup or the database.")
    store_id = str(uuid4())
    draft = directory / "store-id.new"
    with draft.open("w") as file:
        file.write(store_id + "\n")
        file.flush()
        packfile.sync(file.fileno())
    draft.rename(path)
    packfile.sync_directory(directory)
    return store_id
