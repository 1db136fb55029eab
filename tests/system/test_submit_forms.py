import gzip
import io
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from onceseen.testing.asking import form, post, post_form, problem, tarred
from onceseen.testing.pictures import flat, picture, zipped
from onceseen.testing.running import RunningServer

RED, GREEN = flat((250 - 60, 10, 20)), flat((10, 190, 20))


# -- forms --------------------------------------------------------------------------------------------------------------


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


# -- archives -----------------------------------------------------------------------------------------------------------


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
    yield "application/gzip", gzip.compress(b"no tar inside", mtime=0)


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


# -- limits (a server of its own) ---------------------------------------------------------------------------------------


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
