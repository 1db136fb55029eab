"""Small images, archives and models for tests of whole servers."""

import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onceseen.testing.onnx_models import channel_means, looping, picky

COLOURS = ("red", "green", "blue")
SLOW_FROM = 200
"""Redder than this and `slow_model` takes its time: so many units more, so many times as long."""


def picture(number: int, size: tuple[int, int] = (16, 16), form: str = "PNG") -> bytes:
    """A flat picture, another one for each number below 2 ** 21; none of them is slow."""
    red, green, blue = number & 127, (number >> 7) & 127, (number >> 14) & 127
    return flat((red, green, blue), size, form)


def flat(colour: tuple[int, int, int], size: tuple[int, int] = (16, 16), form: str = "PNG") -> bytes:
    """A picture of one colour."""
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, form)
    return out.getvalue()


def slow(units: int, number: int = 0) -> bytes:
    """A picture on which `slow_model` takes so many units of time (1 to 55), another one for each number below 16,384."""
    return flat((SLOW_FROM + units, number & 127, (number >> 7) & 127))


def colour_model(
    directory: Path, name: str = "colours", version: str = "", labels: Sequence[str] = COLOURS, more: str = ""
) -> Path:
    """A model's directory: it says which channel is brightest. `more`: further lines of its manifest."""
    directory.mkdir(parents=True, exist_ok=True)
    channel_means(directory / "weights.onnx")
    return _manifest(directory, name, version, labels, more)


def slow_model(directory: Path, name: str = "slow", rounds: int = 4000, more: str = "") -> Path:
    """The same, but slow on red pictures: `rounds` rounds of its loop for each unit of red above 200, some 50 ms."""
    directory.mkdir(parents=True, exist_ok=True)
    looping(directory / "weights.onnx", SLOW_FROM, rounds)
    return _manifest(directory, name, "", COLOURS, more)


def picky_model(directory: Path, name: str = "picky", more: str = "") -> Path:
    """The same, but it fails on pictures whose red is over 200."""
    directory.mkdir(parents=True, exist_ok=True)
    picky(directory / "weights.onnx", SLOW_FROM)
    return _manifest(directory, name, "", COLOURS, more)


def zipped(files: Iterable[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return out.getvalue()


def hdf5(**datasets: NDArray[Any]) -> bytes:
    """An HDF5 file with these datasets, packed frame by frame."""
    import h5py

    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        for name, values in datasets.items():
            file.create_dataset(name, data=values, chunks=(1, *values.shape[1:]), compression="gzip", shuffle=True)
    return out.getvalue()


def flat_frames(seed: int, count: int, red: int = 0) -> NDArray[np.uint8]:
    """A stack (count, 8, 8, 3) of flat colours, each frame another one; `slow_model` is slow where `red` says so."""
    frames = np.zeros((count, 8, 8, 3), np.uint8)
    frames[..., 0] = red
    frames[..., 1] = (np.arange(count) % 100)[:, None, None]
    frames[..., 2] = seed + (np.arange(count) // 100)[:, None, None]
    return frames


def _manifest(directory: Path, name: str, version: str, labels: Sequence[str], more: str) -> Path:
    lines = [f'name = "{name}"', 'file = "weights.onnx"', f"labels = {list(labels)!r}", more]
    if version:
        lines.append(f'version = "{version}"')
    lines += ["[input]", "size = [8, 8]", "mean = [0.0]", "std = [25.5]"]
    (directory / "model.toml").write_text("\n".join(lines) + "\n")
    return directory
