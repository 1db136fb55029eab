"""Draws the sample digits: strokes with a hand's unsteadiness, always the same ones.

python recipes/samples/draw_digits.py --out src/onceseen/bundled/samples/digits
"""

import argparse
import itertools
import math
import random
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw

Point = tuple[float, float]
Stroke = list[Point]
FINER = 4  # drawn this many times larger, then shrunk: smooth edges


def arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> Stroke:
    """Points of an elliptic arc; degrees clockwise from three o'clock, y downwards."""
    n = max(2, int(abs(end - start) / 8))
    angles = [math.radians(start + (end - start) * i / n) for i in range(n + 1)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


# Each digit in a box 0..1 wide, 0..1.4 high.
GLYPHS: dict[int, list[Stroke]] = {
    0: [arc(0.5, 0.7, 0.45, 0.68, -80, 285)],
    1: [[(0.25, 0.28), (0.55, 0.02), (0.52, 1.38)]],
    2: [[*arc(0.5, 0.4, 0.4, 0.38, -165, 35), (0.5, 0.95), (0.08, 1.36), (0.95, 1.33)]],
    3: [[*arc(0.45, 0.36, 0.38, 0.34, -150, 75), *arc(0.45, 1.02, 0.45, 0.36, -80, 150)]],
    4: [[(0.5, 0.05), (0.08, 0.85), (0.95, 0.82)], [(0.72, 0.35), (0.68, 1.38)]],
    5: [[(0.2, 0.05), (0.15, 0.62), *arc(0.45, 0.95, 0.43, 0.42, -115, 140)], [(0.2, 0.05), (0.88, 0.03)]],
    6: [[(0.78, 0.03), (0.4, 0.35), (0.14, 0.8), *arc(0.5, 1.0, 0.37, 0.36, 195, -160)]],
    7: [[(0.08, 0.08), (0.92, 0.05), (0.6, 0.6), (0.42, 1.38)]],
    8: [
        [
            *arc(0.5, 0.36, 0.33, 0.32, -60, -270),
            *arc(0.5, 1.02, 0.4, 0.35, -90, 270),
            *arc(0.5, 0.36, 0.33, 0.32, 90, -60),
        ]
    ],
    9: [[*arc(0.48, 0.4, 0.37, 0.37, -20, -330), (0.86, 0.45), (0.8, 0.9), (0.62, 1.38)]],
}


class Style(NamedTuple):
    """How one sample looks. Lengths are fractions of the canvas' height."""

    size: tuple[int, int]  # width, height
    height: float  # of the digit
    width: float  # of the stroke
    centre: Point
    ink: int
    ground: int
    slant: float = 0.0
    grain: int = 0  # the paper's unevenness, grey levels


STYLES: dict[int, Style] = {
    0: Style((28, 28), 0.70, 0.09, (0.50, 0.50), 255, 0),
    1: Style((64, 64), 0.60, 0.07, (0.40, 0.55), 20, 255, -0.1),
    2: Style((320, 240), 0.60, 0.045, (0.62, 0.48), 35, 236, 0.1, 4),
    3: Style((160, 120), 0.55, 0.08, (0.30, 0.45), 245, 12),
    4: Style((96, 96), 0.65, 0.05, (0.55, 0.52), 0, 255, 0.05),
    5: Style((480, 480), 0.45, 0.06, (0.45, 0.60), 60, 215, 0.12, 6),
    6: Style((200, 150), 0.70, 0.10, (0.50, 0.50), 255, 40, 0.0, 4),
    7: Style((280, 280), 0.60, 0.07, (0.50, 0.50), 0, 255, -0.05),
    8: Style((640, 480), 0.35, 0.03, (0.30, 0.35), 50, 225, 0.08, 5),
    9: Style((40, 40), 0.75, 0.08, (0.50, 0.50), 230, 15),
}


def unsteady(stroke: Stroke, rng: random.Random, amount: float) -> Stroke:
    """The stroke in small steps, bent by slow waves."""
    waves = [(rng.uniform(1.5, 5.0), rng.uniform(0, 6.28), rng.uniform(0, 6.28)) for _ in range(3)]
    steps: Stroke = []
    along = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(stroke):
        length = math.hypot(x1 - x0, y1 - y0)
        n = max(1, int(length / 0.02))
        for i in range(n + 1):
            s = along + length * i / n
            dx = sum(math.sin(f * s + p) for f, p, _ in waves) * amount / 3
            dy = sum(math.sin(f * s + q) for f, _, q in waves) * amount / 3
            steps.append((x0 + (x1 - x0) * i / n + dx, y0 + (y1 - y0) * i / n + dy))
        along += length
    return steps


def draw(digit: int) -> Image.Image:
    """The sample of one digit."""
    style = STYLES[digit]
    rng = random.Random(1000 + digit)
    width, height = style.size
    ink = Image.new("L", (width * FINER, height * FINER), 0)
    pen = ImageDraw.Draw(ink)
    scale = style.height * height * FINER / 1.4
    radius = style.width * height * FINER / 2
    left = style.centre[0] * width * FINER - 0.5 * scale
    top = style.centre[1] * height * FINER - 0.7 * scale
    for stroke in GLYPHS[digit]:
        points = unsteady(stroke, rng, 0.05)
        for n, (x, y) in enumerate(points):
            r = radius * (1 + 0.15 * math.sin(n / 14 + digit))  # pressure
            px, py = left + scale * (x + style.slant * (0.7 - y)), top + scale * y
            pen.ellipse((px - r, py - r, px + r, py + r), fill=255)
    ink = ink.resize(style.size, Image.Resampling.BOX)
    paper = Image.new("L", style.size, style.ground)
    if style.grain:
        coarse = (max(2, width // 6), max(2, height // 6))
        values = bytes(
            max(0, min(255, style.ground + rng.randint(-style.grain, style.grain)))
            for _ in range(coarse[0] * coarse[1])
        )
        paper = Image.frombytes("L", coarse, values).resize(style.size, Image.Resampling.BILINEAR)
    paper.paste(style.ink, (0, 0), ink)
    return paper


def main() -> None:
    """Writes one PNG for each digit into --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write into")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for digit, style in STYLES.items():
        colour = "light-on-dark" if style.ink > style.ground else "dark-on-light"
        draw(digit).save(out / f"{digit}-{colour}-{style.size[0]}x{style.size[1]}.png", optimize=True)


if __name__ == "__main__":
    main()
