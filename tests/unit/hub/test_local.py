"""Jobs over local paths that somebody cancels before all files were read."""

import asyncio
from pathlib import Path

from onceseen import wiring
from onceseen.domain.job import Control, ItemState, JobState
from onceseen.flow import control
from onceseen.hub import local
from onceseen.hub.hub import Hub
from onceseen.hub.models import add_bundled
from onceseen.hub.paths import submit_paths
from onceseen.hub.settings import HubSettings
from onceseen.hub.submission import Request
from onceseen.testing.referee import judge

FILES = 700


def test_a_cancelled_local_job_ends_each_file_that_nobody_has_yet(tmp_path: Path):
    told: list[tuple[int, int]] = []

    async def run() -> tuple[int, int, int, int]:
        directory = wiring.open_directory(tmp_path)
        hub: Hub = wiring.build_hub(directory, HubSettings())
        await hub.start()
        await hub.writer.call(lambda tx: add_bundled(lambda write: write(tx)))
        await hub.reload_catalog()
        files = [(f"{n}.png", tmp_path / f"{n}.png") for n in range(FILES)]  # no worker is there to read them
        request = Request(hub.catalog.resolve("digits"), source="local")
        row = await submit_paths(
            hub, request, files, lambda done, _: told.append((done.finished.n, done.finished.state))
        )
        assert (row.state, row.pending) == (JobState.PENDING, FILES)
        await local.end(hub, row.id)
        asked = await hub.writer.call(lambda tx: control.ask(tx, row.id, Control.CANCEL, 1))
        hub.controlled.set()
        while asked.control:
            await asyncio.sleep(0.01)
            found = await hub.writer.call(lambda tx: tx.jobs.get(row.id))
            assert found is not None
            asked = found
        await hub.stop(0)
        hub.database.close()
        hub.blobs.close()
        directory.release()
        return asked.state, asked.total, asked.pending, asked.cancelled

    assert asyncio.run(run()) == (JobState.CANCELLED, FILES, 0, FILES)
    assert sorted(told) == [(n, ItemState.CANCELLED) for n in range(FILES)]
    verdict = judge(tmp_path)
    assert verdict.items == {ItemState.CANCELLED: FILES}
