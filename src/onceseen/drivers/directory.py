"""The data directory: who owns it, which format it has, where its server is to be found.

DATA/lock          held (flock) by the one server that works here
DATA/FORMAT        version of everything below; a newer one is refused, an older one is backed up and migrated
DATA/record.db     the record (SQLite)            DATA/packs, DATA/files   bytes of images
DATA/models/       models' own directories        DATA/cache               may be deleted at any time
DATA/server.json   address and socket of the server that runs here
"""

import errno
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from onceseen.domain.ids import now
from onceseen.drivers.blobs_pack_file import sync_directory
from onceseen.errors import DirectoryInUse, NewerData, SettingsError, StorageFull

if TYPE_CHECKING:
    from onceseen.drivers.sql.database import SqliteDatabase

FORMAT = 1
LOCK_WAIT_SECONDS = 5.0


def runtime_directory() -> Path:
    """A short, private place for sockets: a path over 107 bytes is refused by the system."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    place = Path(given) / "onceseen" if given and len(given) < 60 else Path(f"/tmp/onceseen-{os.getuid()}")  # noqa: S108
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = place.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
        raise SettingsError(f"{place} does not belong to you; set XDG_RUNTIME_DIR to a directory that does.")
    place.chmod(0o700)
    return place


def socket_address(data: Path) -> str:
    """The link's address of the server on a data directory, the same at each of its starts."""
    name = hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:16]
    return f"unix:{runtime_directory() / name}.sock"


class DataDirectory:
    """A data directory that this process owns until `release`.

    Raises:
        DirectoryInUse: another server works on it, also after waiting for one that is ending.
        NewerData: a newer release wrote it.
    """

    def __init__(self, path: Path, wait: float = LOCK_WAIT_SECONDS) -> None:
        self.path = path
        try:
            _make(path)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SettingsError(
                f"The data directory {path} cannot be used ({error.strerror}); choose another with --data."
            ) from error
        try:
            self._acquire(wait)
            self.check_format(path)
        except BaseException:
            os.close(self._lock)
            raise
        with _room(path):
            for name in ("models", "cache", "tmp"):
                (path / name).mkdir(exist_ok=True)

    @staticmethod
    def check_format(path: Path) -> int | None:
        """The format that is there; None for a new directory.

        Raises:
            NewerData: it is one of the future.
        """
        try:
            text = (path / "FORMAT").read_text().strip()
        except FileNotFoundError:
            return None
        if not text.isdigit():
            raise SettingsError(
                f"{path / 'FORMAT'} says {text[:20]!r} instead of a number; this is no data directory of ours."
            )
        if int(text) > FORMAT:
            raise NewerData(
                f"{path} has format {text}, this release reads up to {FORMAT}; upgrade Onceseen to open it."
            )
        return int(text)

    def open_database(self) -> "SqliteDatabase":
        """The record, made or migrated to this release's schema; an older one is backed up first."""
        from onceseen.drivers.sql.database import SqliteDatabase  # not for workers, which only look a socket up here

        file = self.path / "record.db"
        database = SqliteDatabase(file)
        version = database.version()
        if version != database.newest():
            if version is not None:
                database.backup(self.path / f"record-before-{database.newest()}-{now()}.db")
            database.migrate()
        with _room(self.path):
            write_atomically(self.path / "FORMAT", f"{FORMAT}\n")
        return database

    def announce(self, url: str, link: str) -> None:
        """Tell others on this machine where the server is."""
        facts = {"url": url, "link": link, "pid": os.getpid()}
        with _room(self.path):
            write_atomically(self.path / "server.json", json.dumps(facts) + "\n")

    def release(self) -> None:
        """Give the directory up."""
        with suppress(FileNotFoundError):
            (self.path / "server.json").unlink()
        os.close(self._lock)

    def _acquire(self, wait: float) -> None:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DirectoryInUse(self._in_use()) from None
                time.sleep(0.05)
            else:
                return

    def _in_use(self) -> str:
        facts = server_facts(self.path)
        where = f"on {facts['url']} (process {facts['pid']})" if facts else "of another process"
        return f"The data directory {self.path} belongs to a server {where}; stop it, or choose another with --data."


@contextmanager
def _room(path: Path) -> Iterator[None]:
    """A full disk in our words."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"The disk of {path} is full; free some space and start again.") from error
        raise


def _make(path: Path) -> None:
    """Make a directory so that it is still there after a power cut."""
    new = [place for place in (path, *path.parents) if not place.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for place in new:
        with suppress(PermissionError):  # a parent that may be entered and not read
            sync_directory(place.parent)


def is_free(path: Path) -> bool:
    """Whether no server works on a data directory now."""
    try:
        lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def server_facts(path: Path) -> dict[str, str] | None:
    """`url`, `link` and `pid` of the server that works on a directory, as it announced them."""
    try:
        facts: dict[str, str] = json.loads((path / "server.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return facts


def write_atomically(file: Path, text: str) -> None:
    """Replace a small file so that a reader sees the old or the new one, also after a power cut."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    with temporary.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)
