"""URL lists against a whole server: each URL ends once, through everything; nothing is asked that may not be."""

import json
import sqlite3
from collections import Counter
from contextlib import closing

import pytest

from onceseen.testing.asking import problem
from onceseen.testing.image_server import image_server
from onceseen.testing.pictures import flat, picture
from onceseen.testing.referee import judge
from onceseen.testing.running import RunningServer, eventually

SETTINGS = {
    "ONCESEEN_FETCH_ALLOW": "127.0.0.1",
    "ONCESEEN_FETCH_SECONDS": "2",
    "ONCESEEN_FETCH_TRIES": "2",
    "ONCESEEN_MAX_IMAGE_BYTES": "3000000",
}
RED = flat((190, 10, 20))


@pytest.fixture(scope="module")
def web():
    with image_server() as running:
        yield running


@pytest.fixture(scope="module")
def fetching():
    with RunningServer(workers=1, settings=SETTINGS) as running:
        yield running
        running.stop()


def submit(server, urls, key=None, **query):
    headers = {"idempotency-key": key} if key else {}
    body = {"urls": urls, "model": query.pop("model", "digits"), "name": query.pop("name", "")}
    headers["content-type"] = "application/json"
    return server.http.post("/v1/jobs", content=json.dumps(body), params=query, headers=headers)


def job_of(answer):
    assert answer.status_code == 201, answer.text
    return answer.json()


def left(server):
    """How many URLs wait in the record."""
    with closing(sqlite3.connect(f"file:{server.data / 'record.db'}?mode=ro", uri=True)) as record:
        return record.execute("SELECT count(*) FROM fetch").fetchone()[0]


def mixed(web):
    """100 URLs -> how the item of each ends: None for an answer."""
    base = web.url
    ends: dict[str, str | None] = {f"{base}/{7000 + n}.png": None for n in range(40)}
    ends |= {f"{base}/to/{base}/{7100 + n}.png": None for n in range(10)}
    ends |= {f"{base}/to//to/{base}/to//{7100 + n}.png": None for n in range(5)}
    ends |= {f"{base}/broken/1/{7200 + n}.png": None for n in range(10)}
    ends |= {f"{base}/gzip/{7300 + n}.png": None for n in range(3)}
    ends |= {f"{base}/status/{status}?{n}": "fetch-failed" for n in range(3) for status in (404, 403, 410)}
    ends |= {f"{base}/broken/9/{7400 + n}.png": "fetch-failed" for n in range(2)}
    ends |= {f"{base}/slow/{7500 + n}.png": "fetch-failed" for n in range(2)}
    ends |= {f"{base}/{kind}": "fetch-failed" for kind in ("html", "empty", "cut", "loop")}
    ends |= {f"{base}/{kind}": "too-large" for kind in ("endless", "huge", "bomb")}
    refused = ["http://10.0.0.1/a.png", "http://192.168.1.1/", "http://169.254.169.254/latest/", "http://[::1]:8000/x"]
    refused += ["http://2130706433/", "http://0x7f.1/", "ftp://127.0.0.1/x", "nonsense", "http://127.0.0.1:0/x"]
    refused += [f"{base}/to/{url}" for url in ("http://10.0.0.1/x", "http://[::ffff:127.0.0.1]/", "file:///etc/passwd")]
    ends |= dict.fromkeys(refused, "fetch-refused")
    assert len(ends) == 100
    return ends


def ends_of(server, job):
    return {item["name"]: item["error"] and item["error"]["kind"] for item in server.items(job)}


def test_every_url_of_a_mixed_list_ends_as_it_should_through_a_kill_of_the_server(web):
    expected = mixed(web)
    with RunningServer(workers=1, settings=SETTINGS) as server:
        job = job_of(submit(server, list(expected)))
        assert (job["total"], job["state"]) == (100, "pending")
        eventually(lambda: server.get(f"/v1/jobs/{job['id']}")["succeeded"] >= 10, 30)
        server.kill9(server.server_pid)
        server.kill9(server.pid)
        assert left(server) > 0
        server.start()
        done = server.wait_job(job["id"], 60)
        assert ends_of(server, job["id"]) == expected
        counted = Counter(expected.values())
        assert (done["total"], done["succeeded"], done["failed"]) == (100, counted[None], 100 - counted[None])
        assert left(server) == 0
        digests = {item["name"]: item["digest"] for item in server.items(job["id"])}
        assert (
            len({digest for digest in digests.values() if digest}) == counted[None] - 5
        )  # 5 pictures came by two ways
        content = server.http.get(f"/v1/images/{digests[f'{web.url}/7000.png']}/content").content
        assert content == picture(7000)
        server.stop()
        assert judge(server.data).is_clean


def test_one_url_and_a_wait_is_an_answer(fetching, web):
    job = job_of(submit(fetching, [f"{web.url}/8000.png"], name="one", wait=20))
    (item,) = job["items"]
    assert (job["name"], job["priority"], item["state"], item["name"]) == ("one", 0, "succeeded", f"{web.url}/8000.png")
    again = job_of(submit(fetching, [f"{web.url}/8000.png"], wait=20))["items"][0]
    assert (again["reused"], again["task"]) == (True, item["task"])
    fresh = job_of(submit(fetching, [f"{web.url}/8000.png"], wait=20, fresh=1))["items"][0]
    assert (fresh["reused"], fresh["task"] == item["task"]) == (False, False)


def test_a_form_may_hold_files_and_urls(fetching, web):
    files = [
        ("images", ("red.png", RED)),
        ("urls", (None, f"{web.url}/8100.png")),
        ("urls", (None, "http://10.0.0.1/")),
    ]
    job = job_of(fetching.http.post("/v1/jobs", files=files, params={"model": "digits", "wait": 20}))
    assert [(item["name"], item["state"]) for item in job["items"]] == [
        ("red.png", "succeeded"),
        (f"{web.url}/8100.png", "succeeded"),
        ("http://10.0.0.1/", "failed"),
    ]


def test_a_bad_url_is_a_failed_item_and_says_no_password(fetching):
    urls = ["http://me:secret@10.0.0.1/x", "", 17, None, {"a": 1}, "x" * 9000, "a\x00b"]
    job = job_of(submit(fetching, urls, wait=20))
    assert job["failed"] == len(urls)
    assert {item["error"]["kind"] for item in job["items"]} == {"fetch-refused"}
    assert job["items"][0]["name"] == "http://10.0.0.1/x"
    assert "secret" not in json.dumps(job)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not of the form"),
        (b"{", "not of the form"),
        (b"[]", "not of the form"),
        (b'{"urls": "http://x/"}', "not of the form"),
        (b'{"url": ["http://x/"]}', "`url`"),
        (b'{"urls": []}', "no URL"),
        (b'{"urls": ["http://x/"], "name": 3}', "$.name"),
        (b'{"urls": ' + b"[" * 20_000, "not of the form"),
        (b'{"urls": ["\xff"]}', "not of the form"),
    ],
)
def test_a_body_that_is_no_such_object_is_refused(fetching, body, says):
    headers = {"content-type": "application/json; charset=utf-8"}
    answer = fetching.http.post("/v1/jobs", content=body, headers=headers)
    assert says in problem(answer, 400, "invalid-request")


def test_a_list_that_is_too_long_is_refused(web):
    with RunningServer(verb="server", settings={"ONCESEEN_MAX_ITEMS": "3"}) as server:
        problem(submit(server, ["http://x.example/"] * 4), 413, "too-large")
        job = job_of(submit(server, ["http://10.0.0.1/"] * 3))
        assert job["total"] == 3
        large = b'{"urls": ["' + b"x" * (65 << 20) + b'"]}'
        answer = server.http.post("/v1/jobs", content=large, headers={"content-type": "application/json"})
        problem(answer, 413, "too-large")
        refused = job_of(submit(server, [f"{web.url}/1.png"], wait=5))["items"][0]  # loopback is not allowed here
        assert refused["error"]["kind"] == "fetch-refused"
        server.stop()


def test_a_list_that_is_sent_again_under_its_key_is_the_same_job(fetching, web):
    urls = [f"{web.url}/8200.png", "nonsense", f"{web.url}/status/404"]
    first = job_of(submit(fetching, urls, key="urls"))
    again = job_of(submit(fetching, urls, key="urls"))
    assert again["id"] == first["id"]
    problem(submit(fetching, urls[:2], key="urls"), 422, "key-reused")
    problem(submit(fetching, [urls[0], urls[1], f"{web.url}/status/403"], key="urls"), 422, "key-reused")
    fetching.wait_job(first["id"])
    assert job_of(submit(fetching, urls, key="urls", wait=5))["failed"] == 2


def test_two_urls_of_one_name_are_two(fetching):
    end = "/" + "x" * 1500  # a name keeps its last 1,000 characters
    first, other = (job_of(submit(fetching, [f"http://10.0.0.{n}{end}"], wait=5))["items"][0]["name"] for n in (1, 2))
    assert first == other
    job_of(submit(fetching, [f"http://10.0.0.1{end}"], key="long"))
    problem(submit(fetching, [f"http://10.0.0.2{end}"], key="long"), 422, "key-reused")


@pytest.mark.parametrize("verb", ["cancel", "delete"])
def test_cancel_and_delete_in_the_middle_leave_no_url(fetching, web, verb):
    web.hold.clear()
    try:
        job = job_of(submit(fetching, [f"{web.url}/held/{n}.png?{verb}" for n in range(2000)]))["id"]
        eventually(lambda: sum(count for path, count in web.asked.items() if path.endswith(verb)) >= 8)
        assert left(fetching) == 2000
        if verb == "cancel":
            fetching.http.post(f"/v1/jobs/{job}/cancel")
            done = fetching.wait_job(job)
            assert (done["state"], done["cancelled"]) == ("cancelled", 2000)
        else:
            assert fetching.http.delete(f"/v1/jobs/{job}").status_code in (200, 202, 204)
            eventually(lambda: fetching.http.get(f"/v1/jobs/{job}").status_code == 404)
        eventually(lambda: left(fetching) == 0)
    finally:
        web.hold.set()
    answered = job_of(submit(fetching, [f"{web.url}/8300.png"], wait=20))
    assert answered["succeeded"] == 1
    assert sum(count for path, count in web.asked.items() if path.endswith(verb)) < 40


def test_a_failed_url_is_fetched_again_by_a_retry(fetching, web):
    url = f"{web.url}/broken/3/8400.png"
    job = job_of(submit(fetching, [url], wait=30))
    assert (job["state"], job["items"][0]["error"]["kind"]) == ("failed", "fetch-failed")
    fetching.http.post(f"/v1/jobs/{job['id']}/retry")
    done = fetching.wait_job(job["id"])
    assert (done["state"], done["succeeded"], done["failed"]) == ("succeeded", 1, 0)


def test_a_server_that_fetches_ends_in_time_and_loses_no_url(web):
    web.hold.clear()
    try:
        with RunningServer(verb="server", settings=SETTINGS | {"ONCESEEN_FETCH_SECONDS": "60"}) as server:
            job_of(submit(server, [f"{web.url}/held/{9000 + n}.png" for n in range(30)]))
            eventually(lambda: sum(count for path, count in web.asked.items() if path.startswith("/held/90")) >= 8)
            assert server.stop() < 10
            assert left(server) == 30
    finally:
        web.hold.set()


def test_the_command_line_and_the_client_send_urls(fetching, web, onceseen, tmp_path):
    (tmp_path / "red.png").write_bytes(RED)
    (tmp_path / "urls.txt").write_text(f"# pictures\n\n{web.url}/8501.png\n  {web.url}/status/404\n")
    arguments = ("red.png", f"{web.url}/8500.png", "--urls", "urls.txt", "--model", "digits", "--wait", "--json")
    done = onceseen("submit", "--server", fetching.url, *arguments)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["name"], row["state"]) for row in rows] == [
        ("red.png", "succeeded"),
        (f"{web.url}/8500.png", "succeeded"),
        (f"{web.url}/8501.png", "succeeded"),
        (f"{web.url}/status/404", "failed"),
    ]
    assert done.returncode == 1
    refused = onceseen("submit", "--server", fetching.url, "--urls", "red.png")
    assert (refused.returncode, "red.png" in refused.stderr) == (2, True)
    from onceseen import Client

    with Client(fetching.url) as client:
        item = client.classify(f"{web.url}/8502.png", model="digits")
        assert (item.state, item.name) == ("succeeded", f"{web.url}/8502.png")
        job = client.submit([f"{web.url}/8503.png", f"{web.url}/8504.png"], model="digits", wait=20)
        assert job.succeeded == 2
