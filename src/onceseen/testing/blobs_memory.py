"""A blob store in memory, for tests."""

import hashlib
import re
import threading
import time
from collections.abc import Iterator, Sequence

from onceseen.errors import BlobDamaged, BlobMissing, StorageFull
from onceseen.ports.blobs import Stat

_NAME = re.compile(r".+/([0-9a-f]{64})-[0-9a-f-]+")


class BlobsMemory:
    """See ports/blobs.py. `room`: bytes it can hold, None for any number."""

    store_id = "00000000-0000-0000-0000-000000000000"

    def __init__(self, room: int | None = None) -> None:
        self.room = room
        self._lock = threading.Lock()
        self._blobs: dict[str, tuple[Stat, bytes]] = {}
        self._count = 0

    def put(self, blobs: Sequence[tuple[str, bytes]]) -> list[str]:
        """Keep a group."""
        with self._lock:
            held = sum(stat.size for stat, _ in self._blobs.values())
            if self.room is not None and held + sum(len(data) for _, data in blobs) > self.room:
                raise StorageFull
            locations = []
            for name, data in blobs:
                if _NAME.fullmatch(name) is None:
                    raise ValueError(f"A blob's name is PROJECT/DIGEST-UUID, not {name!r}.")
                self._count += 1
                location = f"memory:{self._count}"
                self._blobs[location] = Stat(name, location, len(data), time.time()), bytes(data)
                locations.append(location)
            return locations

    def get(self, location: str, start: int = 0, length: int | None = None) -> bytes:
        """The bytes, or a part of them."""
        stat, data = self._find(location)
        if start or length is not None:
            return data[start:] if length is None else data[start : start + length]
        if f"/{hashlib.sha256(data).hexdigest()}-" not in stat.name:
            raise BlobDamaged
        return data

    def stat(self, location: str) -> Stat:
        """Name, size and age."""
        return self._find(location)[0]

    def list(self) -> Iterator[Stat]:
        """All of them, as they are now."""
        with self._lock:
            found = [stat for stat, _ in self._blobs.values()]
        yield from found

    def delete(self, locations: Sequence[str]) -> None:
        """Forget them."""
        with self._lock:
            for location in locations:
                self._blobs.pop(location, None)

    def close(self) -> None:
        """Nothing to do: what is kept stays, so that a test may look at it."""

    def damage(self, location: str) -> None:
        """Change a byte, as a bad disk would."""
        stat, data = self._find(location)
        with self._lock:
            self._blobs[location] = stat, bytes([data[0] ^ 1]) + data[1:]

    def _find(self, location: str) -> tuple[Stat, bytes]:
        with self._lock:
            found = self._blobs.get(location)
        if found is None:
            raise BlobMissing
        return found
