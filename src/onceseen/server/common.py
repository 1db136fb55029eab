"""What the resources share: the hub of the application, ids and cursors, JSON answers."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import Depends, Query, Request, params
from fastapi.dependencies.utils import get_flat_params
from starlette.responses import Response

from onceseen.domain.ids import parse_id
from onceseen.domain.query import STATES
from onceseen.errors import InvalidRequest, NotFound
from onceseen.hub.hub import Hub
from onceseen.settings import Settings
from onceseen.wire.http import Page, encode

Limit = Annotated[int, Query(ge=1, le=1000)]
OptionalLimit = Annotated[int | None, Query(ge=1, le=1000)]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOST = 2**63 - 1
"""The largest integer that the record can be asked for."""


def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


TheHub = Annotated[Hub, Depends(_hub)]
TheSettings = Annotated[Settings, Depends(_settings)]


def only_known_parameters(request: Request) -> None:
    """A parameter that a route does not know is a slip of the pen: `?lable=` must not list everything.

    Raises:
        InvalidRequest: names the known ones.
    """
    route = request.scope["route"]
    known = [field.alias for field in get_flat_params(route.dependant) if isinstance(field.field_info, params.Query)]
    for name in request.query_params:
        if name not in known and request.url.path.startswith("/v1/"):
            raise InvalidRequest(f"`{name[:50]}` is no parameter of this call; known are {', '.join(known) or 'none'}.")


def json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON."""
    return Response(encode(value), status, headers, "application/json")


def page(items: Sequence[Any], limit: int, cursor: str | None) -> Response:
    """A list; `next` is there while there may be more."""
    return json(Page(items, cursor if len(items) == limit else None))


def job_id(text: str) -> bytes:
    """The id in a path.

    Raises:
        NotFound: it is no id.
    """
    found = parse_id(text)
    if found is None:
        raise NotFound(f"There is no job {text[:50]!r}; GET /v1/jobs and `onceseen jobs` list them.")
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
        if state not in STATES:
            raise InvalidRequest(f"`state` = {state[:50]!r}; known are {', '.join(STATES)}.")
    return states


def moment_of(text: str | None, name: str) -> int | None:
    """The time in a query, RFC 3339, in microseconds since 1970.

    Raises:
        InvalidRequest: it is none, or does not say in which zone.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise InvalidRequest(
            f"`{name}` = {text[:50]!r}: give a time with its zone, like 2026-01-31T08:30:00Z (a `+` is %2B in a URL)."
        )
    return (found - EPOCH) // timedelta(microseconds=1)


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
