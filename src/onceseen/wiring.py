"""The only place that names drivers: what each URL scheme stands for, and how a hub is put together."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from onceseen.errors import InvalidManifest, NotFound, SettingsError

if TYPE_CHECKING:
    from onceseen.domain.model import ModelRow
    from onceseen.drivers.directory import DataDirectory
    from onceseen.hub.hub import Hub
    from onceseen.hub.settings import HubSettings
    from onceseen.ports.database import Reader
    from onceseen.ports.fetcher import Fetcher
    from onceseen.ports.link import Accept, Listener, Stream
    from onceseen.ports.runtime import Runtime
    from onceseen.settings import Settings


def open_directory(path: Path, wait: float | None = None) -> "DataDirectory":
    """Own a data directory.

    Raises:
        DirectoryInUse, NewerData: see there.
    """
    from onceseen.drivers.directory import LOCK_WAIT_SECONDS, DataDirectory

    return DataDirectory(path, LOCK_WAIT_SECONDS if wait is None else wait)


def hub_settings(settings: "Settings", preload: tuple[str, ...] = ()) -> "HubSettings":
    """The part of the settings that a hub needs."""
    from onceseen.hub.settings import HubSettings

    return HubSettings(
        max_pixels=settings.max_pixels,
        max_image_bytes=settings.max_image_bytes,
        max_items=settings.max_items,
        lease_seconds=settings.lease_seconds,
        max_deaths=settings.max_deaths,
        fetch_connections=settings.fetch_connections,
        fetch_tries=settings.fetch_tries,
        preload=preload,
    )


def fetcher(settings: "Settings") -> "Fetcher":
    """What gets images from URLs."""
    from onceseen.domain.addresses import Allowance
    from onceseen.drivers.fetch_http import FetchHttp, Limits

    connections = settings.fetch_connections
    limits = Limits(settings.max_image_bytes, settings.fetch_seconds, settings.fetch_redirects, connections)
    return FetchHttp(Allowance(settings.fetch_allow), limits)


def build_hub(directory: "DataDirectory", settings: "HubSettings", fetcher: "Fetcher | None" = None) -> "Hub":
    """A hub on the embedded drivers, not yet started; without a fetcher it refuses URLs.

    Raises:
        SettingsError: the blobs are not those of this record.
    """
    from onceseen.drivers.blobs_pack import BlobsPack
    from onceseen.drivers.signal_local import SignalLocal
    from onceseen.hub.hub import Hub

    database = directory.open_database()
    blobs = BlobsPack.open(directory.path)
    with database.begin() as tx:
        known = tx.servers.meta("blob-store", blobs.store_id)
    if known != blobs.store_id:
        blobs.close()
        database.close()
        raise SettingsError(
            f"The blobs in {directory.path} are not those of this record; put `packs`, `files` and `store-id` back together."
        )
    return Hub(database, blobs, SignalLocal(), directory.path / "models", settings, fetcher)


async def listen(address: str, accept: "Accept") -> "Listener":
    """Open the door for workers.

    Raises:
        SettingsError: an unknown kind of address.
    """
    from onceseen.drivers import link_unix

    drivers = {"unix": link_unix.listen}
    return await drivers[_scheme(address, drivers)](address, accept)


def connect(address: str, timeout: float = 5.0) -> "Stream":
    """A worker's way to its server.

    Raises:
        SettingsError: an unknown kind of address.
        OSError: nobody listens there.
    """
    from onceseen.drivers import link_unix

    drivers = {"unix": link_unix.connect}
    return drivers[_scheme(address, drivers)](address, timeout)


def runtime(name: str) -> "Runtime":
    """The library that runs models of one kind.

    Raises:
        InvalidManifest: there is none by this name.
    """
    if name == "onnx":
        from onceseen.drivers.runtime_onnx import OnnxRuntime

        return OnnxRuntime()
    raise InvalidManifest(f"`runtime` = {name!r} is not built yet; known is 'onnx'.")


def own_address(data: Path) -> str:
    """Where the server on a data directory listens for workers, the same at each of its starts."""
    from onceseen.drivers.directory import socket_address

    return socket_address(data)


def link_address(server: str) -> str:
    """Where a worker connects, for what `--server` says: a data directory, or unix:PATH.

    Raises:
        SettingsError: neither, or of a kind that is not built yet.
    """
    from onceseen.drivers.directory import server_facts, socket_address

    if server.startswith("unix:"):
        return server
    if "://" in server:
        raise SettingsError(
            f"--server {server}: links over {server.partition(':')[0]} are not built yet; give a data directory or unix:PATH."
        )
    path = Path(server)
    if not path.is_dir():
        raise SettingsError(f"--server {server}: there is no such data directory.")
    facts = server_facts(path)  # its server may have been started with another runtime directory than ours
    return facts["link"] if facts else socket_address(path)


def running_server(data: Path) -> str | None:
    """The address of the server that works on a data directory now."""
    from onceseen.drivers.directory import is_free, server_facts

    facts = server_facts(data)
    return facts["url"] if facts and not is_free(data) else None


def _scheme(address: str, known: Mapping[str, object]) -> str:
    scheme = address.partition(":")[0]
    if scheme not in known:
        raise SettingsError(f"{address!r}: {scheme!r} is not built yet; known are {', '.join(known)}.")
    return scheme


def migration_needed(data: Path) -> bool:
    """Whether a data directory is of an older release.

    Raises:
        NewerData: it is of a newer one.
    """
    from onceseen.drivers.directory import DataDirectory
    from onceseen.drivers.sql.database import SqliteDatabase

    if DataDirectory.check_format(data) is None or not (data / "record.db").exists():
        return False
    database = SqliteDatabase(data / "record.db")
    try:
        return database.version() != database.newest()
    finally:
        database.close()


@contextmanager
def read_record(data: Path) -> "Iterator[Reader]":
    """What is committed in a data directory, read only, also beside a running server.

    Raises:
        NotFound: there is no record.
        SettingsError: it is one of an older release; NewerData: of a newer one.
    """
    from onceseen.drivers.sql.database import SqliteDatabase

    if not (data / "record.db").exists():
        raise NotFound(f"There is no record in {data}; name another directory with --data.")
    if migration_needed(data):
        raise SettingsError(f"{data} is of an older release; run: onceseen migrate --data {data}")
    database = SqliteDatabase(data / "record.db")
    try:
        with database.read() as reader:
            yield reader
    finally:
        database.close()


def models_of(data: Path) -> "list[ModelRow]":
    """The models of a data directory, with absolute locations; read only, also beside a running server."""
    if not (data / "record.db").exists() or migration_needed(data):
        return []
    with read_record(data) as reader:
        return [row._replace(location=str((data / "models" / row.location).absolute())) for row in reader.models.all()]
