"""What every blob store must do (ports/blobs.py). A driver's test inherits the class and says how to make one."""

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from onceseen.domain.ids import new_id, text_of
from onceseen.errors import BlobMissing
from onceseen.ports.blobs import Blobs

SIZES = (0, 1, 4095, 4096, 70_000, 5_000_000)
"""Bytes; among them an empty blob and one that drivers keep as a file of its own."""


def blob(data: bytes, project: str = "p") -> tuple[str, bytes]:
    """A name for these bytes, never used before, and the bytes."""
    return f"{project}/{hashlib.sha256(data).hexdigest()}-{text_of(new_id())}", data


def random_blob(size: int) -> tuple[str, bytes]:
    """A blob of `size` random bytes."""
    return blob(os.urandom(size))


class BlobsSuite:
    """Inherit, override `blobs`."""

    @pytest.fixture
    def blobs(self, tmp_path: Path) -> Iterator[Blobs]:
        """An empty store, closed afterwards."""
        raise NotImplementedError

    def test_what_was_put_is_got(self, blobs: Blobs) -> None:
        """Every size, alone and in one group, locations in the order of the blobs."""
        group = [random_blob(size) for size in SIZES]
        locations = blobs.put(group) + [blobs.put([one])[0] for one in map(random_blob, SIZES)]
        assert [blobs.get(location) for location in locations[: len(group)]] == [data for _, data in group]
        assert len(set(locations)) == 2 * len(SIZES)

    def test_an_empty_group_is_no_error(self, blobs: Blobs) -> None:
        """Nothing in, nothing out."""
        assert blobs.put([]) == []
        assert list(blobs.list()) == []

    @pytest.mark.parametrize("size", [1000, 5_000_000])
    def test_a_part_can_be_read(self, blobs: Blobs, size: int) -> None:
        """Like slicing: cut off at the end, empty behind it."""
        name, data = random_blob(size)
        (location,) = blobs.put([(name, data)])
        for start, length in [(0, 10), (990, 5), (990, 100_000_000), (size, 1), (size + 5, 5), (3, 0)]:
            assert blobs.get(location, start, length) == data[start : start + length]
        assert blobs.get(location, 7) == data[7:]

    def test_stat_and_list_tell_name_size_and_place(self, blobs: Blobs) -> None:
        """The list has each blob once, and agrees with stat."""
        group = [random_blob(size) for size in SIZES]
        locations = blobs.put(group)
        found = {stat.location: stat for stat in blobs.list()}
        assert set(found) == set(locations)
        for (name, data), location in zip(group, locations, strict=True):
            stat = blobs.stat(location)
            assert (stat.name, stat.size) == (name, len(data))
            assert stat == found[location]
            assert 1_600_000_000 < stat.modified < 10_000_000_000

    def test_the_same_bytes_under_two_names_are_two_blobs(self, blobs: Blobs) -> None:
        """Deleting one leaves the other."""
        first, second = blobs.put([blob(b"same"), blob(b"same", project="other one")])
        blobs.delete([first])
        assert blobs.get(second) == b"same"

    def test_a_deleted_blob_is_missing(self, blobs: Blobs) -> None:
        """For get, a part of it, stat and list; its neighbours stay; deleting again is no error."""
        group = [random_blob(size) for size in SIZES]
        locations = blobs.put(group)
        for _ in range(2):
            blobs.delete(locations[::2])
        for location in locations[::2]:
            with pytest.raises(BlobMissing):
                blobs.get(location)
            with pytest.raises(BlobMissing):
                blobs.get(location, 0, 1)
            with pytest.raises(BlobMissing):
                blobs.stat(location)
        assert [blobs.get(location) for location in locations[1::2]] == [data for _, data in group[1::2]]
        assert {stat.location for stat in blobs.list()} == set(locations[1::2])
        blobs.delete(locations)
        assert list(blobs.list()) == []

    def test_an_unknown_location_is_missing(self, blobs: Blobs) -> None:
        """Also one of another driver, or none at all; deleting it is no error."""
        for location in ("", "nonsense", "pack:000099:0:5:00000000", "file:../../etc/passwd", "s3://bucket/key"):
            with pytest.raises(BlobMissing):
                blobs.get(location)
            with pytest.raises(BlobMissing):
                blobs.stat(location)
        blobs.delete(["", "nonsense", "pack:000099:0:5:00000000", "file:../../etc/passwd"])

    def test_threads_read_and_list_while_one_puts_and_one_deletes(self, blobs: Blobs) -> None:
        """Everything that was put is read back right, whatever else happens meanwhile."""
        stored: list[tuple[str, bytes]] = []
        doomed: list[str] = []
        failures: list[BaseException] = []
        done = threading.Event()

        def read() -> None:
            try:
                while not done.is_set():
                    for location, data in stored[-20:]:
                        assert blobs.get(location) == data
                    known = {location for location, _ in list(stored)}
                    assert known <= {stat.location for stat in blobs.list()}
            except BaseException as error:
                failures.append(error)

        def remove() -> None:
            try:
                while not done.is_set():
                    blobs.delete(doomed[-10:])
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=read), threading.Thread(target=read), threading.Thread(target=remove)]
        for thread in threads:
            thread.start()
        try:
            for number in range(40):
                group = [random_blob(100 + 3000 * (number % 7)) for _ in range(10)]
                locations = blobs.put(group)
                stored.extend((place, data) for place, (_, data) in list(zip(locations, group, strict=True))[::2])
                doomed.extend(locations[1::2])
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert failures == []
