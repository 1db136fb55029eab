"""Pictures that are large beside this machine's memory: one at a time, in bands, and no larger than a model can use.

A picture of 100 megapixels is 300 to 400 MB; a reader, a conversion and a resize that each make a whole copy of it are over
2 GB. Here they work band by band, and of all workers on a machine one decodes such a picture at a time.
"""

import fcntl
import os
import time
import weakref
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LARGE = 24_000_000
"""Pixels. Smaller ones never wait, and are converted whole."""
BAND_PIXELS = 4_000_000
LEAST_SIDE = 2000
"""Pixels that the shorter side of a shrunk picture keeps, or three times the model's own, if that is more."""
PATIENCE_SECONDS = 20.0


class Turn:
    """The right to hold a large picture, among all processes of this installation on this machine."""

    _held = 0

    def __init__(self) -> None:
        self._file: int | None = os.open(__file__, os.O_RDONLY | os.O_CLOEXEC)  # the lock needs a file, any one
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not Turn._held and not self._locked() and time.monotonic() < deadline:
            time.sleep(0.02)
        Turn._held += 1

    def until_gone(self, pixels: NDArray[Any]) -> None:
        """The turn ends when nobody holds these pixels, or a view of them, any more."""
        while isinstance(pixels.base, np.ndarray):  # a view of a view looks at the first array, not at the one between
            pixels = pixels.base
        weakref.finalize(pixels, self.end).atexit = False

    def end(self) -> None:
        """The next one's turn. Idempotent."""
        if self._file is not None:
            Turn._held -= 1
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.end()

    def _locked(self) -> bool:
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: nobody waits
            return True
        return True


class NoTurn:
    """What a picture of ordinary size needs."""

    def until_gone(self, pixels: NDArray[Any]) -> None:
        """Nothing to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return


_NO_TURN = NoTurn()


def turn_for(width: int, height: int) -> Turn | NoTurn:
    """Waits, if the picture is large, until no other worker holds a large one. Leaving it by an error ends the turn."""
    return Turn() if width * height > LARGE else _NO_TURN


def as_array(image: Image.Image, mode: str) -> NDArray[Any]:
    """The pixels of an image in a mode of Pillow, with no second whole copy of a large one."""
    if image.width * image.height <= LARGE:
        return np.asarray(image if image.mode == mode else image.convert(mode))
    rows = max(1, BAND_PIXELS // image.width)
    out: NDArray[Any] | None = None
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        part = np.asarray(band if band.mode == mode else band.convert(mode))
        if out is None:
            out = np.empty((image.height, *part.shape[1:]), part.dtype)
        out[top : top + rows] = part
    assert out is not None
    return out


def shrunk(pixels: NDArray[Any], side: int, bring: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """`bring(pixels)`, averaged over squares where the picture is large and far larger than a model of that side needs.

    Args:
        pixels: (h, w) or (h, w, channels).
        side: the longer side of what the model takes.
        bring: to bytes or float32, (h, w) or (h, w, 3); called for bands of rows.
    """
    height, width = pixels.shape[:2]
    factor = min(width, height) // max(LEAST_SIDE, 3 * side)
    if width * height <= LARGE or factor < 2:
        return bring(pixels)
    rows = max(1, BAND_PIXELS // width // factor) * factor
    return np.concatenate([_reduced(bring(pixels[top : top + rows]), factor) for top in range(0, height, rows)])


def _reduced(band: NDArray[Any], factor: int) -> NDArray[Any]:
    if band.dtype == np.uint8 or band.ndim == 2:
        return np.asarray(Image.fromarray(band).reduce(factor))
    planes = [np.asarray(Image.fromarray(band[:, :, channel]).reduce(factor)) for channel in range(band.shape[2])]
    return np.stack(planes, axis=2)
