"""Clocks that jump: ids, times of rows, leases, deadlines and sweeps stay sane (RECORD.md 1.7, 5.4)."""

import asyncio
import time

import pytest

from onceseen.domain import ids
from onceseen.domain.job import JobState
from onceseen.errors import StoreError
from onceseen.hub import chores, reception
from onceseen.hub.hub import Hub
from onceseen.testing.database_memory import database_in_memory
from onceseen.testing.record_hub import running_hub
from onceseen.wire.link import Beat, Ready

HOUR = 3600


class WallClock:
    """Stands in for `time` in domain/ids.py; `ahead`: seconds that somebody set it forward."""

    def __init__(self):
        self.ahead = 0.0

    def time_ns(self):
        return time.time_ns() + int(self.ahead * 1e9)


@pytest.fixture
def wall(monkeypatch):
    clock = WallClock()
    monkeypatch.setattr(ids, "time", clock)
    monkeypatch.setattr(ids, "_last", 0)
    return clock


@pytest.fixture
def monotonic(monkeypatch):
    """The hub's own clock; what is added to it is a sleep that the hub did not see."""
    ahead = [0.0]
    monkeypatch.setattr(Hub, "clock", lambda self: self.loop.time() + ahead[0])
    return ahead


def test_ids_of_one_process_grow_whatever_the_clock_does(wall):
    found = []
    for ahead in (0, HOUR, -HOUR, 0, 2 * HOUR, 0):
        wall.ahead = ahead
        found += [ids.new_id() for _ in range(5000)]  # more than one millisecond holds
    assert found == sorted(set(found))


def test_ids_go_on_after_those_of_the_process_before(wall):
    wall.ahead = HOUR
    newest = max(ids.new_id() for _ in range(9))
    wall.ahead, ids._last = 0.0, 0
    assert ids.new_id() < newest
    ids.go_on_after(newest)
    assert ids.new_id() > newest
    ids._last = 0
    wall.ahead = -2 * 24 * HOUR  # from here that id was made by a clock that was wrong
    ids.go_on_after(newest)
    assert ids.new_id() < newest


def test_a_queue_stays_first_in_first_out_over_a_restart_with_the_clock_set_back(wall):
    async def run():
        with database_in_memory() as database:
            wall.ahead = HOUR
            async with running_hub(database) as bench:
                await bench.submit(b"old")
                blobs = bench.hub.blobs
            wall.ahead, ids._last = 0.0, 0
            async with running_hub(database, blobs) as bench:
                await bench.submit(b"new")
                worker = bench.worker()
                await bench.until(lambda: len(worker.seen) == 2)
                assert worker.seen == [b"old", b"new"]

    asyncio.run(run())


@pytest.mark.parametrize("jumps", [(-HOUR, 0), (HOUR, 0), (-HOUR, HOUR), (HOUR, -HOUR)])
def test_rows_tell_no_end_before_its_beginning(wall, jumps):
    """The clock jumps before and after the run begins; nobody is taken for frozen, nothing is swept."""

    async def run():
        async with running_hub() as bench:
            worker = bench.worker(auto=False)
            open_job = bench.submission()
            await open_job.add("open", b"open")
            job = await bench.submit(*[b"%d" % n for n in range(3)])
            wall.ahead = jumps[0]
            while bench.job(job).pending:
                await bench.until(lambda: worker.batches or not bench.job(job).pending)
                for lease in list(worker.batches):
                    worker.begin(lease)
                    wall.ahead = jumps[1]
                    await chores.sweep_once(bench.hub)
                    await chores.forget(bench.hub)
                    await chores.remove_unnamed(bench.hub)
                    worker.answer(lease)
            row = await bench.ended(job)
            assert row.state == JobState.SUCCEEDED
            assert row.finished_at >= row.created_at
            for task, item in zip(bench.tasks(job), bench.items(job), strict=True):
                assert task.queued_at <= task.started_at <= task.finished_at
                assert item.finished_at == task.finished_at
                assert (task.attempt, task.suspect) == (1, 0)
            assert (await open_job.finish()).total == 1
            later = await bench.submit(b"later")
            assert later > job
            with bench.hub.database.read() as reader:
                events = reader.events.after(0, 999)
            assert [event.seq for event in events] == sorted(event.seq for event in events)

    asyncio.run(run())


def test_a_hub_that_slept_hears_its_links_before_it_judges_them(monotonic, monkeypatch):
    """RECORD.md 5.4: silence and deadlines begin anew; after that the rules hold again."""
    monkeypatch.setattr(reception, "WATCH_SECONDS", 0.02)

    async def run():
        async with running_hub() as bench:
            job = await bench.submit(b"image")
            worker = bench.worker(auto=False)
            await bench.until(lambda: worker.batches)
            worker.say(Ready(worker.loads[0], 1.0))
            (lease,) = worker.batches
            worker.begin(lease)
            before = worker.link.leases[lease].deadline
            monotonic[0] += 500.0
            await bench.until(lambda: worker.link.leases[lease].deadline > before + 400)
            await asyncio.sleep(0.2)
            assert not worker.ended
            worker.answer(lease)
            assert (await bench.ended(job)).succeeded == 1
            assert bench.tasks(job)[0].attempt == 1

    asyncio.run(run())


def test_a_short_pause_is_no_sleep(monotonic, monkeypatch):
    """Below a second nothing is forgiven: one worker speaks, the other is silent for longer than a lease."""
    monkeypatch.setattr(reception, "WATCH_SECONDS", 0.02)

    async def run():
        async with running_hub() as bench:
            speaks, silent = bench.worker(auto=False), bench.worker(auto=False)
            for _ in range(8):
                monotonic[0] += 0.9
                await asyncio.sleep(0.1)
                speaks.say(Beat(1.0, 1.0))
            assert silent.ended
            assert not speaks.ended

    asyncio.run(run())


def test_a_submission_without_a_new_chunk_for_an_hour_is_swept(monotonic):
    """RECORD.md 2.4: its sender hears so, and nothing of it is left."""

    async def run():
        async with running_hub() as bench:
            submission, young = bench.submission(), bench.submission()
            for n in range(501):
                await submission.add(f"{n}", b"%d" % n)
            await bench.until(lambda: bench.job(submission.head.id))
            monotonic[0] += HOUR - 60
            for n in range(501):
                await young.add(f"{n}", b"%d" % n)
            await chores.sweep_once(bench.hub)
            assert bench.job(submission.head.id).control == 0
            monotonic[0] += 120
            await chores.sweep_once(bench.hub)
            await bench.until(lambda: bench.job(submission.head.id) is None)
            with pytest.raises(StoreError, match="in time"):
                await submission.finish()
            submission.abandon()
            assert bench.items(submission.head.id) == []
            assert (await young.finish()).total == 501

    asyncio.run(run())
