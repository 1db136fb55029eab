"""MNIST's test images through a real server, in batches as people send them."""

import gzip
import io
import random
import zipfile
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image

from onceseen.testing.data import test_data
from onceseen.testing.running import RunningServer

Pixels = np.ndarray
Guise = Callable[[Pixels, random.Random], Pixels]


def plain(pixels: Pixels, _rng: random.Random) -> Pixels:
    return pixels


def inverted(pixels: Pixels, _rng: random.Random) -> Pixels:
    return 255 - pixels


def pasted(pixels: Pixels, rng: random.Random) -> Pixels:
    """At another size, off-centre, on a larger canvas, light or dark."""
    canvas = rng.randint(40, 160)
    side = rng.randint(20, canvas * 9 // 10)
    page = Image.new("L", (canvas, canvas))
    digit = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
    page.paste(digit, (rng.randint(0, canvas - side), rng.randint(0, canvas - side)))
    return np.asarray(page) if rng.random() < 0.5 else 255 - np.asarray(page)


@pytest.fixture(scope="module")
def running() -> Iterator[RunningServer]:
    with RunningServer() as server:
        yield server
        server.stop()


def _png(pixels: Pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


@pytest.mark.parametrize(
    ("guise", "images", "share", "as_zip"),
    [
        (plain, 3_000, 0.99, True),
        (inverted, 1_000, 0.97, False),
        (pasted, 1_000, 0.97, False),
        pytest.param(plain, 10_000, 0.99, True, marks=pytest.mark.long),
        pytest.param(inverted, 10_000, 0.97, False, marks=pytest.mark.long),
        pytest.param(pasted, 10_000, 0.97, False, marks=pytest.mark.long),
    ],
)
def test_digits_are_read_through_a_batch_upload(
    running: RunningServer, guise: Guise, images: int, share: float, as_zip: bool
):
    folder = test_data("mnist")
    raw = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    rng = random.Random(7)
    pixels = np.frombuffer(raw, np.uint8).reshape(-1, 28, 28)[:images]
    files = [(f"{n:05}.png", _png(guise(digit, rng))) for n, digit in enumerate(pixels)]
    if as_zip:
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w") as archive:
            for name, data in files:
                archive.writestr(name, data)
        headers = {"content-type": "application/zip"}
        answer = running.http.post("/v1/jobs?model=digits", content=body.getvalue(), headers=headers)
        assert answer.status_code == 201, answer.text
        job = answer.json()
    else:
        job = running.submit(files, model="digits")
    finished = running.wait_job(job["id"], timeout=100)
    assert (finished["total"], finished["succeeded"]) == (images, images)
    items = running.items(job["id"])
    assert [item["name"] for item in items] == [name for name, _ in files]
    right = sum(item["label"] == str(label) for item, label in zip(items, labels, strict=False))
    assert right >= share * images, f"{right} of {images}"
