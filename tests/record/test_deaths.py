"""Workers that die, freeze or take too long; poison that kills each of them (RECORD.md 5.1, 5.2)."""

import asyncio

import pytest

from onceseen.domain.job import JobState
from onceseen.hub import reception
from onceseen.hub.settings import HubSettings
from onceseen.hub.units import LaneState
from onceseen.testing.record_hub import running_hub
from onceseen.wire.link import Answer, Beat, Bye, Done, Ready

FAST = HubSettings(lease_seconds=0.4)


@pytest.fixture(autouse=True)
def _watch_often(monkeypatch):
    monkeypatch.setattr(reception, "WATCH_SECONDS", 0.02)


class Crew:
    """Always so many workers; whoever dies is replaced, as a supervisor does."""

    def __init__(self, bench, size, poison=(), ms=2.0):
        self.bench, self.poison, self.ms = bench, set(poison), ms
        self.workers, self.deaths = [], 0
        self.size = size
        self.task = asyncio.create_task(self._run())

    async def _run(self):
        while True:
            gone = [worker for worker in self.workers if worker.ended]
            self.deaths += len(gone)
            self.workers = [worker for worker in self.workers if not worker.ended]
            while len(self.workers) < self.size:
                worker = self.bench.worker(ms=self.ms)
                worker.poison = self.poison
                self.workers.append(worker)
            await asyncio.sleep(0.001)


def test_poison_is_a_dead_letter_after_three_deaths_alone_and_harms_nobody():
    async def run():
        async with running_hub() as bench:
            images = [b"%d" % number for number in range(60)]
            images[7:7] = [b"poison"]
            images[30:30] = [b"venom"]
            job = await bench.submit(*images)
            crew = Crew(bench, 2, {b"poison", b"venom"})
            row = await bench.ended(job)
            crew.task.cancel()
            assert (row.state, row.succeeded, row.failed) == (JobState.FAILED, 60, 2)
            for image, item, task in zip(images, bench.items(job), bench.tasks(job), strict=True):
                if image in (b"poison", b"venom"):
                    assert (item.error_kind, task.deaths, task.suspect) == ("worker-died", 3, 1)
                    assert "died 3 times" in item.error
                    with bench.hub.database.read() as reader:
                        attempts = reader.views.attempts(task.id)
                    assert len(attempts) in (3, 4), "three alone, and once at most in a batch"
                    assert all("ended" in attempt.why for attempt in attempts)
                else:
                    assert (item.error_kind, task.deaths) == (None, 0)
            assert crew.deaths in (7, 8), "a batch with both dies once"

    asyncio.run(run())


def test_a_suspect_runs_alone_in_its_batch():
    async def run():
        async with running_hub() as bench:
            job = await bench.submit(*[b"%d" % number for number in range(120)])
            first = bench.worker(ms=1.0, auto=False)
            await bench.until(lambda: first.loads)
            first.say(Ready(first.loads[0], 1.0))
            await bench.until(lambda: first.batches)
            first.begin(1)
            first.answer(1)
            await bench.until(lambda: first.batches)
            (begun,) = first.batches
            suspects = set(first.batches[begun])
            assert 1 < len(suspects) < sum(len(lease.units) for lease in first.link.leases.values())
            first.begin(begun)
            first.die()
            second = bench.worker(ms=1.0)
            assert (await bench.ended(job)).succeeded == 120
            at = 0
            for size in second.sizes:
                batch = second.seen[at : at + size]
                at += size
                assert size == 1 or not suspects & set(batch)
            tasks = {item.name: task for item, task in zip(bench.items(job), bench.tasks(job), strict=True)}
            for name, task in tasks.items():
                assert task.suspect == (name.encode() in suspects), "batches that were not begun are innocent"
                assert task.deaths == 0

    asyncio.run(run())


def test_a_suspect_that_is_asked_again_waits_for_a_run_alone():
    """No early start with others, though its worker would have room (RECORD.md 5.1)."""

    async def run():
        async with running_hub() as bench:
            dying = bench.worker(auto=False)
            first = await bench.submit(b"suspect")
            await bench.until(lambda: dying.batches)
            dying.begin(next(iter(dying.batches)))
            dying.die()
            await bench.until(lambda: bench.tasks(first)[0].suspect)
            busy = bench.worker(auto=False, ms=1.0)
            busy.link.load(bench.hub.catalog.resolve("m").lane)
            busy.link.planned_ms = 1000.0  # claims pass it by
            busy.say(Ready(busy.loads[0], 1.0))
            busy.link.planned_ms = 0.0
            bench.hub.dispatcher.heads.clear()  # it was queued by another server a moment ago
            submission = bench.submission()
            await submission.add("mate", b"mate")
            await submission.add("suspect", b"suspect")
            assert [unit.data for lease in busy.link.leases.values() for unit in lease.units] in ([b"mate"], [None])
            busy.auto = True
            for lease in list(busy.batches):
                busy.begin(lease)
                busy.answer(lease)
            await submission.finish()
            assert (await bench.ended(submission.head.id)).succeeded == 2
            assert busy.sizes == [1, 1]

    asyncio.run(run())


def test_a_worker_that_says_goodbye_blames_nobody():
    async def run():
        async with running_hub() as bench:
            job = await bench.submit(b"image")
            worker = bench.worker(auto=False)
            await bench.until(lambda: worker.batches)
            worker.begin(next(iter(worker.batches)))
            worker.say(Bye())
            worker.die()
            bench.worker()
            assert (await bench.ended(job)).succeeded == 1
            (task,) = bench.tasks(job)
            assert (task.suspect, task.attempt) == (0, 2)

    asyncio.run(run())


# -- models that cannot be loaded ----------------------------------------------------------------------------------------


async def die_loading(bench, job=None):
    worker = bench.worker(auto=False)
    await bench.until(lambda: worker.loads or (job is not None and bench.job(job).finished_at))
    worker.die()
    return worker


def test_three_deaths_in_a_row_while_a_model_is_loaded_fail_what_waits_for_it():
    async def run():
        async with running_hub(settings=HubSettings(preload=("other",))) as bench:
            job, fine = await bench.submit(b"1", b"2", model="other:1"), await bench.submit(b"1")
            for death in range(3):
                assert bench.job(job).pending == 2, death
                await die_loading(bench)
            survivor = bench.worker()
            lane = bench.hub.catalog.resolve("other").lane
            assert (await bench.ended(job)).failed == 2
            assert {item.error_kind for item in bench.items(job)} == {"model-failed"}
            assert "3 workers in a row died while they loaded it" in bench.items(job)[0].error
            assert {(task.suspect, task.deaths) for task in bench.tasks(job)} == {(0, 0)}
            assert (await bench.ended(fine)).succeeded == 1
            assert lane not in survivor.loads, "a preloaded model that kills each worker would leave none"
            late = await bench.submit(b"3", model="other:1")
            assert (await bench.ended(late)).failed == 1
            assert lane not in survivor.loads
            bench.hub.forgive(lane)
            again = await bench.submit(b"4", model="other:1")
            assert (await bench.ended(again)).succeeded == 1

    asyncio.run(run())


def test_deaths_while_loading_count_in_a_row_only():
    async def run():
        async with running_hub() as bench:
            job = await bench.submit(b"1")
            for _ in range(2):
                await die_loading(bench)
            good = bench.worker(auto=False)
            await bench.until(lambda: good.loads)
            good.say(Ready(good.loads[0], 1.0))
            good.die()
            for _ in range(2):
                await die_loading(bench)
            assert bench.job(job).pending == 1
            bench.worker()
            assert (await bench.ended(job)).succeeded == 1

    asyncio.run(run())


# -- frozen, or too slow ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [True, False])
def test_a_silent_worker_is_replaced_and_what_it_says_later_changes_nothing(begun):
    async def run():
        async with running_hub(settings=FAST) as bench:
            supervisor = bench.worker(auto=False, kind="supervisor")
            other = bench.worker(auto=False, kind="supervisor")
            job = await bench.submit(b"image")
            worker = bench.worker(auto=False, of=supervisor.id)
            await bench.until(lambda: worker.loads)
            worker.say(Ready(worker.loads[0], 1.0))
            await bench.until(lambda: worker.batches)
            lease = next(iter(worker.batches))
            if begun:
                worker.begin(lease)
            worker.close = lambda: None  # a frozen process: it does not even see the end of its link
            await bench.until(lambda: worker.link.left)
            assert (supervisor.killed, other.killed) == ([4711], [])
            await bench.until(lambda: bench.tasks(job)[0].state == 0)
            assert bench.tasks(job)[0].suspect == begun
            second = bench.worker()
            assert (await bench.ended(job)).succeeded == 1
            before = bench.tasks(job), bench.items(job), bench.job(job)
            late = bench.hub.metrics.registry.get_sample_value
            assert late("onceseen_settles_fenced_total") == 0
            worker.say(Done(lease, [Answer(error_kind="model-failed", error="late")]))
            assert late("onceseen_settles_fenced_total") == 1
            assert second.seen == [b"image"]
            await bench.hub.writer.call(lambda tx: None)
            assert (bench.tasks(job), bench.items(job), bench.job(job)) == before
            assert before[0][0].attempt == 2

    asyncio.run(run())


def test_a_heartbeat_keeps_a_worker_that_computes():
    async def run():
        async with running_hub(settings=FAST) as bench:
            job = await bench.submit(b"image")
            worker = bench.worker(auto=False)
            await bench.until(lambda: worker.batches)
            worker.begin(next(iter(worker.batches)))
            for _ in range(12):
                await asyncio.sleep(0.1)
                worker.say(Beat(1.0, 1.0))
            assert not worker.ended
            worker.answer(next(iter(worker.batches)))
            assert (await bench.ended(job)).succeeded == 1

    asyncio.run(run())


def test_a_batch_over_its_deadline_counts_as_a_death_though_its_worker_beats():
    """From `begin` on, without the load of the model."""

    async def run():
        async with running_hub() as bench:
            supervisor = bench.worker(auto=False, kind="supervisor")
            job = await bench.submit(b"image")
            lane = bench.hub.dispatcher.lane(bench.hub.catalog.resolve("m").lane)
            lane.timeout = 0.3
            worker = bench.worker(auto=False, of=supervisor.id)
            await bench.until(lambda: worker.batches)
            await asyncio.sleep(0.5)
            assert not worker.ended, "it has not begun"
            worker.begin(next(iter(worker.batches)))
            for _ in range(100):
                worker.say(Beat(1.0, 1.0))
                await asyncio.sleep(0.01)
            assert worker.ended
            assert supervisor.killed == [4711]
            (task,) = bench.tasks(job)
            assert (task.state, task.suspect) == (0, 1)
            bench.worker()
            assert (await bench.ended(job)).succeeded == 1

    asyncio.run(run())


def test_a_deadline_is_a_minute_or_twenty_times_the_slowest_image_unless_the_manifest_says():
    lane = LaneState(b"lane")
    assert lane.batch_seconds(1) == 60.0
    lane.observed(10_000.0)
    assert lane.batch_seconds(1) == 200.0
    assert lane.batch_seconds(4) == 800.0
    lane.timeout = 7.0
    assert lane.batch_seconds(4) == 7.0


@pytest.mark.parametrize("answers", [[], [Answer(index=7, score=0.5, scores=b"x")], [Answer(error_kind="a")] * 2])
def test_a_worker_that_answers_nonsense_is_cut_off_and_its_tasks_run_elsewhere(answers):
    async def run():
        async with running_hub() as bench:
            job = await bench.submit(b"image")
            worker = bench.worker(auto=False)
            await bench.until(lambda: worker.batches)
            worker.begin(1)
            worker.say(Done(1, answers))
            await bench.until(lambda: worker.ended)
            bench.worker()
            assert (await bench.ended(job)).succeeded == 1

    asyncio.run(run())
