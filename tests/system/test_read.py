import base64
import io
import json
import sqlite3
import threading
import time

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from onceseen.testing.onnx_models import channel_means, weighted_sum
from onceseen.testing.pictures import colour_model, flat, picky_model, picture, slow, slow_model, zipped
from onceseen.testing.running import RunningServer, eventually

NOBODY = "01a1ff0a-42e6-7000-abb9-a90674369b1e"


def refused(answer, status, code):
    """The sentence of a problem document."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert answer.json()["code"] == code
    return answer.json()["detail"]


@pytest.fixture(scope="module")
def job(server):
    """A finished job of 60 items: every tenth broken."""
    files = [(f"{n:02}.png", b"broken %d" % n if n % 10 == 3 else picture(50_000 + n)) for n in range(60)]
    return server.wait_job(server.submit(files, name="the sixty")["id"])


# -- jobs and items ----------------------------------------------------------------------------------------------------------


def test_a_job_says_how_it_stands(server, job):
    assert (job["name"], job["state"], job["model"], job["owner"]) == ("the sixty", "failed", "colours:1", "local")
    assert [job[key] for key in ("total", "queued", "running", "succeeded", "failed", "cancelled")] == [
        60,
        0,
        0,
        54,
        6,
        0,
    ]
    assert job["created_at"].endswith("Z")
    assert job["created_at"] <= job["finished_at"]
    listed = server.get("/v1/jobs", limit=1000)["items"]
    assert job in listed
    assert [found["id"] for found in listed] == sorted((found["id"] for found in listed), reverse=True)


@pytest.mark.parametrize("limit", [1, 7, 20, 59, 60, 61, 1000])
def test_pages_by_cursor_show_every_item_once(server, job, limit):
    items = server.items(job["id"], limit=limit)
    assert [item["n"] for item in items] == list(range(60))
    assert [item["name"] for item in items] == [f"{n:02}.png" for n in range(60)]


def test_pages_of_all_jobs_show_every_job_once(server, job):
    for _ in range(3):
        server.submit(picture(1), wait=20)
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = server.get("/v1/jobs", limit=2, **({"cursor": cursor} if cursor else {}))
        found += [row["id"] for row in page["items"]]
        cursor = page["next"]
    assert len(found) == len(set(found)) >= 4
    assert job["id"] in found


def test_items_are_filtered_by_state_and_label(server, job):
    assert [item["n"] for item in server.items(job["id"], state="failed", limit=4)] == [3, 13, 23, 33, 43, 53]
    assert len(server.items(job["id"], state="succeeded")) == 54
    assert len(server.items(job["id"], state="succeeded,failed", limit=9)) == 60
    assert server.items(job["id"], state="queued") == server.items(job["id"], state="cancelled") == []
    everything = server.items(job["id"])
    label = everything[0]["label"]
    assert server.items(job["id"], label=label) == [item for item in everything if item["label"] == label]
    answer = server.http.get(f"/v1/jobs/{job['id']}/items", params={"state": "done"})
    assert "succeeded" in refused(answer, 400, "invalid-request")


def test_one_item_is_read_by_its_number(server, job):
    assert server.get(f"/v1/jobs/{job['id']}/items/7") == server.items(job["id"])[7]
    for n in (60, -1, 2**63, 10**30):
        refused(server.http.get(f"/v1/jobs/{job['id']}/items/{n}"), 404, "not-found")
    refused(server.http.get(f"/v1/jobs/{job['id']}/items/first"), 400, "invalid-request")


@pytest.mark.parametrize("path", ["", "/items", "/items/0"])
@pytest.mark.parametrize("name", [NOBODY, "1", "%00", "x" * 300, "ünï"])
def test_a_job_that_is_not_there_is_a_problem(server, path, name):
    refused(server.http.get(f"/v1/jobs/{name}{path}"), 404, "not-found")


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_nothing_is_asked_of_a_job_that_is_not_there(server, verb):
    refused(server.http.post(f"/v1/jobs/{NOBODY}/{verb}"), 404, "not-found")
    refused(server.http.delete(f"/v1/jobs/{NOBODY}"), 404, "not-found")


@pytest.mark.parametrize("cursor", ["x", "!", "AAAA", "é", base64.urlsafe_b64encode(b"\xff" * 24).decode(), "A" * 5000])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/JOB/items", "/v1/predictions", "/v1/dead-letters"])
def test_a_cursor_of_somebody_else_is_refused_or_shows_nothing_wrong(server, job, cursor, path):
    answer = server.http.get(path.replace("JOB", job["id"]), params={"cursor": cursor})
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        refused(answer, 400, "invalid-request")


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "many", "1e3"])
def test_a_limit_out_of_range_is_refused(server, job, limit):
    for path in ("/v1/jobs", f"/v1/jobs/{job['id']}/items", "/v1/predictions"):
        assert "limit" in refused(server.http.get(path, params={"limit": limit}), 400, "invalid-request")


def test_predictions_are_the_items_of_all_jobs_newest_first(server, job):
    newest = server.submit(flat((200, 1, 7)), wait=20, filename="newest")["items"][0]
    found = server.get("/v1/predictions", limit=61)["items"]
    assert found[0] == newest
    places = [(item["job"], item["n"]) for item in found]
    assert places == sorted(places, reverse=True)
    assert {item["state"] for item in server.get("/v1/predictions", state="failed")["items"]} == {"failed"}


# -- images ----------------------------------------------------------------------------------------------------------------


def test_an_image_is_known_by_all_its_names(server):
    data = flat((9, 99, 9), (40, 20), "BMP")
    item = server.submit([("b.bmp", data), ("a.bmp", data), ("b.bmp", data)], wait=20)["items"][0]
    image = server.get(f"/v1/images/{item['digest']}")
    assert set(image) == {"digest", "pixel_digest", "names", "media_type", "width", "height", "bytes", "created_at"}
    assert (image["names"], image["media_type"]) == (["a.bmp", "b.bmp"], "image/bmp")
    assert (image["width"], image["height"], image["bytes"]) == (40, 20, len(data))
    page = server.get(f"/v1/images/{item['digest']}/predictions", limit=2)
    rest = server.get(f"/v1/images/{item['digest']}/predictions", limit=2, cursor=page["next"])
    assert [found["n"] for found in page["items"] + rest["items"]][:3] == [2, 1, 0]


@pytest.mark.parametrize("what", ["", "/content", "/thumbnail", "/predictions"])
@pytest.mark.parametrize("digest", ["0" * 64, "0" * 63, "z" * 64, "", "0" * 1000])
def test_an_image_that_is_not_there_is_a_problem(server, what, digest):
    answer = server.http.get(f"/v1/images/{digest}{what}")
    assert answer.status_code in (404, 307), answer.text


FORMS = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
}


def content_of(server, data):
    item = server.submit(data, wait=20)["items"][0]
    answer = server.http.get(f"/v1/images/{item['digest']}/content")
    assert answer.status_code == 200
    assert answer.content == data
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("sandbox")
    return answer


@pytest.mark.parametrize("form", FORMS)
def test_content_is_sent_as_what_it_is(server, form):
    answer = content_of(server, flat((3, 4, 5), (30, 20), form))
    assert answer.headers["content-type"] == FORMS[form]
    assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    "data",
    [
        b"<!doctype html><script>alert(1)</script>",
        b"<html>\n<body onload='alert(1)'>\r\n\t<p>text</p></body></html>\n",
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        b"<?xml version='1.0'?>\n<svg/>",
        b"%PDF-1.7\n\0\0",
        b"GIF89a<script>alert(1)</script>",
        b"\xff\xfe<\0h\0t\0m\0l\0>\0",
    ],
)
def test_what_is_no_image_is_never_sent_as_a_page(server, data):
    kind = content_of(server, data).headers["content-type"]
    assert kind.startswith(("text/plain", "application/octet-stream"))


@pytest.mark.parametrize(("size", "longest"), [(None, 160), (16, 64), (64, 64), (100, 160), (321, 640), (1280, 1000)])
def test_a_thumbnail_fits_and_is_cached(server, size, longest):
    item = server.submit(flat((90, 20, 60), (1000, 500), "JPEG"), wait=20)["items"][0]
    path = f"/v1/images/{item['digest']}/thumbnail"
    answer = server.http.get(path, params={} if size is None else {"size": size})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "immutable" in answer.headers["cache-control"]
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == (longest, longest // 2)
    kept = list((server.data / "cache" / "thumbnails").rglob(f"{item['digest']}-*.jpg"))
    assert answer.content in [file.read_bytes() for file in kept]
    again = server.http.get(path, params={} if size is None else {"size": size})
    assert again.content == answer.content


def test_thumbnails_of_strange_sizes_and_broken_images_are_problems(server):
    good = server.submit(picture(3), wait=20)["items"][0]["digest"]
    for size in ("0", "15", "1281", "-5", "big", str(10**30)):
        refused(server.http.get(f"/v1/images/{good}/thumbnail", params={"size": size}), 400, "invalid-request")
    bad = server.submit(b"nothing to see", wait=20)["items"][0]["digest"]
    refused(server.http.get(f"/v1/images/{bad}/thumbnail"), 422, "unreadable-image")


def test_twenty_who_ask_for_one_thumbnail_at_once_get_the_same(server):
    item = server.submit(flat((7, 80, 60), (900, 700), "JPEG"), wait=20)["items"][0]
    found = []

    def ask():
        found.append(server.http.get(f"/v1/images/{item['digest']}/thumbnail?size=320").content)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert len(set(found)) == 1


# -- events ----------------------------------------------------------------------------------------------------------------


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
    refused(server.http.get("/v1/events", headers={"last-event-id": last}, timeout=5), 400, "invalid-request")
    refused(server.http.get("/v1/events", params={"after": last}, timeout=5), 400, "invalid-request")


# -- health, metrics, workers ------------------------------------------------------------------------------------------------


def test_health_says_that_it_lives_and_is_ready(server):
    assert server.get("/healthz/live") == {"status": "ok"}
    assert server.get("/healthz/ready")["status"] == "ok"
    assert server.get("/healthz/ready")["workers"] == 2


def test_metrics_can_be_read_by_prometheus(server, job):
    answer = server.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert {"onceseen_images_inferred", "onceseen_settles_fenced", "onceseen_workers", "onceseen_tasks"} <= set(
        families
    )
    samples = [sample for sample in families["onceseen_images_inferred"].samples if sample.name.endswith("_total")]
    assert any(sample.labels == {"model": "colours", "version": "1"} and sample.value > 50 for sample in samples)
    assert families["onceseen_workers"].samples[0].value == 2
    assert families["onceseen_commit_seconds"].type == "histogram"
    assert any(
        sample.name.endswith("_count") and sample.value > 0 for sample in families["onceseen_commit_seconds"].samples
    )


def test_workers_say_what_they_are(server, job):
    workers = server.get("/v1/workers")["items"]
    assert sorted(worker["pid"] for worker in workers) == server.workers()
    for worker in workers:
        keys = {
            "id",
            "host",
            "pid",
            "server",
            "state",
            "lanes",
            "images_per_s",
            "memory_mb",
            "restarts",
            "started_at",
            "seen_at",
        }
        assert set(worker) == keys
        assert worker["state"] in ("idle", "busy", "loading")
    eventually(lambda: all(worker["memory_mb"] > 10 for worker in server.get("/v1/workers")["items"]))


def test_stats_count_the_whole_record(server, job):
    stats = server.get("/v1/stats")
    keys = {"queued", "running", "succeeded", "failed", "workers", "images_per_s", "p95_ms", "failed_24h", "by_lane"}
    assert keys <= set(stats)
    assert stats["succeeded"] >= 54
    assert stats["failed"] >= stats["failed_24h"] >= 6
    assert stats["workers"] == 2
    assert stats["images_per_s"] > 0
    assert stats["p95_ms"] > 0


# -- cancel, retry, delete -----------------------------------------------------------------------------------------------------


def test_a_cancelled_job_keeps_its_answers_and_runs_no_further(server):
    files = [(f"{n}", slow(3, 1000 + n)) for n in range(20)]
    job = server.submit(files, model="slow")["id"]
    eventually(lambda: server.get(f"/v1/jobs/{job}")["running"] > 0)
    answer = server.http.post(f"/v1/jobs/{job}/cancel")
    assert answer.status_code == 200
    assert answer.json()["id"] == job
    done = server.wait_job(job)
    assert done["state"] == "cancelled"
    assert done["succeeded"] + done["cancelled"] == 20
    assert done["cancelled"] > 0
    states = [item["state"] for item in server.items(job)]
    assert (states.count("succeeded"), states.count("cancelled")) == (done["succeeded"], done["cancelled"])
    cancelled = server.items(job, state="cancelled")[0]
    assert (cancelled["label"], cancelled["error"]["kind"]) == (None, "cancelled")
    eventually(lambda: server.get("/v1/stats")["running"] == 0)
    assert server.get("/v1/stats")["queued"] == 0
    again = server.submit(files, model="slow")["id"]
    assert server.wait_job(again)["succeeded"] == 20


def test_cancelling_one_of_two_jobs_leaves_the_shared_tasks_to_the_other(server):
    files = [(f"{n}", slow(3, 2000 + n)) for n in range(12)]
    first, second = (server.submit(files, model="slow")["id"] for _ in range(2))
    server.http.post(f"/v1/jobs/{first}/cancel")
    assert server.wait_job(second)["succeeded"] == 12
    assert server.wait_job(first)["finished_at"]


def test_a_deleted_job_is_gone_with_its_names(server):
    data, shared = picture(71_000), picture(71_001)
    kept = server.submit([("kept", shared)], wait=20)
    job = server.submit([("only here", data), ("gone too", shared)], wait=20)
    digest = job["items"][0]["digest"]
    answer = server.http.delete(f"/v1/jobs/{job['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    for path in ("", "/items", "/items/0"):
        refused(server.http.get(f"/v1/jobs/{job['id']}{path}"), 404, "not-found")
    refused(server.http.delete(f"/v1/jobs/{job['id']}"), 404, "not-found")
    assert job["id"] not in [found["id"] for found in server.get("/v1/jobs")["items"]]
    eventually(lambda: server.http.get(f"/v1/images/{digest}").status_code == 404)
    assert server.http.get(f"/v1/images/{digest}/content").status_code == 404
    assert server.get(f"/v1/images/{kept['items'][0]['digest']}")["names"] == ["kept"]
    again = server.submit([("back", data)], wait=20)["items"][0]
    assert again["state"] == "succeeded"
    assert server.http.get(f"/v1/images/{digest}/content").content == data


def test_retry_leaves_unreadable_images_as_they_are(server, job):
    answer = server.http.post(f"/v1/jobs/{job['id']}/retry")
    assert answer.status_code == 200
    done = server.wait_job(job["id"])
    assert (done["succeeded"], done["failed"]) == (54, 6)


def test_failures_of_the_model_are_dead_letters_and_can_be_retried(server, tmp_path):
    server.add_model(picky_model(tmp_path / "failing", "failing"))
    unreadable = server.submit(b"not this one", wait=20)["items"][0]
    job = server.submit([("a", flat((210, 0, 0))), ("b", flat((0, 100, 0)))], model="failing", wait=20)
    assert [item["state"] for item in job["items"]] == ["failed", "succeeded"]
    assert job["items"][0]["error"]["kind"] == "model-failed"
    letters = server.get("/v1/dead-letters")["items"]
    tasks = [item["task"] for item in letters]
    assert job["items"][0]["task"] in tasks
    assert unreadable["task"] not in tasks
    mine = next(item for item in letters if item["task"] == job["items"][0]["task"])
    assert (mine["deaths"], mine["losses"]) == (0, 0)
    before = server.inferred("failing:1")
    assert server.http.post("/v1/dead-letters/retry", json={"tasks": [NOBODY]}).json() == {"count": 0}
    assert server.http.post("/v1/dead-letters/retry", json={"tasks": [mine["task"]]}).json() == {"count": 1}
    assert server.wait_job(job["id"])["failed"] == 1
    assert server.http.post("/v1/dead-letters/retry").json()["count"] >= 1
    assert server.wait_job(job["id"])["failed"] == 1
    refused(server.http.post("/v1/dead-letters/retry", content=b"["), 400, "invalid-request")
    refused(server.http.post("/v1/dead-letters/retry", json={"q": "label:x"}), 400, "invalid-request")
    refused(server.http.post("/v1/dead-letters/retry", json={"tasks": ["x"]}), 400, "invalid-request")
    server.http.post(f"/v1/jobs/{job['id']}/retry")
    assert server.wait_job(job["id"])["failed"] == 1
    assert server.inferred("failing:1") == before


# -- models ----------------------------------------------------------------------------------------------------------------

MODEL_KEYS = {
    "name", "version", "stage", "task", "runtime", "labels", "positive", "content_digest", "default_for", "created_at", "images",
    "ms_per_image",
}  # fmt: skip


def bundle(directory):
    return zipped([(file.name, file.read_bytes()) for file in sorted(directory.iterdir())])


def test_models_are_listed_and_shown(server, job):
    listed = {f"{model['name']}:{model['version']}": model for model in server.get("/v1/models")["items"]}
    assert {"digits:1", "imagenet:1", "colours:1", "slow:1"} <= set(listed)
    colours = server.get("/v1/models/colours")
    assert set(colours) == MODEL_KEYS
    assert server.get("/v1/models/colours:1")["content_digest"] == colours["content_digest"]
    assert (colours["stage"], colours["labels"], colours["positive"], colours["runtime"]) == (
        "live",
        3,
        ["red"],
        "onnx",
    )
    assert "v1" in colours["default_for"]
    assert colours["images"] >= 54
    assert colours["ms_per_image"] > 0
    assert listed["digits:1"]["default_for"] == ["forms"]
    assert "digits" in refused(server.http.get("/v1/models/nobody"), 400, "unknown-model")


def test_versions_live_side_by_side_and_are_promoted_without_a_restart(server, tmp_path):
    workers = server.workers()
    first = server.add_model(colour_model(tmp_path / "1", "two"))
    assert (first["version"], first["stage"]) == ("1", "live")
    swapped = colour_model(tmp_path / "2", "two", labels=("rouge", "vert", "bleu"))
    second = server.add_model(swapped)
    assert (second["version"], second["stage"]) == ("2", "candidate")
    assert first["content_digest"] != second["content_digest"]
    image = flat((180, 0, 0))

    def label(model):
        return server.submit(image, model=model, wait=20)["items"][0]["label"]

    assert [label(model) for model in ("two", "two:1", "two:2")] == ["red", "red", "rouge"]
    promoted = server.http.post("/v1/models/two:2/promote")
    assert (promoted.status_code, promoted.json()["stage"]) == (200, "live")
    assert [label(model) for model in ("two", "two:1", "two:2")] == ["rouge", "red", "rouge"]
    assert server.get("/v1/models/two:1")["stage"] == "candidate"
    again = server.add_model(swapped)
    assert (again["version"], again["stage"]) == ("2", "live")
    assert "two:VERSION" in refused(server.http.delete("/v1/models/two"), 400, "unknown-model")
    assert server.http.delete("/v1/models/two:1").status_code == 204
    refused(server.http.get("/v1/models/two:1"), 400, "unknown-model")
    assert label("two") == "rouge"
    assert server.http.delete("/v1/models/two").status_code == 204
    refused(server.http.post("/v1/jobs?model=two", content=image), 400, "unknown-model")
    assert server.workers() == workers


def test_a_version_with_other_weights_is_a_conflict_and_other_words_are_none(server, tmp_path):
    server.add_model(colour_model(tmp_path / "a", "fixed", "7"))
    other = colour_model(tmp_path / "b", "fixed", "7", labels=("x", "y", "z"))
    detail = refused(server.http.post("/v1/models", content=bundle(other)), 409, "model-exists")
    assert "fixed:7" in detail
    more = colour_model(tmp_path / "c", "fixed", "7", more='licence = "MIT"\npositive = ["blue"]')
    assert server.add_model(more)["positive"] == ["blue"]
    assert server.submit(flat((0, 0, 150)), model="fixed", wait=20)["items"][0]["found"] is True


def test_one_weights_file_is_a_model_with_its_keys_in_the_query(server, tmp_path):
    weights = channel_means(tmp_path / "w.onnx").read_bytes()
    query = {"name": "bare", "version": "v1.0", "set": ['labels=["r","g","b"]', "input.size=[8,8]", "input.std=[25.5]"]}
    answer = server.http.post("/v1/models", params=query, content=weights)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["name"], answer.json()["version"], answer.json()["labels"]) == ("bare", "v1.0", 3)
    assert server.submit(flat((0, 150, 0)), model="bare", wait=20)["items"][0]["label"] == "g"
    refused(server.http.post("/v1/models", params={"set": "labels"}, content=weights), 400, "invalid-request")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("labels =", "lables ="), ("lables", "labels")),
        (('file = "weights.onnx"', 'file = "missing.onnx"'), ("file", "missing.onnx")),
        (('file = "weights.onnx"', 'file = "../weights.onnx"'), ("file", "directory")),
        (("size = [8, 8]", 'size = [8, 8]\ncolor = "purple"'), ("input.color", "rgb")),
        (("size = [8, 8]", 'size = [8, 8]\nlayout = "nhwc"'), ("input",)),
        (("size = [8, 8]", 'size = [8, 8]\ndtype = "uint8"'), ("input.dtype",)),
        (("'blue']", "'blue', 'pink']"), ("labels", "4", "3")),
        ((", 'blue']", "]"), ("labels", "2", "3")),
        (('name = "wrong"', 'name = "wr ong"'), ("name",)),
        (('name = "wrong"', "name = [1]"), ("name",)),
        (('name = "wrong"', 'name = "wrong"\nruntime = "python"'), ("runtime", "not built yet")),
        (('name = "wrong"', 'name = "wrong'), ("TOML",)),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_key_and_the_cure(server, tmp_path, change, says):
    directory = colour_model(tmp_path / "wrong", "wrong")
    text = (directory / "model.toml").read_text()
    assert change[0] in text
    (directory / "model.toml").write_text(text.replace(*change))
    detail = refused(server.http.post("/v1/models", content=bundle(directory)), 422, "invalid-manifest")
    for word in says:
        assert word in detail, detail
    assert str(server.data) not in detail
    refused(server.http.get("/v1/models/wrong"), 400, "unknown-model")


def test_an_upload_that_is_no_model_is_refused(server, tmp_path):
    good = colour_model(tmp_path / "m", "never")
    manifest, weights = (good / "model.toml").read_bytes(), (good / "weights.onnx").read_bytes()
    refused(server.http.post("/v1/models", content=b""), 400, "invalid-request")
    whole = zipped([("model.toml", manifest), ("weights.onnx", weights)])
    damaged = bytearray(whole)
    damaged[80] ^= 0xFF
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[whole.index(b"PK\x01\x02") + 8] |= 1
    elsewhere = manifest.replace(b"labels = ", b"labels = 'labels.txt' #")
    external = tmp_path / "external.onnx"
    weighted_sum(external, np.ones((3, 3, 8, 8)), np.zeros(3), "../../secret.bin")
    for body in (
        b"no model at all",
        zipped([]),
        zipped([("readme.txt", b"x")]),
        zipped([("model.toml", manifest)]),
        zipped([("model.toml", manifest), ("weights.onnx", b"no weights")]),
        zipped([("model.toml", manifest), ("../weights.onnx", weights)]),
        zipped([("model.toml", manifest), ("/weights.onnx", weights)]),
        zipped([("model.toml", manifest), ("weights.onnx", external.read_bytes())]),
        zipped([("model.toml", b"\xff\xfe"), ("weights.onnx", weights)]),
        zipped([("model.toml", elsewhere), ("weights.onnx", weights), ("labels.txt", b"\xff\xfe\xfd")]),
        bytes(damaged),
        bytes(encrypted),
        whole[:-40],
    ):  # fmt: skip
        refused(server.http.post("/v1/models", content=body), 422, "invalid-manifest")
    assert not list((server.data / "tmp").iterdir())


def test_a_zip_of_the_directory_itself_is_as_good(server, tmp_path):
    directory = colour_model(tmp_path / "m", "nested")
    files = [(f"m/{file.name}", file.read_bytes()) for file in directory.iterdir()]
    assert server.http.post("/v1/models", content=zipped(files)).status_code == 201


def test_a_model_cannot_be_removed_while_its_tasks_wait(server, tmp_path):
    server.add_model(slow_model(tmp_path / "m", "busy", 4001))
    job = server.submit([(f"{n}", slow(8, n)) for n in range(10)], model="busy")["id"]
    assert "busy:1" in refused(server.http.delete("/v1/models/busy"), 409, "model-in-use")
    assert server.wait_job(job)["succeeded"] == 10
    assert eventually(lambda: server.http.delete("/v1/models/busy").status_code == 204)
    items = server.items(job)
    assert {item["label"] for item in items} == {"red"}
    assert not list((server.data / "models").glob("busy-*"))


def test_defaults_are_shown_and_changed(server):
    assert server.http.put("/v1/models/defaults/scan", params={"model": "digits"}).status_code == 200
    assert server.get("/v1/models/defaults") == {
        "v1": "colours",
        "forms": "digits",
        "scan": "digits",
        "jobboard": "imagenet",
    }
    set_default = server.http.put
    assert set_default("/v1/models/defaults/scan", params={"model": "colours:1"}).status_code == 200
    assert server.get("/v1/models/defaults")["scan"] == "colours:1"
    assert "scan" in server.get("/v1/models/colours")["default_for"]
    refused(set_default("/v1/models/defaults/scan", params={"model": "nobody"}), 400, "unknown-model")
    refused(set_default("/v1/models/defaults/nothing", params={"model": "colours"}), 400, "invalid-request")
    refused(set_default("/v1/models/defaults/scan"), 400, "invalid-request")


# -- a server without workers --------------------------------------------------------------------------------------------------


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
