"""What the resources share: the hub of the application, ids and cursors, JSON answers."""

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from starlette.responses import Response

from onceseen.domain.ids import parse_id
from onceseen.errors import InvalidRequest, NotFound
from onceseen.hub.hub import Hub
from onceseen.settings import Settings
from onceseen.wire.http import encode

Limit = Annotated[int, Query(ge=1, le=1000)]
MOST = 2**63 - 1
"""The largest integer that the record can be asked for."""
ITEM_STATES = ("queued", "running", "pending", "succeeded", "failed", "cancelled")


def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


TheHub = Annotated[Hub, Depends(_hub)]
TheSettings = Annotated[Settings, Depends(_settings)]


def json(value: Any, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(encode(value), status, media_type="application/json")


def page(items: Sequence[Any], limit: int, cursor: str | None) -> Response:
    """A list; `next` is there while there may be more."""
    return json({"items": items, "next": cursor if len(items) == limit else None})


def job_id(text: str) -> bytes:
    """The id in a path.

    Raises:
        NotFound: it is no id.
    """
    found = parse_id(text)
    if found is None:
        raise NotFound(f"There is no job {text[:50]!r}.")
    return found


def image_digest(text: str) -> bytes:
    """The digest in a path.

    Raises:
        NotFound: it is no digest.
    """
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise NotFound(f"There is no image {text[:80]!r}; a digest is the SHA-256 of its bytes in hex.")
    return digest


def states_of(text: str | None) -> tuple[str, ...]:
    """The states of a filter, separated by commas.

    Raises:
        InvalidRequest: names the known ones.
    """
    states = tuple(state for state in (text or "").split(",") if state)
    for state in states:
        if state not in ITEM_STATES:
            raise InvalidRequest(f"`state` = {state[:50]!r}; known are {', '.join(ITEM_STATES)}.")
    return states


def make_cursor(job: bytes, n: int) -> str:
    """A place in a list, for the next page."""
    return base64.urlsafe_b64encode(job + n.to_bytes(8, "big")).decode().rstrip("=")


def read_cursor(text: str | None) -> tuple[bytes, int] | None:
    """The place that a cursor means.

    Raises:
        InvalidRequest: it was not made here.
    """
    if not text:
        return None
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != 24 or data[16] > 127:
        raise InvalidRequest("`cursor` is not one of this server's; take it from `next` of the page before.")
    return data[:16], int.from_bytes(data[16:], "big")
