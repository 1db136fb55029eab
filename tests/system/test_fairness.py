"""With real workers: somebody who waits, and a large job in the background, both get their answers."""

import itertools
import threading
import time
from statistics import median

import pytest

from onceseen.testing.pictures import picture, slow, zipped
from onceseen.testing.running import RunningServer


def post_and_wait(server, image, priority):
    began = time.monotonic()
    answer = server.http.post(f"/v1/jobs?wait=30&model=slow&priority={priority}", content=image, headers=KIND)
    assert answer.status_code == 201, answer.text
    assert answer.json()["state"] == "succeeded", answer.text
    return time.monotonic() - began


KIND = {"content-type": "image/png"}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_interactive_image_under_a_backlog_of_twenty_thousand(models):
    with RunningServer() as server:
        server.add_model(models / "slow")
        archive = zipped([(f"{n}.png", picture(n)) for n in range(20_000)])
        answer = server.http.post("/v1/jobs?model=slow", content=archive, headers={"content-type": "application/zip"})
        assert answer.status_code == 201, answer.text
        job = answer.json()["id"]
        times = []
        for n in range(15):
            before = server.get(f"/v1/jobs/{job}")
            assert before["queued"] > 500, "the backlog is over; the machine is too fast for this test"
            times.append(post_and_wait(server, slow(1, n), 0))
        assert median(times) < 1.0, times
        assert server.wait_job(job, 600)["succeeded"] == 20_000


def test_a_background_job_ends_while_people_keep_the_workers_busy(models):
    with RunningServer(workers=1) as server:
        server.add_model(models / "slow")
        stop, numbers = threading.Event(), itertools.count()
        answered: list[float] = []

        def person():
            while not stop.is_set():
                answered.append(post_and_wait(server, slow(1, next(numbers)), 0))

        people = [threading.Thread(target=person) for _ in range(8)]
        for thread in people:
            thread.start()
        try:
            job = server.submit([(f"{n}", slow(1, 12_000 + n)) for n in range(10)], model="slow", priority=9)["id"]
            assert server.wait_job(job, 90)["succeeded"] == 10
        finally:
            stop.set()
            for thread in people:
                thread.join()
        assert len(answered) >= 8, "nobody was held up for it"
