"""Which server a verb speaks to: `--server`, else the one that runs on the data directory."""

from pathlib import Path
from typing import Annotated

import typer

from onceseen import wiring
from onceseen.client.transport import Transport, api_key_of
from onceseen.errors import InvalidRequest
from onceseen.settings import default_data

Server = Annotated[
    str | None, typer.Option("--server", help="URL of the server.", envvar="ONCESEEN_SERVER", show_envvar=True)
]
ApiKey = Annotated[str | None, typer.Option("--api-key", help="Its API key [default: ONCESEEN_API_KEY].")]
Data = Annotated[
    Path | None, typer.Option("--data", help="The data directory.", envvar="ONCESEEN_DATA", show_envvar=True)
]


def find(server: str | None, data: Path | None) -> str | None:
    """The server's URL, if one is named or runs."""
    return server or wiring.running_server(data or default_data())


def connect(server: str | None, data: Path | None, api_key: str | None) -> Transport:
    """The server.

    Raises:
        InvalidRequest: none is named and none runs.
    """
    url = find(server, data)
    if url is None:
        raise InvalidRequest(
            f"No server runs on {data or default_data()}; start one (onceseen up), or name it (--server http://HOST:PORT)."
        )
    return Transport(url, api_key_of(api_key))
