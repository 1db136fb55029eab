from fastapi import APIRouter, Request
from starlette.responses import Response

from onceseen.domain.ids import now, text_of
from onceseen.domain.job import Control, JobState
from onceseen.domain.query import JOB_WORDS, parse
from onceseen.domain.views import ItemFilter, ItemView, JobFilter
from onceseen.errors import NotFound
from onceseen.flow import control
from onceseen.hub import local
from onceseen.hub.hub import Hub
from onceseen.server.common import (
    MOST,
    Limit,
    OptionalLimit,
    TheHub,
    job_id,
    json,
    make_cursor,
    page,
    read_cursor,
    states_of,
)
from onceseen.server.items import item_view_out, listing
from onceseen.wire.http import JobOut, job_out

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("")
async def list_jobs(
    hub: TheHub,
    state: str | None = None,
    model: str = "",
    q: str = "",
    cursor: str | None = None,
    limit: Limit = 50,
) -> Response:
    """Jobs, newest first; `q` takes the words state, model, owner, age, job, name, and text."""
    place, query = read_cursor(cursor), parse(q, JOB_WORDS)
    query = query.also("model", model) if model else query
    where = JobFilter(hub.settings.project, states_of(state), query, place[0] if place else None)

    def read() -> list[JobOut]:
        with hub.database.read() as reader:
            return [job_out(row, running) for row, running in reader.views.jobs(where, limit)]

    jobs = await hub.read(read)
    return page(jobs, limit, make_cursor(job_id(jobs[-1].id), 0) if jobs else None)


@router.get("/{job}")
async def one_job(hub: TheHub, job: str) -> Response:
    """One job."""
    identifier = job_id(job)

    def read() -> JobOut | None:
        with hub.database.read() as reader:
            found = reader.views.job(identifier)
        if found is None or found[0].state == JobState.RECEIVING or found[0].control == Control.DELETE:
            return None
        return job_out(*found)

    found = await hub.read(read)
    if found is None:
        raise NotFound(f"There is no job {job}; GET /v1/jobs and `onceseen jobs` list them.")
    return json(found)


@router.get("/{job}/items")
async def list_items(
    hub: TheHub,
    request: Request,
    job: str,
    state: str | None = None,
    label: str | None = None,
    q: str = "",
    cursor: str | None = None,
    limit: OptionalLimit = None,
) -> Response:
    """Items of a job, by n."""
    where = ItemFilter(
        hub.settings.project,
        job_id(job),
        states=states_of(state),
        label=label,
        query=parse(q),
        cursor=read_cursor(cursor),
    )
    await _must_exist(hub, job)
    return await listing(hub, request, where, limit)


@router.get("/{job}/items/{n}")
async def one_item(hub: TheHub, job: str, n: int) -> Response:
    """One item."""
    where = ItemFilter(hub.settings.project, job_id(job), n=n)
    await _must_exist(hub, job)

    def read() -> list[ItemView]:
        with hub.database.read() as reader:
            return reader.views.items(where, 1)

    views = await hub.read(read) if 0 <= n <= MOST else []
    if not views:
        raise NotFound(f"The job {job} has no item {n}.")
    return json(item_view_out(hub, views[0]))


@router.post("/{job}/cancel")
async def cancel_job(hub: TheHub, job: str) -> Response:
    """Cancel what is not answered yet."""
    return await _ask(hub, job, Control.CANCEL)


@router.post("/{job}/retry")
async def retry_job(hub: TheHub, job: str) -> Response:
    """Run failed items again, but not those whose image is unreadable."""
    return await _ask(hub, job, Control.RETRY)


@router.delete("/{job}")
async def delete_job(hub: TheHub, job: str) -> Response:
    """Take the job with its items and names away; images go when no item names them any more."""
    await _ask(hub, job, Control.DELETE)
    return Response(status_code=204)


async def _ask(hub: Hub, job: str, what: Control) -> Response:
    if what != Control.RETRY:
        await local.end(hub, job_id(job))
    row = await hub.writer.call(lambda tx: control.ask(tx, job_id(job), what, now()))
    hub.controlled.set()
    return json(job_out(row))


async def _must_exist(hub: Hub, job: str) -> None:
    def read() -> bool:
        with hub.database.read() as reader:
            row = reader.jobs.get(job_id(job))
        return row is not None and row.state != JobState.RECEIVING and row.control != Control.DELETE

    if not await hub.read(read):
        raise NotFound(f"There is no job {text_of(job_id(job))}.")
