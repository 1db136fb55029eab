"""Dialect `scan`: a picture is posted under a name, and found again by the hash of its pixels with all its names.

`POST /scan/...` answers when a worker has decoded the picture and it is on the disk; its prediction comes after that, and
`GET /match/HASH` tells it.
"""

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from onceseen.domain.fetch import name_of
from onceseen.domain.ids import text_of
from onceseen.domain.names import clean_name
from onceseen.domain.views import ItemFilter, ItemView
from onceseen.errors import InvalidRequest
from onceseen.hub import pixels
from onceseen.hub.hub import Hub
from onceseen.hub.submission import Request as Submitted
from onceseen.server import bodies
from onceseen.server.asgi import PROBLEM, problem
from onceseen.server.common import TheHub, TheSettings, json
from onceseen.server.items import item_view_out
from onceseen.wire.http import MatchOut, ScanOut, UrlIn, encode

router = APIRouter()

DIALECT = "scan"
NAMES = 10_000
MATCHES = 100
MAX_JSON = 100_000


@router.post("/scan/image/{name:path}")
async def scan_image(hub: TheHub, settings: TheSettings, request: Request, name: str, model: str = "") -> Response:
    """Take a picture under a name: the hash of its pixels."""
    asked = _asked(hub, model)
    data, name = await bodies.whole(hub, request, settings.max_image_bytes, "picture"), clean_name(name)
    return _told(await pixels.take(hub, asked, name, data, settings.max_wait), name)


@router.post("/scan/url")
async def scan_url(hub: TheHub, settings: TheSettings, request: Request, model: str = "") -> Response:
    """Fetch a picture and take it; its name is the URL."""
    asked = _asked(hub, model)
    body = await bodies.whole(hub, request, MAX_JSON, "JSON object")
    try:
        url = msgspec.json.decode(body, type=UrlIn).url
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f'The body is not of the form {{"url": "https://..."}}: {error}.') from error
    return _told(await pixels.take_url(hub, asked, url, settings.max_wait), name_of(url))


@router.get("/match/{digest}")
async def match(hub: TheHub, digest: str) -> Response:
    """All names and answers of a picture, whatever file it came in."""
    where = ItemFilter(hub.settings.project, pixels=_hash(digest))

    def read() -> tuple[list[str], list[ItemView]]:
        with hub.database.read() as reader:
            return reader.views.names(where, NAMES), reader.views.items(where, MATCHES)

    names, views = await hub.read(read)
    return json(MatchOut(names, [item_view_out(hub, view) for view in views]))


def _asked(hub: Hub, model: str) -> Submitted:
    return Submitted(hub.catalog.resolve(model or None, DIALECT), source=DIALECT)


def _told(taken: pixels.Taken, name: str) -> Response:
    job = text_of(taken.job.id)
    place = {"location": f"/v1/jobs/{job}/items/0"}
    if taken.refused is None:
        return json(ScanOut(taken.pixels.hex(), name), headers=place)
    message = taken.refused.message.rstrip(".")
    refused = type(taken.refused)(f"{message}. It stands in the record as a failed item of job {job}.")
    return Response(encode(problem(refused)), refused.status, place, PROBLEM)


def _hash(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text) if len(text) == 64 else b""
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise InvalidRequest(
            f"{text[:80]!r} is no hash of a picture; give the 64 hex digits that `POST /scan/...` answered."
        )
    return digest
