"""Submissions of several chunks, when the disk refuses one of them."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from onceseen import wiring
from onceseen.errors import StorageFull, StoreError
from onceseen.hub.hub import Hub
from onceseen.hub.models import add_bundled
from onceseen.hub.settings import HubSettings
from onceseen.hub.submission import CHUNK_ITEMS, Request, Submission
from onceseen.testing.referee import judge


async def _send(submission: Submission) -> None:
    for n in range(3 * CHUNK_ITEMS):
        await submission.add(f"{n}", b"%d" % n)
        if n % CHUNK_ITEMS == 0:
            await asyncio.sleep(0.05)  # so that the first chunk is refused before the next one is sent
    await submission.finish()


def test_chunks_after_a_refused_one_leave_no_items_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def run() -> None:
        directory = wiring.open_directory(tmp_path)
        hub: Hub = wiring.build_hub(directory, HubSettings())
        await hub.start()
        await hub.writer.call(lambda tx: add_bundled(lambda write: write(tx)))
        await hub.reload_catalog()
        put, calls = hub.blobs.put, []

        def full_at_first(blobs):
            calls.append(len(blobs))
            if len(calls) == 1:
                raise StorageFull
            return put(blobs)

        monkeypatch.setattr(hub.blobs, "put", full_at_first)
        submission = Submission(hub, Request(hub.catalog.resolve("digits")))
        with pytest.raises(StoreError):
            await _send(submission)
        submission.abandon()
        with contextlib.suppress(StoreError):
            await asyncio.wait_for(asyncio.gather(*submission._flying), 5)
        await hub.stop(0)
        hub.database.close()
        hub.blobs.close()
        directory.release()

    asyncio.run(run())
    verdict = judge(tmp_path)
    assert (verdict.items, verdict.tasks) == ({}, {})
