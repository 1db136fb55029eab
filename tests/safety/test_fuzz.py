"""Every parser of ours, given anything: only errors of ours come out, and soon."""

import asyncio
import tempfile
import time
import tomllib
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onceseen.domain import query
from onceseen.domain.ids import parse_id
from onceseen.domain.names import clean_name, is_image_name
from onceseen.drivers import blobs_pack_file
from onceseen.errors import ImageError, InvalidManifest, InvalidRequest, OnceseenError
from onceseen.inference import external, manifest
from onceseen.inference.decode import decode, jpeg_orientation
from onceseen.inference.effort import check_scans
from onceseen.inference.sniff import not_an_image
from onceseen.server import archives, common, multipart, submit
from onceseen.settings import Settings
from onceseen.testing import nasty
from onceseen.testing.asking import form, tarred
from onceseen.testing.onnx_models import channel_means
from onceseen.testing.pictures import picture, zipped
from onceseen.wire import frames, link

SECONDS = 5.0
"""For one example, on a loaded machine."""
TEXTS = st.text(max_size=300)


@st.composite
def changed(draw, samples):
    """One of some good files: cut, with bytes turned, with parts doubled or left out, with numbers made extreme."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 8))):
        if not data:
            break
        place = draw(st.integers(0, len(data) - 1))
        size = draw(st.sampled_from([1, 2, 4, 8, 64]))
        match draw(st.integers(0, 5)):
            case 0:
                data[place] = draw(st.integers(0, 255))
            case 1:
                del data[place:]
            case 2:
                del data[place : place + size]
            case 3:
                data[place:place] = data[place : place + size] * draw(st.sampled_from([1, 2, 50]))
            case 4:
                data[place : place + size] = draw(st.sampled_from([b"\xff", b"\0", b"\x80", b"\x7f"])) * size
            case 5:
                data[place : place + size] = draw(st.binary(max_size=size))
    return bytes(data)


def anything(*samples):
    return st.one_of(st.binary(max_size=2000), changed([sample for sample in samples if sample]))


# -- what is checked: a strategy, and what takes one example ---------------------------------------------------------------


def frames_in_pieces(data):
    decoder = frames.Decoder()
    with suppress(frames.AbsurdFrameError):
        for start in range(0, len(data), 7):
            for frame in decoder.feed(data[start : start + 7]):
                messages(frame.header)


def messages(data):
    for read in (link.decode_from_worker, link.decode_from_server):
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            read(data)


MESSAGES = [
    link.encode(message)
    for message in (
        link.Hello(1, "1.0", b"i" * 16, "host", 5),
        link.Done(3, [link.Answer(index=1, score=0.5, scores=b"x" * 40), link.Answer(error_kind="x", error="y")]),
        link.Batch(1, b"l" * 32, [link.ImageRef(5), link.ImageRef(path="/x")]),
        link.Looked(1, 5, 5, "image/png"),
    )
]
FRAMES = [b"".join(b"".join(frames.buffers_of(message, [b"payload"])) for message in MESSAGES)]


class Intake:
    """Takes everything."""

    count = 0

    async def add(self, name, data):
        assert clean_name(name) == name
        self.count += 1

    def refuse(self, name, kind, message):
        assert kind in ("too-large", "unreadable-image")
        self.count += 1


SMALL = SimpleNamespace(
    data=Path(tempfile.gettempdir()),
    max_image_bytes=5000,
    max_items=50,
    max_submission_bytes=100_000,
    archive_ratio=200,
)


def received(receive, data, *more):
    async def body():
        for start in range(0, len(data), 100):
            yield data[start : start + 100]

    with suppress(OnceseenError):
        asyncio.run(receive(Intake(), body(), *more, SMALL))


FORM = form(
    ('name="images"; filename="a.png"', picture(1)), ("name=\"images\"; filename*=UTF-8''%e4", b"x"), boundary="B"
)
IMAGES = [("a.png", picture(1)), ("b/c.png", b"x" * 700), ("d.txt", b"x")]
ZIPS = [zipped(IMAGES), zipped(IMAGES, 8), zipped(IMAGES, 12), zipped(IMAGES, 14)]
TARS = [
    tarred(IMAGES),
    tarred([("n" * 200 + ".png", b"x")]),
    *(tarred(IMAGES, f"w:{kind}") for kind in ("gz", "bz2", "xz")),
]


def boundaries(text):
    received(multipart.receive_images, FORM, f"multipart/form-data; boundary={text}")


def packs(data):
    """Every byte is in a record or in a gap."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        place = 0
        for part in blobs_pack_file.scan(file.fileno(), len(data)):
            start, end = (part.offset, part.end) if isinstance(part, blobs_pack_file.Record) else (part[0], part[1])
            assert start == place
            assert start < end <= len(data)
            place = end
        assert place == len(data)
        blobs_pack_file.read_head(file.fileno(), 0)


def pack_of(*blobs):
    out = b""
    for number, blob in enumerate(blobs):
        name = f"1/{number:064x}-0190b2e4-0000-7000-8000-{number:012x}"
        out += blobs_pack_file.head_of(name, len(blob), 5)[0] + blob
    return out


def manifests(data):
    """A model's directory with this as its manifest."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.toml").write_bytes(data)
        channel_means(Path(folder) / "w.onnx") if b"w.onnx" in data else None
        with suppress(InvalidManifest):
            manifest.read(Path(folder), {"input.size": "[8, 8]"})
    with suppress(InvalidManifest):
        manifest.from_json(data)


def overrides(pair):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.toml").write_bytes(MANIFEST)
        with suppress(InvalidManifest):
            manifest.read(Path(folder), {pair[0]: pair[1]})


MANIFEST = b"""name = "m"\nfile = "w.onnx"\nlabels = ["a", "b", "c"]\nversion = "1"\npositive = ["a"]\nthreshold = 0.5
[input]\nsize = [8, 8]\nmean = [1.0]\nstd = [2.0]\nfit = "cover"\nrange = [0.0, 1.0]\n[output]\nactivation = "softmax"\n"""


def weights(data):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "w.onnx"
        file.write_bytes(data)
        with suppress(InvalidManifest):
            external.files(file, Path(folder), inside_only=True)


def onnx_file():
    with tempfile.TemporaryDirectory() as folder:
        channel_means(Path(folder) / "w.onnx")
        return (Path(folder) / "w.onnx").read_bytes()


def images(data):
    with suppress(ImageError):
        decode(data, 1_000_000)
    assert isinstance(not_an_image(data), ImageError)
    assert 1 <= jpeg_orientation(data) <= 8
    with suppress(ImageError):
        check_scans(data)


def queries(text):
    with suppress(InvalidRequest):
        assert query.parse(str(query.parse(text))) == query.parse(text)


def parameters(text):
    with suppress(InvalidRequest):
        submit.Asked(text.encode(), 60.0)
    assert isinstance(submit._disposition(text.encode().decode("latin-1")), str)
    with suppress(InvalidRequest):
        common.read_cursor(text)
    with suppress(InvalidRequest):
        common.moment_of(text, "after")
    with suppress(OnceseenError):
        common.image_digest(text)
    with suppress(InvalidRequest):
        common.states_of(text)
    assert parse_id(text) is None or len(text) >= 32


def names(text):
    kept = clean_name(text)
    assert kept == clean_name(kept)
    assert kept.isprintable()
    assert 0 < len(kept) <= 1000
    kept.encode()
    is_image_name(text)


def setting_files(data):
    with suppress(ValueError, OnceseenError, TypeError):
        Settings(**tomllib.loads(data.decode()))


WORDS = [
    "state:failed",
    "model:a:1",
    "score:<0.6",
    "age:<1h",
    'label:"Egyptian cat"',
    "-name:x",
    '"a b"',
    "digest:ab",
    "job:",
]
LATIN = st.text(st.characters(max_codepoint=255), max_size=300)
QUERIES = st.one_of(
    TEXTS, st.lists(st.sampled_from([*WORDS, '"', "-", ":", "\\", "<", "\0"]), max_size=12).map(" ".join)
)
HEADERS = [
    'filename="a.png"',
    "filename*=utf-8''%e4%",
    "attachment;",
    '"\\',
    "wait=",
    "&priority=",
    "1e999",
    "nan",
    "%00",
    "==",
]
ASKED = st.one_of(TEXTS, st.lists(st.sampled_from(HEADERS), max_size=8).map("".join))
PICTURES = [nasty.good(kind, (12, 9)) for kind in nasty.FORMATS] + [nasty._tiff_loop()]
PARSERS = {
    "frames": (anything(*FRAMES), frames_in_pieces),
    "messages": (anything(*MESSAGES), messages),
    "form": (anything(FORM), lambda data: received(multipart.receive_images, data, "multipart/form-data; boundary=B")),
    "boundary": (LATIN, boundaries),
    "zip": (anything(*ZIPS), lambda data: received(archives.receive_images, data, "application/zip")),
    "tar": (anything(*TARS), lambda data: received(archives.receive_images, data, "application/x-tar")),
    "pack": (anything(pack_of(b"x" * 50, b"", b"y" * 300)), packs),
    "manifest": (anything(MANIFEST, MANIFEST * 2), manifests),
    "override": (st.tuples(st.sampled_from(["name", "input.size", "labels", "x.y", "output"]), TEXTS), overrides),
    "weights": (anything(onnx_file()), weights),
    "image": (anything(*PICTURES), images),
    "query": (QUERIES, queries),
    "parameters": (ASKED, parameters),
    "names": (TEXTS, names),
    "settings": (anything(b"port = 1\nallowed_hosts = ['a']\n[x]\ny = 1"), setting_files),
}


def fuzz(parser, examples):
    strategy, take = PARSERS[parser]
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

    @settings(max_examples=examples, deadline=None, suppress_health_check=quiet, database=None)
    @given(strategy)
    def run(data):
        began = time.process_time()
        take(data)
        assert time.process_time() - began < SECONDS

    run()


@pytest.mark.parametrize("parser", PARSERS)
def test_a_parser_takes_anything(parser):
    fuzz(parser, 40)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("parser", PARSERS)
def test_a_parser_takes_very_much_of_anything(parser):
    fuzz(parser, 1500)
