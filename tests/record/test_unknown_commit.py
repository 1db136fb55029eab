"""The answer to COMMIT was lost (RECORD.md 1.5): everybody hears the truth, and nothing happens twice."""

import asyncio

import pytest

from onceseen.domain.job import ItemState, JobState
from onceseen.domain.task import TaskState
from onceseen.errors import DatabaseAway
from onceseen.testing.database_memory import database_in_memory
from onceseen.testing.faults import UncertainDatabase
from onceseen.testing.record_hub import running_hub

IMAGES = [b"%d" % number for number in range(6)]


async def clean(bench, job, images=IMAGES):
    """The job is answered whole and once; nothing is left that waits, runs or is held."""
    row = await bench.ended(job)
    items, tasks = bench.items(job), bench.tasks(job)
    assert (row.state, row.total, row.succeeded) == (JobState.SUCCEEDED, len(images), len(images))
    assert {item.state for item in items} == {ItemState.SUCCEEDED}
    assert {task.state for task in tasks} == {TaskState.SUCCEEDED}
    await bench.until(lambda: not bench.hub.held and not bench.hub.open and not bench.hub.outbox)
    return tasks


@pytest.mark.parametrize("outcome", ["written", "lost"])
@pytest.mark.parametrize("position", range(6))
@pytest.mark.parametrize("early", [True, False])
def test_any_commit_may_lose_its_answer(monkeypatch, outcome, position, early):
    monkeypatch.setattr("onceseen.hub.writer.RETRY_SECONDS", 0.02)

    async def run():
        with database_in_memory() as inner:
            database = UncertainDatabase(inner)
            async with running_hub(database) as bench:
                worker = bench.worker()
                if early:
                    await bench.until(lambda: bench.hub.joined.is_set() or not worker.loads)
                    await bench.submit(b"warm")
                else:
                    worker.die()
                database.outcomes[:] = ["good"] * position + [outcome]
                submission = bench.submission()
                ended = bench.hub.waiters.expect(submission.head.id)
                for number, image in enumerate(IMAGES):
                    await submission.add(f"{number}", image)
                row = await submission.finish()
                assert row.total == len(IMAGES)
                worker = worker if early else bench.worker()
                tasks = await clean(bench, submission.head.id)
                told = await asyncio.wait_for(ended, 5)
                assert told is not None, "who waits for the job must hear of its end"
                assert told.job.succeeded == len(IMAGES)
                await bench.until(lambda: database.met == [outcome] or not database.outcomes)
                with bench.hub.database.read() as reader:
                    finished = [event for event in reader.events.after(0, 999) if event.kind == "job.finished"]
                assert len(finished) == 1 + early, "an event was written twice"
                return max(task.attempt for task in tasks)

    assert asyncio.run(run()) <= 2


@pytest.mark.parametrize("outcome", ["written", "lost"])
def test_what_a_settle_left_over_is_not_forgotten(monkeypatch, outcome):
    """The first 500 of 1,200 equal images are settled by a commit whose answer is lost: the others follow all the same."""
    monkeypatch.setattr("onceseen.hub.writer.RETRY_SECONDS", 0.02)

    async def run():
        with database_in_memory() as inner:
            database = UncertainDatabase(inner)
            async with running_hub(database) as bench:
                worker = bench.worker(auto=False)
                job = await bench.submit(*[b"the same"] * 1200)
                bench.worker()  # somebody who is ready, for the claim
                worker.die()
                row = bench.hub.held
                await bench.until(lambda: row or bench.job(job).pending < 1200)
                database.outcomes[:] = [outcome]
                await clean(bench, job, [b""] * 1200)

    asyncio.run(run())


def test_a_record_that_is_away_for_long_is_asked_until_it_answers(monkeypatch):
    monkeypatch.setattr("onceseen.hub.writer.RETRY_SECONDS", 0.01)

    async def run():
        with database_in_memory() as inner:
            database = UncertainDatabase(inner, silent=5)
            async with running_hub(database) as bench:
                database.outcomes[:] = ["written"]
                job = await bench.submit(*IMAGES)
                assert database.met == ["written"]
                bench.worker()
                await clean(bench, job)

    asyncio.run(run())


def test_what_is_lost_again_and_again_is_refused_and_leaves_nothing(monkeypatch):
    monkeypatch.setattr("onceseen.hub.writer.RETRY_SECONDS", 0.01)

    async def run():
        with database_in_memory() as inner:
            database = UncertainDatabase(inner)
            async with running_hub(database) as bench:
                worker = bench.worker()
                await bench.ended(await bench.submit(b"warm"))
                worker.auto = False
                database.outcomes[:] = ["lost", "good"] * 3  # the question between them is answered
                with pytest.raises(DatabaseAway):
                    await bench.submit(*IMAGES)
                worker.auto = True
                for lease in list(worker.batches):
                    worker.begin(lease)
                    worker.answer(lease)
                await clean(bench, await bench.submit(*IMAGES))
                with bench.hub.database.read() as reader:
                    assert reader.views.totals().succeeded == 1 + len(IMAGES)

    asyncio.run(run())
