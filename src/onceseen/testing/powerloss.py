"""A power cut, played: what our code wrote is noted as it happens, and what a disk may hold after a cut is made from the notes.

What counts as kept is what the interfaces promise and nothing more:

* bytes of a file: what stood there at its last fdatasync or fsync. Of later writes and truncations none, all, the first
  ones up to any byte, or any of the 512-byte sectors may have survived.
* names in a directory: those of its last fsync. Of later ones a random number of the first; a directory that is lost
  takes along what is in it.
* the record: SQLite's own calls are not seen. Its two files are read after each COMMIT, which brought them to the disk if
  the connection was `synchronous = FULL` (asked each time). A cut inside a COMMIT leaves the log torn between what it was
  before and after it, or, where the log was complete, the database torn between its states before and after a checkpoint.

Not covered: a drive that lies about its cache, and sectors that are garbled instead of old or new.
"""

import os
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from onceseen.drivers.sql.database import SqliteDatabase, SqlTransaction

SECTOR = 512
RECORD = ("record.db", "record.db-wal")
FULL = 2
"""PRAGMA synchronous: from here on a COMMIT is on the disk when it returns."""


class Write(NamedTuple):
    """Bytes on their way to the disk; `data` None: the file is cut to `offset`."""

    file: int
    offset: int
    data: bytes | None


class Sync(NamedTuple):
    """A file is on the disk as it is now."""

    file: int


class Name(NamedTuple):
    """An entry of a directory: `file` None takes the name away, -1 is a directory."""

    directory: str
    name: str
    file: int | None


class SyncNames(NamedTuple):
    """A directory's entries are on the disk."""

    directory: str


class Commit(NamedTuple):
    """The record's two files after a COMMIT; `durable`: SQLite has synced them."""

    files: tuple[bytes, bytes]
    durable: bool


class Begin(NamedTuple):
    """A COMMIT is about to be made."""


class Promise(NamedTuple):
    """Somebody was told something."""

    what: Any


Event = Write | Sync | Name | SyncNames | Commit | Begin | Promise


class Notes:
    """What happened below a directory, in order.

    Attributes:
        events: any index is a moment at which the power may fail.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.events: list[Event] = []
        self._lock = threading.RLock()
        self._files: dict[str, int] = {}  # path -> number of the file that lies there
        self._count = 0
        for place, directories, files in os.walk(root):
            for name in directories:
                self._note(Name(self._inside(place), name, -1))
            for name in files:
                if name not in RECORD and not name.startswith("record.db"):
                    self._found(Path(place) / name)
            self._note(SyncNames(self._inside(place)))
        self.commit(FULL)

    def promise(self, what: Any) -> None:
        """Somebody is told something now: it must survive every later cut."""
        self._note(Promise(what))

    def promises(self, until: int) -> list[Any]:
        """What had been promised when event number `until` was about to happen."""
        return [event.what for event in self.events[:until] if isinstance(event, Promise)]

    def commit(self, synchronous: int) -> None:
        """The record was committed by a connection with this PRAGMA."""
        database, log = (file.read_bytes() if file.exists() else b"" for file in (self.root / name for name in RECORD))
        self._note(Commit((database, log), synchronous >= FULL))

    def begin(self) -> None:
        """The record is about to be committed."""
        self._note(Begin())

    @contextmanager
    def taken(self) -> Iterator["Notes"]:
        """Note what is done through `os` in this process, by any thread, until the end of the `with`."""
        with ExitStack() as stack:
            for name in ("open", "pwrite", "pwritev", "ftruncate", "fsync", "fdatasync", "mkdir", "unlink", "rename"):
                stack.enter_context(mock.patch.object(os, name, getattr(self, f"_{name}")(getattr(os, name))))
            stack.enter_context(mock.patch.object(os, "replace", os.rename))
            yield self

    # -- the calls of `os` ---------------------------------------------------------------------------------------------

    def _open(self, real: Any) -> Any:
        def call(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
            with self._lock:
                is_new = bool(flags & os.O_CREAT) and not os.path.lexists(path)
                fd = int(real(path, flags, mode, **more))
                if is_new and self._is_ours(path):
                    self._appeared(path)
                return fd

        return call

    def _pwrite(self, real: Any) -> Any:
        def call(fd: int, data: bytes, offset: int) -> int:
            with self._lock:
                written = int(real(fd, data, offset))
                self._wrote(fd, offset, bytes(data[:written]))
                return written

        return call

    def _pwritev(self, real: Any) -> Any:
        def call(fd: int, buffers: Any, offset: int, *more: Any) -> int:
            with self._lock:
                written = int(real(fd, buffers, offset, *more))
                self._wrote(fd, offset, b"".join(buffers)[:written])
                return written

        return call

    def _ftruncate(self, real: Any) -> Any:
        def call(fd: int, size: int) -> None:
            with self._lock:
                real(fd, size)
                self._wrote(fd, size, None)

        return call

    def _fsync(self, real: Any) -> Any:
        def call(fd: int) -> None:
            with self._lock:
                real(fd)
                path = Path(f"/proc/self/fd/{fd}").readlink()
                if not self._is_ours(path):
                    return
                if path.is_dir():
                    self._note(SyncNames(self._inside(path)))
                    return
                if self._inside(path) not in self._files:  # written by Python's own file objects: seen only now
                    self._found(path)
                self._note(Sync(self._files[self._inside(path)]))

        return call

    _fdatasync = _fsync

    def _mkdir(self, real: Any) -> Any:
        def call(path: Any, mode: int = 0o777, **more: Any) -> None:
            with self._lock:
                real(path, mode, **more)
                if self._is_ours(path):
                    self._note(Name(self._inside(Path(path).parent), Path(path).name, -1))

        return call

    def _unlink(self, real: Any) -> Any:
        def call(path: Any, **more: Any) -> None:
            with self._lock:
                real(path, **more)
                if self._is_ours(path) and self._files.pop(self._inside(path), None) is not None:
                    self._note(Name(self._inside(Path(path).parent), Path(path).name, None))

        return call

    def _rename(self, real: Any) -> Any:
        def call(source: Any, target: Any, **more: Any) -> None:
            with self._lock:
                real(source, target, **more)
                file = self._files.pop(self._inside(source), None) if self._is_ours(source) else None
                if file is None:
                    return
                self._files[self._inside(target)] = file
                self._note(Name(self._inside(Path(target).parent), Path(target).name, file))
                self._note(Name(self._inside(Path(source).parent), Path(source).name, None))

        return call

    # -- notes ---------------------------------------------------------------------------------------------------------

    def _is_ours(self, path: Any) -> bool:
        place = Path(path)
        return place.is_relative_to(self.root) and not place.name.startswith("record.db")

    def _inside(self, path: Any) -> str:
        return str(Path(path).relative_to(self.root))

    def _note(self, event: Event) -> None:
        with self._lock:
            self.events.append(event)

    def _appeared(self, path: Any) -> int:
        self._count += 1
        self._files[self._inside(path)] = self._count
        self._note(Name(self._inside(Path(path).parent), Path(path).name, self._count))
        return self._count

    def _found(self, path: Path) -> None:
        file = self._appeared(path)
        self._note(Write(file, 0, path.read_bytes()))
        self._note(Sync(file))

    def _wrote(self, fd: int, offset: int, data: bytes | None) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if self._is_ours(path) and (file := self._files.get(self._inside(path))) is not None:
            self._note(Write(file, offset, data))


class NotedDatabase(SqliteDatabase):
    """The SQLite driver, with a note of each COMMIT. `notes`: where; None while nobody notes anything."""

    notes: Notes | None = None

    @contextmanager
    def begin(self) -> Iterator[SqlTransaction]:
        notes = self.notes
        with super().begin() as tx:
            yield tx
            if notes is not None:
                notes.begin()
        if notes is not None:
            notes.commit(int(self._pragma("synchronous")))

    def checkpoint_often(self, pages: int) -> None:
        """Bring the log home after so many pages, so that cuts fall into that as well."""
        self._pragma(f"wal_autocheckpoint = {pages}")

    def _pragma(self, text: str) -> Any:
        assert self._writer is not None
        raw = self._writer.connection.driver_connection
        assert raw is not None
        return raw.execute(f"PRAGMA {text}").fetchone()[0]


class Cut(NamedTuple):
    """A disk after a power cut: path -> bytes, and the directories that are left."""

    files: dict[str, bytes]
    directories: list[str]

    def write(self, target: Path) -> Path:
        """Make it real."""
        target.mkdir()
        for directory in sorted(self.directories):
            (target / directory).mkdir(exist_ok=True)
        for path, data in self.files.items():
            (target / path).write_bytes(data)
        return target


def cut(events: list[Event], at: int, dice: random.Random) -> Cut:
    """What the disk may hold when the power failed just before event number `at`."""
    files: dict[int, bytes] = {}
    written: dict[int, list[Write]] = {}
    names: dict[str, dict[str, int]] = {".": {}}
    renamed: dict[str, list[Name]] = {}
    for event in events[:at]:
        match event:
            case Write(file):
                written.setdefault(file, []).append(event)
            case Sync(file):
                files[file] = _apply(files.get(file, b""), written.pop(file, []))
            case Name(directory):
                renamed.setdefault(directory, []).append(event)
            case SyncNames(directory):
                _rename(names, directory, renamed.pop(directory, []))
    for directory, changes in renamed.items():
        _rename(names, directory, changes[: dice.randint(0, len(changes))])
    for file, writes in written.items():
        files[file] = _apply(files.get(file, b""), _survivors(writes, dice))
    found, directories, places = {}, [], ["."]
    while places:
        place = places.pop()
        for name, file in names.get(place, {}).items():
            path = name if place == "." else f"{place}/{name}"
            if file == -1:
                directories.append(path)
                places.append(path)
            else:
                found[path] = files.get(file, b"")
    return Cut(found | _record(events, at, dice), directories)


def _record(events: list[Event], at: int, dice: random.Random) -> dict[str, bytes]:
    """The record's two files: as at the last COMMIT that is on the disk, or torn on the way to one that is not."""
    before: Commit | None = None
    later: list[Commit] = []
    begun = False
    for event in events[:at]:
        if isinstance(event, Commit):
            later.append(event)
            begun = False
            if event.durable:
                before, later = event, []
        begun = begun or isinstance(event, Begin)
    if begun:
        later += [event for event in events[at:] if isinstance(event, Commit)][:1]
    if before is None:
        return {}
    database, log = before.files
    if later:
        new_database, new_log = dice.choice(later).files
        if dice.random() < 0.5 and new_database != database:
            database, log = (
                _torn(database, new_database, dice),
                new_log,
            )  # the log is complete and is being brought home
        else:
            log = _torn(log, new_log, dice)
    return dict(zip(RECORD, (database, log), strict=True))


def _rename(names: dict[str, dict[str, int]], directory: str, changes: list[Name]) -> None:
    entries = names.setdefault(directory, {})
    for change in changes:
        if change.file is None:
            entries.pop(change.name, None)
        else:
            entries[change.name] = change.file


def _apply(data: bytes, writes: list[Write]) -> bytes:
    found = bytearray(data)
    for write in writes:
        if write.data is None:
            del found[write.offset :]
        if len(found) < write.offset:
            found += bytes(write.offset - len(found))
        if write.data is not None:
            found[write.offset : write.offset + len(write.data)] = write.data
    return bytes(found)


def _survivors(writes: list[Write], dice: random.Random) -> list[Write]:
    """Of writes that were not synced: none, all, the first ones up to a byte, or any sectors."""
    how = dice.randrange(4)
    if how < 2:
        return writes if how else []
    if how == 2:
        kept = writes[: dice.randint(1, len(writes))]
        last = kept[-1]
        return [*kept[:-1], last._replace(data=last.data and last.data[: dice.randint(0, len(last.data))])]
    pieces = []
    for write in writes:
        if write.data is None:
            pieces.append(write)
            continue
        start, end = write.offset, write.offset + len(write.data)
        edges = [start, *range((start // SECTOR + 1) * SECTOR, end, SECTOR), end]
        pieces += [Write(write.file, a, write.data[a - start : b - start]) for a, b in pairwise(edges)]
    return [piece for piece in pieces if dice.random() < 0.5]


def _torn(old: bytes, new: bytes, dice: random.Random) -> bytes:
    """A file on its way from one state to another."""
    changed = [
        Write(0, start, new[start : start + SECTOR])
        for start in range(0, len(new), SECTOR)
        if new[start : start + SECTOR] != old[start : start + SECTOR]
    ]
    return _apply(old, _survivors(changed, dice)) if changed else old
