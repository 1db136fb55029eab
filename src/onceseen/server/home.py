"""`/`: the latest answers and an upload form. Rendered here; the script adds drag and drop and keeps it fresh."""

from html import escape
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response

from onceseen.domain.views import ItemFilter, ItemView, Totals
from onceseen.errors import NotFound
from onceseen.server.common import TheHub
from onceseen.server.guard import PAGE_POLICY
from onceseen.server.items import item_view_out
from onceseen.wire.http import ItemOut

router = APIRouter(include_in_schema=False)

STATIC = Path(__file__).parent / "static"
KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
LATEST = 24
HEADERS = {"content-security-policy": PAGE_POLICY.decode(), "cache-control": "no-store"}
MARKS = {"succeeded": "\u2713", "failed": "\u2717", "cancelled": "\u2013", "queued": "\u25cb", "running": "\u25d4"}


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """A file of the pages."""
    file = STATIC / name
    if file.suffix not in KINDS or name not in {known.name for known in STATIC.iterdir()}:
        raise NotFound(f"There is no file {name[:50]!r}.")
    return Response(file.read_bytes(), media_type=KINDS[file.suffix], headers={"cache-control": "no-cache"})


@router.get("/")
async def home(hub: TheHub) -> HTMLResponse:
    """The whole page."""
    options = "".join(
        f'<option value="{escape(model.ref)}"{" selected" if "v1" in hub.catalog.default_for(model) else ""}>'
        f"{escape(model.ref)}</option>"
        for model in hub.catalog.models
    )
    page = (STATIC / "home.html").read_text()
    page = page.replace("<!--models-->", options).replace("<!--latest-->", await _latest(hub))
    return HTMLResponse(page, headers=HEADERS)


@router.get("/latest")
async def latest(hub: TheHub) -> HTMLResponse:
    """The part of the page that changes."""
    return HTMLResponse(await _latest(hub), headers=HEADERS)


async def _latest(hub: TheHub) -> str:
    def read() -> tuple[Totals, list[ItemView]]:
        with hub.database.read() as reader:
            return hub.totals.read(), reader.views.items(ItemFilter(hub.settings.project), LATEST)

    totals, views = await hub.read(read)
    workers = len(hub.workers())
    tiles = "".join(
        f'<div class="tile"><span class="figure">{value:,}</span><span class="word">{word}</span></div>'
        for word, value in (
            ("waiting", totals.queued),
            ("running", totals.running),
            ("answered", totals.succeeded),
            ("failed in 24 h", totals.failed_24h),
            ("workers" if workers != 1 else "worker", workers),
        )
    )
    cards = "".join(_card(item_view_out(hub, view)) for view in views)
    empty = '<p class="empty">Nothing has been classified yet. Drop an image above.</p>'
    none = (
        ""
        if workers
        else '<p class="warning">No worker is connected, so images wait. Start one: <code>onceseen worker --server DATA</code></p>'
    )
    return f'{none}<div class="tiles">{tiles}</div><h2>Latest answers</h2><div class="cards">{cards or empty}</div>'


def _card(item: ItemOut) -> str:
    picture = ""
    if item.digest and item.state != "failed":
        source = f"/v1/images/{item.digest}"
        frame = f"&amp;frame={item.frame}" if item.frame else ""
        image = f'<img src="{source}/thumbnail?size=320{frame}" alt="{escape(item.name)}" loading="lazy">'
        picture = f'<a href="{source}/content">{image}</a>'
    answer = escape(short(item.label)) if item.label else escape(item.error.message if item.error else item.state)
    score = ""
    if item.score is not None:
        score = f'<meter min="0" max="1" value="{item.score:.4f}"></meter><span class="score">{item.score:.3f}</span>'
    note = " \u00b7 known before" if item.reused else ""
    return (
        f'<article class="card {item.state}"><div class="picture">{picture}</div><div class="facts">'
        f'<p class="answer"><span class="mark" title="{item.state}">{MARKS.get(item.state, "")}</span> {answer}</p>'
        f'<p class="bar">{score}</p><p class="name" title="{escape(item.name)}">{escape(item.name)}</p>'
        f'<p class="model"><a href="/v1/jobs/{item.job}/items/{item.n}">{escape(item.model)}</a>{note}</p></div></article>'
    )


def short(label: str) -> str:
    """A label for people: ImageNet's begin with a WordNet id that says nothing to a person."""
    head, _, rest = label.partition(" ")
    return rest if rest and head.startswith("n") and head[1:].isdigit() else label
