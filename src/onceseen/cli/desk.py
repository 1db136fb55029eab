"""Where models are: in a data directory on which no server runs, or at a server."""

import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from onceseen import wiring
from onceseen.client import Client
from onceseen.domain.ids import now
from onceseen.domain.model import ModelRow
from onceseen.flow import models
from onceseen.hub.models import add_bundled, forget_files, install
from onceseen.inference import external
from onceseen.inference.manifest import Manifest, to_toml
from onceseen.inference.registry import Catalog, Model, model_out
from onceseen.ports.database import Database, Transaction

T = TypeVar("T")


class LocalDesk:
    """Owns the directory while it is open."""

    def __init__(self, database: Database, store: Path) -> None:
        self._database = database
        self._store = store
        self._transact(lambda tx: add_bundled(lambda write: write(tx)))

    @classmethod
    @contextmanager
    def open(cls, data: Path) -> Iterator["LocalDesk"]:
        """Own a data directory for a moment."""
        directory = wiring.open_directory(data, wait=0)
        try:
            database = directory.open_database()
            try:
                yield cls(database, data / "models")
            finally:
                database.close()
        finally:
            directory.release()

    def list(self) -> "list[dict[str, Any]]":
        """All versions."""
        catalog = self._catalog()
        return [_plain(catalog, model) for model in catalog.models]

    def show(self, ref: str) -> dict[str, Any]:
        """One version."""
        catalog = self._catalog()
        return _plain(catalog, catalog.resolve(ref))

    def add(self, manifest: Manifest, directory: Path) -> dict[str, Any]:
        """Copy a model here and write its row."""
        digest, location = install(self._store, manifest, directory)
        return self._shown(self._transact(lambda tx: models.add(tx, manifest, digest, location, now())))

    def promote(self, ref: str) -> dict[str, Any]:
        """Make a version live."""
        return self._shown(self._transact(lambda tx: models.promote(tx, ref, now())))

    def remove(self, ref: str) -> None:
        """Forget a version."""
        row = self._transact(lambda tx: models.remove(tx, ref, now()))
        forget_files(self._store, row, [model.row for model in self._catalog().models])

    def defaults(self, dialect: str | None, ref: str | None) -> dict[str, Any]:
        """Show the defaults, after setting one."""
        if dialect and ref:
            self._transact(lambda tx: models.set_default(tx, dialect, ref))
        return self._catalog().defaults()

    def _shown(self, row: ModelRow) -> dict[str, Any]:
        return self.show(row.ref)

    def _catalog(self) -> Catalog:
        with self._database.read() as reader:
            return Catalog(reader.models.all(), reader.models.defaults())

    def _transact(self, function: Callable[[Transaction], T]) -> T:
        with self._database.begin() as tx:
            return function(tx)


def _plain(catalog: Catalog, model: Model) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(model_out(catalog, model))
    return found


class RemoteDesk:
    """The models of a running server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> "list[dict[str, Any]]":
        """All versions."""
        return [msgspec.to_builtins(model) for model in self._client.models()]

    def show(self, ref: str) -> dict[str, Any]:
        """One version."""
        return dict(msgspec.to_builtins(self._client.model(ref)))

    def add(self, manifest: Manifest, directory: Path) -> dict[str, Any]:
        """Upload a model."""
        with tempfile.TemporaryDirectory() as folder:
            packed = _packed(manifest, directory, Path(folder) / "model.zip")
            return dict(msgspec.to_builtins(self._client.add_model(packed)))

    def promote(self, ref: str) -> dict[str, Any]:
        """Make a version live."""
        return dict(msgspec.to_builtins(self._client.promote(ref)))

    def remove(self, ref: str) -> None:
        """Forget a version."""
        self._client.remove_model(ref)

    def defaults(self, dialect: str | None, ref: str | None) -> dict[str, Any]:
        """Show the defaults, after setting one."""
        if dialect and ref:
            self._client.set_default(dialect, ref)
        return self._client.defaults()


def _packed(manifest: Manifest, directory: Path, target: Path) -> Path:
    """A model as an upload: its manifest with the labels inside, and the weights."""
    weights = directory / manifest.file
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("model.toml", to_toml(manifest))
        for file in (weights, *external.files(weights, directory)):
            archive.write(file, str(file.relative_to(directory)))
    return target
