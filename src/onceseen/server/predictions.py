import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from onceseen.domain.ids import now, parse_id
from onceseen.domain.views import ItemFilter, ItemView
from onceseen.errors import InvalidRequest
from onceseen.flow import control
from onceseen.ports.database import Transaction
from onceseen.server.common import Limit, TheHub, json, make_cursor, page, read_cursor, states_of
from onceseen.server.submit import item_view_out

router = APIRouter(prefix="/v1", tags=["predictions"])


class Chosen(msgspec.Struct, forbid_unknown_fields=True):
    """Which dead letters somebody means."""

    tasks: list[str] | None = None
    q: str = ""


@router.get("/predictions")
async def list_predictions(
    hub: TheHub, state: str | None = None, label: str | None = None, cursor: str | None = None, limit: Limit = 100
) -> Response:
    """Items over all jobs, newest first."""
    where = ItemFilter(hub.settings.project, states=states_of(state), label=label, after=read_cursor(cursor))
    return await _page(hub, where, limit)


@router.get("/dead-letters")
async def list_dead_letters(hub: TheHub, cursor: str | None = None, limit: Limit = 100) -> Response:
    """Items whose task failed for another reason than its image."""
    return await _page(hub, ItemFilter(hub.settings.project, after=read_cursor(cursor), dead_letters=True), limit)


@router.post("/dead-letters/retry")
async def retry_dead_letters(hub: TheHub, request: Request) -> Response:
    """Run dead letters again: those of the body's `tasks`, or all."""
    chosen = _tasks(await request.body())

    def retry(tx: Transaction) -> int:
        tasks = control.dead_letters(tx, hub.settings.project, 1000) if chosen is None else chosen
        return control.retry_dead_letters(tx, tasks, now())

    count = await hub.writer.call(retry)
    await hub.refresh_heads()
    return json({"count": count})


def _tasks(body: bytes) -> list[bytes] | None:
    """The tasks that a body names, None for all of them."""
    try:
        given = msgspec.json.decode(body, type=Chosen) if body.strip() else Chosen()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f'The body is not of the form {{"tasks": ["ID", ...]}}: {error}.') from error
    if given.q:
        raise InvalidRequest("`q` is not built yet; name the tasks.")
    if given.tasks is None:
        return None
    found = [parse_id(text) for text in given.tasks]
    if None in found:
        raise InvalidRequest(f"`tasks` holds {given.tasks[found.index(None)][:50]!r}, which is no id of a task.")
    return sorted({task for task in found if task})


async def _page(hub: TheHub, where: ItemFilter, limit: int) -> Response:
    def read() -> list[ItemView]:
        with hub.database.read() as reader:
            return reader.views.items(where, limit)

    views = await hub.read(read)
    items = [item_view_out(hub, view) for view in views]
    if where.dead_letters:
        for item, view in zip(items, views, strict=True):
            item.deaths, item.losses = view.deaths or 0, view.losses or 0
    return page(items, limit, make_cursor(views[-1].job, views[-1].n) if views else None)
