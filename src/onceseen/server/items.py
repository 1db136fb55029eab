"""Lists of items: a page in JSON, or the whole as CSV or NDJSON, page by page, each a read of its own."""

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from onceseen.domain.ids import now
from onceseen.domain.views import ItemFilter, ItemView
from onceseen.hub.hub import Hub
from onceseen.server.common import make_cursor
from onceseen.wire.http import ItemOut, Page, encode, item_out
from onceseen.wire.table import CSV_COLUMNS, csv_row, csv_text

PAGE = 100
STEP = 500
"""Items a read of a stream takes: a few milliseconds."""


def item_view_out(hub: Hub, view: ItemView) -> ItemOut:
    """An item with its predictions."""
    return item_out(view, hub.catalog.predictions(view.lane, view.result, view.score))


async def listing(hub: Hub, request: Request, where: ItemFilter, limit: int | None) -> Response:
    """The items that a filter finds.

    Args:
        hub: of this server.
        request: whose `Accept` says in which form.
        where: the filter; its cursor is where the list begins.
        limit: of a page, 100 by default; a stream has all there are without it.
    """
    where = where._replace(now=now())  # `age` means the same on every page of a stream
    form = _form(request)
    if form is None:
        return Response(await hub.read(lambda: _page(hub, where, limit or PAGE)), media_type="application/json")
    first = await hub.read(
        lambda: _part(hub, form, where, min(STEP, limit or STEP))
    )  # an error still is a problem document
    headers = {"vary": "accept", "content-disposition": f'attachment; filename="predictions.{form.suffix}"'}
    return StreamingResponse(_stream(hub, form, where, limit, first), headers=headers, media_type=form.media_type)


class _Form(NamedTuple):
    media_type: str
    suffix: str
    head: bytes
    encode: Callable[[Hub, ItemFilter, list[ItemView]], bytes]


class _Part(NamedTuple):
    data: bytes
    items: int
    last: tuple[bytes, int] | None


async def _stream(hub: Hub, form: _Form, where: ItemFilter, limit: int | None, part: _Part) -> AsyncIterator[bytes]:
    """Ended by Starlette when the client goes away: the page that is being read is the last."""
    yield form.head + part.data
    left = None if limit is None else limit - part.items
    while part.items == STEP and left != 0:
        where = where._replace(cursor=part.last)
        count = STEP if left is None else min(STEP, left)
        part = await hub.read(lambda where=where, count=count: _part(hub, form, where, count))  # type: ignore[misc]
        left = None if left is None else left - part.items
        yield part.data


def _part(hub: Hub, form: _Form, where: ItemFilter, count: int) -> _Part:
    views = _items(hub, where, count)
    return _Part(form.encode(hub, where, views), len(views), (views[-1].job, views[-1].n) if views else None)


def _page(hub: Hub, where: ItemFilter, limit: int) -> bytes:
    views = _items(hub, where, limit)
    more = make_cursor(views[-1].job, views[-1].n) if len(views) == limit else None
    return encode(Page([_shown(hub, view, where) for view in views], more))


def _items(hub: Hub, where: ItemFilter, limit: int) -> list[ItemView]:
    with hub.database.read() as reader:
        return reader.views.items(where, limit)


def _shown(hub: Hub, view: ItemView, where: ItemFilter) -> ItemOut:
    item = item_view_out(hub, view)
    if where.dead_letters:
        item.deaths, item.losses = view.deaths or 0, view.losses or 0
    return item


def _csv(_hub: Hub, _where: ItemFilter, views: list[ItemView]) -> bytes:
    return csv_text(_row(item_out(view, [])) for view in views).encode()


def _row(item: ItemOut) -> list[str | float | bool | None]:
    error = (item.error.kind, item.error.message) if item.error else (None, None)
    answer, find = (item.label, item.score), (item.risk, item.found)
    return csv_row(item.name, item.digest, item.state, answer, item.model, find, error)


def _ndjson(hub: Hub, where: ItemFilter, views: list[ItemView]) -> bytes:
    return b"".join(encode(_shown(hub, view, where)) + b"\n" for view in views)


_FORMS = (
    _Form("text/csv", "csv", csv_text([CSV_COLUMNS]).encode(), _csv),
    _Form("application/x-ndjson", "ndjson", b"", _ndjson),
)


def _form(request: Request) -> _Form | None:
    """What `Accept` names first of the two; None: JSON."""
    accept = request.headers.get("accept", "").lower()
    named = [(accept.index(form.media_type), form) for form in _FORMS if form.media_type in accept]
    return min(named)[1] if named else None
