"""A disk with faults under real processes: slow, or full, as long as a test says so.

`settings(place)` go into a server's environment. Python then loads a `sitecustomize` that puts wrappers around the calls by
which bytes and rows get onto the disk; at each call they look into a file what is the matter.
"""

import errno
import json
import os
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STATE = "ONCESEEN_TEST_DISK"


class FaultyDisk:
    """What is the matter with the disk of the processes that have `settings`; nothing at first."""

    def __init__(self, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self._file = place / "state.json"
        (place / "sitecustomize.py").write_text("from onceseen.testing import faulty_disk\nfaulty_disk.install()\n")
        self.settings: Mapping[str, str] = {
            STATE: str(self._file),
            "PYTHONPATH": f"{place}{os.pathsep}{Path(__file__).parents[2]}",
        }
        self.now()

    def now(self, *, delay: float = 0.0, full: bool = False) -> None:
        """From now on each sync takes `delay` seconds longer; no new byte finds room if it is `full`."""
        draft = self._file.with_suffix(".new")
        draft.write_text(json.dumps({"delay": delay, "full": full}))
        draft.replace(self._file)


class Connection(sqlite3.Connection):
    """SQLite's own calls are not Python's: its disk is slow or full when it commits."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        """Commit late or not at all."""
        if sql == "COMMIT":
            _slow()
            if _state()["full"]:
                raise sqlite3.OperationalError("database or disk is full")
        return super().execute(sql, *parameters)


def install() -> None:
    """In a process that is to have the faults: wrap the calls."""
    connect, pwritev = sqlite3.connect, os.pwritev

    def faulty_connect(*arguments: Any, **more: Any) -> Any:
        return connect(*arguments, **{"factory": Connection, **more})

    def faulty_pwritev(*arguments: Any) -> int:
        if _state()["full"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwritev(*arguments)

    sqlite3.connect = sqlite3.dbapi2.connect = faulty_connect
    os.pwritev = faulty_pwritev
    for name in ("fsync", "fdatasync"):
        setattr(os, name, _slowly(getattr(os, name)))


def _slowly(real: Any) -> Any:
    def call(fd: int) -> None:
        _slow()
        real(fd)

    return call


def _slow() -> None:
    time.sleep(_state()["delay"])


def _state() -> Any:
    return json.loads(Path(os.environ[STATE]).read_text())
