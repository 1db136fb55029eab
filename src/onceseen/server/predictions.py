from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from onceseen.domain.ids import now, parse_id
from onceseen.domain.query import parse
from onceseen.domain.views import ItemFilter
from onceseen.errors import InvalidRequest
from onceseen.flow import control
from onceseen.hub.hub import Hub
from onceseen.ports.database import Transaction
from onceseen.server.common import OptionalLimit, TheHub, json, moment_of, read_cursor, states_of
from onceseen.server.items import listing
from onceseen.wire.http import CountOut

router = APIRouter(prefix="/v1", tags=["predictions"])

Score = Annotated[float | None, Query(allow_inf_nan=False)]
TASKS_AT_ONCE = 500
"""Dead letters that one transaction retries or purges."""


class Chosen(msgspec.Struct, forbid_unknown_fields=True):
    """Which dead letters somebody means."""

    tasks: list[str] | None = None
    q: str | None = None


@router.get("/predictions")
async def list_predictions(
    hub: TheHub,
    request: Request,
    model: str = "",
    label: str | None = None,
    min_score: Score = None,
    max_score: Score = None,
    after: str | None = None,
    before: str | None = None,
    name: str = "",
    state: str | None = None,
    q: str = "",
    cursor: str | None = None,
    limit: OptionalLimit = None,
) -> Response:
    """Items over all jobs, newest first; as CSV or NDJSON (`Accept`) the whole."""
    query = parse(q)
    terms = {"model": model, "name": name}
    figures = ((">=", min_score), ("<=", max_score))
    for word, value in [*terms.items(), *(("score", f"{op}{value!r}") for op, value in figures if value is not None)]:
        query = query.also(word, value) if value else query
    where = ItemFilter(
        hub.settings.project,
        states=states_of(state),
        label=label,
        query=query,
        after=moment_of(after, "after"),
        before=moment_of(before, "before"),
        cursor=read_cursor(cursor),
    )
    return await listing(hub, request, where, limit)


@router.get("/dead-letters")
async def list_dead_letters(
    hub: TheHub, request: Request, q: str = "", cursor: str | None = None, limit: OptionalLimit = None
) -> Response:
    """Items whose task failed for another reason than its image, newest first."""
    where = ItemFilter(hub.settings.project, query=parse(q), cursor=read_cursor(cursor), dead_letters=True)
    return await listing(hub, request, where, limit)


@router.post("/dead-letters/retry")
async def retry_dead_letters(hub: TheHub, request: Request) -> Response:
    """Run dead letters again: those of the body's `tasks`, those that its `q` finds, or all; answers how many items wait."""
    chosen = _chosen(await request.body())
    count = await _each_step(
        hub, chosen, lambda tx, tasks, first: control.retry_dead_letters(tx, tasks, now(), first=first)
    )
    await hub.refresh_heads()
    return json(CountOut(count))


@router.post("/dead-letters/purge")
async def purge_dead_letters(hub: TheHub, request: Request) -> Response:
    """Take dead letters off the list: those of `tasks`, or those that `q` finds; their items keep their failure."""
    chosen = _chosen(await request.body())
    if chosen.tasks is None and chosen.q is None:
        raise InvalidRequest('Say which: {"q": "model:NAME"}, {"tasks": ["ID", ...]}, or {"q": ""} for all of them.')
    return json(CountOut(await _each_step(hub, chosen, lambda tx, tasks, _: control.purge_dead_letters(tx, tasks))))


Work = Callable[[Transaction, Sequence[bytes], bool], control.Step]
"""A step over some tasks, in a transaction of its own; whether it is the first one over these."""


async def _each_step(hub: Hub, chosen: Chosen, work: Work) -> int:
    """Work on what was chosen at this moment, step by step: what fails again meanwhile is not taken twice."""
    where = ItemFilter(hub.settings.project, query=parse(chosen.q or ""))

    def all_of_them() -> list[bytes]:
        with hub.database.read() as reader:
            return reader.views.dead_letters(where)

    tasks = await hub.read(all_of_them) if chosen.tasks is None else _ids(chosen.tasks)
    count = 0
    for start in range(0, len(tasks), TASKS_AT_ONCE):
        left: Sequence[bytes] = tasks[start : start + TASKS_AT_ONCE]
        first = True
        while left:
            try:
                step = await hub.writer.call(lambda tx: work(tx, left, first))  # noqa: B023  (awaited here)
            except BaseException:
                hub.outbox.leftovers += left  # their items fail again, as if nobody had asked
                hub.writer.wake()
                raise
            count, left, first = count + step.items, step.left, False
    return count


def _chosen(body: bytes) -> Chosen:
    try:
        given = msgspec.json.decode(body, type=Chosen) if body.strip() else Chosen()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f'The body is not of the form {{"tasks": ["ID", ...]}} or {{"q": "..."}}: {error}.'
        ) from error
    if given.q is not None and given.tasks is not None:
        raise InvalidRequest("Give `tasks` or `q`, not both.")
    return given


def _ids(texts: list[str]) -> list[bytes]:
    """The tasks' ids, sorted, each once."""
    found = [parse_id(text) for text in texts]
    if None in found:
        raise InvalidRequest(f"`tasks` holds {texts[found.index(None)][:50]!r}, which is no id of a task.")
    return sorted({task for task in found if task})
