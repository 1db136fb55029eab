"""Dialect `forms`: `/upload` and `/predict`, plain pages that work without JavaScript, and for `curl -F photo=@x.png`.

The name of a file is only shown; a result is found by its job. A client that asks for JSON gets JSON.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import HTMLResponse, RedirectResponse, Response

from onceseen.domain.ids import text_of
from onceseen.domain.job import Control, JobRow, JobState
from onceseen.domain.model import LIVE
from onceseen.domain.task import INTERACTIVE
from onceseen.domain.views import ItemFilter, ItemView
from onceseen.errors import InvalidRequest, NotFound, OnceseenError, UnknownModel
from onceseen.hub.hub import Hub
from onceseen.hub.submission import Request as Submitted
from onceseen.hub.submission import Submission
from onceseen.server import bodies, forms_page, multipart
from onceseen.server.common import MOST, TheHub, TheSettings, job_id, json
from onceseen.server.forms_page import Form
from onceseen.server.held import Held
from onceseen.server.home import HEADERS
from onceseen.server.items import item_view_out
from onceseen.settings import Settings
from onceseen.wire.http import ItemOut, JobOut, job_out

DIALECT = "forms"
FIELDS = ("photo", "file", "images")
ITEMS = 50
"""Pictures of one page."""
GLANCE = 5.0
"""Seconds that a page of results waits for its job's end."""


class FormAnswer(msgspec.Struct):
    """The answer in JSON: of the first picture what a page shows largest, then all of them (at most 50).

    Attributes:
        digit: the label; None while there is none.
        score: 0 to 1.
        seconds: that its run took.
        page: where all of it stands.
    """

    digit: str | None
    score: float | None
    seconds: float | None
    page: str
    items: list[ItemOut]


class PageRoute(APIRoute):
    """Errors are shown on a page, with the form to try again, unless the client asks for JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler within ours."""
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await inner(request)
            except OnceseenError as error:
                if _wants_json(request):
                    raise
                return _refusal(request, error)

        return handler


router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/predict")
@router.get("/upload")
async def ask(hub: TheHub, request: Request, model: str = "") -> Response:
    """The form."""
    hub.catalog.resolve(model or None, DIALECT)
    return HTMLResponse(forms_page.ask(_form(hub, request)), headers=HEADERS)


@router.post("/predict")
async def predict(hub: TheHub, settings: TheSettings, request: Request, model: str = "") -> Response:
    """Pictures in, a page with their answers out."""
    row = await _receive(hub, settings, request, model)
    await _ended(hub, row.id, settings.max_wait)
    return await _answer(hub, request, row.id, path="/predict")


@router.post("/upload")
async def upload(hub: TheHub, settings: TheSettings, request: Request, model: str = "") -> Response:
    """Pictures in; their answers have a page of their own."""
    row = await _receive(hub, settings, request, model)
    return RedirectResponse(f"/uploads/{text_of(row.id)}", 303, HEADERS)


@router.get("/uploads/{job}")
async def uploaded(hub: TheHub, settings: TheSettings, request: Request, job: str, after: int = -1) -> Response:
    """The answers of a job; looks again by itself while some are to come."""
    identifier = job_id(job)
    await _ended(hub, identifier, min(GLANCE, settings.max_wait))
    return await _answer(hub, request, identifier, after=after)


async def _receive(hub: Hub, settings: Settings, request: Request, model: str) -> JobRow:
    """Read the form's pictures into a job; durable when it returns."""
    kind = request.headers.get("content-type", "")
    wanted = Submitted(hub.catalog.resolve(model or None, DIALECT), "", INTERACTIVE, DIALECT)
    if not kind.lower().startswith("multipart/form-data"):
        raise InvalidRequest("Send pictures as a form (multipart/form-data) with the file field `photo` or `file`.")
    body = bodies.parts(request, settings.max_submission_bytes)
    submission = Submission(hub, wanted)
    try:
        with Held(hub) as held:
            await multipart.receive_images(submission, body, kind, settings, held.now, FIELDS)
        if not submission.count:
            raise InvalidRequest("No picture was chosen; choose a file first, then send the form.")
        return await submission.finish()
    except BaseException:
        submission.abandon()
        raise


async def _ended(hub: Hub, job: bytes, seconds: float) -> None:
    """Wait for a job's end, but not for longer."""
    waiting = hub.waiters.expect(job)
    try:
        found = await hub.read(lambda: _job(hub, job))
        if found is not None and found[0].finished_at is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await waiting
    finally:
        hub.waiters.forget(job, waiting)


def _job(hub: Hub, job: bytes) -> tuple[JobRow, int] | None:
    """A job that people may see, and how many of its items run."""
    with hub.database.read() as reader:
        found = reader.views.job(job)
    if found is None or found[0].state == JobState.RECEIVING or found[0].control == Control.DELETE:
        return None
    return found


async def _answer(hub: Hub, request: Request, job: bytes, *, path: str = "", after: int = -1) -> Response:
    place = (job, min(max(after, -1), MOST))

    def read() -> tuple[JobOut, list[ItemView]] | None:
        found = _job(hub, job)
        if found is None:
            return None
        where = ItemFilter(hub.settings.project, job=job, cursor=place if after >= 0 else None)
        with hub.database.read() as reader:
            return job_out(*found), reader.views.items(where, ITEMS + 1)

    seen = await hub.read(read)
    if seen is None:
        raise NotFound(f"There is no upload {text_of(job)}; it may have been deleted.")
    shown, views = seen
    items = [item_view_out(hub, view) for view in views[:ITEMS]]
    status = 202 if shown.queued + shown.running else 200
    if _wants_json(request):
        return json(_in_json(shown, items), status)
    more = items[-1].n if len(views) > ITEMS else None
    again = _form(hub, request) if path else None
    page = forms_page.results(shown, items, workers=len(hub.workers()), after=more, again=again)
    return HTMLResponse(page, status, HEADERS)


def _in_json(job: JobOut, items: list[ItemOut]) -> FormAnswer:
    first = items[0] if items else None
    took = None if first is None or first.run_ms is None else round(first.run_ms / 1000, 6)
    page = f"/uploads/{job.id}"
    return FormAnswer(first.label if first else None, first.score if first else None, took, page, items)


def _form(hub: Hub, request: Request) -> Form:
    """The form that belongs to a request."""
    named = request.query_params.get("model", "")
    others = sorted(model.row.name for model in hub.catalog.models if model.row.stage == LIVE)
    try:
        model = hub.catalog.resolve(named or None, DIALECT)
    except UnknownModel:
        return Form(request.url.path, "", "", others)
    others = [name for name in others if name != model.row.name]
    return Form(request.url.path, named, model.ref, others)


def _refusal(request: Request, error: OnceseenError) -> Response:
    """An error as a page."""
    headers = dict(HEADERS)
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if request.url.path in forms_page.FIELDS:
        page = forms_page.ask(_form(request.app.state.hub, request), error.message)
    else:
        page = forms_page.nothing(error.message)
    return HTMLResponse(page, error.status, headers)


def _wants_json(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/html" not in accept
