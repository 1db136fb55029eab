"""Pictures to train and to test on, made from MNIST and from pen strokes: PNG bytes, as a worker would get them."""

import gzip
import io
import math
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from strokes import stroked

Pixels = np.ndarray


def mnist(folder: Path, part: str) -> tuple[Pixels, Pixels]:
    """Images [n, 28, 28] and labels [n] of `part`: "train" or "t10k"."""
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        return images, np.frombuffer(file.read(), np.uint8, offset=8)


def png(pixels: Pixels | Image.Image) -> bytes:
    """The picture as PNG."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def turned(digit: Image.Image, rng: random.Random) -> Image.Image:
    """The digit at another size, rotated, sheared and stretched."""
    scale = math.exp(rng.uniform(math.log(0.8), math.log(3.5)))
    angle, shear = rng.gauss(0, 0.12), rng.gauss(0, 0.12)
    sx, sy = scale * math.exp(rng.gauss(0, 0.12)), scale * math.exp(rng.gauss(0, 0.06))
    cos, sin = math.cos(angle), math.sin(angle)
    a, b, c, d = cos * sx, (-sin + shear * cos) * sy, sin * sx, (cos + shear * sin) * sy
    det = a * d - b * c
    side = math.ceil(28 * 1.3 * max(sx, sy))
    m, n = side / 2, 14.0
    ia, ib, ic, id_ = d / det, -b / det, -c / det, a / det
    data = (ia, ib, n - ia * m - ib * m, ic, id_, n - ic * m - id_ * m)
    return digit.transform((side, side), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)


def inked(digit: Image.Image, rng: random.Random) -> Image.Image:
    """The digit with another pen: thicker, thinner, sharper or softer."""
    if rng.random() < 0.4 and digit.width > 44:
        size = 2 * rng.choice((1, 1, 2)) + 1 if digit.width > 70 else 3
        digit = digit.filter(ImageFilter.MaxFilter(size) if rng.random() < 0.6 else ImageFilter.MinFilter(3))
    if rng.random() < 0.5:
        gain, middle = rng.choice((1.5, 3.0, 20.0)), rng.uniform(70, 160)
        digit = digit.point([max(0, min(255, round(128 + gain * (v - middle)))) if v else 0 for v in range(256)])
    if rng.random() < 0.25:
        digit = digit.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.0) * digit.width / 50))
    return digit


def laid(digit: Image.Image, rng: random.Random) -> Pixels:
    """The digit somewhere on a larger canvas, dark on light or light on dark, with flaws of paper and camera."""
    width, height = (round(digit.width * rng.uniform(1.0, 1.8)) for _ in range(2))
    ink = np.zeros((height, width), np.float32)
    x, y = rng.randint(0, width - digit.width), rng.randint(0, height - digit.height)
    ink[y : y + digit.height, x : x + digit.width] = np.asarray(digit, np.float32) / 255
    low, high = (0.0, 255.0) if rng.random() < 0.5 else (rng.uniform(0, 90), rng.uniform(170, 255))
    ground, pen = (low, high) if rng.random() < 0.5 else (high, low)
    noise = np.random.default_rng(rng.getrandbits(32))
    paper = np.full((height, width), ground, np.float32)
    if rng.random() < 0.25:
        paper += noise.normal(0, rng.uniform(1, 6), paper.shape).astype(np.float32)
    if rng.random() < 0.15:  # light from one side
        paper += np.linspace(-1, 1, width, dtype=np.float32) * rng.uniform(-8, 8)
    return np.clip(paper + (pen - ground) * ink, 0, 255).astype(np.uint8)


def varied(digit: Pixels, rng: random.Random) -> bytes:
    """An MNIST digit as somebody else might have written and photographed it."""
    return png(laid(inked(turned(Image.fromarray(digit), rng), rng), rng))


def drawn(label: int, rng: random.Random) -> bytes:
    """A digit drawn with a pen of our own."""
    return png(laid(stroked(label, rng), rng))


def inverted(digit: Pixels) -> bytes:
    """The digit dark on light."""
    return png(255 - digit)


def pasted(digit: Pixels, rng: random.Random, smallest: int = 40, largest: int = 160) -> bytes:
    """The digit at another size somewhere on a larger canvas, half of them dark on light."""
    canvas = rng.randint(smallest, largest)
    side = rng.randint(28, max(28, round(0.9 * canvas)))
    image = Image.new("L", (canvas, canvas), 0)
    place = rng.randint(0, canvas - side), rng.randint(0, canvas - side)
    image.paste(Image.fromarray(digit).resize((side, side), Image.Resampling.BILINEAR), place)
    pixels = np.asarray(image)
    return png(255 - pixels if rng.random() < 0.5 else pixels)
