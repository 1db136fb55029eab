"""Blobs that are files of their own: too large to be worth a place in a pack."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote, unquote
from uuid import uuid4

from onceseen.drivers import blobs_pack_file as packfile
from onceseen.errors import BlobMissing
from onceseen.ports.blobs import Stat


class FileBlobs:
    """The half of BlobsPack that keeps one file for each blob. Errors of the system pass through."""

    SCHEME = "file:"

    def __init__(self, directory: Path) -> None:
        self._files = directory / "files"
        self._drafts = directory / "tmp"

    def open(self) -> None:
        """Make the directories; remove what a killed process left half-written."""
        for directory in (self._files, self._drafts):
            directory.mkdir(mode=0o700, exist_ok=True)
        for draft in self._drafts.iterdir():
            draft.unlink()

    @classmethod
    def location(cls, name: str) -> str:
        """Where the blob of this name lies."""
        return cls.SCHEME + name

    def prepare(self, blobs: Sequence[tuple[str, bytes]], undo: contextlib.ExitStack) -> Sequence[tuple[Path, Path]]:
        """Write and sync drafts; returns (draft, final path) of each. `undo` takes the drafts away again."""
        ready = []
        for name, data in blobs:
            draft = self._drafts / uuid4().hex
            undo.callback(draft.unlink, missing_ok=True)
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                packfile.write_at(fd, [data], 0)
                packfile.sync(fd)
            finally:
                os.close(fd)
            ready.append((draft, self._path(name)))
        return ready

    def publish(self, ready: Sequence[tuple[Path, Path]], undo: contextlib.ExitStack) -> None:
        """Give the drafts their names, durably."""
        for draft, path in ready:
            if not path.parent.is_dir():
                path.parent.mkdir(mode=0o700)
                packfile.sync_directory(self._files)
            undo.callback(path.unlink, missing_ok=True)
            draft.rename(path)
        for directory in {path.parent for _, path in ready}:
            packfile.sync_directory(directory)

    def read(self, location: str, start: int, length: int | None) -> tuple[str, bytes]:
        """Name and bytes of a blob, unverified. Raises BlobMissing."""
        name = location.removeprefix(self.SCHEME)
        try:
            fd = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise BlobMissing from error
        try:
            size = max(0, os.fstat(fd).st_size - start)
            return name, packfile.read_at(fd, size if length is None else min(size, length), start)
        finally:
            os.close(fd)

    def stat(self, location: str) -> Stat:
        """Name, size and age of one blob. Raises BlobMissing."""
        name = location.removeprefix(self.SCHEME)
        try:
            found = self._path(name).stat()
        except FileNotFoundError as error:
            raise BlobMissing from error
        return Stat(name, location, found.st_size, found.st_mtime)

    def delete(self, locations: Sequence[str]) -> None:
        """Unlink; what is gone already is no error."""
        touched = set()
        for location in locations:
            with contextlib.suppress(FileNotFoundError, BlobMissing):
                path = self._path(location.removeprefix(self.SCHEME))
                path.unlink()
                touched.add(path.parent)
        for directory in touched:
            packfile.sync_directory(directory)

    def list(self) -> Iterator[Stat]:
        """All blobs that are files."""
        for path in self._files.glob("??/*"):
            with contextlib.suppress(BlobMissing):
                yield self.stat(self.location(unquote(path.name)))

    def _path(self, name: str) -> Path:
        """Where a blob of this name lies. Raises BlobMissing for a text that is no blob's name."""
        try:
            digest = packfile.digest_of(name)
        except ValueError as error:
            raise BlobMissing(str(error)) from error
        return self._files / digest[:2] / quote(name, safe="")
