"""Files of models in the data directory; their rows are written by `flow.models`."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from onceseen.bundled import models as bundled_models
from onceseen.domain.ids import now
from onceseen.domain.model import ModelRow
from onceseen.errors import ModelExists
from onceseen.flow import models
from onceseen.hub.state import HubState
from onceseen.inference import external
from onceseen.inference.manifest import Manifest, content_digest, read
from onceseen.inference.registry import Model
from onceseen.ports.database import Transaction

T = TypeVar("T")


def install(store: Path, manifest: Manifest, directory: Path) -> tuple[bytes, str]:
    """Copy a model's weights into the store, under its content digest. Returns the digest and the location.

    Idempotent: a model that is there already is left as it is.
    """
    digest = content_digest(manifest, directory)
    location = f"{manifest.name}-{digest.hex()[:16]}"
    target = store / location
    weights = directory / manifest.file
    for file in (weights, *external.files(weights, directory)):
        copy = target / file.relative_to(directory)
        if copy.is_file():
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        temporary = copy.with_name(f"{copy.name}.{os.getpid()}.tmp")
        shutil.copyfile(file, temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(copy)
    for place in {target, *(file.parent for file in target.rglob("*")), store}:
        _sync(place)
    return digest, location


def _sync(directory: Path) -> None:
    """Bring a directory's entries to the medium: a model is promised only when a power cut leaves it there."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def add_bundled(begin: Callable[[Callable[[Transaction], None]], T]) -> T:
    """Make sure the record knows the models that come with the package, where they lie now."""
    found = []
    for directory in bundled_models():
        manifest, _ = read(directory)
        found.append((manifest, content_digest(manifest, directory), str(directory)))

    def write(tx: Transaction) -> None:
        for manifest, digest, location in found:
            try:
                models.add(tx, manifest, digest, location, now())
            except ModelExists:
                continue  # somebody's own model has this name and version

    return begin(write)


async def adopt(hub: HubState, path: Path, sets: dict[str, str]) -> Model:
    """Make a model known that stays where it lies: a directory with its manifest, or one weights file with `sets`.

    Raises:
        InvalidManifest: says which key is wrong.
        ModelExists: this version has other weights.
    """

    def look() -> tuple[Manifest, bytes, str]:
        manifest, directory = read(path, sets)
        return manifest, content_digest(manifest, directory), str(directory.absolute())

    manifest, digest, location = await hub.read(look)
    row = await hub.writer.call(lambda tx: models.add(tx, manifest, digest, location, now()))
    await hub.reload_catalog()
    return hub.catalog.resolve(row.ref)


def forget_files(store: Path, row: ModelRow, others: list[ModelRow]) -> None:
    """Delete the files of a removed model, unless another version uses them or they are not ours."""
    target = store / row.location
    if target.parent == store and not any(other.location == row.location for other in others):
        shutil.rmtree(target, ignore_errors=True)
