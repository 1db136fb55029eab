"""Who gets what next: priorities without starvation, credits, early starts (RECORD.md 2.2, 4)."""

import asyncio
from collections import Counter

import pytest

from onceseen.domain.job import JobState
from onceseen.domain.task import BACKGROUND, INTERACTIVE, ORDINARY, Head
from onceseen.hub.dispatch import HELD_MS, OLDEST_EVERY, STAY_SECONDS, Dispatcher
from onceseen.hub.links import BATCH_MS
from onceseen.hub.units import Unit
from onceseen.testing.record_hub import running_hub
from onceseen.wire.link import Ready

A, B = b"a", b"b"


class Link:
    """As much of a worker's link as the plan looks at."""

    def __init__(self, held_ms=0.0, *, local=True, loaded=(A, B)):
        self.held_ms, self.planned_ms = held_ms, 0.0
        self.current, self.current_since = None, 0.0
        self.loaded = dict.fromkeys(loaded, True)
        self.link = self
        self.local = local


class Clock:
    """One worker that is asked again and again; each credit is worked off at once."""

    def __init__(self, heads, ms=10.0):
        self.dispatcher, self.link, self.time = Dispatcher(), Link(), 0.0
        self.heads = heads
        for lane in (A, B):
            self.dispatcher.lane(lane).ms = ms

    def ask(self, seconds=0.0, coming=None):
        """The next plan: (lane, credits)."""
        self.time += seconds
        self.dispatcher.heads, self.link.planned_ms = dict(self.heads), 0.0
        return [(plan.lane, plan.n) for plan in self.dispatcher.plan([self.link], self.time, coming or {})]


def test_a_smaller_priority_elsewhere_switches_at_once():
    clock = Clock({A: Head(ORDINARY, 1)})
    assert clock.ask() == [(A, 10)]
    clock.heads[B] = Head(INTERACTIVE, 99)
    assert clock.ask(0.001) == [(B, 10)]
    del clock.heads[B]
    assert clock.ask(0.001) == [(A, 10)]
    assert clock.ask(0.001, {B: INTERACTIVE}) == [(B, 10)], "also one that the very transaction inserts"


def test_among_equals_a_worker_stays_for_a_second_and_then_the_oldest_is_next():
    clock = Clock({A: Head(ORDINARY, 5)})
    assert clock.ask(1.5) == [(A, 10)]
    clock.heads[B] = Head(ORDINARY, 1)  # older, but not here yet
    assert [clock.ask(0.3) for _ in range(3)] == [[(A, 10)]] * 3
    assert clock.ask(0.3) == [(B, 10)]
    clock.heads[B] = Head(ORDINARY, 9)
    assert [clock.ask(0.3) for _ in range(3)] == [[(B, 10)]] * 3
    assert clock.ask(0.3) == [(A, 10)]


def test_no_lane_starves_behind_a_smaller_priority():
    """Every second one credit goes to the oldest task, whatever its priority."""
    clock = Clock({A: Head(INTERACTIVE, 1000), B: Head(BACKGROUND, 1)})
    given = Counter()
    for _ in range(1000):
        clock.heads[A] = Head(INTERACTIVE, 1000 + int(clock.time))  # always new ones
        for lane, n in clock.ask(0.01):
            given[lane] += n
    assert 9 <= given[B] <= 11
    assert given[A] >= 9800


def test_a_lane_whose_turn_it_is_gets_its_credit_from_a_worker_that_is_never_idle():
    clock = Clock({A: Head(INTERACTIVE, 1000), B: Head(BACKGROUND, 1)}, ms=60.0)
    clock.link.current, clock.link.held_ms = A, 60.0
    plans = [plan for _ in range(300) for plan in clock.ask(0.01)]
    assert plans.count((B, 1)) in (2, 3)


def test_a_dear_model_gets_its_turn_from_a_cheap_one():
    """Of the same priority: its image does not fit beside what the worker holds, so the worker runs dry for it."""
    clock = Clock({A: Head(ORDINARY, 1000), B: Head(ORDINARY, 1)}, ms=5.0)
    clock.dispatcher.lane(B).ms = 120.0
    clock.link.current, clock.link.held_ms = A, 50.0
    assert clock.ask(2.0) == []
    clock.link.held_ms = 0.0
    assert clock.ask(0.01) == [(B, 1)]


def test_every_eighth_credit_goes_to_the_oldest():
    dispatcher = Dispatcher()
    dispatcher.lane(A).ms = 10.0
    counts = Counter()
    for n in (1, 2, 3, 5, 7, 10, 10, 10, 1, 1, 1, 1, 1, 1, 1, 2):
        (wish,) = dispatcher.wishes([type("Plan", (), {"lane": A, "n": n})])
        counts["all"] += wish.n
        counts["oldest"] += wish.oldest
    assert counts["oldest"] == counts["all"] // OLDEST_EVERY == 7


@pytest.mark.parametrize(
    ("held", "ms", "credit"), [(0, 10, 10), (0, 500, 1), (95, 10, 0), (60, 60, 0), (99, 1, 1), (100, 1, 0), (40, 10, 6)]
)
def test_a_credit_is_time(held, ms, credit):
    """RECORD.md 4.3: two batches of at most 50 ms; whatever an image costs, an idle worker gets one."""
    dispatcher = Dispatcher()
    dispatcher.lane(A).ms = ms
    assert dispatcher.credit(Link(held), dispatcher.lane(A)) == credit
    assert HELD_MS == 2 * BATCH_MS
    assert dispatcher.batch_images(10) == 5
    assert dispatcher.batch_images(200) == 1


def test_what_is_planned_counts_as_held():
    dispatcher, link = Dispatcher(), Link()
    dispatcher.lane(A).ms = 10.0
    dispatcher.heads = {A: Head(ORDINARY, 1)}
    assert [plan.n for plan in dispatcher.plan([link], 0.0, {})] == [10]
    assert dispatcher.plan([link], 0.0, {}) == []


def test_the_least_busy_worker_is_asked_first_and_each_gets_its_share():
    dispatcher = Dispatcher()
    dispatcher.lane(A).ms = 10.0
    dispatcher.heads = {A: Head(ORDINARY, 1)}
    busy, idle = Link(60.0), Link()
    assert [(plan.link, plan.n) for plan in dispatcher.plan([busy, idle], 0.0, {})] == [(idle, 10), (busy, 4)]


@pytest.mark.parametrize(
    ("head", "uncommitted", "early"),
    [
        (None, [], True),
        (None, [ORDINARY], False),
        (None, [INTERACTIVE], False),
        (None, [BACKGROUND], True),
        (ORDINARY, [], False),
        (INTERACTIVE, [], False),
        (BACKGROUND, [], True),
    ],
)
def test_nothing_overtakes_what_waits_with_the_same_or_a_smaller_number(head, uncommitted, early):
    """RECORD.md 2.2, for an image of a job: 5."""
    dispatcher, link = Dispatcher(), Link()
    lane = dispatcher.lane(A)
    lane.ms = 10.0
    lane.uncommitted += uncommitted
    if head is not None:
        dispatcher.heads = {A: Head(head, 1)}
    assert (dispatcher.early_link([link], lane, ORDINARY) is link) == early


def test_an_early_start_needs_a_free_credit_of_a_local_worker_that_has_the_model():
    dispatcher = Dispatcher()
    lane = dispatcher.lane(A)
    lane.ms = 10.0
    assert dispatcher.early_link([Link(95.0), Link(local=False), Link(loaded=(B,))], lane, ORDINARY) is None
    busy, free = Link(50.0), Link(10.0)
    assert dispatcher.early_link([busy, free], lane, ORDINARY) is free


def test_a_suspect_runs_alone():
    units = [Unit(A, 1, suspect=number in (2, 3), data=b"x") for number in range(6)]
    assert [len(batch) for batch in Dispatcher().batches(units, 1.0)] == [1, 1, 4]


# -- with a hub -----------------------------------------------------------------------------------------------------------


def test_an_interactive_image_goes_before_a_backlog():
    """20,000 wait; by order, not by the clock: it is among the next that begin, once for those in hand and one credit."""

    async def run():
        async with running_hub() as bench:
            backlog = await bench.submit(*[b"%d" % number for number in range(20_000)], priority=ORDINARY)
            worker = bench.worker(auto=False)
            await bench.until(lambda: worker.loads)
            worker.say(Ready(worker.loads[0], worker.ms))
            await bench.until(lambda: worker.batches)
            before = len(worker.seen)
            single = await bench.submit(b"interactive", priority=INTERACTIVE)
            worker.auto = True
            for lease in list(worker.batches):
                worker.begin(lease)
                worker.answer(lease)
            await bench.until(lambda: b"interactive" in worker.seen)
            assert worker.seen.index(b"interactive") - before <= HELD_MS / worker.ms + 2
            assert (await bench.ended(single)).state == JobState.SUCCEEDED
            assert bench.job(backlog).pending > 19_000
            worker.die()

    asyncio.run(run())


@pytest.mark.parametrize("model", ["m:1", "other:1"])
def test_a_background_job_ends_under_steady_interactive_load(monkeypatch, model):
    """As many clients as it takes to keep the worker busy all the time; of the same model, and of another one."""
    monkeypatch.setattr("onceseen.hub.dispatch.STAY_SECONDS", STAY_SECONDS / 50)

    async def run():
        async with running_hub() as bench:
            bench.worker(ms=8.0)
            await bench.ended(await bench.submit(b"warm"))
            stop, answered = False, 0

            async def client(name):
                nonlocal answered
                while not stop:
                    submission = bench.submission(priority=INTERACTIVE)
                    ended = bench.hub.waiters.expect(submission.head.id)
                    await submission.add("x", b"%d %d" % (name, answered))
                    await submission.finish()
                    await ended
                    answered += 1

            clients = [asyncio.create_task(client(name)) for name in range(30)]
            await bench.until(lambda: answered > 60)
            job = await bench.submit(*[b"b%d" % n for n in range(40)], priority=BACKGROUND, model=model)
            row = await bench.ended(job)
            stop = True
            await asyncio.gather(*clients)
            assert (row.state, row.succeeded) == (JobState.SUCCEEDED, 40)
            assert answered > 100

    asyncio.run(run())
