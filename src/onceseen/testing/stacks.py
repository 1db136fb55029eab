"""Files with several pictures, made for tests, and what becomes of them."""

import io
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from onceseen.errors import ImageError
from onceseen.inference.decode import Decoded
from onceseen.inference.stacks import File

MANY = 1_000_000
PIXELS = 100_000_000


def noise(*shape: int, dtype: Any = np.uint8) -> NDArray[Any]:
    """Values from 0 to 255, the same for the same shape."""
    return np.random.default_rng(len(shape)).integers(0, 256, shape).astype(dtype)


def hdf5_file(make: Callable[[Any], Any] | None = None, **datasets: Any) -> bytes:
    """An HDF5 file with these datasets; `make` adds what else there is."""
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        for name, values in datasets.items():
            file[name] = values
        if make:
            make(file)
    return out.getvalue()


def animated(kind: str, frames: list[Image.Image], **options: Any) -> bytes:
    """A multi-page or animated file."""
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], **options)
    return out.getvalue()


def frames_of(data: bytes, dataset: str = "") -> list[Decoded]:
    """All frames, in order."""
    file = File(data)
    count, _, _ = file.count(dataset, MANY)
    return [file.frame(number, dataset, PIXELS) for number in range(count)]


def refused(data: bytes, dataset: str = "") -> ImageError:
    """Why a file is refused: the same when its frames are counted and when one of them is read."""
    with pytest.raises(ImageError) as counted:
        File(data).count(dataset, MANY)
    with pytest.raises(ImageError) as read:
        File(data).frame(0, dataset, PIXELS)
    assert (type(read.value), read.value.message) == (type(counted.value), counted.value.message)
    return counted.value
