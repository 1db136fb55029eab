"""A client whose connection is cut, at any byte of request or answer, repeats: one job, all answers, whatever was cut."""

import asyncio
import itertools
import os

import pytest

from onceseen import AsyncClient, Client
from onceseen.testing.cutting import CuttingProxy
from onceseen.testing.pictures import flat, picture

numbers = itertools.count(600_000)
PARTS = (0, 0.02, 0.5)
"""Where in a request or answer it is cut, beside some bytes of its head and its last one."""


@pytest.fixture(scope="module")
def proxy(server):
    with CuttingProxy(server.url) as running:
        yield running


def images(bulk):
    """Three images that nobody has sent before; `bulk` bytes more at the end of each, which a decoder passes over."""
    return [(f"{n}.png", picture(next(numbers)) + os.urandom(bulk)) for n in range(3)]


def submit_blocking(url, given, name):
    with Client(url, total=20) as client:
        job = client.submit(given, model="colours", name=name)
        return job.id, list(job.results()), job.state


def submit_awaited(url, given, name):
    async def run():
        async with AsyncClient(url, total=20) as client:
            job = await client.submit(given, model="colours", name=name)
            return job.id, [item async for item in job.results()], job.state

    return asyncio.run(run())


SUBMITS = {"blocking": submit_blocking, "awaited": submit_awaited}


@pytest.mark.parametrize("how", SUBMITS)
@pytest.mark.parametrize("bulk", [0, 900_000], ids=["small", "large"])
def test_a_submission_that_is_cut_anywhere_is_one_job_with_all_answers(server, proxy, how, bulk):
    given = images(bulk)
    proxy.cut(cuts=0)
    with Client(proxy.url) as client:
        client.submit(given, model="colours", name=f"whole-{how}-0000")
    request, answer = proxy.sent, proxy.received
    assert request > 3 * bulk
    assert answer > 200
    points = [("up", place) for place in (1, 300, request - 1, request)]
    points += [("up", int(part * request)) for part in PARTS]
    points += [("down", place) for place in (1, 150, answer - 1)] + [("down", int(part * answer)) for part in PARTS]
    for number, (way, place) in enumerate(points):
        name = f"parts-{how}-{bulk}-{number}"
        given = images(bulk)
        proxy.cut(**{way: place})
        job, items, state = SUBMITS[how](proxy.url, given, name)
        assert proxy.cuts <= 0, (way, place)  # it was cut indeed
        assert state == "succeeded", (way, place)
        assert sorted((item.n, item.name, item.state) for item in items) == [
            (n, f"{n}.png", "succeeded") for n in range(3)
        ], (way, place)
        jobs = server.get("/v1/jobs", q=f'name:"{name}"')["items"]
        assert [(found["id"], found["name"]) for found in jobs if found["name"] == name] == [(job, name)], (way, place)


@pytest.mark.parametrize("how", ["blocking", "awaited"])
def test_one_image_with_its_answer_survives_a_cut_of_either(server, proxy, how):
    def classify():
        colour = (next(numbers) % 100, 250, next(numbers) % 100)
        if how == "blocking":
            with Client(proxy.url, total=20) as client:
                return client.classify(flat(colour), model="colours")

        async def run():
            async with AsyncClient(proxy.url, total=20) as client:
                return await client.classify(flat(colour), model="colours")

        return asyncio.run(run())

    for cut in ({"up": 0}, {"up": 200}, {"up": 350}, {"down": 0}, {"down": 40}, {"down": 400}):
        jobs = {job["id"] for job in server.get("/v1/jobs", limit=1000)["items"]}
        proxy.cut(**cut)
        item = classify()
        assert proxy.cuts <= 0, cut
        assert (item.label, item.state) == ("green", "succeeded")
        assert {job["id"] for job in server.get("/v1/jobs", limit=1000)["items"]} - jobs == {item.job}


def test_results_and_events_go_on_when_every_answer_is_cut_some_times(server, proxy):
    with Client(proxy.url, total=20) as client:
        proxy.cut(cuts=0)
        job = client.submit([(f"{n}.png", picture(next(numbers))) for n in range(30)], model="colours")
        seen = []
        results = job.results()
        for way, place in (("down", 10), ("down", 300), ("up", 5), ("down", 2000)):
            proxy.cut(**{way: place}, cuts=2)
            seen += list(itertools.islice(results, 6))
        seen += list(results)
        assert sorted(item.n for item in seen) == list(range(30))
        proxy.cut(down=900, cuts=3)
        events = client.follow(after=0)
        found = [next(events).seq for _ in range(12)]
        assert found == sorted(set(found))
        assert proxy.cuts <= 0
        events.close()


def test_a_file_object_is_rewound_and_a_stream_that_cannot_be_is_sent_whole(server, proxy, tmp_path):
    data = picture(next(numbers))
    (tmp_path / "file.png").write_bytes(data)
    reading, writing = os.pipe()
    os.write(writing, picture(next(numbers)))
    os.close(writing)
    with (
        Client(proxy.url, total=20) as client,
        (tmp_path / "file.png").open("rb") as file,
        os.fdopen(reading, "rb") as pipe,
    ):
        proxy.cut(down=5, cuts=2)
        job = client.submit([file, ("pipe.png", pipe), tmp_path / "file.png"], model="colours").wait(20)
        assert proxy.cuts <= 0
        assert (job.total, job.succeeded) == (3, 3)
        names = [item.name for item in job.items()]
        assert names == [str(tmp_path / "file.png"), "pipe.png", str(tmp_path / "file.png")]
