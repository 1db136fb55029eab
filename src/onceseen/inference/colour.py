"""Pixel values before any geometry: transparency laid on white, grey made of colours, deep pixels brought to 0..255."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

LUMA = (np.float32(0.299), np.float32(0.587), np.float32(0.114))
"""ITU-R 601: how much red, green and blue make grey."""


def opaque(pixels: NDArray[Any]) -> NDArray[Any]:
    """(h, w, 2) or (h, w, 4) with alpha laid on white: (h, w) or (h, w, 3); all others as they are."""
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return pixels
    alpha = pixels[:, :, -1:].astype(np.uint16)
    laid = ((pixels[:, :, :-1] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return laid[:, :, 0] if laid.shape[2] == 1 else laid


def grey(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """(h, w) or (h, w, 3) to (h, w), not rounded."""
    if pixels.ndim == 2:
        return pixels.astype(np.float32)
    out = pixels[:, :, 0] * LUMA[0]
    out += pixels[:, :, 1] * LUMA[1]
    out += pixels[:, :, 2] * LUMA[2]
    return out


def limits(pixels: NDArray[Any], wanted: str | tuple[float, float]) -> tuple[float, float]:
    """The values that become 0 and 255.

    "type": 0 and the greatest value of the type (int32: 2^31 - 1; floats: 1, as is the custom). "data": the picture's
    own smallest and greatest value.
    """
    if isinstance(wanted, tuple):
        return wanted
    if wanted == "data":
        return float(pixels.min()), float(pixels.max())
    return 0.0, 1.0 if pixels.dtype.kind == "f" else float(np.iinfo(pixels.dtype).max)


def scaled(pixels: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """Values `low` to `high` as 0 to 255, what lies outside clipped; a flat picture becomes 0."""
    if high <= low:
        return np.zeros(pixels.shape, np.float32)
    out = pixels.astype(np.float32)
    out -= np.float32(low)
    out *= np.float32(255.0 / (high - low))
    return np.clip(out, 0.0, 255.0, out=out)
