"""The pack store: damage, full disks, failing syncs, rooms given back."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from onceseen.drivers import blobs_pack_file as packfile
from onceseen.drivers.blobs_pack import BlobsPack, Place
from onceseen.errors import BlobDamaged, BlobMissing, SettingsError, StorageFull, StoreError
from onceseen.testing.blobs_suite import random_blob


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(directory):
    store = BlobsPack.open(directory, pack_bytes=100_000, own_file_bytes=50_000)
    yield store
    store.close()


def pack_of(directory, number=1):
    return directory / "packs" / f"{number:06d}.pack"


def place_of(location) -> Place:
    place = Place.parse(location)
    assert place is not None
    return place


def data_at(path, offset=0) -> int:
    with path.open("rb") as file:
        record = packfile.read_head(file.fileno(), offset)
    assert record is not None
    return record.data_at


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def change_byte(path, at):
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(1)
        file.seek(at)
        file.write(bytes([old[0] ^ 1]))


def test_the_id_stays_and_a_lost_one_is_not_made_up(directory, store):
    store.put([random_blob(10)])
    again = BlobsPack.open(directory)
    assert again.store_id == store.store_id
    again.close()
    (directory / "store-id").write_text("nonsense")
    with pytest.raises(SettingsError, match="UUID"):
        BlobsPack.open(directory)
    (directory / "store-id").unlink()
    with pytest.raises(SettingsError, match="missing"):
        BlobsPack.open(directory)


def test_two_stores_have_two_ids(tmp_path):
    stores = [BlobsPack.open(tmp_path / name) for name in "ab"]
    assert stores[0].store_id != stores[1].store_id
    for store in stores:
        store.close()


def test_a_reopened_store_appends_to_its_newest_pack(directory, store):
    group = [random_blob(1000) for _ in range(3)]
    locations = store.put(group)
    store.close()
    again = BlobsPack.open(directory)
    locations += again.put([random_blob(10)])
    assert {place_of(location).pack for location in locations} == {1}
    assert [again.get(location) for location in locations[:3]] == [data for _, data in group]
    again.close()


@pytest.mark.parametrize("size", [1, 4000, 60_000])
def test_every_changed_byte_of_a_blob_is_found(directory, store, size):
    name, data = random_blob(size)
    (location,) = store.put([(name, data)])
    if location.startswith("file:"):
        (path,) = directory.glob("files/*/*")
        begin = 0
    else:
        path = pack_of(directory)
        begin = data_at(path)
    for at in {0, size // 2, size - 1}:
        change_byte(path, begin + at)
        with pytest.raises(BlobDamaged):
            store.get(location)
        change_byte(path, begin + at)
        assert store.get(location) == data


def test_every_changed_byte_of_a_header_is_found_and_hides_no_other_blob(directory, store):
    first, second, third = (random_blob(50) for _ in range(3))
    locations = store.put([first, second, third])
    path = pack_of(directory)
    begin = place_of(locations[1]).offset
    for at in range(begin, place_of(locations[2]).offset - 50):
        change_byte(path, at)
        with pytest.raises(BlobDamaged):
            store.get(locations[1])
        with pytest.raises(BlobDamaged):
            store.stat(locations[1])
        assert {stat.name for stat in store.list()} == {first[0], third[0]}
        change_byte(path, at)
    assert store.get(locations[1]) == second[1]


def test_damage_in_the_middle_of_the_open_pack_cuts_nothing(directory, store):
    group = [random_blob(500) for _ in range(5)]
    locations = store.put(group)
    store.close()
    change_byte(pack_of(directory), place_of(locations[1]).offset)
    again = BlobsPack.open(directory)
    assert [again.get(location) for location in locations[2:]] == [data for _, data in group[2:]]
    again.put([random_blob(500)])
    assert again.get(locations[4]) == group[4][1]
    assert len(list(again.list())) == 5
    again.close()


def test_a_location_whose_place_holds_another_blob_is_missing(store):
    (location,) = store.put([random_blob(100)])
    place = place_of(location)
    with pytest.raises(BlobMissing):
        store.get(str(place._replace(crc=place.crc ^ 1)))
    store.delete([str(place._replace(crc=place.crc ^ 1))])
    assert len(store.get(location)) == 100


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("after", [0, 1, 700])
def test_a_full_disk_takes_nothing_of_the_group(directory, store, monkeypatch, code, after):
    before = random_blob(500)
    (kept,) = store.put([before])
    size = pack_of(directory).stat().st_size

    def full(fd, buffers, offset):
        os.pwrite(fd, b"".join(buffers)[:after], offset)
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(packfile, "write_at", full)
        for _ in range(2):
            with pytest.raises(StorageFull, match="free some space"):
                store.put([random_blob(500), random_blob(500)])
            assert pack_of(directory).stat().st_size == size
            assert [stat.location for stat in store.list()] == [kept]
    group = [random_blob(500), random_blob(500)]
    assert [store.get(location) for location in store.put(group)] == [data for _, data in group]
    assert store.get(kept) == before[1]


def test_a_group_of_both_kinds_fails_as_one(directory, store, monkeypatch):
    def full(fd, buffers, offset):
        raise OSError(errno.ENOSPC, "full")

    group = [random_blob(100), random_blob(80_000), random_blob(200), random_blob(70_000)]
    with monkeypatch.context() as patch:
        patch.setattr(packfile, "write_at", full)
        with pytest.raises(StorageFull):
            store.put(group)
    names = store._files.publish

    def fails_late(ready, undo):
        names(ready, undo)
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(store._files, "publish", fails_late)
        with pytest.raises(StorageFull):
            store.put(group)
    assert list(store.list()) == []
    assert not list(directory.glob("files/*/*"))
    assert not list((directory / "tmp").iterdir())
    assert pack_of(directory).stat().st_size == 0
    assert [store.get(location) for location in store.put(group)] == [data for _, data in group]


@pytest.mark.parametrize(("code", "error"), [(errno.EIO, StoreError), (errno.ENOSPC, StorageFull)])
def test_a_pack_whose_sync_failed_is_never_written_again(directory, store, monkeypatch, code, error):
    before = random_blob(500)
    (kept,) = store.put([before])

    def broken(fd):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(packfile, "sync", broken)
        with pytest.raises(error):
            store.put([random_blob(500)])
    size = pack_of(directory).stat().st_size
    after = random_blob(600)
    (location,) = store.put([after])
    assert place_of(location).pack == 2
    assert pack_of(directory).stat().st_size == size
    assert (store.get(kept), store.get(location)) == (before[1], after[1])


def test_a_file_size_limit_of_the_system_is_a_full_disk(directory):
    """A real refusal of the kernel, in a process of its own, half-way through a group."""
    program = """
import resource, sys
from pathlib import Path
from onceseen.drivers.blobs_pack import BlobsPack
from onceseen.errors import StorageFull
from onceseen.testing.blobs_suite import random_blob

store = BlobsPack.open(Path(sys.argv[1]))
kept = random_blob(30_000)
(location,) = store.put([kept])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
try:
    store.put([random_blob(40_000), random_blob(40_000)])
except StorageFull:
    pass
else:
    raise SystemExit("took it")
assert len(list(store.list())) == 1
assert (Path(sys.argv[1]) / "packs/000001.pack").stat().st_size < 31_000
small = random_blob(1000)
assert store.get(store.put([small])[0]) == small[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
large = random_blob(80_000)
assert store.get(store.put([large])[0]) == large[1]
assert store.get(location) == kept[1]
store.close()
"""
    run = subprocess.run([sys.executable, "-c", program, str(directory)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr


def test_deletion_gives_blocks_back_and_touches_no_neighbour(directory):
    store = BlobsPack.open(directory)
    group = [random_blob(400_000) for _ in range(5)]
    locations = store.put(group)
    path = pack_of(directory)
    before = path.stat()
    store.delete([locations[1], locations[3]])
    after = path.stat()
    assert after.st_size == before.st_size
    for at in (0, 2, 4):
        assert store.get(locations[at]) == group[at][1]
    store.close()
    again = BlobsPack.open(directory)
    assert [stat.location for stat in again.list()] == locations[::2]
    again.close()
    probe = directory / "probe"
    probe.write_bytes(os.urandom(100_000))
    with probe.open("r+b") as file:
        if not packfile.punch(file.fileno(), 0, 100_000):
            pytest.skip("this file system makes no holes")
    assert (before.st_blocks - after.st_blocks) * 512 >= 2 * (400_000 - 2 * packfile.BLOCK)


def test_without_holes_the_bytes_stay_until_the_pack_is_dead(directory, store, monkeypatch):
    monkeypatch.setattr(packfile, "punch", lambda fd, start, end: False)
    group = [random_blob(30_000) for _ in range(9)]
    locations = [store.put([one])[0] for one in group]
    first = [location for location in locations if place_of(location).pack == 1]
    store.delete(first[:-1])
    assert store.get(first[-1]) == group[len(first) - 1][1]
    store.delete(first)
    assert not pack_of(directory).exists()
    with pytest.raises(BlobMissing):
        store.get(first[0])
    store.delete(first)
    rest = locations[len(first) :]
    assert [store.get(location) for location in rest] == [data for _, data in group[len(first) :]]


def test_the_newest_pack_is_never_removed(directory, store):
    locations = store.put([random_blob(1000), random_blob(1000)])
    store.delete(locations)
    assert pack_of(directory).exists()
    store.put([random_blob(99_000 // 2)])
    store.put([random_blob(99_000 // 2)])
    store.put([random_blob(99_000 // 2)])
    assert pack_of(directory, 2).exists()


def test_a_pack_that_died_while_it_was_open_goes_later(directory, store):
    store.delete(store.put([random_blob(40_000), random_blob(40_000)]))
    store.put([random_blob(40_000)])
    assert pack_of(directory).exists()
    store.delete([])
    assert not pack_of(directory).exists()


def test_a_dead_pack_of_an_earlier_life_goes_after_a_list(directory, store):
    store.delete(store.put([random_blob(40_000), random_blob(40_000)]))
    store.put([random_blob(40_000)])
    store.close()
    again = BlobsPack.open(directory)
    assert len(list(again.list())) == 1
    again.delete([])
    assert not pack_of(directory).exists()
    again.close()


def test_a_pack_with_damage_is_not_removed(directory, store):
    locations = store.put([random_blob(30_000) for _ in range(3)])
    store.put([random_blob(30_000)])
    change_byte(pack_of(directory), place_of(locations[1]).offset)
    store.delete(locations)
    assert pack_of(directory).exists()
    change_byte(pack_of(directory), place_of(locations[1]).offset)
    assert len(store.get(locations[1])) == 30_000


def test_a_reader_of_a_blob_that_is_deleted_meanwhile_sees_it_whole_or_missing(store):
    for _ in range(30):
        name, data = random_blob(40_000)
        (location,) = store.put([(name, data)])
        seen: list[bytes | BlobDamaged] = []

        def read(location=location, seen=seen):
            while True:
                try:
                    seen.append(store.get(location))
                    seen.append(store.get(location, 100, 39_900))
                except BlobMissing:
                    return
                except BlobDamaged as error:
                    seen.append(error)
                    return

        thread = threading.Thread(target=read)
        thread.start()
        store.delete([location])
        thread.join()
        assert all(one in (data, data[100:]) for one in seen)


def test_a_part_read_from_a_hole_is_missing_not_zeros(store, monkeypatch):
    (location,) = store.put([random_blob(40_000)])
    read = packfile.read_at

    def deletes_first(fd, size, offset):
        if size == 30_000:
            store.delete([location])
        return read(fd, size, offset)

    monkeypatch.setattr(packfile, "read_at", deletes_first)
    with pytest.raises(BlobMissing):
        store.get(location, 5000, 30_000)


def test_a_pack_is_closed_when_its_last_reader_is_done(store):
    store.put([random_blob(100)])
    with store._readers.use(1) as fd, store._readers.use(1):
        store._readers.forget(1)
        assert len(os.pread(fd, 10, 0)) == 10
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_few_packs_are_held_open(directory, store, monkeypatch):
    monkeypatch.setattr(store._readers, "_limit", 2)
    group = [random_blob(49_000) for _ in range(10)]
    locations = [store.put([one])[0] for one in group]
    held = open_files()
    for _ in range(2):
        assert [store.get(location) for location in locations] == [data for _, data in group]
    assert open_files() <= held + 2


def test_a_name_that_is_none_is_refused_before_anything_is_written(directory, store):
    for name in ("", "p/abc", "p/" + "0" * 64, "0" * 64 + "-1"):
        with pytest.raises(ValueError, match="PROJECT/DIGEST-UUID"):
            store.put([random_blob(10), (name, b"")])
    assert list(store.list()) == []
