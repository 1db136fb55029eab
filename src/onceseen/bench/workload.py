"""What is classified: one model, some images, and the label that each of them must get."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from onceseen import bundled, wiring
from onceseen.domain.model import LIVE, ModelRow
from onceseen.domain.names import is_image_name
from onceseen.errors import ImageError, InvalidRequest
from onceseen.inference import external, finish
from onceseen.inference.decode import decode
from onceseen.inference.manifest import Manifest, read, to_json, to_toml
from onceseen.inference.registry import Catalog
from onceseen.inference.run import Engine

NAME = "bench"
MOST_IMAGES = 200
SIDE = 128
CLOSE = 0.005
"""Labels this close to the best score count as right: a batch may round otherwise than a single image."""


class Workload(msgspec.Struct, frozen=True):
    """Model, images, answers.

    Attributes:
        model: a directory with `model.toml`; its name is `bench`, its answers are not remembered.
        title: the model as the user knows it.
        images: files, each other than the others.
        expected: for each image the labels that are right.
    """

    model: str
    title: str
    images: list[str]
    expected: list[list[str]]

    def read_images(self) -> list[bytes]:
        """The bytes of all images."""
        return [Path(image).read_bytes() for image in self.images]

    def engine(self) -> Engine:
        """The model, loaded and warm."""
        manifest, directory = read(Path(self.model))
        return Engine(manifest, directory, wiring.runtime(manifest.runtime))


def stamps(first: int = 0) -> Iterator[bytes]:
    """12 bytes each, never the same: appended to an image they make it another one with the same pixels.

    Decoders stop at an image's end mark. Equal images would be kept, and often answered, once.
    """
    return (b"%012d" % number for number in count(first))


def make(place: Path, model: str | None, images: Path | None, data: Path) -> Workload:
    """Collect or make the workload.

    Args:
        place: a temporary directory.
        model: a directory, a weights file, or a name; None: a tiny model.
        images: a folder; None: small grey pictures are made.
        data: the data directory in which models are looked for by name.

    Raises:
        InvalidRequest, InvalidManifest, UnknownModel: what is wrong with the model or the folder.
    """
    if (model is None) != (images is None):
        raise InvalidRequest(
            "Give --model and --images together, or neither: then a tiny model and its images are used."
        )
    manifest, directory = _find_model(model, data) if model else read(bundled.bench_model())
    title = f"{manifest.name}:{manifest.version or 1}"
    _write_model(place / "model", manifest, directory)
    files = _find_images(images) if images else _made_images(place / "images")
    workload = Workload(str(place / "model"), title, [str(file.absolute()) for file in files], [])
    return msgspec.structs.replace(workload, expected=_expected(workload))


def _find_model(text: str, data: Path) -> tuple[Manifest, Path]:
    path = Path(text)
    if path.exists():
        return read(path)
    if path.suffix in (".onnx", ".toml") or "/" in text:
        raise InvalidRequest(f"There is no model at {text}.")
    rows = wiring.models_of(data)
    known = {row.name for row in rows}
    for directory in bundled.models():
        manifest, _ = read(directory)
        if manifest.name not in known:
            row = ModelRow(manifest.name, manifest.version, b"", to_json(manifest), str(directory), LIVE, 0)
            rows.append(row)
    found = Catalog(rows).resolve(text)
    return found.manifest, Path(found.row.location)


def _write_model(place: Path, manifest: Manifest, directory: Path) -> None:
    """The same weights under a name of our own, without memory of answers."""
    own = msgspec.structs.replace(manifest, name=NAME, version="1", cache=False)
    place.mkdir(parents=True)
    (place / "model.toml").write_text(to_toml(own))
    weights = directory / manifest.file
    for file in (weights, *external.files(weights, directory)):
        link = place / file.relative_to(directory)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.absolute())


def _find_images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InvalidRequest(f"--images {folder}: there is no such folder.")
    files = sorted(
        file for file in folder.rglob("*") if file.is_file() and is_image_name(str(file.relative_to(folder)))
    )
    if not files:
        raise InvalidRequest(
            f"--images {folder}: there is no image in it; .jpg, .png, .tif and the like are looked for."
        )
    step = max(1.0, len(files) / MOST_IMAGES)
    return [files[int(at * step)] for at in range(min(len(files), MOST_IMAGES))]


def _made_images(place: Path) -> list[Path]:
    """Grey JPEGs of about 5 kB, the same ones every time."""
    place.mkdir(parents=True)
    source, files = np.random.default_rng(1), []
    for number in range(MOST_IMAGES):
        pixels = np.ascontiguousarray(picture(source)[:, :, np.newaxis])
        files.append(place / f"{number:03}.jpg")
        files[-1].write_bytes(simplejpeg.encode_jpeg(pixels, 90, "GRAY"))
    return files


def picture(source: np.random.Generator) -> NDArray[np.uint8]:
    """Something like a diffraction pattern: a glow, rings, spots and noise; uint8 (128, 128)."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    centre = source.uniform(40, 88, 2)
    radius = np.hypot(y - centre[0], x - centre[1])
    light: NDArray[Any] = source.uniform(10, 120) * np.exp(-radius / source.uniform(15, 80))
    for _ in range(source.integers(0, 4)):
        light += source.uniform(10, 60) * np.exp(-(((radius - source.uniform(10, 70)) / source.uniform(1, 4)) ** 2))
    for _ in range(source.integers(0, 40)):
        top, left = source.integers(1, SIDE - 3, 2)
        light[top : top + 3, left : left + 3] += source.uniform(40, 200)
    light += source.normal(source.uniform(0, 60), source.uniform(2, 9), light.shape)
    pixels: NDArray[np.uint8] = np.clip(light, 0, 255).astype(np.uint8)
    return pixels


def _expected(workload: Workload) -> list[list[str]]:
    """The right labels of each image, from a run of the model here; also the proof that a stamp changes nothing else."""
    engine, found, stamp = workload.engine(), [], next(stamps())
    for file, image in zip(workload.images, workload.read_images(), strict=True):
        try:
            scores = engine.finish(engine.run([engine.prepare(decode(image + stamp))])[0]).scores
        except ImageError as error:
            raise InvalidRequest(f"{file} cannot be classified: {error}") from error
        best = finish.top(scores, 5)
        found.append([engine.manifest.labels[index] for index, score in best if score >= best[0][1] - CLOSE])
    engine.close()
    return found
