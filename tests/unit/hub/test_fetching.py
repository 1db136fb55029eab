"""Which URL is next, and what becomes of one that does not answer; no network."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from onceseen import wiring
from onceseen.domain.fetch import FetchRow
from onceseen.domain.ids import now
from onceseen.domain.job import Control
from onceseen.errors import FetchFailed, FetchRefused, StorageFull
from onceseen.flow import control
from onceseen.hub import fetching
from onceseen.hub.fetching import Candidate, choose
from onceseen.hub.models import add_bundled
from onceseen.hub.settings import HubSettings
from onceseen.hub.submission import Request, Submission
from onceseen.ports.fetcher import FetchLater
from onceseen.testing.database_rows import ident, new_job
from onceseen.testing.pictures import picture

SLOTS = 8


class Web:
    """A fetcher without a net: what each URL gives, one after another, the last one for ever; `hold` holds it back."""

    def __init__(self, **answers):
        self.answers = answers
        self.asked: Counter[str] = Counter()
        self.together = self.most = 0
        self.open = asyncio.Event()
        self.open.set()

    def check(self, url):
        if url.startswith("no"):
            raise FetchRefused
        return url

    async def fetch(self, url):
        self.asked[url] += 1
        self.together += 1
        self.most = max(self.most, self.together)
        try:
            await asyncio.sleep(0)
            await self.open.wait()
            given = self.answers.get(url.partition("-")[0], [picture(sum(map(ord, url)))])
            answer = given.pop(0) if len(given) > 1 else given[0]
            if isinstance(answer, Exception):
                raise answer
            return answer
        finally:
            self.together -= 1

    async def close(self):
        pass


@asynccontextmanager
async def hub_with(web, tmp_path, **settings):
    """A hub without workers."""
    directory = wiring.open_directory(tmp_path)
    hub = wiring.build_hub(directory, HubSettings(fetch_connections=SLOTS, **settings), web)
    await hub.start()
    await hub.writer.call(lambda tx: add_bundled(lambda write: write(tx)))
    await hub.reload_catalog()
    try:
        yield hub
    finally:
        await hub.stop(0)
        hub.database.close()
        hub.blobs.close()
        directory.release()


async def submit(hub, urls, priority=5):
    submission = Submission(hub, Request(hub.catalog.resolve("digits"), priority=priority))
    for url in urls:
        await submission.add_url(url)
    return (await submission.finish()).id


async def until(hub, job, what):
    """The job's items, by name, once `what` is true of them."""
    for _ in range(1000):
        items = await hub.writer.call(lambda tx: {item.name: item for item in tx.items.slice(job, 0, 10_000)})
        if what(items):
            return items
        await asyncio.sleep(0.02)
    raise AssertionError(items)


def has_task_or_end(item):
    return item.task is not None or item.state != 0


def all_fetched(items):
    return all(map(has_task_or_end, items.values()))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(fetching, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(fetching, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(fetching, "STORE_SECONDS", 0.01)


def test_every_url_is_fetched_and_no_more_at_once_than_there_are_slots(tmp_path):
    async def run():
        web = Web()
        async with hub_with(web, tmp_path) as hub:
            urls = [f"a-{n}" for n in range(60)]
            items = await until(hub, await submit(hub, urls), all_fetched)
        assert set(items) == set(urls)
        assert set(web.asked.values()) == {1}
        assert 1 < web.most <= SLOTS

    asyncio.run(run())


def test_what_may_pass_is_tried_again_and_what_may_not_is_not(tmp_path):
    async def run():
        web = Web(
            twice=[FetchLater("busy"), FetchLater("busy"), picture(3)],
            never=[FetchLater("busy.")],
            gone=[FetchFailed("gone")],
            broken=[RuntimeError("a bug")],
        )
        async with hub_with(web, tmp_path) as hub:
            items = await until(hub, await submit(hub, ["twice", "never", "gone", "broken", "no", "good"]), all_fetched)
        assert items["twice"].task is not None
        assert items["good"].task is not None
        errors = {name: (item.error_kind, item.error) for name, item in items.items() if item.task is None}
        assert errors.pop("broken")[0] == "fetch-failed"
        assert errors.pop("no")[0] == "fetch-refused"
        assert errors == {
            "never": ("fetch-failed", "busy. It was tried 4 times."),
            "gone": ("fetch-failed", "gone"),
        }
        assert web.asked == {"twice": 3, "never": 4, "gone": 1, "broken": 1, "good": 1}

    asyncio.run(run())


def test_a_server_that_says_when_to_come_back_is_left_alone_until_then(tmp_path):
    async def run():
        web = Web(later=[FetchLater("busy", after=3000.0)])
        async with hub_with(web, tmp_path) as hub:
            job = await submit(hub, ["later"])
            for _ in range(500):
                with hub.database.read() as reader:
                    rows = reader.fetches.due(hub.me, job, 2**62, 1)
                if rows[0].tries:
                    break
                await asyncio.sleep(0.01)
            assert rows[0].tries == 1
            assert rows[0].next_at - now() > 2_900_000_000
        assert web.asked["later"] == 1

    asyncio.run(run())


def test_bytes_that_find_no_room_are_kept_until_there_is_some(tmp_path, monkeypatch):
    async def run():
        web = Web()
        async with hub_with(web, tmp_path) as hub:
            put = hub.blobs.put
            refused: list[object] = []

            def full_at_first(blobs):
                if len(refused) < 3:
                    refused.append(blobs)
                    raise StorageFull
                return put(blobs)

            monkeypatch.setattr(hub.blobs, "put", full_at_first)
            items = await until(hub, await submit(hub, ["a"]), all_fetched)
            assert items["a"].task is not None
            assert len(refused) == 3
            async with asyncio.timeout(10):
                while hub.pending_bytes:  # they are given back a moment after the rows are there
                    await asyncio.sleep(0.01)
        assert web.asked["a"] == 1

    asyncio.run(run())


def test_a_hub_that_ends_leaves_its_urls_to_the_next(tmp_path):
    async def first():
        web = Web()
        web.open.clear()
        async with hub_with(web, tmp_path) as hub:
            job = await submit(hub, [f"a-{n}" for n in range(30)])
            while web.together < SLOTS * 3 // 4:
                await asyncio.sleep(0.01)
        return job

    async def second(job):
        web = Web()
        async with hub_with(web, tmp_path) as hub:
            await until(hub, job, all_fetched)
        assert set(web.asked.values()) == {1}
        assert len(web.asked) == 30

    asyncio.run(second(asyncio.run(first())))


def test_a_url_that_nobody_wants_any_more_is_not_even_begun(tmp_path):
    async def run():
        web = Web()
        web.open.clear()
        async with hub_with(web, tmp_path) as hub:
            job = await submit(hub, [f"a-{n}" for n in range(30)])
            while web.together < SLOTS * 3 // 4:
                await asyncio.sleep(0.01)
            await hub.writer.call(lambda tx: control.ask(tx, job, Control.DELETE, 1))
            hub.controlled.set()
            await until(hub, job, lambda items: not items)
            web.open.set()
            other = await submit(hub, ["b"])
            await until(hub, other, all_fetched)
            with hub.database.read() as reader:
                assert reader.fetches.jobs(None, b"", 9) == []
                assert reader.tasks.heads().keys() == {hub.catalog.resolve("digits").lane}
                assert reader.views.waiting() == (1, 0)
        assert sum(web.asked.values()) == SLOTS * 3 // 4 + 1

    asyncio.run(run())


def test_a_small_job_does_not_wait_behind_a_large_slow_one(tmp_path):
    async def run():
        web = Web()
        web.open.clear()
        async with hub_with(web, tmp_path) as hub:
            await submit(hub, [f"slow-{n}" for n in range(1000)])
            while web.together < SLOTS * 3 // 4:
                await asyncio.sleep(0.01)
            await submit(hub, ["b"])
            while not web.asked["b"]:
                await asyncio.sleep(0.01)
        assert web.asked.total() == SLOTS * 3 // 4 + 1

    asyncio.run(asyncio.wait_for(run(), 30))


# -- choose ----------------------------------------------------------------------------------------------------------------


def candidates(**jobs):
    """job name -> (how many URLs, priority)."""
    found = []
    for number, (count, priority) in enumerate(jobs.values()):
        job = new_job(number)._replace(priority=priority)
        found += [Candidate(FetchRow(job.id, n, "u", 0, 1, 0, 0), job) for n in range(count)]
    return found


def numbers(chosen):
    return Counter(candidate.job.id for candidate in chosen)


@pytest.mark.parametrize(
    ("jobs", "running", "expected"),
    [
        ({"a": (20, 5)}, [], {0: 6}),
        ({"a": (20, 5)}, [0] * 6, {}),
        ({"a": (20, 5), "b": (20, 5)}, [], {0: 4, 1: 4}),
        ({"a": (20, 5), "b": (20, 5)}, [0] * 6, {1: 2}),
        ({"a": (20, 5), "b": (1, 5), "c": (20, 9)}, [], {0: 4, 1: 1, 2: 3}),
        ({"a": (20, 9), "b": (20, 0)}, [7] * 7, {1: 1}),
    ],
)
def test_slots_are_shared_by_the_jobs(jobs, running, expected):
    chosen = choose(candidates(**jobs), [ident(number) for number in running], SLOTS)
    assert numbers(chosen) == {ident(number): count for number, count in expected.items()}


def test_one_slot_is_enough():
    assert len(choose(candidates(a=(3, 5)), [], 1)) == 1
