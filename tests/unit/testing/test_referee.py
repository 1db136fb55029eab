"""The referee sees what it is there for: a record is spoiled in every way it looks for."""

import asyncio
import shutil
import sqlite3

import pytest

from onceseen.drivers.blobs_pack import BlobsPack
from onceseen.drivers.sql.database import SqliteDatabase
from onceseen.testing.inside import hub_inside, submit
from onceseen.testing.pictures import colour_model, picture
from onceseen.testing.referee import judge, watch


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A watched record of two finished jobs, one of which knew an image already, and of one `fresh` answer."""
    place = tmp_path_factory.mktemp("referee")
    data = place / "data"
    watch(data)
    database, blobs = SqliteDatabase(data / "record.db"), BlobsPack.open(data)

    async def run():
        async with hub_inside(database, blobs, colour_model(place / "m" / "colours")) as hub:
            await (await submit(hub, "colours", [picture(n) for n in range(5)]))
            await (await submit(hub, "colours", [picture(4), picture(5)]))
            await (await submit(hub, "colours", [picture(1)], fresh=True))

    asyncio.run(run())
    database.close()
    blobs.close()
    return data


def test_a_good_record_is_clean(good):
    verdict = judge(good)
    assert verdict.is_clean, verdict
    assert (verdict.items, verdict.tasks, len(verdict.answered)) == ({2: 8}, {2: 7}, 6)


@pytest.mark.parametrize(
    ("statement", "seen"),
    [
        ("UPDATE job SET succeeded = succeeded + 1 WHERE total = 5", "wrong_counters"),
        ("UPDATE item SET state = 0 WHERE n = 0", "wrong_counters"),
        ("DELETE FROM event WHERE kind = 'job.finished'", "wrong_events"),
        ("INSERT INTO event SELECT seq + 100, at, kind, project, subject, data FROM event", "wrong_events"),
        ("UPDATE item SET label = 'other' WHERE n = 0", "disagreeing"),
        ("UPDATE task SET state = 0", "disagreeing"),
        ("UPDATE item SET n = 9 WHERE n = 4", "orphans"),
        ("DELETE FROM job WHERE total = 2", "orphans"),
        ("UPDATE item SET state = 0, task = zeroblob(16) WHERE n = 0", "orphans"),
        ("UPDATE task SET input = (SELECT input FROM task LIMIT 1)", "twice"),
        ("UPDATE task SET finished_at = finished_at + 1 WHERE id = (SELECT task FROM item LIMIT 1)", "settled_twice"),
        ("UPDATE item SET finished_at = finished_at + 1 WHERE n = 0", "settled_twice"),
    ],
)
def test_a_spoiled_record_is_seen(good, tmp_path, statement, seen):
    shutil.copytree(good, tmp_path / "data")
    with sqlite3.connect(tmp_path / "data" / "record.db") as connection:
        connection.execute(statement)
    connection.close()
    verdict = judge(tmp_path / "data")
    assert not verdict.is_clean
    assert getattr(verdict, seen)
