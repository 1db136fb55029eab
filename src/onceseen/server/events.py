import asyncio
from collections.abc import AsyncIterator

from fastapi import APIRouter, Header
from starlette.responses import StreamingResponse

from onceseen.domain.events import TOPIC, Event
from onceseen.errors import InvalidRequest
from onceseen.flow import watch
from onceseen.hub.hub import Hub
from onceseen.server.common import TheHub
from onceseen.wire.http import encode_text, event_out

router = APIRouter(prefix="/v1/events", tags=["events"])

POLL_SECONDS = 0.5
"""Behind every wake-up there is a poll: a lost one costs half a second."""
SILENCE_SECONDS = 15.0


@router.get("")
async def events(
    hub: TheHub, after: str | None = None, job: str | None = None, last_event_id: str | None = Header(None)
) -> StreamingResponse:
    """Server-sent events after a seq; without one, from now on. `Last-Event-ID` resumes."""
    if last_event_id is not None:
        seq = _seq("Last-Event-ID", last_event_id)
    elif after is not None:
        seq = _seq("after", after)
    else:
        seq = (await _read(hub, None)).seq
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_stream(hub, seq, job), media_type="text/event-stream", headers=headers)


def _seq(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidRequest(f"`{name}` = {text[:50]!r} is no seq.")
    return int(text)


async def _stream(hub: Hub, seq: int, job: str | None) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    silent = 0.0
    while not hub.draining:
        news = await _read(hub, seq)
        if news.reset:
            yield f"event: reset\nid: {news.seq}\ndata: {{}}\n\n"
        seq = news.seq
        text = "".join(_line(event) for event in news.events if job is None or event.subject == job)
        if text:
            yield text
            silent = 0.0
        if not news.events:
            before = asyncio.get_running_loop().time()
            await hub.signal.wait([TOPIC], POLL_SECONDS)
            silent += asyncio.get_running_loop().time() - before
            if silent > SILENCE_SECONDS:
                yield ": alive\n\n"
                silent = 0.0


async def _read(hub: Hub, after: int | None) -> watch.News:
    def read() -> watch.News:
        with hub.database.read() as reader:
            if after is None:
                return watch.News([], reader.events.bounds()[1], reset=False)
            return watch.news(reader, after)

    return await hub.read(read)


def _line(event: Event) -> str:
    return f"id: {event.seq}\ndata: {encode_text(event_out(event))}\n\n"
