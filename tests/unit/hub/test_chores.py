"""What a hub does by itself."""

import asyncio
import hashlib
from pathlib import Path
from uuid import uuid4

import pytest

from onceseen import wiring
from onceseen.domain.ids import now
from onceseen.domain.job import KeyRow, NewImage
from onceseen.errors import BlobMissing
from onceseen.flow.idempotency import KEPT
from onceseen.hub import chores
from onceseen.hub.hub import Hub
from onceseen.hub.settings import HubSettings


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
