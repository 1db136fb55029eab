"""`Idempotency-Key`: a request that is sent again makes no second job (RECORD.md 2.7)."""

import hashlib
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest

from onceseen.testing.asking import form, problem, tarred
from onceseen.testing.pictures import flat, picture, slow, zipped
from onceseen.testing.running import RunningServer, eventually

RED = flat((190, 10, 20))
PARTS = [("a.png", picture(61_000)), ("b.png", b"broken"), ("c.png", picture(61_001))]


def send(server, key, body, kind="image/png", query=""):
    return server.http.post(f"/v1/jobs{query}", content=body, headers={"content-type": kind, "idempotency-key": key})


def multipart(files, boundary):
    return form(*((f'name="images"; filename="{name}"', data) for name, data in files), boundary=boundary)


def send_form(server, key, files, boundary="X", query=""):
    return send(server, key, multipart(files, boundary), f"multipart/form-data; boundary={boundary}", query)


def jobs(server, name):
    return [job for job in server.get("/v1/jobs", limit=1000)["items"] if job["name"] == name]


# -- the same request again ------------------------------------------------------------------------------------------------


def test_the_same_request_is_the_same_job_as_it_is_now(server):
    first = send(server, "same", RED, query="?name=same")
    assert first.status_code == 201
    job = first.json()
    done = server.wait_job(job["id"])
    again = send(server, "same", RED, query="?name=same")
    assert again.status_code == 201
    assert again.headers["location"] == first.headers["location"] == f"/v1/jobs/{job['id']}"
    assert again.json() == done
    waited = send(server, "same", RED, query="?name=same&wait=20").json()
    assert (waited["id"], waited["items"][0]["label"]) == (job["id"], "red")
    assert len(jobs(server, "same")) == 1


def test_a_repetition_waits_for_the_end_of_a_job_that_runs(server):
    files = [(f"{n}.png", slow(3, 62_000 + n)) for n in range(8)]
    first = send_form(server, "waits", files, query="?model=slow&fresh=1").json()
    eventually(lambda: server.get(f"/v1/jobs/{first['id']}")["running"])
    now = send_form(server, "waits", files, query="?model=slow&fresh=1").json()
    assert (now["id"], now["finished_at"]) == (first["id"], None)
    end = send_form(server, "waits", files, query="?model=slow&fresh=1&wait=40").json()
    assert (end["id"], end["succeeded"], len(end["items"])) == (first["id"], 8, 8)


def test_neither_the_boundary_nor_the_packaging_makes_another_body(server):
    ids = {
        answer.json()["id"]
        for answer in [
            send_form(server, "packed", PARTS, "FIRST", "?name=packed"),
            send_form(server, "packed", PARTS, "another-boundary", "?name=packed"),
            send(server, "packed", zipped(PARTS), "application/zip", "?name=packed"),
            send(server, "packed", tarred(PARTS), "application/x-tar", "?name=packed"),
        ]
    }
    assert len(ids) == 1
    (job,) = jobs(server, "packed")
    assert job["total"] == 3
    assert [item["name"] for item in server.items(ids.pop())] == ["a.png", "b.png", "c.png"]


def test_an_archive_and_its_repetition_are_one_job(server):
    body = zipped([(f"{n}.png", picture(63_000 + n)) for n in range(700)])  # two chunks
    first = send(server, "zip", body, "application/zip", "?name=zip").json()
    again = send(server, "zip", body, "application/zip", "?name=zip").json()
    assert (again["id"], again["total"]) == (first["id"], 700)
    assert len(jobs(server, "zip")) == 1
    assert problem(send(server, "zip", zipped(PARTS), "application/zip", "?name=zip"), 422, "key-reused")


def test_a_repetition_does_not_need_the_model_any_more(server, models, tmp_path):
    from onceseen.testing.pictures import colour_model

    server.add_model(colour_model(tmp_path / "m", "passing", labels=("u", "v", "w")))
    first = send(server, "passing", RED, query="?model=passing&wait=20").json()
    assert first["succeeded"] == 1
    eventually(lambda: server.http.delete("/v1/models/passing").status_code == 204)
    assert send(server, "passing", RED, query="?model=passing").json()["id"] == first["id"]
    assert problem(send(server, "passing 2", RED, query="?model=passing"), 400, "unknown-model")


# -- another request under the same key --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "query"),
    [
        (PARTS[::-1], "?name=other"),
        (PARTS[:2], "?name=other"),
        ([*PARTS, PARTS[0]], "?name=other"),
        ([("z.png", PARTS[0][1]), *PARTS[1:]], "?name=other"),
        ([("a.png", picture(61_002)), *PARTS[1:]], "?name=other"),
        (PARTS, "?name=other&model=slow"),
        (PARTS, "?name=else"),
        (PARTS, "?name=other&priority=9"),
        (PARTS, "?name=other&fresh=1"),
    ],
    ids=["order", "fewer", "more", "name", "bytes", "model", "job name", "priority", "fresh"],
)
def test_another_body_or_other_parameters_are_refused(server, files, query):
    first = send_form(server, "other", PARTS, query="?name=other")
    assert first.status_code == 201
    assert "new key" in problem(send_form(server, "other", files, query=query), 422, "key-reused")
    assert send_form(server, "other", PARTS, query="?name=other").json()["id"] == first.json()["id"]
    assert len(jobs(server, "other")) == 1


@pytest.mark.parametrize("key", ["", "k" * 256, "k\tk", "ü"])
def test_a_key_that_is_none_is_refused_with_the_cure(server, key):
    headers = [(b"content-type", b"image/png"), (b"idempotency-key", key.encode("latin-1"))]
    answer = server.http.post("/v1/jobs", content=RED, headers=headers)
    assert "1 to 255 printable ASCII" in problem(answer, 400, "invalid-request")


def test_two_keys_in_one_request_are_refused(server):
    headers = [("content-type", "image/png"), ("idempotency-key", "a"), ("idempotency-key", "b")]
    assert "once" in problem(server.http.post("/v1/jobs", content=RED, headers=headers), 400, "invalid-request")


def test_a_refused_request_does_not_use_its_key_up(server):
    problem(send(server, "unused", b""), 400, "invalid-request")
    problem(send(server, "unused", b"x", "text/plain"), 400, "invalid-request")
    problem(send_form(server, "unused", PARTS, query="?model=nobody"), 400, "unknown-model")
    assert send(server, "unused", RED).status_code == 201


def test_the_longest_key_and_blanks_in_it_are_good(server):
    key = "a b" + "~" * 252
    assert send(server, key, RED).json()["id"] == send(server, key, RED).json()["id"]


# -- two at once ---------------------------------------------------------------------------------------------------------------


def test_many_clients_at_once_with_one_key_make_one_job(server):
    body = picture(64_000)
    start = threading.Barrier(12)

    def one(_):
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
            start.wait()
            while True:
                answer = client.post(
                    "/v1/jobs?name=many", content=body, headers={"content-type": "image/png", "idempotency-key": "many"}
                )
                if answer.status_code == 201:
                    return answer.json()["id"]
                problem(answer, 409, "key-in-flight")
                assert answer.headers["retry-after"] == "1"

    with ThreadPoolExecutor(12) as pool:
        ids = set(pool.map(one, range(12)))
    assert len(ids) == 1
    assert len(jobs(server, "many")) == 1
    assert server.wait_job(ids.pop())["total"] == 1


class Half:
    """A connection that has sent nine tenths of a form under a key; the server is reading it."""

    def __init__(self, server, key, files, name):
        body = multipart(files, "H")
        place = urlsplit(server.url)
        self.connection = socket.create_connection((place.hostname, place.port), timeout=20)
        self.connection.sendall(
            f"POST /v1/jobs?name={name} HTTP/1.1\r\nhost: {place.netloc}\r\nidempotency-key: {key}\r\n"
            "content-type: multipart/form-data; boundary=H\r\nexpect: 100-continue\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
        )
        assert self.connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        self.rest = body[len(body) * 9 // 10 :]
        self.connection.sendall(body[: -len(self.rest)])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def finish(self):
        self.connection.sendall(self.rest)
        return self.connection.recv(65536)


def is_written(server, data):
    """Whether an image has come into the record."""
    return server.http.get(f"/v1/images/{hashlib.sha256(data).hexdigest()}").status_code == 200


def until_201(again):
    """The answer once the key is free; until then it is 409."""

    def one():
        answer = again()
        if answer.status_code == 201:
            return answer
        problem(answer, 409, "key-in-flight")
        return None

    return eventually(one)


@pytest.mark.parametrize("count", [3, 700], ids=["nothing written yet", "a chunk is written"])
def test_a_key_is_in_flight_while_its_connection_sends(server, count):
    name = f"slow-{count}"
    files = [(f"{n}.png", picture(65_000 + count + n)) for n in range(count)]
    with Half(server, name, files, name) as half:
        if count > 500:
            eventually(lambda: is_written(server, files[0][1]))
        answer = send_form(server, name, files, query=f"?name={name}")
        assert "try again" in problem(answer, 409, "key-in-flight")
        assert answer.headers["retry-after"] == "1"
        assert half.finish().startswith(b"HTTP/1.1 201")
    (job,) = jobs(server, name)
    again = send_form(server, name, files, "OTHER", f"?name={name}")
    assert (again.json()["id"], again.json()["total"]) == (job["id"], count)


@pytest.mark.parametrize("count", [3, 700], ids=["nothing written yet", "a chunk is written"])
def test_a_connection_that_was_cut_gives_its_key_free(server, count):
    name = f"cut-{count}"
    files = [(f"{n}.png", picture(67_000 + count + n)) for n in range(count)]
    with Half(server, name, files, name):
        if count > 500:
            eventually(lambda: is_written(server, files[0][1]))
    answer = until_201(lambda: send_form(server, name, files, query=f"?name={name}"))
    done = server.wait_job(answer.json()["id"])
    assert (done["total"], done["succeeded"], len(jobs(server, name))) == (count, count, 1)
    history = f"/v1/images/{hashlib.sha256(files[0][1]).hexdigest()}/predictions"
    eventually(lambda: {item["job"] for item in server.get(history)["items"]} == {done["id"]})


# -- kills -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mortal(models):
    with RunningServer() as running:
        for name in ("colours", "slow"):
            running.add_model(models / name)
        yield running
        running.stop()


def kill_and_restart(server):
    server.kill9(server.pid)
    eventually(lambda: not server.processes())
    server.start()


def test_a_server_killed_between_commit_and_answer(mortal):
    body = slow(60, 67_000)
    broken = []

    def ask():
        with pytest.raises(httpx.HTTPError):
            broken.append(send(mortal, "killed", body, query="?model=slow&name=killed&wait=50"))

    thread = threading.Thread(target=ask)
    thread.start()
    (job,) = eventually(lambda: jobs(mortal, "killed"))
    mortal.kill9(mortal.pid)
    thread.join()
    assert broken == []
    eventually(lambda: not mortal.processes())
    mortal.start()
    again = send(mortal, "killed", body, query="?model=slow&name=killed")
    assert again.headers["location"] == f"/v1/jobs/{job['id']}"
    assert mortal.wait_job(job["id"])["succeeded"] == 1
    assert len(jobs(mortal, "killed")) == 1
    problem(send(mortal, "killed", RED, query="?model=slow&name=killed"), 422, "key-reused")


def test_a_server_killed_in_mid_body(mortal):
    files = [(f"{n}.png", picture(68_000 + n)) for n in range(700)]
    with Half(mortal, "mid", files, "mid"):
        eventually(lambda: is_written(mortal, files[0][1]))
        kill_and_restart(mortal)
    answer = send_form(mortal, "mid", files, query="?name=mid")
    assert answer.status_code == 201
    done = mortal.wait_job(answer.json()["id"])
    assert (done["total"], len(jobs(mortal, "mid"))) == (700, 1)
    assert send_form(mortal, "mid", files, query="?name=mid").json()["id"] == done["id"]


# -- bytes that were lost ----------------------------------------------------------------------------------------------------------


def test_a_repetition_brings_back_bytes_that_the_store_has_lost(models):
    files = [(f"{n}.png", picture(69_000 + n, (40, 40))) for n in range(3)]
    with RunningServer(verb="server") as server:
        server.add_model(models / "colours")
        job = send_form(server, "lost", files, query="?model=colours").json()["id"]
        server.stop()
        (pack,) = [file for file in server.data.glob("packs/*") if files[0][1] in file.read_bytes()]
        place = pack.read_bytes().index(files[0][1]) + 30
        with pack.open("r+b") as stream:
            was = os.pread(stream.fileno(), 1, place)
            os.pwrite(stream.fileno(), bytes([was[0] ^ 0xFF]), place)
        with RunningServer(server.data) as again:
            done = again.wait_job(job)
            assert (done["succeeded"], done["failed"]) == (2, 1)
            assert again.items(job, state="failed")[0]["error"]["kind"] == "blob-damaged"
            content = f"/v1/images/{hashlib.sha256(files[0][1]).hexdigest()}/content"
            assert again.http.get(content).status_code == 404
            other = [("0.png", files[0][1]), *files[:2]]
            problem(send_form(again, "lost", other, query="?model=colours"), 422, "key-reused")
            answer = send_form(again, "lost", files, query="?model=colours")
            assert (answer.status_code, answer.json()) == (201, done)
            assert again.http.get(content).content == files[0][1]
            again.http.post(f"/v1/jobs/{job}/retry")
            assert again.wait_job(job)["succeeded"] == 3
            again.stop()
