"""What a hub does by itself."""

import asyncio
import hashlib
import time
from pathlib import Path
from uuid import uuid4

import pytest

from onceseen import wiring
from onceseen.domain.ids import now
from onceseen.domain.job import Control, JobRow, KeyRow, NewImage
from onceseen.drivers.blobs_pack import BlobsPack
from onceseen.errors import BlobMissing
from onceseen.flow import control
from onceseen.flow.idempotency import KEPT
from onceseen.hub import chores
from onceseen.hub.hub import Hub
from onceseen.hub.settings import HubSettings
from onceseen.testing.inside import hub_inside, submit
from onceseen.testing.pictures import colour_model, picture


def _stored(hub: Hub, data: bytes) -> str:
    return hub.blobs.put([(f"1/{hashlib.sha256(data).hexdigest()}-{uuid4()}", data)])[0]


def test_bytes_that_no_row_names_go_and_all_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def run() -> None:
        directory = wiring.open_directory(tmp_path)
        hub = wiring.build_hub(directory, HubSettings())
        await hub.start()
        named, unnamed = _stored(hub, b"named"), _stored(hub, b"unnamed")
        image = NewImage(1, hashlib.sha256(b"named").digest(), None, None, None, 5, named, now())
        await hub.writer.call(lambda tx: tx.images.upsert([image]))
        assert await chores.remove_unnamed(hub) == 0, "what is young may still get a row"
        monkeypatch.setattr(chores, "YOUNG_SECONDS", -1.0)
        assert await chores.remove_unnamed(hub) == 1
        assert hub.blobs.get(named) == b"named"
        with pytest.raises(BlobMissing):
            hub.blobs.get(unnamed)
        await hub.stop(0)
        hub.database.close()
        hub.blobs.close()
        directory.release()

    asyncio.run(run())


def test_idempotency_keys_are_forgotten_after_a_day(tmp_path: Path):
    async def run() -> None:
        directory = wiring.open_directory(tmp_path)
        hub = wiring.build_hub(directory, HubSettings())
        await hub.start()
        young = KeyRow(1, "young", bytes(16), hub.me, None, now() - KEPT + 60_000_000)
        old = young._replace(key="old", created_at=now() - KEPT - 1)
        await hub.writer.call(lambda tx: [tx.keys.claim(row) for row in (young, old)])
        await chores.forget(hub)
        with hub.database.read() as reader:
            assert reader.keys.get(1, "old") is None
            assert reader.keys.get(1, "young") == (young, True)
        await hub.stop(0)
        hub.database.close()
        hub.blobs.close()
        directory.release()

    asyncio.run(run())


def test_an_image_that_comes_again_after_it_was_forgotten_is_stored_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data = picture(1)
    digest = hashlib.sha256(data).digest()
    hours = [0.0]
    monotonic = time.monotonic

    async def run() -> None:
        directory = wiring.open_directory(tmp_path / "data")
        database, blobs = directory.open_database(), BlobsPack.open(directory.path)
        async with hub_inside(database, blobs, colour_model(tmp_path / "m" / "colours"), working=False) as hub:

            def place() -> str:
                with database.read() as reader:
                    return reader.images.locate(1, [digest], paths=True)[digest]

            jobs: list[JobRow] = []
            await submit(hub, "colours", [data], jobs.append)
            first = place()
            await hub.writer.call(lambda tx: control.ask(tx, jobs[0].id, Control.DELETE, now()))
            hub.controlled.set()
            while await hub.writer.call(lambda tx: tx.jobs.get(jobs[0].id)):
                await asyncio.sleep(0.01)
            hours[0] = 1.5
            await chores.forget(hub)
            with pytest.raises(BlobMissing):
                hub.blobs.get(first)
            await submit(hub, "colours", [data], jobs.append)
            assert hub.blobs.get(place()) == data
        database.close()
        blobs.close()
        directory.release()

    monkeypatch.setattr(chores, "now", lambda: now() + int(hours[0] * 3.6e9))
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + hours[0] * 3600)
    asyncio.run(run())
