"""The power fails at any moment: what was promised is there, and nothing good is remembered as bad."""

import asyncio
import hashlib
import os
import random
import shutil
import sys

import pytest

from onceseen.domain.job import ItemState, JobState
from onceseen.drivers.blobs_pack import BlobsPack
from onceseen.drivers.directory import DataDirectory
from onceseen.drivers.sql.database import SqliteDatabase
from onceseen.errors import BlobMissing
from onceseen.hub.models import install
from onceseen.inference.manifest import read
from onceseen.testing.blobs_suite import random_blob
from onceseen.testing.inside import hub_inside, label_of, submit
from onceseen.testing.pictures import colour_model, flat
from onceseen.testing.powerloss import Commit, NotedDatabase, Notes, Write, cut
from onceseen.testing.referee import judge

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the notes name files by /proc")

CUTS = pytest.mark.parametrize("cuts", [250, pytest.param(1000, marks=pytest.mark.long)])
GO_ON_EVERY = 20
PACK, OWN = 12_000, 2_000
"""Bytes: so small that packs are begun and files of their own are made all the time."""


@pytest.fixture
def _unsynced(monkeypatch):
    """What is looked at after a cut need not reach a disk itself."""
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)


# -- the store alone -----------------------------------------------------------------------------------------------------------


@CUTS
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("_unsynced")
def test_a_store_keeps_whatever_put_returned(tmp_path, cuts):
    dice = random.Random(cuts)
    store = BlobsPack.open(tmp_path / "store", pack_bytes=PACK, own_file_bytes=OWN)
    notes = Notes(tmp_path / "store")
    kept = {}
    with notes.taken():
        for _ in range(60):
            group = [random_blob(dice.choice((0, 10, 300, 1500, 3000))) for _ in range(dice.randint(1, 6))]
            for location, (_, data) in zip(store.put(group), group, strict=True):
                kept[location] = data
                notes.promise(("put", location, data))
            if dice.random() < 0.4:
                gone = dice.sample(sorted(kept), min(len(kept), 8))
                for location in gone:
                    notes.promise(("deleted", location, kept.pop(location)))
                store.delete(gone)
    store.close()
    for number in range(cuts):
        at = dice.randrange(len(notes.events) + 1)
        place = cut(notes.events, at, dice).write(tmp_path / f"cut-{number}")
        _check_store(place, notes.promises(at))
        shutil.rmtree(place)


def _check_store(place, promises):
    there = {location: data for what, location, data in promises if what == "put"}
    for what, location, _ in promises:
        if what == "deleted":
            there.pop(location)
    store = BlobsPack.open(place, pack_bytes=PACK, own_file_bytes=OWN)
    for location, data in there.items():
        assert store.get(location) == data
    listed = {stat.location for stat in store.list()}
    assert there.keys() <= listed
    fresh = [random_blob(size) for size in (10, 3000)]
    assert [store.get(location) for location in store.put(fresh)] == [data for _, data in fresh]
    gone = sorted(listed)
    store.delete(gone)
    for location in gone:
        with pytest.raises(BlobMissing):
            store.get(location)
    store.close()


# -- the whole record ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Half a second in the life of a server, noted: jobs of one and of many images are submitted and answered."""
    place = tmp_path_factory.mktemp("played")
    model = colour_model(place / "models" / "colours")
    data = place / "data"
    data.mkdir()
    blobs, database = _open(data)
    notes = Notes(data)
    database.notes = notes

    async def client(hub, dice, known):
        for _ in range(10):
            pictures = [_picture(dice, known) for _ in range(dice.choice((1, 1, 3, 12)))]
            digests = [hashlib.sha256(picture).digest() for picture in pictures]
            ended = await submit(
                hub, "colours", pictures, lambda row, digests=digests: notes.promise(("job", row.id, digests))
            )
            if dice.random() < 0.7:
                end = await asyncio.wait_for(ended, 30)
                notes.promise(("answers", end.job.id, None))

    async def play():
        async with hub_inside(database, blobs, model) as hub:
            database.checkpoint_often(40)
            known = []
            await asyncio.gather(*(client(hub, random.Random(seed), known) for seed in range(6)))

    with notes.taken():
        asyncio.run(play())
    database.close()
    blobs.close()
    return notes, model


def _picture(dice, known):
    """A new picture, or one that was sent already; some are stored as files of their own."""
    if known and dice.random() < 0.15:
        return dice.choice(known)
    colour = (dice.randrange(200), dice.randrange(200), dice.randrange(200))
    picture = flat(colour, (40, 40) if dice.random() < 0.2 else (8, 8), "BMP")
    known.append(picture)
    return picture


def _open(data):
    blobs = BlobsPack.open(data, pack_bytes=PACK, own_file_bytes=OWN)
    database = NotedDatabase(data / "record.db")
    if database.version() is None:
        database.migrate()
    return blobs, database


def test_the_notes_hold_what_is_to_be_tested(played):
    notes, _ = played
    commits = [event for event in notes.events if isinstance(event, Commit)]
    assert len(commits) > 30
    assert len({commit.files[0] for commit in commits}) > 3, "the log was never brought home"
    assert all(commit.durable for commit in commits)
    names = set().union(*(cut(notes.events, len(notes.events), random.Random(n)).files for n in range(5)))
    assert len([name for name in names if name.startswith("packs/")]) > 3
    assert len([name for name in names if name.startswith("files/")]) > 3
    assert sum(isinstance(event, Write) for event in notes.events) > 30


@CUTS
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("_unsynced")
def test_everything_promised_is_there_after_a_cut(played, tmp_path, cuts):
    notes, model = played
    dice = random.Random(cuts)
    first = next(at for at in range(len(notes.events)) if notes.promises(at))
    for number in range(cuts):
        at = dice.randrange(first // 2, len(notes.events) + 1)
        place = cut(notes.events, at, dice).write(tmp_path / f"cut-{number}")
        _check_record(place, notes.promises(at))
        if number % GO_ON_EVERY == 0:
            asyncio.run(_go_on(place, model))
            _check_end(place, notes.promises(at))
        shutil.rmtree(place)


def _check_record(place, promises):
    blobs, database = _open(place)
    with database.read() as reader:
        cursor = reader.tasks._cursor
        assert cursor.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        for what, job, digests in promises:
            row = reader.jobs.get(job)
            assert row is not None, f"{what} is lost"
            items = cursor.execute("SELECT digest, state FROM item WHERE job = ? ORDER BY n", (job,)).fetchall()
            if what == "job":
                assert row.state != JobState.RECEIVING
                assert [digest for digest, _ in items] == digests
            else:
                assert {state for _, state in items} == {ItemState.SUCCEEDED}
        for digest, location in cursor.execute("SELECT digest, location FROM image").fetchall():
            assert hashlib.sha256(blobs.get(location)).digest() == digest
        assert not cursor.execute("SELECT * FROM item WHERE state = 3").fetchall()
        assert not cursor.execute("SELECT * FROM task WHERE state = 3").fetchall()
    database.close()
    blobs.close()
    assert judge(place).is_clean, judge(place)


async def _go_on(place, model):
    """The next start: the queue goes on by itself, and new images are taken."""
    blobs, database = _open(place)
    async with hub_inside(database, blobs, model) as hub:
        await asyncio.wait_for(await submit(hub, "colours", [flat((1, 2, 250))]), 30)

        def waiting():
            with database.read() as reader:
                return reader.tasks._cursor.execute("SELECT count(*) FROM item WHERE state = 0").fetchone()[0]

        deadline = asyncio.get_running_loop().time() + 30
        while await hub.read(waiting):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)
    database.close()
    blobs.close()


def _check_end(place, promises):
    verdict = judge(place)
    assert verdict.is_clean, verdict
    assert set(verdict.items) == {ItemState.SUCCEEDED}
    assert {digest.hex() for what, _, digests in promises if what == "job" for digest in digests} <= verdict.answered
    blobs = BlobsPack.open(place, pack_bytes=PACK, own_file_bytes=OWN)
    database = SqliteDatabase(place / "record.db")
    with database.read() as reader:
        sql = "SELECT image.location, task.label FROM task JOIN image ON image.digest = task.input"
        for location, label in reader.tasks._cursor.execute(sql).fetchall():
            blue, green, red = blobs.get(location)[-3:]  # BMP has no padding at these widths
            if blobs.get(location)[:2] == b"BM" and len({red, green, blue}) == 3:
                assert label == label_of(red, green, blue)
    database.close()
    blobs.close()


# -- what else is promised -----------------------------------------------------------------------------------------------------


def test_a_model_is_on_the_disk_before_it_is_promised(tmp_path):
    manifest, directory = read(colour_model(tmp_path / "outside" / "colours"))
    store = tmp_path / "data" / "models"
    store.mkdir(parents=True)
    notes = Notes(tmp_path / "data")
    with notes.taken():
        _, location = install(store, manifest, directory)
    for seed in range(50):
        left = cut(notes.events, len(notes.events), random.Random(seed)).files
        assert left[f"models/{location}/weights.onnx"] == (directory / "weights.onnx").read_bytes()


def test_a_new_data_directory_stays_where_it_was_made(tmp_path):
    notes = Notes(tmp_path)
    with notes.taken():
        DataDirectory(tmp_path / "deep" / "down" / "data").release()
    for seed in range(50):
        assert "deep/down/data" in cut(notes.events, len(notes.events), random.Random(seed)).directories
