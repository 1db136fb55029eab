"""Small requests about one image that need decoding: thumbnail, size, pixel digest (RECORD.md 2.5). The server never decodes."""

import asyncio

from onceseen.errors import TooBusy, UnreadableImage, image_error
from onceseen.hub.links import WorkerLink
from onceseen.hub.state import HubState
from onceseen.hub.units import Looking
from onceseen.wire import link as wire

TRIES = 3
WAIT_SECONDS = 60.0
LOOK_MS = 5.0  # what one is taken to cost, to spread them over the workers


async def look(
    hub: HubState, data: bytes, *, thumbnail: int = 0, pixel_digest: bool = False
) -> tuple[wire.Looked, bytes]:
    """Have a worker look at an image.

    Raises:
        ImageError: three workers died of it, or it cannot be decoded; of the kind that a run would give.
        TooBusy: no worker that could look within a minute.
    """
    looking = Looking(data, thumbnail, pixel_digest, asyncio.get_running_loop().create_future())
    deadline = hub.clock() + WAIT_SECONDS
    while not _send(hub, looking):
        if hub.clock() > deadline:
            raise TooBusy("No worker is there to look at the image; start one with `onceseen worker`.")
        await asyncio.sleep(0.05)
    try:
        looked, thumbnail_bytes = await asyncio.wait_for(looking.done, WAIT_SECONDS)
    except TimeoutError as error:
        raise TooBusy("No worker answered about the image within a minute; try again.") from error
    if looked.error_kind:
        raise image_error(looked.error_kind, looked.error)
    return looked, thumbnail_bytes


def _send(hub: HubState, looking: Looking) -> bool:
    links = [link for link in hub.workers() if not link.left and id(link) not in looking.tried]
    if not links or hub.draining:
        return False
    link = min(links, key=lambda link: link.held_ms + LOOK_MS * len(link.looks))
    looking.tried.add(id(link))
    hub.looks.numbers += 1
    number = hub.looks.numbers
    hub.looks.open[number] = looking
    link.looks.add(number)
    request = wire.Look(number, looking.thumbnail, looking.pixel_digest, hub.settings.max_pixels)
    link.send(request, [looking.data])
    return True


def looked(hub: HubState, link: WorkerLink, message: wire.Looked, payload: bytes) -> None:
    """A worker's answer."""
    link.looks.discard(message.look)
    looking = hub.looks.open.pop(message.look, None)
    if looking is not None and not looking.done.done():
        looking.done.set_result((message, payload))


def moved(hub: HubState, link: WorkerLink) -> None:
    """A worker is gone: what it was asked is asked of another, up to three."""
    for number in list(link.looks):
        looking = hub.looks.open.pop(number, None)
        if looking is None or looking.done.done():
            continue
        if len(looking.tried) >= TRIES:
            message = wire.Looked(number, error_kind=UnreadableImage.code, error="Each worker that looked at it died.")
            looking.done.set_result((message, b""))
        elif not _send(hub, looking):
            hub.errand(_later(hub, looking))
    link.looks.clear()


async def _later(hub: HubState, looking: Looking) -> None:
    while not looking.done.done() and not _send(hub, looking):
        await asyncio.sleep(0.1)
