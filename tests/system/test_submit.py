import gzip
import io
import json
import socket
import tarfile
import threading
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest

from onceseen.bundled import samples
from onceseen.testing.pictures import flat, picture, slow, zipped
from onceseen.testing.running import RunningServer, eventually

RED, GREEN = flat((250 - 60, 10, 20)), flat((10, 190, 20))
JOB_KEYS = {
    "id", "name", "state", "model", "priority", "owner", "total", "queued", "running", "succeeded", "failed", "cancelled",
    "created_at", "finished_at",
}  # fmt: skip
ITEM_KEYS = {
    "job", "n", "name", "digest", "task", "state", "label", "score", "risk", "found", "predictions", "error", "attempt",
    "model", "worker", "frame", "queued_at", "started_at", "finished_at", "run_ms", "reused",
}  # fmt: skip


def post(server, body, kind, path="/v1/jobs", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.http.post(path, content=body, headers={"content-type": kind, **headers})


def problem(answer, status, code):
    """The sentence of a problem document, which must be one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert set(document) == {"type", "title", "status", "detail", "code"}
    assert (document["status"], document["code"]) == (status, code)
    assert document["type"] == f"urn:onceseen:error:{code}"
    return document["detail"]


def form(*parts, boundary="BOUNDARY", end=True):
    """A multipart body: (Content-Disposition's parameters, bytes) each."""
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"
        for head, data in parts
    )
    return body + (f"--{boundary}--\r\n".encode() if end else b"")


def post_form(server, body, kind="multipart/form-data; boundary=BOUNDARY", path="/v1/jobs?wait=20"):
    return post(server, body, kind, path)


def tarred(entries, mode="w"):
    """A tar archive of (name, bytes) or of TarInfo."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                archive.addfile(info, io.BytesIO(entry[1]))
    return out.getvalue()


def raw(server, data, read_for=2.0):
    """Bytes as they come back for bytes as they are sent."""
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=read_for) as connection:
        connection.sendall(data)
        found = b""
        try:
            while part := connection.recv(65536):
                found += part
        except TimeoutError:
            pass
        return found


# -- one image -------------------------------------------------------------------------------------------------------------


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


# -- refusals --------------------------------------------------------------------------------------------------------------


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
        ("?frames=all", RED, "image/png", 400, "invalid-request", "frames"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_problem_document(server, query, body, kind, status, code, says):
    assert says in problem(post(server, body, kind, f"/v1/jobs{query}"), status, code)


def test_paths_and_methods_that_do_not_exist_are_problems_too(server):
    problem(server.http.get("/v1/nothing"), 404, "not-found")
    problem(server.http.put("/v1/jobs"), 405, "method-not-allowed")


# -- forms -----------------------------------------------------------------------------------------------------------------


def test_a_form_holds_any_number_of_images_in_order(server):
    names = ["b.png", "a.png", "b.png", "c.png"]
    job = server.submit([(name, picture(n)) for n, name in enumerate(names)], wait=20)
    assert [item["name"] for item in job["items"]] == names
    assert [item["n"] for item in job["items"]] == [0, 1, 2, 3]
    assert (job["priority"], job["succeeded"]) == (5, 4)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ('name="images"; filename="plain.png"', "plain.png"),
        ('name="images"; filename="\\"quoted\\".png"', '"quoted".png'),
        ('name="images"; filename="%22quoted%22.png"', "%22quoted%22.png"),
        ('name="images"; filename="\U0001f41e beetle.png"', "\U0001f41e beetle.png"),
        ('name="images"; filename="\u202egnp.exe"', "\ufffdgnp.exe"),
        ('name="images"; filename="שלום.png"', "שלום.png"),
        ('name="images"; filename="../../etc/passwd.png"', "../../etc/passwd.png"),
        ('name="images"; filename="a\tb\x07.png"', "a\ufffdb\ufffd.png"),
        ("name=images; filename=bare.png", "bare.png"),
        ('name="images"', "image"),
    ],
)
def test_names_of_a_form_are_kept_as_one_harmless_line(server, head, name):
    answer = post_form(server, form((head, RED)))
    assert answer.status_code == 201, answer.text
    assert answer.json()["items"][0]["name"] == name


def test_a_name_with_a_path_of_windows_is_kept_or_cut_to_its_end(server):
    answer = post_form(server, form(('name="images"; filename="C:\\scans\\x.png"', RED)))
    assert answer.json()["items"][0]["name"] in ("C:\\scans\\x.png", "C:scansx.png", "x.png")


def test_an_empty_file_of_a_form_is_a_failed_item_and_an_empty_field_is_none(server):
    chosen = form(
        ('name="images"; filename="empty.png"', b""),
        ('name="images"; filename=""', b""),
        ('name="images"; filename="r.png"', RED),
    )
    job = post_form(server, chosen).json()
    assert [(item["name"], item["state"]) for item in job["items"]] == [("empty.png", "failed"), ("r.png", "succeeded")]
    assert job["items"][0]["error"]["kind"] == "unreadable-image"
    problem(post_form(server, form(('name="images"; filename=""', b""))), 400, "invalid-request")


def test_data_that_look_like_a_boundary_stay_data(server):
    tricky = RED + b"\r\n--BOUNDAR\r\n--BOUNDARx\r\n-\r\n"
    job = post_form(server, form(('name="images"; filename="t.png"', tricky))).json()
    content = server.http.get(f"/v1/images/{job['items'][0]['digest']}/content").content
    assert content == tricky


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no boundary anywhere",
        form(end=True),
        form(('name="images"; filename="r.png"', RED), end=False),
        form(('name="images"; filename="r.png"', RED))[:-4],
        form(('name="images"; filename="r.png"', RED))[:60],
        form(('name="images"; filename="r.png"', RED))[:20],
        form(('name="images"; filename="r.png"', RED)).replace(b"--BOUNDARY\r\n", b"--OTHER\r\n"),
        form(('name="images"; filename="r.png"', RED)).replace(b"\r\n\r\n", b"\r\n", 1),
        b"--BOUNDARY\r\nbad header line\r\n\r\nx\r\n--BOUNDARY--\r\n",
        form((f'name="images"; filename="{"x" * 20_000}"', b"x")),
        form(('name="photos"; filename="r.png"', RED)),
        form(('filename="r.png"', RED)),
    ],
)  # fmt: skip
def test_a_form_with_broken_framing_is_refused_whole(server, body):
    before = server.get("/v1/jobs", limit=1)["items"][:1]
    problem(post_form(server, body), 400, "invalid-request")
    assert server.get("/v1/jobs", limit=1)["items"][:1] == before


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary="',
        "multipart/form-data; charset=utf-8",
        f"multipart/form-data; boundary={'x' * 5000}",
    ],
)
def test_a_form_without_a_usable_boundary_is_refused(server, kind):
    problem(post_form(server, form(('name="images"; filename="r.png"', RED)), kind), 400, "invalid-request")


# -- archives --------------------------------------------------------------------------------------------------------------


def archives_of(files):
    yield "application/zip", zipped(files)
    yield "application/x-zip-compressed", zipped(files, zipfile.ZIP_DEFLATED)
    yield "application/x-tar", tarred(files)
    yield "application/x-tar", tarred(files, "w:gz")
    yield "application/gzip", tarred(files, "w:gz")
    yield "application/x-tar", tarred(files, "w:xz")


def test_an_archive_is_taken_in_its_order_without_what_is_no_image(server):
    files = [
        ("z.png", RED),
        ("notes.txt", b"no image"),
        ("deep/er/a.PNG", GREEN),
        ("__MACOSX/._z.png", b"junk"),
        (".hidden.png", b"junk"),
        ("../../up.png", RED),
        ("/root.png", GREEN),
    ]
    for kind, body in archives_of(files):
        answer = post(server, body, kind, "/v1/jobs?wait=20")
        assert answer.status_code == 201, (kind, answer.text)
        items = answer.json()["items"]
        names = [item["name"] for item in items]
        assert names[:2] == ["z.png", "deep/er/a.PNG"], kind
        assert [name.rpartition("/")[2] for name in names[2:]] in (["up.png", "root.png"], ["root.png"]), kind
        assert [item["label"] for item in items[:2]] == ["red", "green"]
    assert not (server.data.parent / "up.png").exists()


def test_an_archive_in_chunks_without_a_length_is_the_same(server):
    body = zipped([("a.png", RED), ("b.png", GREEN)])
    pieces = (body[start : start + 50] for start in range(0, len(body), 50))
    answer = post(server, pieces, "application/zip", "/v1/jobs?wait=20")
    assert [item["label"] for item in answer.json()["items"]] == ["red", "green"]


def test_links_of_an_archive_are_not_followed(server):
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard = tarfile.TarInfo("hard.png")
    hard.type, hard.linkname = tarfile.LNKTYPE, "real.png"
    device = tarfile.TarInfo("device.png")
    device.type = tarfile.CHRTYPE
    job = post(server, tarred([("real.png", RED), link, hard, device]), "application/x-tar", "/v1/jobs?wait=20").json()
    assert [item["name"] for item in job["items"]] == ["real.png"]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("link.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
        archive.writestr("real.png", RED)
    job = post(server, out.getvalue(), "application/zip", "/v1/jobs?wait=20").json()
    by_name = {item["name"]: item for item in job["items"]}
    assert by_name["real.png"]["state"] == "succeeded"
    assert by_name.get("link.png", {"state": "failed"})["state"] == "failed"


def broken_zip(how):
    body = bytearray(zipped([("bad.png", RED), ("good.png", GREEN)], zipfile.ZIP_DEFLATED))
    central = body.index(b"PK\x01\x02")
    if how == "encrypted":
        body[6] |= 1
        body[central + 8] |= 1
    elif how == "method":
        body[8:10] = body[central + 10 : central + 12] = (99).to_bytes(2, "little")
    elif how == "version":
        body[central + 6] = 99
    elif how == "checksum":
        body[central + 16] ^= 0xFF
        body[14] ^= 0xFF
    elif how == "data":
        body[40] ^= 0xFF
        body[41] ^= 0xFF
    elif how == "lzma":
        body[8:10] = body[central + 10 : central + 12] = (14).to_bytes(2, "little")
    elif how == "bzip2":
        body[8:10] = body[central + 10 : central + 12] = (12).to_bytes(2, "little")
    elif how == "offset":
        body[central + 42] = 200
    return bytes(body)


@pytest.mark.parametrize("how", ["encrypted", "method", "checksum", "data", "lzma", "bzip2", "offset"])
def test_an_entry_that_cannot_be_unpacked_fails_alone(server, how):
    answer = post(server, broken_zip(how), "application/zip", "/v1/jobs?wait=20")
    assert answer.status_code == 201, answer.text
    bad, good = answer.json()["items"]
    assert (bad["name"], bad["state"], bad["error"]["kind"]) == ("bad.png", "failed", "unreadable-image")
    assert (good["name"], good["label"]) == ("good.png", "green")


def corrupt_archives():
    yield "application/zip", b"PK this is no zip"
    yield "application/zip", zipped([("a.png", RED)])[:-30]
    yield "application/zip", zipped([])
    yield "application/zip", zipped([("notes.txt", b"x")])
    yield "application/zip", broken_zip("version")
    flagged = bytearray(zipped([("\xe9\xe9\xe9.png", RED)]))
    place = flagged.rindex("\xe9\xe9\xe9.png".encode())
    flagged[place : place + 3] = b"\xff\xff\xff"
    yield "application/zip", bytes(flagged)
    yield "application/x-tar", b"this is no tar"
    yield "application/x-tar", tarred([])
    yield "application/x-tar", tarred([("a.png", RED)], "w:gz")[:-30]
    yield "application/x-tar", tarred([("a.png", RED)], "w:xz")[:90]
    yield "application/x-tar", tarred([("a.png", RED)], "w:bz2")[:90]
    damaged = bytearray(tarred([("a.png", RED), ("b.png", RED)], "w:xz"))
    damaged[60] ^= 0xFF
    yield "application/x-tar", bytes(damaged)
    yield "application/x-tar", tarred([("a.png", RED), ("b.png", GREEN)])[:700]
    yield "application/gzip", gzip.compress(b"no tar inside")


@pytest.mark.parametrize(("kind", "body"), list(corrupt_archives()))
def test_an_archive_that_cannot_be_read_is_refused_whole(server, kind, body):
    before = server.get("/v1/jobs", limit=1)["items"]
    problem(post(server, body, kind), 400, "invalid-request")
    assert server.get("/v1/jobs", limit=1)["items"] == before


def test_an_archive_that_unpacks_to_far_too_much_is_refused(server):
    bomb = zipped([(f"{n}.png", bytes(20_000_000)) for n in range(5)], zipfile.ZIP_DEFLATED)
    problem(post(server, bomb, "application/zip"), 413, "too-large")
    many = tarred([(f"{n}.png", bytes(20_000_000)) for n in range(5)], "w:gz")
    problem(post(server, many, "application/x-tar"), 413, "too-large")


def test_a_header_of_a_tar_that_unpacks_to_far_too_much_is_refused(server):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 200_000_000
    packer = zlib.compressobj(9, wbits=31)
    body = packer.compress(header.tobuf(tarfile.USTAR_FORMAT))
    body += b"".join(packer.compress(bytes(1_000_000)) for _ in range(200)) + packer.flush()
    assert len(body) < 300_000
    problem(post(server, body, "application/x-tar"), 413, "too-large")
    status = Path(f"/proc/{server.server_pid}/status")
    if status.exists():
        most = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        assert int(most.split()[1]) < 400_000  # kB


# -- limits (a server of its own) --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(models):
    """A server with small limits."""
    limits = {
        "ONCESEEN_MAX_IMAGE_BYTES": "5000",
        "ONCESEEN_MAX_ITEMS": "20",
        "ONCESEEN_MAX_SUBMISSION_BYTES": "60000",
        "ONCESEEN_MAX_PIXELS": "1000",
    }
    with RunningServer(workers=1, settings=limits) as running:
        running.add_model(models / "colours")
        yield running
        running.stop()


def test_limits_refuse_a_whole_submission_or_one_item_with_its_reason(small):
    large, many = RED + bytes(6000), [(f"{n}.png", picture(n)) for n in range(25)]
    query = "/v1/jobs?model=colours&wait=20"
    problem(post(small, large, "image/png", query), 413, "too-large")
    problem(post(small, iter([large]), "image/png", query), 413, "too-large")
    problem(post(small, zipped(many), "application/zip", query), 413, "too-large")
    body = form(*((f'name="images"; filename="{name}"', data) for name, data in many))
    problem(post_form(small, body, path=query), 413, "too-large")
    problem(post_form(small, form(('name="images"; filename="x"', bytes(70_000))), path=query), 413, "too-large")
    pair = [("large.png", large), ("wide.png", flat((0, 0, 0), (40, 30))), ("good.png", GREEN)]
    parts = form(*((f'name="images"; filename="{name}"', data) for name, data in pair))
    answers = [
        post(small, body, kind, query)
        for kind, body in (*archives_of(pair), ("multipart/form-data; boundary=BOUNDARY", parts))
    ]
    for answer in answers:
        assert answer.status_code == 201, answer.text
        items = answer.json()["items"]
        assert [item["error"]["kind"] if item["error"] else item["label"] for item in items] == [
            "too-large",
            "too-many-pixels",
            "green",
        ]
        assert "5,000" in items[0]["error"]["message"]


# -- how it is sent ----------------------------------------------------------------------------------------------------------


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


# -- many --------------------------------------------------------------------------------------------------------------------


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


def test_submitting_json_is_not_mistaken_for_an_image(server):
    detail = problem(
        post(server, json.dumps({"urls": ["http://127.0.0.1:1/x"]}).encode(), "application/json"),
        400,
        "invalid-request",
    )
    assert "not built yet" in detail
