"""Digits as somebody might draw them in a paint program: arcs and lines of Pillow, none of the training's strokes."""

import io
import math
import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageDraw

Point = tuple[float, float]


def line(*points: Point) -> list[Point]:
    return list(points)


def arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> list[Point]:
    angles = [math.radians(start + (end - start) * i / 24) for i in range(25)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


# Two hands, in a box 1 wide and 1.6 high; y downwards, degrees clockwise.
HANDS = [
    {
        0: [arc(0.5, 0.8, 0.5, 0.8, 0, 360)],
        1: [line((0.5, 0), (0.5, 1.6))],
        2: [arc(0.5, 0.45, 0.45, 0.45, 180, 390), line((0.89, 0.67), (0, 1.6), (1, 1.6))],
        3: [arc(0.45, 0.4, 0.45, 0.4, 200, 450), arc(0.45, 1.2, 0.5, 0.4, 270, 510)],
        4: [line((0.7, 1.6), (0.7, 0), (0, 1.1), (1, 1.1))],
        5: [line((0.9, 0), (0.15, 0), (0.1, 0.7)), arc(0.45, 1.1, 0.5, 0.5, 225, 500)],
        6: [line((0.75, 0), (0.08, 0.95)), arc(0.5, 1.15, 0.45, 0.45, 0, 360)],
        7: [line((0, 0), (1, 0), (0.4, 1.6))],
        8: [arc(0.5, 0.38, 0.38, 0.38, 0, 360), arc(0.5, 1.18, 0.45, 0.42, 0, 360)],
        9: [arc(0.5, 0.45, 0.45, 0.45, 0, 360), line((0.95, 0.45), (0.75, 1.6))],
    },
    {
        0: [arc(0.5, 0.75, 0.4, 0.75, -60, 290)],
        1: [line((0.2, 0.35), (0.55, 0), (0.5, 1.6))],
        2: [
            arc(0.45, 0.4, 0.4, 0.4, 200, 370),
            line((0.85, 0.5), (0.5, 1.1), (0.05, 1.5)),
            arc(0.5, 1.75, 0.55, 0.3, 215, 320),
        ],
        3: [line((0.05, 0.05), (0.9, 0.05), (0.4, 0.65)), arc(0.4, 1.1, 0.5, 0.45, 270, 500)],
        4: [line((0.2, 0), (0.05, 0.9), (0.95, 0.85)), line((0.75, 0.2), (0.65, 1.6))],
        5: [line((0.2, 0.1), (0.12, 0.75)), arc(0.42, 1.12, 0.45, 0.46, 230, 480), line((0.2, 0.1), (1, 0.02))],
        6: [arc(0.85, 0.95, 0.8, 0.95, 180, 260), arc(0.45, 1.15, 0.4, 0.42, 180, 530)],
        7: [line((0.05, 0.15), (0.1, 0), (0.95, 0), (0.3, 1.6)), line((0.3, 0.8), (0.9, 0.75))],
        8: [
            arc(0.5, 0.4, 0.35, 0.4, 60, -250),
            line((0.33, 0.75), (0.8, 1.1)),
            arc(0.45, 1.2, 0.42, 0.4, -20, 250),
            line((0.3, 1.55), (0.1, 1.2), (0.65, 0.75)),
        ],
        9: [arc(0.45, 0.42, 0.4, 0.4, -30, -330), arc(0.2, 0.6, 0.65, 1.0, -20, 75)],
    },
]
CANVASES = [(28, 28), (64, 64), (120, 90), (280, 280), (640, 480)]
WIDTHS = [0.035, 0.09, 0.16]  # of the digit's height


class Drawn(NamedTuple):
    digit: int
    name: str
    data: bytes


def picture(
    strokes: list[list[Point]], canvas: Point, width: float, rng: random.Random, *, dark: bool, smooth: bool
) -> bytes:
    finer = 3 if smooth else 1
    size = (int(canvas[0] * finer), int(canvas[1] * finer))
    height = size[1] * rng.uniform(0.45, 0.75)
    scale, slant, turn, stretch = (
        height / 1.6,
        rng.uniform(-0.15, 0.2),
        rng.uniform(-0.15, 0.15),
        rng.uniform(0.75, 1.1),
    )
    x0 = rng.uniform(0.35, 0.65) * size[0]
    y0 = size[1] / 2 + rng.uniform(-1, 1) * (size[1] - height) / 3.5
    pen = max(1, round(width * height))
    ink = Image.new("L", size, 0)
    draw = ImageDraw.Draw(ink)
    for stroke in strokes:
        path = []
        for x, y in stroke:
            u, v = stretch * (x - 0.5) - slant * (y - 0.8), y - 0.8
            tremble = rng.gauss(0, 0.008), rng.gauss(0, 0.008)
            u, v = (
                u * math.cos(turn) - v * math.sin(turn) + tremble[0],
                u * math.sin(turn) + v * math.cos(turn) + tremble[1],
            )
            path.append((x0 + scale * u, y0 + scale * v))
        draw.line(path, fill=255, width=pen, joint="curve")
    ink = ink.resize((int(canvas[0]), int(canvas[1])), Image.Resampling.BOX)
    ground, colour = (
        (rng.randint(200, 255), rng.randint(0, 70)) if dark else (rng.randint(0, 40), rng.randint(190, 255))
    )
    page = Image.new("L", ink.size, ground)
    if rng.random() < 0.5:
        grain = np.random.default_rng(rng.getrandbits(32)).integers(-5, 6, ink.size[::-1])
        page = Image.fromarray(np.clip(ground + grain, 0, 255).astype(np.uint8))
    page.paste(colour, (0, 0), ink)
    buffer = io.BytesIO()
    page.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def drawings() -> Iterator[Drawn]:
    rng = random.Random(7)
    for hand, glyphs in enumerate(HANDS):
        for canvas in CANVASES:
            for width in WIDTHS:
                for dark in (False, True):
                    for digit, strokes in glyphs.items():
                        smooth = (digit + hand + dark) % 2 == 0
                        name = f"{digit} hand {hand} {canvas[0]}x{canvas[1]} width {width} dark {dark} smooth {smooth}"
                        yield Drawn(digit, name, picture(strokes, canvas, width, rng, dark=dark, smooth=smooth))


@pytest.fixture(scope="session")
def hand_drawn() -> list[Drawn]:
    """600 pictures: two hands, five canvases, three pens, both polarities."""
    return list(drawings())
