"""The digit model on all of MNIST's test images: the figures that its recipe states."""

import gzip
import io
import random

import numpy as np
import pytest
from PIL import Image

from onceseen import bundled
from onceseen.drivers.runtime_onnx import OnnxRuntime
from onceseen.inference.manifest import read
from onceseen.inference.run import Engine
from onceseen.testing.data import test_data

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def plain(pixels, rng):
    return pixels


def inverted(pixels, rng):
    return 255 - pixels


def pasted(pixels, rng, smallest=40, largest=160):
    canvas = rng.randint(smallest, largest)
    side = rng.randint(28, max(28, canvas * 9 // 10))
    page = Image.new("L", (canvas, canvas))
    digit = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
    page.paste(digit, (rng.randint(0, canvas - side), rng.randint(0, canvas - side)))
    return np.asarray(page) if rng.random() < 0.5 else 255 - np.asarray(page)


def pasted_on_a_large_page(pixels, rng):
    return pasted(pixels, rng, 160, 600)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@pytest.mark.parametrize("guise", [plain, inverted, pasted, pasted_on_a_large_page])
def test_all_of_mnist(guise):
    folder = test_data("mnist")
    images = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    pixels = np.frombuffer(images, np.uint8).reshape(-1, 28, 28)
    rng = random.Random(5)
    engine = Engine(*read(bundled.models()[0]), OnnxRuntime())
    answers = engine.answer([png(guise(digit, rng)) for digit in pixels])
    right = sum(answer.index == label for answer, label in zip(answers, labels, strict=True))
    assert right >= 9900, f"{right} of 10000"
