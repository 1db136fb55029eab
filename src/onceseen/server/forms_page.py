"""The pages of the dialect `forms`, as text: plain HTML and CSS, no scripts. Whatever somebody else wrote is escaped."""

from collections.abc import Sequence
from datetime import UTC
from html import escape
from typing import NamedTuple
from urllib.parse import quote

from onceseen.server.home import MARKS, STATIC, short
from onceseen.wire.http import ItemOut, JobOut

LOOK_AGAIN = 2  # seconds
MODELS = 12
"""Models that a form offers by name."""
TITLES = {"/predict": "What is in this picture?", "/upload": "Upload pictures"}
FIELDS = {"/predict": "photo", "/upload": "file"}
VERBS = {"/predict": "Predict", "/upload": "Upload"}
LEADS = {
    "/predict": "Choose one or several pictures; the answers come with the next page.",
    "/upload": "Choose one or several pictures; their answers get a page of their own, which can be reloaded and linked.",
}


class Form(NamedTuple):
    """A form to fill in.

    Attributes:
        path: "/predict" or "/upload".
        named: the model that was asked for, empty for the default.
        model: that will answer, NAME:VERSION; empty when there is none.
        others: names of those that may be asked instead.
    """

    path: str
    named: str
    model: str
    others: Sequence[str]


def ask(form: Form, error: str = "") -> str:
    """The page with a form; `error`: why it is shown again."""
    title = TITLES[form.path]
    wrong = f'<p class="wrong" role="alert">{escape(error)}</p>' if error else ""
    return _page(title, f'<h1>{title}</h1><p class="lead">{LEADS[form.path]}</p>{wrong}{_form(form)}', form.path)


def results(
    job: JobOut, items: Sequence[ItemOut], *, workers: int, after: int | None, again: Form | None = None
) -> str:
    """The page with the answers of a job.

    Args:
        job: the job.
        items: a page of them, by n.
        workers: that are connected.
        after: n of the last item before the next page; None when this is the last one.
        again: the form that asked, to stand below the answers.
    """
    place = f"/uploads/{job.id}"
    waits = job.queued + job.running
    said = _said(job, workers)
    cards = "".join(_card(item) for item in items)
    more = f'<p class="pages"><a href="{place}?after={after}">Next pictures</a></p>' if after is not None else ""
    title, below = (TITLES[again.path], _form(again)) if again else (_title(job, items), "")
    if again:
        below += f'<p class="hint">The answers are kept: <a href="{place}">a page to reload and to link</a>.</p>'
    body = f'<h1>{escape(title)}</h1>{said}<section class="results" aria-label="Answers">{cards}</section>{more}{below}'
    return _page(title, body, again.path if again else "", place if waits else "")


def nothing(error: str) -> str:
    """The page for what is not there."""
    return _page("Not found", f'<h1>Not found</h1><p class="wrong" role="alert">{escape(error)}</p>', "")


def _page(title: str, main: str, path: str, refresh: str = "") -> str:
    current = ' aria-current="page"'
    links = [("/", "Home"), ("/predict", "Predict"), ("/upload", "Upload")]
    nav = "".join(f'<a href="{href}"{current if href == path else ""}>{word}</a>' for href, word in links)
    again = f'<meta http-equiv="refresh" content="{LOOK_AGAIN};url={refresh}">' if refresh else ""
    page = (STATIC / "forms.html").read_text()
    for mark, text in (("title", escape(title)), ("refresh", again), ("nav", nav), ("main", main)):
        page = page.replace(f"<!--{mark}-->", text)  # escaped text holds no mark
    return page


def _form(form: Form) -> str:
    path, field = form.path, FIELDS[form.path]
    place = f"{path}?model={quote(form.named)}" if form.named else path
    links = [f'<a href="{path}?model={quote(name)}">{escape(name)}</a>' for name in form.others[:MODELS]]
    answers = f"The model {escape(form.model)} answers" if form.model else "No model is chosen"
    instead = f"; ask instead: {', '.join(links)}." if links else "."
    return (
        f'<form class="ask" method="post" action="{place}" enctype="multipart/form-data">'
        f'<p><label for="{field}">Pictures</label>'
        f'<input id="{field}" name="{field}" type="file" accept="image/*" multiple required></p>'
        f'<button>{VERBS[path]}</button></form><p class="hint">{answers}{instead}</p>'
    )


def _title(job: JobOut, items: Sequence[ItemOut]) -> str:
    return items[0].name if job.total == 1 and items else f"{job.total:,} pictures"


def _said(job: JobOut, workers: int) -> str:
    """How far it is, while something waits or when something failed."""
    waits = job.queued + job.running
    if not waits:
        if job.total == 1:
            return ""
        parts = [f"{job.succeeded:,} answered"]
        parts += [f"{job.failed:,} failed"] if job.failed else []
        parts += [f"{job.cancelled:,} cancelled"] if job.cancelled else []
        return f'<p class="lead">{", ".join(parts)}.</p>'
    none = ""
    if not workers:
        none = (
            '<p class="warning">No worker is connected, so pictures wait. Start one: '
            "<code>onceseen worker --server DATA</code></p>"
        )
    done = (
        f"{job.total - waits:,} of {job.total:,} are answered. " if job.total > 1 else "The answer is still to come. "
    )
    return f'{none}<p class="lead" role="status">{done}This page looks again every {LOOK_AGAIN} seconds.</p>'


def _card(item: ItemOut) -> str:
    name = escape(item.name)
    picture = f'<div class="shown none">{"no picture" if item.finished_at else "not looked at yet"}</div>'
    # One that waits has no thumbnail yet: asking for it would hold up the page, and with it the refresh.
    if item.digest and item.state == "succeeded":
        source = f"/v1/images/{item.digest}"
        picture = (
            f'<div class="shown"><a href="{source}/content">'
            f'<img src="{source}/thumbnail?size=640" alt="{name}" loading="lazy"></a></div>'
        )
    mark = f'<span class="mark" aria-hidden="true">{MARKS.get(item.state, "")}</span>'
    return (
        f'<article class="result {item.state}">{picture}<div class="facts"><h2 dir="auto">{name}</h2>'
        f'<p class="answer">{mark} {_answer(item)}</p>{_score(item)}{_others(item)}{_when(item)}</div></article>'
    )


def _answer(item: ItemOut) -> str:
    if item.label is not None:
        return escape(short(item.label))
    if item.error is not None:
        return f"No answer: {escape(item.error.message or item.error.kind)}"
    return "Waits for a worker." if item.state == "queued" else escape(item.state)


def _score(item: ItemOut) -> str:
    if item.score is None:
        return ""
    return (
        f'<p class="bar"><meter min="0" max="1" value="{item.score:.4f}" aria-label="Score"></meter>'
        f'<span class="score">{item.score:.3f}</span></p>'
    )


def _others(item: ItemOut) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(short(each.label))}</th><td>{each.score:.3f}</td></tr>'
        for each in item.predictions[1:]
    )
    return f'<table class="others"><caption>Other answers</caption>{rows}</table>' if rows else ""


def _when(item: ItemOut) -> str:
    if item.finished_at is None:
        return ""
    at = item.finished_at.astimezone(UTC)
    took = f"{item.run_ms / 1000:.4f} s by " if item.run_ms is not None else ""
    before = ", known before" if item.reused else ""
    moment = f'<time datetime="{at.isoformat()}">{at:%Y-%m-%d %H:%M:%S} UTC</time>'
    return f'<p class="when">{took}{escape(item.model)}, {moment}{before}</p>'
