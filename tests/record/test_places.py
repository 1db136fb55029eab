"""Where bytes lie, and who may rely on it: no image is promised whose bytes a sweep takes away (RECORD.md 1.4, 3.6)."""

import asyncio
import hashlib
import shutil

import pytest

from onceseen import wiring
from onceseen.domain.ids import now
from onceseen.domain.job import Control
from onceseen.domain.task import TaskState
from onceseen.errors import BlobMissing, OnceseenError, SettingsError, StorageFull
from onceseen.flow import control, sweep
from onceseen.hub import chores, writer
from onceseen.hub.settings import HubSettings
from onceseen.testing.blobs_memory import BlobsMemory
from onceseen.testing.faults import FlakyBlobs
from onceseen.testing.record_hub import running_hub


def location(bench, image):
    with bench.hub.database.read() as reader:
        found = reader.images.locate(1, [hashlib.sha256(image).digest()], paths=True)
    return found.get(hashlib.sha256(image).digest())


async def delete(bench, job):
    await bench.hub.writer.call(lambda tx: control.ask(tx, job, Control.DELETE, now()))
    bench.hub.controlled.set()
    await bench.until(lambda: bench.job(job) is None)


async def forget(bench, monkeypatch, hours=2):
    """The hourly sweep, with a clock that was set forward."""
    monkeypatch.setattr(chores, "now", lambda: now() + hours * sweep.HOUR)
    await chores.forget(bench.hub)
    monkeypatch.setattr(chores, "now", now)


def test_an_image_that_comes_again_after_its_bytes_were_swept_is_stored_anew(monkeypatch):
    async def run():
        async with running_hub() as bench:
            await delete(bench, await bench.submit(b"image"))
            old = location(bench, b"image")
            assert bench.hub.blobs.get(old) == b"image"
            await forget(bench, monkeypatch, hours=0)
            assert bench.hub.blobs.get(old) == b"image", "an hour has to go by"
            await forget(bench, monkeypatch)
            with pytest.raises(BlobMissing):
                bench.hub.blobs.get(old)
            await bench.submit(b"image")
            assert bench.hub.blobs.get(location(bench, b"image")) == b"image"

    asyncio.run(run())


def test_bytes_that_wait_for_their_sweep_are_relied_on_by_nobody(monkeypatch):
    """The place is known from before, or asked of the record; the sweep comes between the pack and the rows."""

    async def run(known):
        async with running_hub() as bench:
            await delete(bench, await bench.submit(b"image"))
            monkeypatch.setattr(writer, "KNOWN_SECONDS", 600.0 if known else -1.0)
            held, hand_on = [], bench.hub.pack._hand_on
            bench.hub.pack._hand_on = held.append
            again = asyncio.create_task(bench.submit(b"image"))
            await bench.until(lambda: held)
            monkeypatch.setattr(writer, "KNOWN_SECONDS", 600.0)
            if not known:  # the hour is over before its rows are written
                await forget(bench, monkeypatch)
            hand_on(held[0])
            await again
            if known:  # its rows were written in time
                await forget(bench, monkeypatch)
            assert bench.hub.blobs.get(location(bench, b"image")) == b"image"

    for known in (True, False):
        asyncio.run(run(known))


def test_a_million_deleted_images_are_not_swept_at_500_an_hour(monkeypatch):
    async def run():
        async with running_hub() as bench:
            await delete(bench, await bench.submit(*[b"%d" % n for n in range(1200)]))
            assert len(list(bench.hub.blobs.list())) == 1200
            await forget(bench, monkeypatch)
            assert list(bench.hub.blobs.list()) == []

    asyncio.run(run())


def test_the_pack_thread_forgets_old_places_but_not_those_it_is_asked_for(monkeypatch):
    """The oldest one comes again together with a new image that takes its room."""
    monkeypatch.setattr(writer, "KNOWN_PLACES", 3)

    async def run():
        async with running_hub() as bench:
            await bench.submit(b"1", b"2", b"3")
            assert list(bench.hub.pack._placed) == [hashlib.sha256(b"%d" % n).digest() for n in (1, 2, 3)]
            await bench.submit(b"1", b"4", b"5", b"6")
            assert len(bench.hub.pack._placed) == 3
            for image in (b"1", b"2", b"3", b"4", b"5", b"6"):
                assert bench.hub.blobs.get(location(bench, image)) == image
            assert len(list(bench.hub.blobs.list())) == 6

    asyncio.run(run())


def test_damaged_bytes_fail_with_their_reason_and_are_replaced_by_good_ones():
    async def run(name):
        async with running_hub() as bench:
            first = await bench.submit(b"image")
            old = location(bench, b"image")
            assert isinstance(bench.hub.blobs, BlobsMemory)
            bench.hub.blobs.damage(old) if name == "blob-damaged" else bench.hub.blobs.delete([old])
            bench.hub.cache.take(hashlib.sha256(b"image").digest())  # as after a restart
            worker = bench.worker()
            assert (await bench.ended(first)).failed == 1
            assert bench.items(first)[0].error_kind == name
            await bench.until(lambda: location(bench, b"image") is None)
            assert worker.seen == []
            await bench.idle()
            second = await bench.submit(b"image")
            assert (await bench.ended(second)).succeeded == 1
            assert bench.hub.blobs.get(location(bench, b"image")) == b"image"
            assert bench.items(first)[0].error_kind == name

    for name in ("blob-damaged", "blob-missing"):
        asyncio.run(run(name))


def test_a_store_that_fails_while_it_is_read_keeps_no_task(monkeypatch):
    """Its tasks go back and run later; nothing that was not read is sent to a worker as an empty picture."""

    async def run():
        blobs = FlakyBlobs(BlobsMemory(), fail={"get": {1, 3}})
        async with running_hub(blobs=blobs) as bench:
            job = await bench.submit(*[b"%d" % n for n in range(4)])
            bench.hub.cache = type(bench.hub.cache)(0)
            worker = bench.worker()
            assert (await bench.ended(job)).succeeded == 4
            assert sorted(worker.seen) == [b"0", b"1", b"2", b"3"]
            await bench.idle()
            assert (worker.link.planned_ms, worker.link.held_ms) == (0, 0)

    asyncio.run(run())


@pytest.mark.parametrize("error", [StorageFull, OnceseenError])
def test_a_refused_chunk_leaves_no_early_start_behind(error):
    async def run():
        blobs = FlakyBlobs(BlobsMemory(), fail={"put": {2}}, error=error)
        async with running_hub(blobs=blobs) as bench:
            worker = bench.worker()
            await bench.ended(await bench.submit(b"warm"))
            await bench.idle()
            with pytest.raises(OnceseenError):
                await bench.submit(b"image")
            await bench.until(lambda: b"image" in worker.seen and not worker.batches)
            assert (bench.hub.open, bench.hub.held) == ({}, {})
            job = await bench.submit(b"image")
            assert (await bench.ended(job)).succeeded == 1
            assert bench.tasks(job)[0].attempt == 1, "it could begin early again"

    asyncio.run(run())


def test_rows_name_only_bytes_that_are_there_at_every_moment():
    """Bytes first, then rows: each commit is followed by a look at what it names (RECORD.md 1.4)."""

    async def run():
        async with running_hub() as bench:
            commit, seen = bench.hub.commit, []

            def looking(tx, group):
                outcome = commit(tx, group)
                for chunk in group.chunks:
                    for entry in chunk.entries:
                        assert bench.hub.blobs.get(entry.image.location) is not None
                        seen.append(entry.image.location)
                return outcome

            bench.hub.commit = looking
            await bench.submit(*[b"%d" % n for n in range(1100)])
            assert len(set(seen)) == 1100
            assert {task.state for task in bench.tasks(await bench.submit(b"5"))} == {TaskState.QUEUED}

    asyncio.run(run())


def test_a_record_with_another_store_is_refused(tmp_path):
    """RECORD.md 7: its locations would mean other bytes, or none."""
    for name in ("one", "other"):
        directory = wiring.open_directory(tmp_path / name)
        hub = wiring.build_hub(directory, HubSettings())
        hub.database.close()
        hub.blobs.close()
        directory.release()
    shutil.copy(tmp_path / "other" / "store-id", tmp_path / "one" / "store-id")
    directory = wiring.open_directory(tmp_path / "one")
    with pytest.raises(SettingsError, match="put `packs`, `files` and `store-id` back together"):
        wiring.build_hub(directory, HubSettings())
    directory.release()
