"""A million equal images are one question: one task, one run, and no long transaction (RECORD.md 1.1)."""

import asyncio
import resource
import time

import pytest

from onceseen.domain.job import Control
from onceseen.flow import control
from onceseen.flow.work import Group
from onceseen.hub.submission import CHUNK_ITEMS
from onceseen.testing.database_memory import database_in_memory
from onceseen.testing.record import DIED, Record
from onceseen.testing.record_hub import running_hub

IMAGE = b"always the same" * 10


class Watched:
    """What each transaction of a hub's groups did."""

    def __init__(self, hub):
        self.settled, self.inserted, self.seconds = [], [], []
        self._commit = hub.commit
        hub.commit = self

    def __call__(self, tx, group):
        began = time.perf_counter()
        outcome = self._commit(tx, group)
        new = sum(len(chunk.entries) for chunk in group.chunks)
        self.seconds.append(time.perf_counter() - began)
        self.inserted.append(new)
        self.settled.append(len(outcome.done) - sum(done.reused for done in outcome.done if new))
        return outcome


async def send(bench, count):
    submission = bench.submission()
    for number in range(count):
        await submission.add(f"{number}", IMAGE)
    await submission.finish()
    return submission.head.id


async def all_of_it(count, jobs, *, after):
    """`after`: the worker comes when all are there; else it answers while they come."""
    async with running_hub() as bench:
        watched = Watched(bench.hub)
        worker = None if after else bench.worker()
        found = [await send(bench, count // jobs) for _ in range(jobs)]
        worker = worker or bench.worker()
        for job in found:
            await bench.until(lambda job=job: bench.job(job).finished_at)
            row = bench.job(job)
            assert (row.total, row.succeeded, row.pending) == (count // jobs, count // jobs, 0)
        await bench.idle()
        assert worker.seen == [IMAGE]
        with bench.hub.database.read() as reader:
            assert reader.views.waiting() == (0, 0)
            assert reader.views.totals().succeeded == count
        assert max(watched.inserted) <= 2 * CHUNK_ITEMS
        assert max(watched.settled) <= 500
        assert bench.hub.outbox.leftovers == []
        return watched


@pytest.mark.parametrize(("jobs", "after"), [(1, True), (1, False), (40, True)])
def test_twenty_thousand_equal_images_are_run_once(jobs, after):
    watched = asyncio.run(all_of_it(20_000, jobs, after=after))
    middle = sorted(watched.seconds)[len(watched.seconds) // 2]
    # None is long beside the others: what all of them cost together would be far more than this.
    assert max(watched.seconds) < 0.2 * sum(watched.seconds) + 20 * middle


class Effort:
    """How many steps of its machine a database takes: no clock, so no slow machine fails anything."""

    def __init__(self, record):
        self._connection = record.database._writer.connection.driver_connection
        self.steps = 0

    def _count(self):
        self.steps += 1

    def __enter__(self):
        self._connection.set_progress_handler(self._count, 100)
        return self

    def __exit__(self, *_):
        self._connection.set_progress_handler(None, 0)


def effort(act, others):
    """Of one transaction on a job of 1,000 equal images, while so many equal items of other jobs wait."""
    with database_in_memory() as database:
        record = Record(database)
        job = record.submit([1] * 1000)
        while others:
            others -= len(record.items(record.submit([1] * min(others, 5000))))
        (task,) = record.claim()
        acts = {
            "cancel": (lambda: record.ask(job, Control.CANCEL), lambda: record.step(job)),
            "delete": (lambda: record.ask(job, Control.DELETE), lambda: record.step(job)),
            "settle": (lambda: None, lambda: record.commit(Group(settled=[record.answer(task)]))),
            "death": (lambda: None, lambda: record.give_back(task, DIED)),
            "retry dead letters": (
                lambda: record.settle(task, error="model-failed"),
                lambda: retry_dead_letters(record, task.id),
            ),
        }
        before, measured = acts[act]
        before()
        with Effort(record) as found:
            measured()
        return found.steps


def retry_dead_letters(record, task):
    with record.database.begin() as tx:
        assert control.retry_dead_letters(tx, [task], record.time).items == 500


@pytest.mark.parametrize("act", ["cancel", "delete", "settle", "death", "retry dead letters"])
def test_no_transaction_is_longer_for_what_else_waits_for_the_same_image(act):
    assert effort(act, 20_000) < 1.3 * effort(act, 1000) + 20


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_million_equal_images_are_run_once_in_bounded_memory(monkeypatch):
    monkeypatch.setattr("onceseen.testing.record_hub.SECONDS", 1500.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    watched = asyncio.run(all_of_it(1_000_000, 1, after=True))
    assert max(watched.seconds) < 2.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000, "kB"
