"""Archives and forms that are made to hurt; where a test in tests/system has it already, it is not here."""

import csv
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from onceseen.bench.procfs import pss_mb
from onceseen.domain.names import clean_name
from onceseen.testing.asking import form, post, post_form, problem, tarred
from onceseen.testing.pictures import picture, zipped

GOOD = picture(9)


def overlapping(entries, size):
    """One file, shown under thousands of names."""
    one = zipped([("0.png", bytes(size))], zipfile.ZIP_DEFLATED)
    directory = one.index(b"PK\x01\x02")
    records = one[directory : one.index(b"PK\x05\x06", directory)] * entries
    shown = min(entries, 65_535)
    return (
        one[:directory] + records + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, shown, shown, len(records), directory, 0)
    )


def test_a_zip_that_shows_one_file_as_thousands_is_refused(server):
    assert "overlaps" in problem(post(server, overlapping(2, 10), "application/zip"), 400, "invalid-request")
    body = overlapping(60_000, 1_000_000)  # 60 GB in 3 MB
    problem(post(server, body, "application/zip"), 400, "invalid-request")


def test_an_archive_inside_an_archive_is_not_opened(server):
    inner = zipped([("0.png", bytes(60_000_000))], zipfile.ZIP_DEFLATED)
    body = zipped([("inner.zip", inner), ("inner.png", inner), ("good.png", GOOD)])
    items = post(server, body, "application/zip", "/v1/jobs?wait=20").json()["items"]
    assert [(item["name"], (item["error"] or {}).get("kind")) for item in items] == [
        ("inner.png", "unsupported-format"),
        ("good.png", None),
    ]


def test_a_zip_with_an_endless_directory_is_refused_before_it_is_held(server):
    record = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 0, 20, 0, 0, 0, 0, 33, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    records = record * 2_400_000
    body = records + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 65_535, 65_535, len(records), 0, 0)
    before = pss_mb([server.server_pid])
    problem(post(server, body, "application/zip"), 413, "too-large")
    assert pss_mb([server.server_pid]) < before + 150


def test_an_entry_without_a_name_is_no_image(server):
    body = bytearray(zipped([("x", GOOD), ("good.png", GOOD)]))
    for place in (26, body.index(b"PK\x01\x02") + 28):  # the name becomes the first byte of the extra field
        body[place], body[place + 2] = 0, 1
    body = bytes(body)
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert [info.filename for info in archive.infolist()] == ["", "good.png"]
    for path in ("/v1/jobs", "/v1/models"):
        answer = post(server, body, "application/zip", path)
        assert 201 <= answer.status_code < 500, answer.text


def packed(parts, wbits=31):
    """Gzip of parts, level 9."""
    packer = zlib.compressobj(9, wbits=wbits)
    return b"".join(packer.compress(part) for part in parts) + packer.flush()


def head(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def test_a_tar_that_hides_gigabytes_in_what_is_skipped_is_refused(server):
    zeros = bytes(1 << 20)
    body = packed([head("notes.txt", 700 << 20), *([zeros] * 700), head("good.png", len(GOOD)), GOOD.ljust(512, b"\0")])
    assert len(body) < 3_000_000
    problem(post(server, body, "application/gzip"), 413, "too-large")


def test_a_tar_that_lies_about_a_size_is_refused(server):
    for size in (2**62, 10**15):
        answer = post(server, head("lie.png", size) + bytes(2048), "application/x-tar", "/v1/jobs?wait=20")
        assert answer.status_code in (201, 400, 413), answer.text
        if answer.status_code == 201:
            assert answer.json()["items"][0]["state"] == "failed"


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_name_of_megabytes_in_a_tar_is_refused(server, kind):
    body = packed([head("x", 4 << 20, kind), b"5 a=\n" * (4 << 20 // 5), bytes(1024)])
    problem(post(server, body, "application/gzip"), 413, "too-large")


def test_a_sparse_file_of_a_tar_is_bounded(server):
    info = bytearray(head("sparse.png", 0, tarfile.GNUTYPE_SPARSE))
    info[386:398] = info[398:410] = b"00000000000\0"
    info[483:495] = b"%011o\0" % (8**11 - 1)
    info[148:156] = b"        "
    info[148:156] = b"%06o\0 " % sum(info)
    before = pss_mb([server.server_pid])
    answer = post(server, bytes(info) * 50 + bytes(1024), "application/x-tar", "/v1/jobs?wait=20")
    assert answer.status_code in (201, 400, 413), answer.text
    assert pss_mb([server.server_pid]) < before + 400


def test_an_xz_that_asks_for_gigabytes_is_refused(server):
    filters = [
        {"id": lzma.FILTER_LZMA2, "dict_size": 1536 << 20, "mf": lzma.MF_HC3, "mode": lzma.MODE_FAST, "depth": 1}
    ]
    try:
        body = lzma.compress(tarred([("a.png", GOOD)]), filters=filters)
    except MemoryError:
        pytest.skip("no memory to make it")
    problem(post(server, body, "application/x-tar"), 400, "invalid-request")


NAMES = [
    "../../etc/passwd.png",
    "/etc/cron.d/x.png",
    "C:\\windows\\x.png",
    "a" * 5000 + ".png",
    "\u202egnp.exe.png",
    "שלום\u200f.png",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467.png",
    "line\nbreak\rand\x1b[31mred.png",
    "%2e%2e%2fx.png",
    "a\u0301\u0301\u0301.png",
    "\ufeff.png",
    "CON.png",
    "'; DROP TABLE item; --.png",
    "=cmd|' /C calc'!A0.png",
    "{{7*7}}<svg onload=alert(1)>.png",
]


def test_names_are_text_and_never_places(server):
    for body, kind in (
        (zipped([(name, GOOD) for name in NAMES]), "zip"),
        (tarred([(name, GOOD) for name in NAMES]), "x-tar"),
    ):
        items = post(server, body, f"application/{kind}", "/v1/jobs?wait=20").json()["items"]
        assert len(items) >= len(NAMES) - 1
        for item in items:
            name = item["name"]
            assert name.isprintable()
            assert len(name) <= 1000
            assert item["state"] == "succeeded"
    nul = zipped([("a_b.png", GOOD)]).replace(b"a_b.png", b"a\0b.png")
    post(server, nul, "application/zip")
    places = [*server.data.rglob("*passwd*"), *server.data.parent.glob("*passwd*"), *Path("/").glob("*passwd*")]
    assert not places


def test_cells_of_a_list_are_never_formulas(server):
    for start in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"):
        server.submit(GOOD, wait=20, filename=f"{start}.png")
    text = server.http.get("/v1/predictions", headers={"accept": "text/csv"}).text
    for row in csv.reader(io.StringIO(text)):
        for cell in row:
            number = cell.replace(".", "", 1).replace("-", "", 1).replace("e", "", 1).isdigit()
            assert not cell.startswith(("=", "+", "@", "\t", "\r")), row
            assert not cell.startswith("-") or number, row


# -- forms --------------------------------------------------------------------------------------------------------------


def test_a_form_of_a_million_empty_parts_is_no_job(server):
    part = b"--B\r\nContent-Disposition: form-data; name=images; filename=\r\n\r\n\r\n"
    body = part * 200_000 + b"--B--\r\n"
    before = pss_mb([server.server_pid])
    problem(post_form(server, body, "multipart/form-data; boundary=B"), 400, "invalid-request")
    assert pss_mb([server.server_pid]) < before + 100


@pytest.mark.parametrize(
    "header",
    [
        b"X: " + b"x" * 1_000_000,
        b"x" * 1_000_000 + b": y",
        b"\r\n".join([b"X: y"] * 100_000),
        b"\r\n".join(b"X%d: %s" % (n, b"y" * 10_000) for n in range(300)),
    ],
)
def test_a_part_with_endless_headers_is_refused(server, header):
    body = b'--B\r\nContent-Disposition: form-data; name="images"; filename="x.png"\r\n' + header + b"\r\n\r\n" + GOOD
    problem(post_form(server, body + b"\r\n--B--\r\n", "multipart/form-data; boundary=B"), 400, "invalid-request")


def test_a_form_whose_part_never_ends_is_refused_item_by_item(server):
    """300 MB in one part: more than an image may have, less than a submission; it is thrown away as it comes."""
    before = pss_mb([server.server_pid])
    start = form(('name="images"; filename="x.png"', b""), end=False)[:-2]
    parts = (part for part in (start, *(bytes(1_000_000) for _ in range(300)), b"\r\n--BOUNDARY--\r\n"))
    answer = post(server, parts, "multipart/form-data; boundary=BOUNDARY", "/v1/jobs?wait=20")
    assert answer.json()["items"][0]["error"]["kind"] == "too-large"
    assert pss_mb([server.server_pid]) < before + 400


def test_a_name_is_cleaned_the_same_twice():
    for name in NAMES:
        assert clean_name(clean_name(name)) == clean_name(name)


@pytest.mark.parametrize(
    ("name", "link"), [("w.onnx", True), ("../w.onnx", False), ("/w.onnx", False), ("a\\..\\w.onnx", False)]
)
def test_an_uploaded_model_leads_nowhere_else(server, name, link):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("model.toml", f'name = "elsewhere"\nfile = {name!r}\nlabels = ["a"]\n')
        info = zipfile.ZipInfo(name)
        info.external_attr = (0o120777 if link else 0o100644) << 16
        archive.writestr(info, "/etc/passwd")
    detail = problem(post(server, out.getvalue(), "application/zip", "/v1/models"), 422, "invalid-manifest")
    assert "leads out of its directory" in detail
