"""A hub whose own parts fail."""

import asyncio
from pathlib import Path

import pytest

from onceseen.drivers.blobs_pack import BlobsPack
from onceseen.drivers.sql.database import SqliteDatabase
from onceseen.testing.inside import hub_inside, submit
from onceseen.testing.pictures import colour_model, picture


def test_a_part_that_ends_with_an_error_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    database, blobs = SqliteDatabase(tmp_path / "record.db"), BlobsPack.open(tmp_path)
    database.migrate()

    async def run() -> None:
        async with hub_inside(database, blobs, colour_model(tmp_path / "m" / "colours"), working=False) as hub:
            broken = asyncio.Event()
            hub.broken = broken.set
            monkeypatch.setattr(hub, "apply", lambda *_: 1 / 0)
            sent = asyncio.ensure_future(submit(hub, "colours", [picture(1)]))
            await asyncio.wait_for(broken.wait(), 10)
            sent.cancel()
            await asyncio.gather(sent, return_exceptions=True)

    asyncio.run(run())
    database.close()
    blobs.close()


@pytest.mark.parametrize("rounds", range(6))
def test_it_ends_also_when_a_chore_is_about_to_begin(tmp_path: Path, rounds: int):
    database, blobs = SqliteDatabase(tmp_path / "record.db"), BlobsPack.open(tmp_path)
    database.migrate()

    async def run() -> None:
        async with hub_inside(database, blobs, colour_model(tmp_path / "m" / "colours"), working=False) as hub:
            hub.controlled.set()
            for _ in range(rounds):  # of the loop: the cancellation meets each step of waking up
                await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(run(), 20))
    database.close()
    blobs.close()
