"""What has no task: looks at images (RECORD.md 2.5), and local paths, whose deaths are kept in memory (RECORD.md 6)."""

import asyncio
from pathlib import Path

import pytest

from onceseen.domain.job import ItemState, JobState
from onceseen.domain.task import TaskState
from onceseen.errors import TooBusy, UnreadableImage
from onceseen.hub import looks
from onceseen.hub.submission import Request, submit_paths
from onceseen.testing.record_hub import running_hub
from onceseen.wire.link import Looked


def test_a_look_is_repeated_on_another_worker_up_to_three_times():
    async def run(deaths):
        async with running_hub() as bench:
            workers = [bench.worker(auto=False) for _ in range(4)]
            look = asyncio.create_task(looks.look(bench.hub, b"image"))
            for _ in range(deaths):
                await bench.until(lambda: any(worker.looks and not worker.ended for worker in workers))
                next(worker for worker in workers if worker.looks and not worker.ended).die()
            if deaths < 3:
                await bench.until(lambda: any(worker.looks and not worker.ended for worker in workers))
                last = next(worker for worker in workers if worker.looks and not worker.ended)
                last.say(Looked(last.looks[0], width=3, height=4))
                looked, _ = await look
                assert (looked.width, looked.height) == (3, 4)
            else:
                with pytest.raises(UnreadableImage, match="died"):
                    await look
            assert sum(len(worker.looks) for worker in workers) == min(deaths + 1, 3)

    for deaths in (0, 1, 2, 3):
        asyncio.run(run(deaths))


def test_a_look_waits_for_a_worker_but_not_for_ever(monkeypatch):
    monkeypatch.setattr(looks, "WAIT_SECONDS", 0.2)

    async def run():
        async with running_hub() as bench:
            with pytest.raises(TooBusy, match="onceseen worker"):
                await looks.look(bench.hub, b"image")

    asyncio.run(run())


async def answer_paths(bench, files, *, fresh=False, workers):
    """A local job over these names, answered; (n, state) as they were told."""
    told = []
    request = Request(bench.hub.catalog.resolve("m"), source="local", fresh=fresh)
    paths = [(name, Path("/nowhere") / name) for name in files]
    row = await submit_paths(
        bench.hub, request, paths, lambda done, _: told.append((done.finished.n, done.finished.state))
    )
    joined = workers()
    await bench.ended(row.id)
    await bench.until(lambda: len(told) == len(files))
    return row.id, sorted(told), joined


def test_a_path_that_kills_its_workers_fails_alone_and_its_mates_do_not():
    async def run():
        async with running_hub() as bench:
            poison = "/nowhere/poison"

            async def respawn():
                while True:
                    if not bench.hub.workers():
                        worker = bench.worker(ms=1.0)
                        worker.poison = {poison}
                        crew.append(worker)
                    await asyncio.sleep(0)

            crew = []
            files = [f"{n}.png" for n in range(30)]
            files.insert(11, "poison")
            task = asyncio.create_task(respawn())
            job, told, _ = await answer_paths(bench, files, workers=lambda: None)
            task.cancel()
            assert [state for _, state in told].count(ItemState.FAILED) == 1
            item = bench.items(job)[11]
            assert (item.error_kind, item.task) == ("worker-died", None)
            assert bench.job(job).state == JobState.FAILED
            assert len([worker for worker in crew if worker.ended]) == 4

    asyncio.run(run())


def test_a_path_whose_question_runs_for_somebody_else_answers_it_and_fences_the_twin():
    async def run():
        async with running_hub() as bench:
            slow = bench.worker(auto=False)
            first = "/nowhere/a.png"
            job = await bench.submit(first.encode())  # the same bytes that the worker reads there
            await bench.until(lambda: slow.batches)
            slow.begin(1)
            folder, told, quick = await answer_paths(bench, ["a.png"], workers=bench.worker)
            assert told == [(0, ItemState.SUCCEEDED)]
            assert quick.seen == [first]
            assert (await bench.ended(job)).succeeded == 1
            (task,) = bench.tasks(job)
            assert (task.state, task.attempt) == (TaskState.SUCCEEDED, 2)
            slow.answer(1, error="model-failed")
            await bench.idle()
            assert bench.tasks(job) == [task]
            assert bench.tasks(folder) == [task]

    asyncio.run(run())
