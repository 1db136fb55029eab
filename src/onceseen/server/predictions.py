from fastapi import APIRouter
from starlette.responses import Response

from onceseen.domain.ids import now
from onceseen.domain.views import ItemFilter, ItemView
from onceseen.flow import control
from onceseen.server.common import Limit, TheHub, json, make_cursor, page, read_cursor, states_of
from onceseen.server.submit import item_view_out

router = APIRouter(prefix="/v1", tags=["predictions"])


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
async def retry_dead_letters(hub: TheHub) -> Response:
    """Run all dead letters again."""
    count = await hub.writer.call(
        lambda tx: control.retry_dead_letters(tx, control.dead_letters(tx, hub.settings.project, 1000), now())
    )
    await hub.refresh_heads()
    return json({"count": count})


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
