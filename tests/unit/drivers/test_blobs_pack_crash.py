"""Crashes of the pack store: torn tails at every byte, and processes that are really killed."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from onceseen.drivers.blobs_pack import BlobsPack, Place
from onceseen.errors import BlobMissing
from onceseen.testing.blobs_suite import random_blob

PUTTER = """
import os, sys
from pathlib import Path
from onceseen.drivers.blobs_pack import BlobsPack
from onceseen.testing.blobs_suite import random_blob

store = BlobsPack.open(Path(sys.argv[1]), pack_bytes=3_000_000, own_file_bytes=300_000)
while True:
    group = [random_blob(int.from_bytes(os.urandom(4), "big") % size) for size in (100, 5_000, 60_000, 400_000)]
    for location, (name, data) in zip(store.put(group), group):
        os.write(2, f"{location} {name} {len(data)}\\n".encode())
"""


def test_a_torn_tail_is_cut_at_every_byte_of_the_last_record(tmp_path):
    origin = tmp_path / "origin"
    store = BlobsPack.open(origin)
    kept = [random_blob(size) for size in (0, 100, 3000)]
    locations = store.put(kept)
    (last,) = store.put([random_blob(90)])
    store.close()
    whole = (origin / "packs/000001.pack").read_bytes()
    place = Place.parse(last)
    assert place is not None
    begin = place.offset
    copy = tmp_path / "copy"
    shutil.copytree(origin, copy)
    path = copy / "packs/000001.pack"
    for end in range(begin, len(whole)):
        path.write_bytes(whole[:end])
        again = BlobsPack.open(copy)
        assert path.stat().st_size == begin
        assert [again.get(location) for location in locations] == [data for _, data in kept]
        with pytest.raises(BlobMissing):
            again.get(last)
        fresh = random_blob(95)
        assert again.get(again.put([fresh])[0]) == fresh[1]
        with pytest.raises(BlobMissing):
            again.get(last)  # another blob lies there now
        assert len(list(again.list())) == 4
        again.close()


def test_a_tail_of_zeros_or_noise_is_cut(tmp_path):
    """What a file system may leave when the size was written before the bytes."""
    for tail in (bytes(10_000), random.Random(1).randbytes(10_000), b"OSb1" * 2500):
        directory = tmp_path / hashlib.sha256(tail).hexdigest()[:8]
        store = BlobsPack.open(directory)
        name, data = random_blob(5000)
        (location,) = store.put([(name, data)])
        store.close()
        path = directory / "packs/000001.pack"
        size = path.stat().st_size
        path.write_bytes(path.read_bytes() + tail)
        again = BlobsPack.open(directory)
        assert path.stat().st_size == size
        assert again.get(location) == data
        again.close()


def test_only_the_newest_pack_is_cut(tmp_path):
    store = BlobsPack.open(tmp_path, pack_bytes=10_000)
    for _ in range(3):
        store.put([random_blob(9000)])
    store.close()
    packs = sorted((tmp_path / "packs").iterdir())
    for path in packs:
        path.write_bytes(path.read_bytes() + b"torn")
    sizes = [path.stat().st_size for path in packs]
    BlobsPack.open(tmp_path).close()
    assert [path.stat().st_size for path in packs] == [*sizes[:2], sizes[2] - 4]


def test_half_written_files_of_a_killed_process_are_removed(tmp_path):
    BlobsPack.open(tmp_path).close()
    (tmp_path / "tmp/left-over").write_bytes(b"half")
    store = BlobsPack.open(tmp_path)
    assert not list((tmp_path / "tmp").iterdir())
    assert list(store.list()) == []
    store.close()


@pytest.mark.parametrize("run", range(4))
def test_whatever_put_returned_survives_a_kill(tmp_path, run):
    directory = tmp_path / "store"
    told: list[list[str]] = []
    for life in range(3):
        report = tmp_path / f"report-{life}"
        with report.open("wb") as out:
            child = subprocess.Popen(
                [sys.executable, "-c", PUTTER, str(directory)], stdout=subprocess.DEVNULL, stderr=out
            )
            deadline = time.monotonic() + 30
            while report.stat().st_size < 2000 and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(random.random() * 0.1)
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
        told += [line.split() for line in report.read_text().splitlines()]
    assert len(told) > 20
    store = BlobsPack.open(directory, pack_bytes=3_000_000, own_file_bytes=300_000)
    for location, name, size in told:
        assert store.stat(location).name == name
        assert len(store.get(location)) == int(size)
    listed = {stat.location for stat in store.list()}
    assert {location for location, _, _ in told} <= listed
    for location in listed:
        store.get(location)  # what nobody was told of is whole as well, or was cut off
    assert not list((directory / "tmp").iterdir())
    store.close()
