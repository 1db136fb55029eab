import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest

from onceseen.bundled import samples
from onceseen.testing.asking import form, post, problem, raw
from onceseen.testing.pictures import flat, picture, slow
from onceseen.testing.running import eventually

RED, GREEN = flat((250 - 60, 10, 20)), flat((10, 190, 20))
JOB_KEYS = {
    "id", "name", "state", "model", "priority", "owner", "total", "queued", "running", "succeeded", "failed", "cancelled",
    "created_at", "finished_at",
}  # fmt: skip
ITEM_KEYS = {
    "job", "n", "name", "digest", "task", "state", "label", "score", "risk", "found", "predictions", "error", "attempt",
    "model", "worker", "frame", "queued_at", "started_at", "finished_at", "run_ms", "reused",
}  # fmt: skip


# -- one image ----------------------------------------------------------------------------------------------------------


def test_an_image_as_the_body_is_answered_within_the_wait(server):
    answer = post(server, RED, "image/png", "/v1/jobs?wait=20&name=first&filename=r.png&fresh=1")
    assert answer.status_code == 201
    job = answer.json()
    assert set(job) == JOB_KEYS | {"items"}
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["name"], job["state"], job["total"], job["succeeded"], job["priority"]) == (
        "first",
        "succeeded",
        1,
        1,
        0,
    )
    assert job["model"] == "colours:1"
    assert job["finished_at"] >= job["created_at"]
    (item,) = job["items"]
    assert set(item) == ITEM_KEYS
    assert (item["n"], item["name"], item["state"], item["label"], item["model"]) == (
        0,
        "r.png",
        "succeeded",
        "red",
        "colours:1",
    )
    assert item["predictions"][0] == {"index": 0, "label": "red", "score": item["score"]}
    assert item["score"] > 0.9
    assert (item["found"], item["error"], item["reused"], item["attempt"]) == (True, None, False, 1)
    assert item["risk"] == pytest.approx(item["score"], abs=0.001)
    assert job["created_at"] <= item["finished_at"] <= job["finished_at"]
    assert server.get(f"/v1/jobs/{job['id']}/items/0") == item


def test_without_a_wait_the_job_comes_back_at_once(server):
    job = server.submit(picture(1))
    assert set(job) == JOB_KEYS
    assert job["priority"] == 5
    assert server.wait_job(job["id"])["state"] == "succeeded"


def test_a_wait_that_ends_first_is_still_201_with_the_unfinished_job(server):
    began = time.monotonic()
    answer = post(server, slow(40), "image/png", "/v1/jobs?wait=0.3&model=slow&fresh=1")
    assert answer.status_code == 201
    assert 0.25 < time.monotonic() - began < 10
    job = answer.json()
    assert job["finished_at"] is None
    assert job["state"] in ("pending", "running")
    assert [item["state"] for item in job["items"]] in (["queued"], ["running"])
    assert server.wait_job(job["id"])["state"] == "succeeded"


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="a b.png"', "a b.png"),
        ("attachment; filename=plain.png", "plain.png"),
        ("attachment; filename*=UTF-8''na%C3%AFve%20%E2%82%AC.png", "naïve €.png"),
        ("attachment; filename=\"old.png\"; filename*=UTF-8''new%2025.png", "new 25.png"),
        ("attachment; filename*=UTF-8''100%2525.png", "100%25.png"),
        ('attachment; filename="say \\"hi\\".png"', 'say "hi".png'),
        ("attachment", "image"),
        ('attachment; filename="', "image"),
        (";;;=;filename*=nonsense''%", "image"),
        ("attachment; filename*=UTF-9''x.png", "image"),
        ('attachment; filename="' + "x" * 5000 + '.png"', "…" + "x" * 995 + ".png"),
    ],
)
def test_a_name_comes_from_content_disposition(server, disposition, name):
    answer = post(server, picture(2), "image/png", "/v1/jobs?wait=20", content_disposition=disposition)
    assert answer.status_code == 201, answer.text
    found = answer.json()["items"][0]["name"]
    assert found == name or (name == "image" and found), found


def test_filename_in_the_query_goes_before_the_header(server):
    headers = {"content-type": "image/png", "content-disposition": 'attachment; filename="other.png"'}
    answer = server.http.post("/v1/jobs", params={"wait": 20, "filename": "ünï/x.png"}, content=RED, headers=headers)
    assert answer.json()["items"][0]["name"] == "ünï/x.png"


@pytest.mark.parametrize("kind", ["image/png", "image/x-anything", "application/octet-stream", "IMAGE/PNG; q=1"])
def test_the_content_type_says_one_image_and_not_which(server, kind):
    assert post(server, RED, kind, "/v1/jobs?wait=20").json()["items"][0]["label"] == "red"


def test_an_unreadable_image_is_a_failed_item_and_no_http_error(server):
    for data in (b"no image at all", RED[:40], b"\x89PNG\r\n\x1a\n"):
        job = server.submit(data, wait=20)
        assert (job["state"], job["failed"]) == ("failed", 1)
        (item,) = job["items"]
        assert (item["state"], item["error"]["kind"], item["label"]) == ("failed", "unreadable-image", None)
        assert item["predictions"] == []
        assert item["error"]["message"]


# -- refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "body", "kind", "status", "code", "says"),
    [
        ("?modle=x", RED, "image/png", 400, "invalid-request", "modle"),
        ("?model=nobody", RED, "image/png", 400, "unknown-model", "colours"),
        ("?model=colours:99", RED, "image/png", 400, "unknown-model", "colours"),
        ("", b"", "image/png", 400, "invalid-request", "Nothing was sent"),
        ("", b"", "application/zip", 400, "invalid-request", "Nothing was sent"),
        ("", b'{"urls": []}', "application/json", 400, "invalid-request", "URL"),
        ("", b"x", "text/html", 400, "invalid-request", "text/html"),
        ("?wait=soon", RED, "image/png", 400, "invalid-request", "wait"),
        ("?wait=-1", RED, "image/png", 400, "invalid-request", "wait"),
        ("?wait=nan", RED, "image/png", 400, "invalid-request", "wait"),
        ("?priority=10", RED, "image/png", 400, "invalid-request", "priority"),
        ("?priority=inf", RED, "image/png", 400, "invalid-request", "priority"),
        ("?priority=1.5", RED, "image/png", 400, "invalid-request", "priority"),
        ("?frames=some", RED, "image/png", 400, "invalid-request", "frames"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_problem_document(server, query, body, kind, status, code, says):
    assert says in problem(post(server, body, kind, f"/v1/jobs{query}"), status, code)


def test_paths_and_methods_that_do_not_exist_are_problems_too(server):
    problem(server.http.get("/v1/nothing"), 404, "not-found")
    problem(server.http.put("/v1/jobs"), 405, "method-not-allowed")


# -- how it is sent -----------------------------------------------------------------------------------------------------


def head(server, length=None, query="", *more):
    lines = [f"POST /v1/jobs{query} HTTP/1.1", f"Host: {urlsplit(server.url).netloc}", "Content-Type: image/png", *more]
    lines += [f"Content-Length: {length}"] if length is not None else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def test_a_client_that_expects_100_continue_gets_it(server):
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=10) as connection:
        connection.sendall(head(server, len(RED), "?wait=20", "Expect: 100-continue", "Connection: close"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(RED)
        found = b""
        while part := connection.recv(65536):
            found += part
    assert found.startswith(b"HTTP/1.1 201 ")
    assert b'"label":"red"' in found


def test_a_body_in_chunks_is_one_image(server):
    pieces = (RED[start : start + 7] for start in range(0, len(RED), 7))
    assert post(server, pieces, "image/png", "/v1/jobs?wait=20").json()["items"][0]["label"] == "red"


def test_pipelined_requests_are_answered_in_order(server):
    first, last = picture(77), picture(78)
    request = head(server, len(first), "?wait=20&filename=one") + first
    request += f"GET /healthz/live HTTP/1.1\r\nHost: {urlsplit(server.url).netloc}\r\n\r\n".encode()
    request += head(server, len(last), "?wait=20&filename=two", "Connection: close") + last
    found = raw(server, request, 20)
    assert found.count(b"HTTP/1.1 20") == 3
    assert found.index(b'"name":"one"') < found.index(b'"status":"ok"') < found.index(b'"name":"two"')


def test_a_client_that_leaves_in_mid_body_leaves_no_visible_job(server):
    before = server.get("/v1/jobs", limit=1)["items"]
    place = urlsplit(server.url)
    whole = form(*((f'name="images"; filename="gone-{n}.png"', picture(9000 + n)) for n in range(600)), end=False)
    kind = head(server, len(whole) + 1000).replace(b"image/png", b"multipart/form-data; boundary=BOUNDARY")
    with socket.create_connection((place.hostname, place.port), timeout=10) as connection:
        connection.sendall(kind + whole)
        time.sleep(0.3)
    with socket.create_connection((place.hostname, place.port), timeout=10) as connection:
        connection.sendall(head(server, 5000) + RED)
    time.sleep(0.2)
    assert server.get("/v1/jobs", limit=1)["items"] == before

    def all_gone():
        found = server.get("/v1/predictions", limit=1000)["items"]
        return not any(item["name"].startswith("gone-") for item in found)

    eventually(all_gone)
    eventually(lambda: server.get("/v1/stats")["queued"] == 0)


# -- many ---------------------------------------------------------------------------------------------------------------


def mutations():
    """Twenty broken pictures, by cutting and overwriting the bundled samples."""
    files = [file.read_bytes() for names in samples().values() for file in names]
    broken = []
    for n in range(20):
        data = files[n % len(files)]
        broken.append([data[: 20 + n], b"\0" * 30 + data[30:], data[: len(data) // 3], b"<html>" + data[:100]][n % 4])
    return broken


def test_twenty_broken_images_of_two_hundred_are_twenty_reasons(server):
    workers = server.workers()
    good = [picture(20_000 + n, form=("PNG", "BMP", "JPEG")[n % 3]) for n in range(180)]
    files = [(f"good-{n}", data) for n, data in enumerate(good)]
    for n, data in enumerate(mutations()):
        files.insert(n * 10, (f"broken-{n}", data))
    job = server.submit(files)
    done = server.wait_job(job["id"])
    assert (done["total"], done["succeeded"], done["failed"], done["state"]) == (200, 180, 20, "failed")
    items = server.items(job["id"])
    assert [item["name"] for item in items] == [name for name, _ in files]
    for item in items:
        assert (item["state"] == "failed") == item["name"].startswith("broken"), item
        assert (item["error"] is None) == (item["state"] == "succeeded")
        assert item["error"] is None or (item["error"]["kind"] == "unreadable-image" and item["error"]["message"])
    assert server.workers() == workers
    assert len(workers) == 2


def test_equal_images_share_one_answer(server):
    data = picture(30_000)
    before = server.inferred("colours:1")
    first = server.submit(data, wait=20, filename="one")["items"][0]
    again = server.submit([("two", data), ("three", data)], wait=20)["items"]
    assert not first["reused"]
    for item in again:
        assert item["reused"]
        assert [item[key] for key in ("digest", "task", "label", "score")] == [
            first[key] for key in ("digest", "task", "label", "score")
        ]
    assert server.inferred("colours:1") == before + 1
    fresh = server.submit(data, wait=20, fresh=1)["items"][0]
    assert not fresh["reused"]
    assert server.inferred("colours:1") == before + 2


def test_a_thousand_submissions_of_ten_images_run_ten_times(server):
    distinct = [picture(40_000 + n) for n in range(10)]
    before = server.inferred("colours:1")
    local = threading.local()
    clients = []

    def one(n):
        if not hasattr(local, "client"):
            local.client = httpx.Client(base_url=server.url, timeout=60, trust_env=False)
            clients.append(local.client)
        answer = local.client.post(
            f"/v1/jobs?wait=30&filename={n}", content=distinct[n % 10], headers={"content-type": "image/png"}
        )
        assert answer.status_code == 201, answer.text
        return answer.json()["items"][0]

    with ThreadPoolExecutor(32) as pool:
        items = list(pool.map(one, range(1000)))
    for client in clients:
        client.close()
    assert [item["state"] for item in items] == ["succeeded"] * 1000
    assert [item["name"] for item in items] == [str(n) for n in range(1000)]
    assert len({item["task"] for item in items}) == 10
    assert len({(item["digest"], item["label"], item["score"]) for item in items}) == 10
    assert server.inferred("colours:1") == before + 10


def test_an_item_that_joins_a_running_task_says_that_its_answer_is_shared(server):
    data = slow(10, 5)
    first = server.submit(data, model="slow")
    again = server.submit(data, model="slow", wait=20)["items"][0]
    assert server.items(first["id"])[0]["task"] == again["task"]
    assert again["reused"]
