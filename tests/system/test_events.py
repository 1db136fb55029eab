import json
import sqlite3
import threading
import time

import pytest

from onceseen.testing.asking import problem
from onceseen.testing.pictures import picture, slow
from onceseen.testing.running import RunningServer, eventually

NOBODY = "01a1ff0a-42e6-7000-abb9-a90674369b1e"


# -- events -------------------------------------------------------------------------------------------------------------


class Watcher:
    """Reads events in a thread."""

    def __init__(self, server, last=None, **query):
        self.events = []
        self.resets = 0
        self._server, self._query = server, query
        self._headers = {"last-event-id": str(last)} if last is not None else {}
        self._over = threading.Event()
        self.opened = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        assert self.opened.wait(10)

    def _read(self):
        with self._server.http.stream("GET", "/v1/events", params=self._query, headers=self._headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            kind = last = ""
            for line in answer.iter_lines():
                self.opened.set()
                if self._over.is_set():
                    return
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "id":
                    last = value
                elif name == "data" and kind == "reset":
                    self.resets, kind = self.resets + 1, ""
                elif name == "data":
                    event = json.loads(value)
                    assert event["seq"] == int(last)
                    assert set(event) == {"seq", "at", "kind", "subject", "data"}
                    self.events.append(event)

    def of(self, job):
        return [event["kind"] for event in list(self.events) if event["subject"] == job]

    def end(self):
        self._over.set()
        job = self._query.get("job") or self._server.submit(picture(7))["id"]
        self._server.http.post(f"/v1/jobs/{job}/retry")  # something happens, so that the thread wakes
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def watch(server):
    """Starts watchers that end with the test."""
    watchers = []

    def start(*given, **query):
        watchers.append(Watcher(server, *given, **query))
        return watchers[-1]

    yield start
    for watcher in watchers:
        watcher.end()


def test_events_arrive_as_things_happen(server, watch):
    watcher = watch()
    job = server.submit([("a", picture(61_000)), ("b", slow(3))], model="slow")["id"]
    eventually(lambda: "job.finished" in watcher.of(job))
    kinds = watcher.of(job)
    assert (kinds[0], kinds[-1], kinds.count("job.created"), kinds.count("job.finished")) == (
        "job.created",
        "job.finished",
        1,
        1,
    )
    finished = next(event for event in watcher.events if event["subject"] == job and event["kind"] == "job.finished")
    assert (finished["data"]["id"], finished["data"]["succeeded"]) == (job, 2)


def test_last_event_id_resumes_without_gap_or_double(server, watch):
    whole = watch(after=0)
    for n in range(5):
        server.submit(picture(62_000 + n), wait=20)
    eventually(lambda: len(whole.events) > 10)
    time.sleep(0.3)
    seqs = [event["seq"] for event in list(whole.events)]
    assert seqs == sorted(set(seqs))
    middle = seqs[len(seqs) // 2]
    resumed = watch(middle)
    expected = [seq for seq in seqs if seq > middle]
    eventually(lambda: len(resumed.events) >= len(expected))
    assert [event["seq"] for event in resumed.events[: len(expected)]] == expected
    assert whole.resets == resumed.resets == 0


def test_events_of_one_job_are_only_its_own(server, watch):
    job = server.submit(picture(63_000), wait=20)["id"]
    server.submit(picture(63_001), wait=20)
    watcher = watch(after=0, job=job)
    eventually(lambda: "job.finished" in watcher.of(job))
    assert {event["subject"] for event in watcher.events} == {job}


def test_a_reader_from_another_time_is_told_to_read_anew(server, watch):
    watcher = watch(10**12)
    eventually(lambda: watcher.resets)
    job = server.submit(picture(64_000), wait=20)["id"]
    eventually(lambda: "job.finished" in watcher.of(job))
    assert watcher.resets == 1


@pytest.mark.parametrize("last", ["x", "-1", "\u00b2".encode(), str(10**30), "1.5"])
def test_a_last_event_id_that_is_no_number_of_ours_is_refused(server, last):
    problem(server.http.get("/v1/events", headers={"last-event-id": last}, timeout=5), 400, "invalid-request")
    problem(server.http.get("/v1/events", params={"after": last}, timeout=5), 400, "invalid-request")


# -- a server without workers -------------------------------------------------------------------------------------------


def test_what_waits_is_counted_and_events_that_are_no_longer_kept_are_a_reset(tmp_path):
    with RunningServer(tmp_path / "data", workers=0) as running:
        for n in range(3):
            running.submit(picture(n), model="digits")
        stats = running.get("/v1/stats")
        assert (stats["queued"], stats["workers"], stats["p95_ms"]) == (3, 0, None)
        (lane,) = stats["by_lane"]
        assert lane == {**lane, "model": "digits:1", "queued": 3}
        assert set(lane) == {"lane", "model", "queued", "oldest_s"}
        assert 0 <= lane["oldest_s"] < 60
        running.stop()
        with sqlite3.connect(running.data / "record.db") as record:
            newest = record.execute("SELECT max(seq) FROM event").fetchone()[0]
            record.execute("DELETE FROM event WHERE seq < ?", (newest,))
        record.close()
        running.start()
        watcher = Watcher(running, 1)
        eventually(lambda: watcher.resets)
        watcher.end()
        kept = Watcher(running, newest - 1)
        eventually(lambda: kept.events)
        kept.end()
        assert (kept.resets, kept.events[0]["seq"]) == (0, newest)
        running.stop()
