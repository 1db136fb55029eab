"""The dialect `scan`: pictures known by their pixels."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from onceseen.testing.asking import post, problem, raw
from onceseen.testing.pictures import flat, picky_model, picture, slow
from onceseen.testing.running import RunningServer, eventually

KEYS = {"hash", "filename"}


@pytest.fixture(scope="module", autouse=True)
def _default(server):
    assert server.http.put("/v1/models/defaults/scan", params={"model": "colours"}).status_code == 200


def scan(server, name, data, **query):
    """The hash of a picture that must be taken."""
    answer = server.http.post(f"/scan/image/{name}", content=data, params=query)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == KEYS
    assert answer.json()["filename"] == name
    return answer.json()["hash"]


def hash_of(mode, size, pixels):
    """SHA-256 of mode, size and pixels."""
    width, height = size
    return sha256(f"{mode} {width}x{height}\n".encode() + pixels).hexdigest()


def of(image, form="PNG", **more):
    out = io.BytesIO()
    image.save(out, form, **more)
    return out.getvalue()


def answered(server, digest, count=1):
    """The matches once they are all final."""

    def final():
        found = server.get(f"/match/{digest}")["matches"]
        return found if len(found) == count and all(item["finished_at"] for item in found) else None

    return eventually(final, 30)


# -- the answers that old clients know ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "text/plain", "multipart/form-data", None])
def test_a_picture_of_any_content_type_is_answered_with_the_hash_of_its_pixels(server, kind):
    data = picture(60_001, (5, 3))
    headers = {} if kind is None else {"content-type": kind}
    answer = server.http.post("/scan/image/a b ü.png", content=data, headers=headers)
    assert answer.status_code == 200, answer.text
    pixels = Image.open(io.BytesIO(data)).tobytes()
    assert answer.json() == {"hash": hash_of("RGB", (5, 3), pixels), "filename": "a b ü.png"}
    assert server.http.get(answer.headers["location"]).json()["name"] == "a b ü.png"


def test_a_match_has_all_names_sorted_and_the_predictions(server):
    image = Image.new("RGB", (9, 4), (3, 140, 77))
    digest = scan(server, "zebra.png", of(image))
    assert scan(server, "bee.bmp", of(image, "BMP")) == digest
    assert scan(server, "bee.bmp", of(image, "TIFF", compression="tiff_lzw")) == digest
    assert scan(server, "Ant.png", of(image, compress_level=1)) == digest
    found = server.get(f"/match/{digest}")
    assert set(found) == {"matched_names", "matches"}
    assert found["matched_names"] == ["Ant.png", "bee.bmp", "zebra.png"]
    items = answered(server, digest, 4)
    assert [item["name"] for item in items] == ["Ant.png", "bee.bmp", "bee.bmp", "zebra.png"]
    assert {(item["state"], item["label"], item["model"]) for item in items} == {("succeeded", "green", "colours:1")}
    assert len({item["digest"] for item in items}) == 4
    assert items[0]["predictions"][0]["label"] == "green"
    assert server.get(f"/match/{digest.upper()}") == server.get(f"/match/{digest}")


def test_a_copy_in_another_file_is_not_predicted_again(server):
    image = Image.new("RGB", (7, 7), (9, 8, 201))
    digest = scan(server, "first.png", of(image))
    first = answered(server, digest)[0]
    before = server.inferred("colours:1")
    files = {"copy.bmp": of(image, "BMP"), "same.png": of(image), "copy.tif": of(image, "TIFF")}
    for name, data in files.items():
        assert scan(server, name, data) == digest
    for item in answered(server, digest, 4)[:3]:
        assert item["reused"]
        assert (item["label"], item["score"], item["task"]) == (first["label"], first["score"], first["task"])
    assert server.inferred("colours:1") == before
    for item in answered(server, digest, 4)[:3]:  # each keeps its own bytes
        assert server.http.get(f"/v1/images/{item['digest']}/content").content == files[item["name"]]


def test_size_and_mode_are_part_of_the_hash(server):
    pixels = bytes(range(16))
    shapes = [Image.frombytes("L", size, pixels) for size in ((2, 8), (4, 4), (8, 2))]
    colour = Image.frombytes("LA", (2, 4), pixels)
    found = [scan(server, f"{n}.png", of(image)) for n, image in enumerate([*shapes, colour])]
    assert found == [
        *(hash_of("L", size, pixels) for size in ((2, 8), (4, 4), (8, 2))),
        hash_of("LA", (2, 4), pixels),
    ]
    assert [server.get(f"/match/{digest}")["matched_names"] for digest in found] == [[f"{n}.png"] for n in range(4)]


def test_a_hash_that_nobody_knows_has_no_names_and_one_that_is_none_is_refused(server):
    assert server.get(f"/match/{'0' * 64}") == {"matched_names": [], "matches": []}
    for text in ("0" * 63, "0" * 65, "g" * 64, "nothing", "%00", " " * 64, f"{'00 ' * 21}0"):
        assert "64 hex digits" in problem(server.http.get(f"/match/{text}"), 400, "invalid-request")


# -- the record ---------------------------------------------------------------------------------------------------------------


def test_an_image_is_read_by_the_digest_of_its_pixels_too(server):
    image = Image.new("RGB", (6, 5), (44, 45, 46))
    data = of(image)
    job = server.submit([("before.png", data)], wait=20)
    digest = sha256(data).hexdigest()
    assert server.get(f"/v1/images/{digest}")["pixel_digest"] is None
    pixels = scan(server, "after.png", data)
    assert server.get(f"/match/{pixels}")["matched_names"] == ["after.png", "before.png"]
    for name in (digest, pixels):
        found = server.get(f"/v1/images/{name}")
        assert (found["digest"], found["pixel_digest"]) == (digest, pixels)
        assert server.http.get(f"/v1/images/{name}/content").content == data
        assert len(server.get(f"/v1/images/{name}/predictions")["items"]) == 2
        assert server.http.get(f"/v1/images/{name}/thumbnail").status_code == 200
    copy = of(image, "BMP")
    assert scan(server, "copy.bmp", copy) == pixels
    names = {item["name"] for item in server.get(f"/v1/images/{pixels}/predictions")["items"]}
    assert names == {"before.png", "after.png", "copy.bmp"}
    for name in ("before.png", "after.png"):
        item = next(item for item in server.get(f"/match/{pixels}")["matches"] if item["name"] == name)
        assert server.http.delete(f"/v1/jobs/{item['job']}").status_code == 204
    eventually(lambda: server.get(f"/match/{pixels}")["matched_names"] == ["copy.bmp"])
    eventually(lambda: server.http.get(f"/v1/images/{digest}").status_code == 404)
    assert server.get(f"/v1/images/{pixels}")["digest"] == sha256(copy).hexdigest()
    assert job["state"] == "succeeded"


def test_a_picture_that_cannot_be_read_is_a_failed_item_and_a_problem(server):
    answer = server.http.post("/scan/image/broken.png", content=b"\x89PNG\r\n\x1a\nbroken")
    said = problem(answer, 422, "unreadable-image")
    place = answer.headers["location"]
    job = place.split("/")[3]
    assert job in said
    item = eventually(lambda: (found := server.get(place))["finished_at"] and found)
    assert (item["name"], item["state"], item["error"]["kind"]) == ("broken.png", "failed", "unreadable-image")
    assert item["error"]["message"] in said


def test_a_picture_whose_prediction_failed_is_predicted_again_when_it_comes_again(server, tmp_path):
    server.add_model(picky_model(tmp_path / "picky", "fussy"))
    data = flat((231, 7, 7))
    digest = scan(server, "fussy.png", data, model="fussy")
    (first,) = answered(server, digest)
    assert (first["state"], first["error"]["kind"]) == ("failed", "model-failed")
    attempts = first["attempt"]
    assert scan(server, "again.png", data, model="fussy") == digest
    again, _ = answered(server, digest, 2)
    assert again["name"] == "again.png"
    assert again["attempt"] > attempts
    copy = of(Image.open(io.BytesIO(data)), "BMP")
    assert scan(server, "copy.bmp", copy, model="fussy") == digest
    third = answered(server, digest, 3)[0]
    assert third["digest"] == sha256(copy).hexdigest()
    assert third["task"] != first["task"]  # a failure is not shared: its picture may be deleted before its next turn


def test_a_picture_whose_worker_was_killed_is_predicted_again(models):
    with RunningServer(settings={"ONCESEEN_MAX_DEATHS": "1"}) as server:
        server.add_model(models / "slow")
        data = slow(30, 1)

        def kill() -> bool:
            state = server.get(f"/match/{digest}")["matches"][0]
            if state["finished_at"]:
                return True
            for worker in server.get("/v1/workers")["items"]:
                if worker["state"] == "busy" and state["state"] == "running":
                    server.kill9(worker["pid"])
            return False

        digest = scan(server, "half.png", data, model="slow")
        eventually(kill, 60, 0.1)
        (half,) = answered(server, digest)
        assert (half["state"], half["error"]["kind"]) == ("failed", "worker-died")
        assert scan(server, "whole.png", data, model="slow") == digest
        whole = answered(server, digest, 2)[0]
        assert (whole["name"], whole["state"], whole["label"]) == ("whole.png", "succeeded", "red")
        server.stop()


def test_a_hundred_scans_of_sixteen_clients_are_each_answered_with_their_own_hash(server):
    images = [Image.new("RGB", (3 + n % 5, 4), (n, 60, 2)) for n in range(50)]
    work = [(f"{n}.{form}", of(image, form), n) for n, image in enumerate(images) for form in ("PNG", "BMP")]
    before = server.inferred("colours:1")
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda each: scan(server, each[0], each[1]), work))
    wanted = [hash_of("RGB", image.size, image.tobytes()) for image in images]
    assert found == [wanted[n] for _, _, n in work]
    for n, digest in enumerate(wanted):
        assert server.get(f"/match/{digest}")["matched_names"] == [f"{n}.BMP", f"{n}.PNG"]
        assert {item["state"] for item in answered(server, digest, 2)} == {"succeeded"}
    assert 50 <= server.inferred("colours:1") - before <= 100


def test_the_same_bytes_at_once_are_predicted_once(server):
    data, start = flat((1, 99, 180), (11, 12)), threading.Barrier(8)
    before = server.inferred("colours:1")

    def one(n):
        start.wait(20)
        return scan(server, f"{n}.png", data)

    with ThreadPoolExecutor(8) as pool:
        (digest,) = set(pool.map(one, range(8)))
    assert len({item["task"] for item in answered(server, digest, 8)}) == 1
    assert server.inferred("colours:1") == before + 1


# -- pictures at URLs ---------------------------------------------------------------------------------------------------------

GOOD = flat((12, 13, 190), (10, 6))


class Site(BaseHTTPRequestHandler):
    """A few pictures, and what is none."""

    def do_GET(self):
        found = {
            "/good.png": GOOD,
            "/copy.bmp": of(Image.open(io.BytesIO(GOOD)), "BMP"),
            "/page": b"<html>",
            "/none": b"",
        }
        place = self.path.partition("?")[0]
        if place == "/moved":
            self.send_response(302)
            self.send_header("location", "/good.png")
        elif place == "/away":
            self.send_response(302)
            self.send_header("location", "http://10.0.0.1/good.png")
        else:
            self.send_response(200 if place in found else 404)
            self.send_header("content-length", str(len(found.get(place, b""))))
        self.end_headers()
        self.wfile.write(found.get(place, b""))

    def log_message(self, *_):
        """Nothing on stderr."""


@pytest.fixture(scope="module")
def site():
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def fetching(models):
    with RunningServer(workers=1, settings={"ONCESEEN_FETCH_ALLOW": "127.0.0.1"}) as running:
        running.add_model(models / "colours")
        assert running.http.put("/v1/models/defaults/scan", params={"model": "colours"}).status_code == 200
        yield running
        running.stop()


def test_a_picture_at_a_url_is_known_by_the_url_and_the_same_hash(fetching, site):
    posted = scan(fetching, "posted.png", GOOD)
    for place in ("/good.png", "/copy.bmp", "/moved", "/good.png?size=1"):
        answer = fetching.http.post("/scan/url", json={"url": site + place, "more": 1})
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"hash": posted, "filename": site + place}
    names = fetching.get(f"/match/{posted}")["matched_names"]
    assert names == sorted(
        ["posted.png", *(site + place for place in ("/good.png", "/copy.bmp", "/moved", "/good.png?size=1"))]
    )
    assert {item["label"] for item in answered(fetching, posted, 5)} == {"blue"}
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda n: fetching.http.post("/scan/url", json={"url": f"{site}/good.png?{n}"}), range(24))
    assert {each.json()["hash"] for each in found} == {posted}


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("/nothing", "fetch-failed"),
        ("/page", "unreadable-image"),
        ("/away", "fetch-refused"),
        ("http://192.168.0.1/x.png", "fetch-refused"),
        ("http://2130706433:1/x.png", "fetch-refused"),
        ("file:///etc/passwd", "fetch-refused"),
        ("nonsense", "fetch-refused"),
    ],
)
def test_a_url_that_gives_no_picture_is_a_failed_item_and_a_problem(fetching, site, place, code):
    url = site + place if place.startswith("/") else place
    answer = fetching.http.post("/scan/url", json={"url": url})
    if (
        place == "http://2130706433:1/x.png"
    ):  # another way to write 127.0.0.1, which is allowed here; nobody listens there
        code = answer.json()["code"]
        assert code in ("fetch-refused", "fetch-failed")
    said = problem(answer, 422, code)
    item = eventually(lambda: (found := fetching.get(answer.headers["location"]))["finished_at"] and found)
    assert (item["name"], item["state"], item["error"]["kind"]) == (url, "failed", code)
    assert item["error"]["message"].rstrip(".") in said


def test_this_server_is_not_fetched_from_unless_it_is_allowed(server):
    answer = server.http.post("/scan/url", json={"url": f"{server.url}/static/icon.svg"})
    assert "fetch_allow" in problem(answer, 422, "fetch-refused")
    answer = server.http.post("/scan/url", json={"url": "http://me:secret@127.0.0.1/x.png"})
    problem(answer, 422, "fetch-refused")
    assert "secret" not in answer.text
    assert server.get(answer.headers["location"])["name"] == "http://127.0.0.1/x.png"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"url": 7}', b'{"url": null}', b"\xff", b"[" * 9000, bytes(100_001)]
)
def test_a_body_that_names_no_url_is_a_problem(server, body):
    answer = server.http.post("/scan/url", content=body)
    assert answer.status_code in (400, 413)
    problem(answer, answer.status_code, "too-large" if answer.status_code == 413 else "invalid-request")


# -- models, limits, and what is no scan ---------------------------------------------------------------------------------------


def test_the_model_is_the_dialect_s_own_unless_one_is_named(server):
    digest = scan(server, "x.png", flat((5, 6, 77)), model="digits")
    assert answered(server, digest)[0]["model"] == "digits:1"
    digest = scan(server, "y.png", flat((5, 6, 78)))
    assert answered(server, digest)[0]["model"] == "colours:1"
    said = problem(post(server, picture(1), "image/png", "/scan/image/x.png?model=nobody"), 400, "unknown-model")
    assert "digits" in said


def test_limits_and_a_default_that_nobody_chose_are_problems():
    settings = {"ONCESEEN_MAX_IMAGE_BYTES": "4000", "ONCESEEN_MAX_PIXELS": "5000", "ONCESEEN_MAX_WAIT": "1"}
    with RunningServer(workers=1, settings=settings) as server:
        said = problem(post(server, picture(1), "image/png", "/scan/image/x.png"), 400, "unknown-model")
        assert "onceseen models default scan NAME" in said
        assert server.get("/v1/models/defaults")["scan"] is None
        assert server.http.put("/v1/models/defaults/scan", params={"model": "digits"}).status_code == 200
        assert "4,000" in problem(post(server, bytes(4001), "image/png", "/scan/image/x"), 413, "too-large")
        chunks = iter([bytes(3000), bytes(3000)])
        assert "4,000" in problem(server.http.post("/scan/image/x", content=chunks), 413, "too-large")
        problem(post(server, flat((0, 0, 0), (100, 51)), "image/png", "/scan/image/x"), 422, "too-many-pixels")
        problem(post(server, b"", "image/png", "/scan/image/x"), 400, "invalid-request")
        head = b"POST /scan/image/x HTTP/1.1\r\nHost: localhost\r\n"
        endless = head + b"Transfer-Encoding: chunked\r\n\r\n1388\r\n" + bytes(5000) + b"\r\n"
        assert b"413" in raw(server, endless, 1.0).partition(b"\r\n")[0]  # it does not wait for an end
        assert raw(server, head + b"Content-Length: 9\r\n\r\nhal", 0.2) == b""
        total = len(server.get("/v1/predictions")["items"])
        assert total == 1  # the one with too many pixels
        server.stop()
    with RunningServer(verb="server", settings=settings) as server:
        answer = post(server, picture(1), "image/png", "/scan/image/x.png?model=digits")
        assert "onceseen worker" in problem(answer, 429, "too-busy")
        assert answer.headers["retry-after"]
        assert server.get("/v1/predictions")["items"] == []
        server.stop()


@pytest.mark.parametrize("name", ["../../etc/passwd", "%2e%2e%2fx", "a%00b", "\u202egnp.exe", "n" * 5000, "%ff%fe", ""])
def test_a_name_is_only_a_name(server, name):
    answer = server.http.post(f"/scan/image/{name}", content=picture(60_100))
    assert answer.status_code in (200, 404), answer.text
    if answer.status_code == 200:
        kept = answer.json()["filename"]
        assert kept.isprintable()
        assert 0 < len(kept) <= 1000
        assert server.get(answer.headers["location"])["name"] == kept


def test_get_is_no_scan(server):
    assert server.http.get("/scan/image/x.png").status_code == 405
    assert server.http.post(f"/match/{'0' * 64}").status_code == 405
