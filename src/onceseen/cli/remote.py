"""Which server a verb speaks to: `--server`, else the one that runs on the data directory."""

from pathlib import Path
from typing import TYPE_CHECKING

from onceseen import wiring
from onceseen.errors import InvalidRequest

if TYPE_CHECKING:
    from onceseen.client import Client

FIRST_SECONDS = 2.0
"""How long a server that has never answered is tried: somebody waits at the terminal, and the address may be wrong."""


def place(data: Path | None) -> Path:
    """The data directory: the flag, else what the settings say."""
    if data is not None:
        return data
    from onceseen.settings import data_directory

    return data_directory()


def find(server: str | None, data: Path | None) -> str | None:
    """The server's URL, if one is named or runs."""
    return server or wiring.running_server(place(data))


def client(url: str, api_key: str | None) -> "Client":
    """A client of this server."""
    from onceseen.client import Client

    return Client(url, api_key or None, first=FIRST_SECONDS)


def connect(server: str | None, data: Path | None, api_key: str | None) -> "Client":
    """The server.

    Raises:
        InvalidRequest: none is named and none runs.
    """
    url = find(server, data)
    if url is None:
        raise InvalidRequest(
            f"No server runs on {place(data)}; start one (onceseen up), or name it (--server http://HOST:PORT)."
        )
    return client(url, api_key)
