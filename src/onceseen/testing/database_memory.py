"""The in-memory database: the SQLite driver on a file in RAM (DESIGN.md section 4)."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from onceseen.drivers.sql.database import SqliteDatabase

RAM = Path("/dev/shm")


def ram_directory() -> Path | None:
    """Where files lie in memory; None (the system's temporary directory) where there is no such place."""
    return RAM if RAM.is_dir() else None


@contextmanager
def database_in_memory() -> Iterator[SqliteDatabase]:
    """An empty record of today's schema; gone when the block ends."""
    empty = _empty()
    with tempfile.TemporaryDirectory(prefix="onceseen-", dir=ram_directory()) as folder:
        file = Path(folder) / "record.db"
        file.write_bytes(empty)
        database = SqliteDatabase(file)
        try:
            yield database
        finally:
            database.close()


@cache
def _empty() -> bytes:
    """A migrated file: migrating anew for every test would cost more than most tests."""
    with tempfile.TemporaryDirectory(prefix="onceseen-", dir=ram_directory()) as folder:
        file = Path(folder) / "record.db"
        database = SqliteDatabase(file)
        database.migrate()
        database.close()
        return file.read_bytes()
