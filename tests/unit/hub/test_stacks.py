"""Stacks on their way through a hub: counted before they are items, sent once, and never lost with a worker."""
# mypy: allow-untyped-defs, allow-untyped-calls

import asyncio
import hashlib

import numpy as np
import pytest

from onceseen.domain.job import JobState
from onceseen.domain.views import ItemFilter
from onceseen.errors import TooBusy
from onceseen.hub import links, looks, reception
from onceseen.hub.submission import Request, Submission
from onceseen.inference.finish import pack
from onceseen.testing.fake_worker import FakeWorker
from onceseen.wire import link as wire

STACK = b"\x89HDF\r\n\x1a\n" + bytes(2000)  # the hub takes its first bytes for granted
SCORES = pack(np.eye(10, dtype=np.float32)[0])


async def until(look, seconds=10.0):
    deadline = asyncio.get_running_loop().time() + seconds
    while not (found := look()):
        assert asyncio.get_running_loop().time() < deadline, "nothing happened"
        await asyncio.sleep(0.005)
    return found


def items(hub, job):
    with hub.database.read() as reader:
        return sorted(reader.views.items(ItemFilter(1, job=job), 10_000), key=lambda item: item.n)


def row_of(hub, job):
    with hub.database.read() as reader:
        return reader.jobs.get(job)


class Worker(FakeWorker):
    """Answers batches by itself, and looks by a given number of frames."""

    def __init__(self, hub, frames=0):
        self.frames = frames
        super().__init__(hub)

    def send(self, header, payload=()):
        super().send(header, payload)
        message = self.sent[-1][0]
        if isinstance(message, wire.Load):
            asyncio.get_running_loop().call_soon(self.say, wire.Ready(message.lane, 5.0))
        elif isinstance(message, wire.Look) and self.frames:
            asyncio.get_running_loop().call_soon(self.say, wire.Looked(message.look, 9, 9, frames=self.frames))
        elif isinstance(message, wire.Batch):
            asyncio.get_running_loop().call_soon(self._work, message)

    def _work(self, batch):
        if self.open:
            self.say(wire.Begin(batch.lease))
            self.say(wire.Done(batch.lease, [wire.Answer(0, 1.0, SCORES, run_ms=5.0)] * len(batch.images)))

    def bytes_of(self, data):
        return sum(payload.count(data) for _, payload in self.sent)


def submission(hub, **more):
    return Submission(hub, Request(hub.catalog.resolve("digits"), frames=True, **more))


def test_items_are_made_when_a_worker_has_counted_the_frames_and_in_their_order(running_hub):
    async def run():
        async with running_hub() as hub:
            one = submission(hub, dataset="/a")
            adding = asyncio.create_task(one.add("run.h5", STACK))
            await asyncio.sleep(0.1)
            assert not adding.done()  # nobody is there who could count
            worker = FakeWorker(hub)
            look, payload = (await until(lambda: worker.got(wire.Look)))[0]
            assert (payload, look.file, look.dataset, look.count) == (
                STACK,
                hashlib.sha256(STACK).digest(),
                "/a",
                10**6,
            )
            assert not adding.done()
            worker.say(wire.Looked(look.look, 9, 9, frames=1200))
            await adding
            await one.add("plain.jpg", b"\xff\xd8 a picture")
            row = await one.finish()
            assert (row.total, row.state, one.count) == (1201, JobState.PENDING, 1201)
            found = items(hub, row.id)
            assert [item.frame for item in found] == [*range(1200), 0]
            assert {item.name for item in found[:1200]} == {"run.h5"}
            assert {item.digest for item in found[:1200]} == {hashlib.sha256(STACK).digest()}
            assert len({item.task for item in found}) == 1201
            image = hub.blobs.get(hub_place(hub, hashlib.sha256(STACK).digest()))
            assert image == STACK

    asyncio.run(run())


def hub_place(hub, digest):
    with hub.database.read() as reader:
        return reader.images.locate(1, [digest])[digest]


def test_a_stack_travels_to_a_worker_once_however_many_frames_it_has(running_hub, monkeypatch):
    monkeypatch.setattr(links, "SHELF_SECONDS", 0.3)

    async def run():
        async with running_hub() as hub:
            workers = [Worker(hub, 300), Worker(hub, 300)]
            one = submission(hub)
            await one.add("run.h5", STACK)
            row = await one.finish()
            await until(lambda: row_of(hub, row.id).state == JobState.SUCCEEDED)
            done = [batch for worker in workers for batch, _ in worker.got(wire.Batch)]
            assert sum(len(batch.images) for batch in done) == 300
            assert len(done) > 10
            assert {image.file for batch in done for image in batch.images} == {hashlib.sha256(STACK).digest()}
            assert [worker.bytes_of(STACK) for worker in workers] == [1, 1]
            assert sorted(image.frame or 0 for batch in done for image in batch.images) == list(range(300))
            assert all([i.frame for i in batch.images] == sorted(i.frame or 0 for i in batch.images) for batch in done)
            await until(lambda: all(worker.got(wire.Forget) for worker in workers))
            assert not any(len(worker.link.shelf) for worker in workers)

    asyncio.run(run())


def test_frames_of_a_worker_that_died_run_elsewhere_with_the_bytes_of_the_store(running_hub):
    async def run():
        async with running_hub() as hub:
            first = FakeWorker(hub)
            one = submission(hub)
            adding = asyncio.create_task(one.add("run.h5", STACK))
            look, _ = (await until(lambda: first.got(wire.Look)))[0]
            first.say(wire.Looked(look.look, 9, 9, frames=5))
            await adding
            row = await one.finish()
            load, _ = (await until(lambda: first.got(wire.Load)))[0]
            first.say(wire.Ready(load.lane, 5.0))
            batch, _ = (await until(lambda: first.got(wire.Batch)))[0]
            first.say(wire.Begin(batch.lease))
            first.close()
            second = Worker(hub)
            await until(lambda: row_of(hub, row.id).state == JobState.SUCCEEDED)
            assert second.bytes_of(STACK) == 1
            assert [item.state for item in items(hub, row.id)] == [2] * 5

    asyncio.run(run())


def test_a_stack_that_is_gone_from_the_store_fails_with_that_reason_and_holds_up_nobody(running_hub):
    async def run():
        async with running_hub() as hub:
            counter = FakeWorker(hub)
            one = submission(hub)
            adding = asyncio.create_task(one.add("run.h5", STACK))
            look, _ = (await until(lambda: counter.got(wire.Look)))[0]
            counter.say(wire.Looked(look.look, 9, 9, frames=30))
            await adding
            await one.add("plain.jpg", b"\xff\xd8 a picture")
            counter.close()
            row = await one.finish()
            hub.blobs.delete([hub_place(hub, hashlib.sha256(STACK).digest())])
            Worker(hub)
            await until(lambda: row_of(hub, row.id).finished_at)
            found = items(hub, row.id)
            assert {item.error_kind for item in found[:30]} <= {"blob-missing", "blob-damaged"}
            assert None not in {item.error_kind for item in found[:30]}
            assert found[30].state == 2

    asyncio.run(run())


# -- looks that come to nothing --------------------------------------------------------------------------------------------------


def test_three_workers_that_die_of_a_stack_fail_its_item_alone(running_hub):
    async def run():
        async with running_hub() as hub:
            one = submission(hub)
            adding = asyncio.create_task(one.add("run.h5", STACK))
            for _ in range(3):
                worker = FakeWorker(hub)
                await until(lambda worker=worker: worker.got(wire.Look))
                worker.close()
            await adding
            row = await one.finish()
            (item,) = items(hub, row.id)
            assert (item.error_kind, item.error) == (
                "worker-died",
                "Each worker that looked at it died, or took too long.",
            )
            assert item.digest == hashlib.sha256(STACK).digest()
            assert row.state == JobState.FAILED

    asyncio.run(run())


def test_without_a_worker_the_item_fails_with_that_reason_after_a_minute(running_hub, monkeypatch):
    monkeypatch.setattr(looks, "WAIT_SECONDS", 0.2)

    async def run():
        async with running_hub() as hub:
            one = submission(hub)
            await one.add("run.h5", STACK)
            (item,) = items(hub, (await one.finish()).id)
            assert item.error_kind == "too-busy"
            assert "No worker is there" in item.error

    asyncio.run(run())


def test_what_a_worker_finds_wrong_is_the_reason_of_the_item(running_hub):
    async def run():
        async with running_hub(max_items=70) as hub:
            one = submission(hub)
            await one.add("a.jpg", b"\xff\xd8")
            adding = asyncio.create_task(one.add("run.h5", STACK))
            worker = FakeWorker(hub)
            look, _ = (await until(lambda: worker.got(wire.Look)))[0]
            assert look.count == 69  # as many as the submission may still hold
            worker.say(
                wire.Looked(look.look, error_kind="too-large", error="the file has 70 frames, over the limit of 69")
            )
            await adding
            found = items(hub, (await one.finish()).id)
            assert [item.error_kind for item in found] == [None, "too-large"]

    asyncio.run(run())


def test_a_server_that_ends_promises_nothing_for_a_stack_nobody_counted(running_hub):
    async def run():
        async with running_hub() as hub:
            one = submission(hub)
            adding = asyncio.create_task(one.add("run.h5", STACK))
            await asyncio.sleep(0.1)
            hub.drain()
            with pytest.raises(TooBusy, match="about to end"):
                await asyncio.wait_for(adding, 5)
            one.abandon()

    asyncio.run(run())


def test_a_worker_that_is_stuck_in_a_look_is_given_up(running_hub, monkeypatch):
    monkeypatch.setattr(looks, "LOOK_SECONDS", 0.3)
    monkeypatch.setattr(reception, "WATCH_SECONDS", 0.05)

    async def run():
        async with running_hub() as hub:
            stuck = FakeWorker(hub)
            adding = asyncio.create_task(looks.look(hub, b"x", thumbnail=9))
            await until(lambda: stuck.got(wire.Look))
            for _ in range(40):
                await asyncio.sleep(0.02)
                if stuck.open:
                    stuck.say(wire.Beat(1.0, 1.0))  # its heart beats on
            assert not stuck.open
            other = FakeWorker(hub)
            look, _ = (await until(lambda: other.got(wire.Look)))[0]
            other.say(wire.Looked(look.look, 3, 4), b"thumbnail")
            assert (await adding)[1] == b"thumbnail"

    asyncio.run(run())
