"""Finding drawn ink on its ground: for `fit = "content"` and `polarity = "auto"`.

The ground is the median of the picture's border; ink is what differs from it by over 20 % of the greatest difference.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onceseen.domain.geometry import fit_inside
from onceseen.inference.ground import levelled

INK = 0.2
"""Share of the greatest difference from the ground over which a pixel counts as ink."""

FILL = 20 / 28
"""How much of the input the ink's longer side takes: MNIST's 20 of 28 pixels."""

SEARCH_SIDE = 256  # pixels: larger pictures are searched in a smaller copy, which averages noise away
LEAST_CONTRAST = 8.0  # of 255: less than that is no ink but noise, and the picture is blank


class Ink(NamedTuple):
    """What is drawn where. `box`: left, top, right, bottom in pixels of the picture; `sign`: -1 for dark ink."""

    ground: float  # 0..255
    peak: float  # greatest difference from the ground, 0..255
    noise: float  # what the ground itself differs by, as a share of the peak
    sign: int
    box: tuple[int, int, int, int]


def border(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """The outermost pixels of an (h, w) picture: a frame of 1/64 of the shorter side, at least one pixel."""
    wide = max(1, min(picture.shape) // 64)
    sides = (picture[:wide], picture[-wide:], picture[wide:-wide, :wide], picture[wide:-wide, -wide:])
    return np.concatenate([side.ravel() for side in sides])


def find(picture: NDArray[np.float32]) -> Ink | None:
    """The ink of an (h, w) picture on the scale 0..255, or None for a blank one."""
    height, width = picture.shape
    small = picture
    if max(width, height) > SEARCH_SIDE:
        size = fit_inside(width, height, SEARCH_SIDE, SEARCH_SIDE)
        small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
    edge = border(small)
    ground = float(np.median(edge))
    brighter, darker = float(small.max()) - ground, ground - float(small.min())
    sign, peak = (1, brighter) if brighter >= darker else (-1, darker)
    if peak < LEAST_CONTRAST:
        return None
    difference = (small - ground) * sign
    mask = difference > INK * peak
    if max(small.shape) > 64:
        mask = _without_specks(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    # ink may lie on the border too: the noise is that of its quieter nine tenths
    noise = float(np.quantile(np.abs(edge - ground), 0.9)) / peak
    x, y = width / small.shape[1], height / small.shape[0]
    box = (
        int(columns[0] * x),
        int(rows[0] * y),
        min(width, int(np.ceil((columns[-1] + 1) * x))),
        min(height, int(np.ceil((rows[-1] + 1) * y))),
    )
    return Ink(ground, peak, min(noise, INK), sign, box)


def centred(
    picture: NDArray[np.float32], height: int, width: int, resample: Image.Resampling = Image.Resampling.BILINEAR
) -> NDArray[np.float32]:
    """The recipe of MNIST: crop to the ink, scale its longer side to 20/28 of the input, centre it by its mass.

    Everything is measured from the ground to the peak, so a photograph of paper becomes as clean as a scan: the ground
    is flat, the ink reaches 0 or 255. Dark ink stays dark. A blank picture is shown whole.

    Args:
        picture: (h, w), 0..255.
        height: of the result, pixels.
        width: of the result, pixels.
        resample: the filter.
    """
    picture = levelled(picture)
    ink = find(picture)
    if ink is None:
        whole = np.asarray(Image.fromarray(picture).resize((width, height), resample))
        return np.asarray(np.clip(whole, 0.0, 255.0), np.float32)
    left, top, right, bottom = ink.box
    drawn = (picture[top:bottom, left:right] - np.float32(ink.ground)) * np.float32(ink.sign / ink.peak)
    drawn -= np.float32(ink.noise)
    drawn *= np.float32(255.0 / (1.0 - ink.noise))
    np.clip(drawn, 0.0, 255.0, out=drawn)
    fill_width, fill_height = max(1, round(width * FILL)), max(1, round(height * FILL))
    size = fit_inside(right - left, bottom - top, fill_width, fill_height)
    drawn = np.clip(np.asarray(Image.fromarray(drawn).resize(size, resample)), 0.0, 255.0)
    canvas = np.zeros((height, width), np.float32)
    y, x = _place(drawn, height, 0), _place(drawn, width, 1)
    canvas[y : y + size[1], x : x + size[0]] = drawn
    return canvas if ink.sign > 0 else 255.0 - canvas


def ground_is_bright(picture: NDArray[np.float32]) -> bool:
    """Whether dark ink lies on a bright ground; a blank picture goes by its ground alone."""
    picture = levelled(picture)
    ink = find(picture)
    return ink.sign < 0 if ink is not None else float(np.median(border(picture))) > 127.5


def _place(drawn: NDArray[np.float32], length: int, axis: int) -> int:
    """Where the ink begins on an axis so that its centre of mass comes to the middle, without leaving the canvas."""
    profile = drawn.sum(axis=1 - axis, dtype=np.float64)
    total = float(profile.sum())
    extent = drawn.shape[axis]
    centre = float(profile @ np.arange(extent)) / total if total > 0 else (extent - 1) / 2
    return int(min(max(round(length / 2 - centre), 0), length - extent))


def _without_specks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without pixels that have fewer than two neighbours: strokes stay, dust goes. All of it if nothing stays."""
    padded = np.pad(mask, 1).astype(np.uint8)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    neighbours = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]  # counts the pixel itself
    kept: NDArray[np.bool_] = mask & (neighbours >= 3)
    return kept if kept.any() else mask
