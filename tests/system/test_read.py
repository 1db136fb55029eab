import base64
import io
import threading

import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from onceseen.testing.asking import problem
from onceseen.testing.pictures import flat, picky_model, picture, slow
from onceseen.testing.running import eventually

NOBODY = "01a1ff0a-42e6-7000-abb9-a90674369b1e"


# -- jobs and items -----------------------------------------------------------------------------------------------------


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
    assert "succeeded" in problem(answer, 400, "invalid-request")


def test_one_item_is_read_by_its_number(server, job):
    assert server.get(f"/v1/jobs/{job['id']}/items/7") == server.items(job["id"])[7]
    for n in (60, -1, 2**63, 10**30):
        problem(server.http.get(f"/v1/jobs/{job['id']}/items/{n}"), 404, "not-found")
    problem(server.http.get(f"/v1/jobs/{job['id']}/items/first"), 400, "invalid-request")


@pytest.mark.parametrize("path", ["", "/items", "/items/0"])
@pytest.mark.parametrize("name", [NOBODY, "1", "%00", "x" * 300, "ünï"])
def test_a_job_that_is_not_there_is_a_problem(server, path, name):
    problem(server.http.get(f"/v1/jobs/{name}{path}"), 404, "not-found")


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_nothing_is_asked_of_a_job_that_is_not_there(server, verb):
    problem(server.http.post(f"/v1/jobs/{NOBODY}/{verb}"), 404, "not-found")
    problem(server.http.delete(f"/v1/jobs/{NOBODY}"), 404, "not-found")


@pytest.mark.parametrize("cursor", ["x", "!", "AAAA", "é", base64.urlsafe_b64encode(b"\xff" * 24).decode(), "A" * 5000])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/JOB/items", "/v1/predictions", "/v1/dead-letters"])
def test_a_cursor_of_somebody_else_is_refused_or_shows_nothing_wrong(server, job, cursor, path):
    answer = server.http.get(path.replace("JOB", job["id"]), params={"cursor": cursor})
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        problem(answer, 400, "invalid-request")


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "many", "1e3"])
def test_a_limit_out_of_range_is_refused(server, job, limit):
    for path in ("/v1/jobs", f"/v1/jobs/{job['id']}/items", "/v1/predictions"):
        assert "limit" in problem(server.http.get(path, params={"limit": limit}), 400, "invalid-request")


def test_predictions_are_the_items_of_all_jobs_newest_first(server, job):
    newest = server.submit(flat((200, 1, 7)), wait=20, filename="newest")["items"][0]
    found = server.get("/v1/predictions", limit=61)["items"]
    assert found[0] == newest
    places = [(item["job"], item["n"]) for item in found]
    assert places == sorted(places, reverse=True)
    assert {item["state"] for item in server.get("/v1/predictions", state="failed")["items"]} == {"failed"}


# -- images -------------------------------------------------------------------------------------------------------------


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
        problem(server.http.get(f"/v1/images/{good}/thumbnail", params={"size": size}), 400, "invalid-request")
    bad = server.submit(b"nothing to see", wait=20)["items"][0]["digest"]
    problem(server.http.get(f"/v1/images/{bad}/thumbnail"), 422, "unreadable-image")


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


# -- health, metrics, workers -------------------------------------------------------------------------------------------


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


# -- cancel, retry, delete ----------------------------------------------------------------------------------------------


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
        problem(server.http.get(f"/v1/jobs/{job['id']}{path}"), 404, "not-found")
    problem(server.http.delete(f"/v1/jobs/{job['id']}"), 404, "not-found")
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
    problem(server.http.post("/v1/dead-letters/retry", content=b"["), 400, "invalid-request")
    problem(server.http.post("/v1/dead-letters/retry", json={"q": "lable:x"}), 400, "invalid-request")
    problem(server.http.post("/v1/dead-letters/retry", json={"tasks": ["x"]}), 400, "invalid-request")
    server.http.post(f"/v1/jobs/{job['id']}/retry")
    assert server.wait_job(job["id"])["failed"] == 1
    assert server.inferred("failing:1") == before
