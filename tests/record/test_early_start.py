"""Submit, join and early start with a hub: what runs before its rows are written, and what they meet (RECORD.md 1.4, 2)."""

import asyncio

import pytest

from onceseen.domain.job import ItemState
from onceseen.domain.task import TaskState
from onceseen.flow import group
from onceseen.flow.work import ClaimWish, Group
from onceseen.hub.submission import CHUNK_BYTES, CHUNK_ITEMS
from onceseen.testing.database_rows import LANE
from onceseen.testing.record import Record
from onceseen.testing.record_hub import running_hub


async def warm(bench):
    """A worker that has the model and is idle; it answers when it is told to."""
    worker = bench.worker()
    await bench.ended(await bench.submit(b"warm"))
    worker.seen.clear()
    worker.auto = False
    return worker


async def hold_rows(bench):
    """Chunks stop between pack and record; returns what lets them go."""
    held, hand_on = [], bench.hub.pack._hand_on
    bench.hub.pack._hand_on = held.append

    async def let_go():
        await bench.until(lambda: held)
        bench.hub.pack._hand_on = hand_on
        for chunks in held:
            hand_on(chunks)

    return let_go


def elsewhere(bench):
    """Another server of the same record, by hand."""
    other = Record.__new__(Record)
    other.database, other.catalog, other.time, other._numbers = bench.hub.database, bench.hub.catalog, 1, 10_000
    other.max_deaths = 3

    def begin(tx):
        other.me = tx.servers.begin("other", 1, 1)

    return other, bench.hub.writer.call(begin)


async def commit(bench, other, work):
    """A transaction of the other server, between two of ours."""
    return await bench.hub.writer.call(lambda tx: group.commit(tx, work, other.me, other.catalog, 5, 3))


def test_an_image_begins_before_its_rows_and_is_answered_after_them():
    async def run():
        async with running_hub() as bench:
            worker = await warm(bench)
            let_go = await hold_rows(bench)
            submission = bench.submission()
            ended = bench.hub.waiters.expect(submission.head.id)
            await submission.add("x", b"image")
            assert worker.seen == [b"image"]
            finished = asyncio.create_task(submission.finish())
            worker.begin(2)
            worker.answer(2)
            await asyncio.sleep(0.05)
            assert not ended.done()
            assert not finished.done()
            assert bench.job(submission.head.id) is None
            await let_go()
            assert (await ended).job.succeeded == 1
            await finished
            (task,) = bench.tasks(submission.head.id)
            assert (task.state, task.attempt, task.server) == (TaskState.SUCCEEDED, 1, bench.hub.me)

    asyncio.run(run())


def test_what_is_answered_is_not_run_and_what_is_open_is_joined():
    async def run():
        async with running_hub() as bench:
            worker = await warm(bench)
            known = await bench.submit(b"warm")
            assert [item.reused for item in bench.items(known)] == [1]
            first = await bench.submit(b"image")
            second = await bench.submit(b"image", b"image", model="m:2")
            fresh = bench.submission(fresh=True)
            assert worker.seen == [b"image"]
            worker.auto = True
            worker._work(2)
            for job in (first, second):
                assert (await bench.ended(job)).succeeded == bench.job(job).total
            assert len({task.id for task in bench.tasks(first) + bench.tasks(second)}) == 1
            await fresh.add("again", b"image")
            await fresh.finish()
            await bench.ended(fresh.head.id)
            assert worker.seen == [b"image", b"image"], "`fresh` asks anew"

    asyncio.run(run())


@pytest.mark.parametrize("before", [True, False], ids=["lost before the rows", "after"])
def test_a_death_in_an_early_start_counts_once_its_rows_are_there(before):
    async def run():
        async with running_hub() as bench:
            worker = await warm(bench)
            let_go = await hold_rows(bench)
            submission = bench.submission()
            await submission.add("x", b"image")
            finished = asyncio.create_task(submission.finish())
            worker.begin(2)
            if before:
                worker.die()
            await let_go()
            await finished
            if not before:
                worker.die()
            await bench.until(lambda: bench.tasks(submission.head.id)[0].suspect)
            bench.worker()
            assert (await bench.ended(submission.head.id)).succeeded == 1
            (task,) = bench.tasks(submission.head.id)
            assert (task.attempt, task.deaths) == (2, 0)

    asyncio.run(run())


@pytest.mark.parametrize("state", ["queued", "running", "answered", "unreadable"])
def test_an_early_start_meets_a_row_of_another_server(state):
    """RECORD.md 2.3, with the row written after our worker began."""

    async def run():
        async with running_hub() as bench:
            worker = await warm(bench)
            other, begun = elsewhere(bench)
            await begun
            let_go = await hold_rows(bench)
            submission = bench.submission()
            await submission.add("x", b"image")
            entry = submission._entries[0]
            assert entry.task.state == TaskState.RUNNING
            theirs = other.chunk([1])
            queued = entry.task._replace(id=theirs.entries[0].task.id, state=0, attempt=0, server=None)
            theirs.entries[0].task, theirs.entries[0].key = queued, entry.key
            claims = [ClaimWish(LANE, 1)] if state != "queued" else []
            outcome = await commit(bench, other, Group(chunks=[theirs], claims=claims))
            task = outcome.claimed.get(LANE, [None])[0]
            if state in ("answered", "unreadable"):
                error = "unreadable-image" if state == "unreadable" else None
                await commit(bench, other, Group(settled=[other.answer(task, error=error)]))
            finished = asyncio.create_task(submission.finish())
            worker.begin(2)
            worker.answer(2)
            await let_go()
            await finished
            if state == "running":
                await bench.until(lambda: not bench.hub.outbox)
                (row,) = bench.tasks(submission.head.id)
                assert (row.state, row.server, row.attempt) == (TaskState.RUNNING, other.me, 1)
                await commit(bench, other, Group(settled=[other.answer(task)]))
            row = await bench.ended(submission.head.id)
            (item,), (final,) = bench.items(submission.head.id), bench.tasks(submission.head.id)
            assert final.id == queued.id
            assert item.state == (ItemState.FAILED if state == "unreadable" else ItemState.SUCCEEDED)
            ours = state == "queued"
            assert (final.attempt, final.server) == (1, bench.hub.me if ours else other.me)
            await bench.idle()

    asyncio.run(run())


def test_what_cannot_begin_waits_with_its_bytes_in_memory():
    """It is read from the store by nobody while the cache holds it."""

    async def run():
        async with running_hub() as bench:
            read = []
            get = bench.hub.blobs.get
            bench.hub.blobs.get = lambda place, *more: read.append(place) or get(place, *more)
            job = await bench.submit(*[b"%d" % n for n in range(50)])
            bench.worker()
            assert (await bench.ended(job)).succeeded == 50
            assert read == []

    asyncio.run(run())


def test_workers_begin_on_the_first_chunk_of_a_job_that_is_still_received():
    """RECORD.md 2.4: it stays hidden, and is not final though all that has come is answered."""

    async def run():
        async with running_hub() as bench:
            bench.worker()
            submission = bench.submission()
            for n in range(CHUNK_ITEMS):
                await submission.add(f"{n}", b"%d" % n)
            job = submission.head.id
            await bench.until(lambda: (row := bench.job(job)) and row.succeeded == CHUNK_ITEMS)
            row = bench.job(job)
            assert (row.state, row.pending, row.finished_at) == (0, 0, None)
            with bench.hub.database.read() as reader:
                assert [event.kind for event in reader.events.after(0, 9) if event.kind.startswith("job")] == []
            await submission.add("last", b"last")
            await submission.finish()
            assert (await bench.ended(job)).succeeded == CHUNK_ITEMS + 1

    asyncio.run(run())


def test_a_sender_that_is_lost_leaves_no_job_and_no_work():
    async def run():
        async with running_hub() as bench:
            submission, stays = bench.submission(), await bench.submit(b"1", b"2")
            for n in range(CHUNK_ITEMS + 5):
                await submission.add(f"{n}", b"%d" % n)
            submission.abandon()
            await bench.until(lambda: submission.head.id not in bench.hub.open_jobs)
            bench.hub.controlled.set()
            await bench.until(lambda: bench.job(submission.head.id) is None)
            assert bench.items(submission.head.id) == []
            worker = bench.worker()
            assert (await bench.ended(stays)).succeeded == 2
            await bench.until(lambda: not bench.hub.outbox)
            assert sorted(worker.seen) == [b"1", b"2"]
            with bench.hub.database.read() as reader:
                assert reader.views.waiting() == (0, 0)

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["images", "large", "refused", "all refused"])
def test_no_chunk_is_long(kind):
    """RECORD.md 1.1: 500 items or 8 MB, also when many items are refused unread."""

    async def run():
        async with running_hub() as bench:
            chunks, push = [], bench.hub.pack.push
            bench.hub.pack.push = lambda pending: chunks.append(pending) or push(pending)
            submission = bench.submission()
            if kind == "large":
                for n in range(12):
                    await submission.add(f"{n}", bytes([n]) * (2 << 20))
            for n in range(1700 if kind != "large" else 0):
                if kind == "images" or (kind == "refused" and n % 300 == 7):
                    await submission.add(f"{n}", b"%d" % n)
                else:
                    submission.refuse(f"{n}", "too-large", "It is too large.")
            await submission.finish()
            assert max(len(pending.chunk.entries) for pending in chunks) <= CHUNK_ITEMS
            assert max(pending.size for pending in chunks) <= CHUNK_BYTES
            assert [pending.chunk.first for pending in chunks] == [True] + [False] * (len(chunks) - 1)
            assert [pending.chunk.last for pending in chunks] == [False] * (len(chunks) - 1) + [True]
            bench.worker()
            row = await bench.ended(submission.head.id)
            assert row.total == len(bench.items(submission.head.id)) == submission.count
            assert row.succeeded == {"images": 1700, "large": 12, "refused": 6, "all refused": 0}[kind]

    asyncio.run(run())
