"""The digit model reads digits at any size and place, dark on light or light on dark, and people's own drawings."""

import gzip
import io
import random

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from onceseen import bundled
from onceseen.drivers.runtime_onnx import OnnxRuntime
from onceseen.inference.manifest import read
from onceseen.inference.run import Engine
from onceseen.testing.data import test_data


@pytest.fixture(scope="module")
def engine():
    loaded = Engine(*read(bundled.models()[0]), OnnxRuntime())
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def digits():
    """1,000 test digits of MNIST, every tenth: (label, pixels)."""
    folder = test_data("mnist")
    images = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    pixels = np.frombuffer(images, np.uint8).reshape(-1, 28, 28)
    return [(labels[n], pixels[n]) for n in range(0, 10_000, 10)]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def pasted(pixels, rng, smallest, largest):
    canvas = rng.randint(smallest, largest)
    side = rng.randint(28, max(28, canvas * 9 // 10))
    page = Image.new("L", (canvas, canvas))
    digit = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
    page.paste(digit, (rng.randint(0, canvas - side), rng.randint(0, canvas - side)))
    return np.asarray(page) if rng.random() < 0.5 else 255 - np.asarray(page)


def share_right(engine, labels, images):
    answers = engine.answer(images)
    return sum(answer.index == label for answer, label in zip(answers, labels, strict=True)) / len(images)


def test_mnist(engine, digits):
    assert share_right(engine, [label for label, _ in digits], [png(pixels) for _, pixels in digits]) >= 0.985


def test_mnist_inverted(engine, digits):
    assert share_right(engine, [label for label, _ in digits], [png(255 - pixels) for _, pixels in digits]) >= 0.985


@pytest.mark.parametrize(("smallest", "largest"), [(40, 160), (160, 600)])
def test_mnist_pasted_somewhere_on_a_larger_page(engine, digits, smallest, largest):
    rng = random.Random(3)
    chosen = digits if largest < 200 else digits[::4]
    images = [png(pasted(pixels, rng, smallest, largest)) for _, pixels in chosen]
    assert share_right(engine, [label for label, _ in chosen], images) >= 0.98


def test_the_polarity_does_not_matter(engine, digits):
    light = engine.answer([png(pixels) for _, pixels in digits[:100]])
    dark = engine.answer([png(255 - pixels) for _, pixels in digits[:100]])
    assert [answer.index for answer in light] == [answer.index for answer in dark]


def test_hand_drawn_digits(engine, hand_drawn):
    answers = engine.answer([drawn.data for drawn in hand_drawn])
    wrong = [
        (drawn.name, answer.index)
        for drawn, answer in zip(hand_drawn, answers, strict=True)
        if answer.index != drawn.digit
    ]
    assert len(wrong) <= 0.05 * len(hand_drawn), wrong


def test_a_drawing_on_a_transparent_page(engine, hand_drawn):
    """As a browser's canvas gives it: black strokes, nothing behind them."""
    images = []
    chosen = [drawn for drawn in hand_drawn if "280x280" in drawn.name and "dark True" in drawn.name]
    for drawn in chosen:
        ink = np.asarray(Image.open(io.BytesIO(drawn.data))) < 128
        images.append(png(np.dstack([np.zeros((*ink.shape, 3), np.uint8), ink.astype(np.uint8) * 255])))
    assert share_right(engine, [drawn.digit for drawn in chosen], images) >= 0.95


def test_a_faint_pencil(engine, digits):
    images = [png((200 - pixels * 0.2).astype(np.uint8)) for _, pixels in digits[:300]]
    assert share_right(engine, [label for label, _ in digits[:300]], images) >= 0.97


def test_printed_digits(engine):
    labels, images = [], []
    for size in (24, 60, 150):
        font = ImageFont.load_default(size)
        for digit in range(10):
            page = Image.new("L", (size * 8 // 5, size * 8 // 5), 255)
            ImageDraw.Draw(page).text((size * 0.4, size * 0.2), str(digit), font=font, fill=0)
            labels.append(digit)
            images.append(png(np.asarray(page)))
    assert share_right(engine, labels, images) >= 0.95
