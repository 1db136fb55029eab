"""Small requests about one image that need decoding: thumbnail, frames, pixel digest (RECORD.md 2.5). The server never decodes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import msgspec

from onceseen.errors import TooBusy, WorkerDied, image_error
from onceseen.hub.links import WorkerLink
from onceseen.hub.state import HubState
from onceseen.wire import link as wire

TRIES = 3
WAIT_SECONDS = 60.0
"""For a worker, and for its answer."""
LOOK_SECONDS = 20.0
"""What a worker that does nothing else may take for one look; then it counts as frozen."""
LOOK_MS = 5.0  # what one is taken to cost, to spread them over the workers
Source: TypeAlias = bytes | Callable[[], Awaitable[bytes]]
"""The bytes of an image, or what reads them when a worker needs them."""


async def look(
    hub: HubState,
    data: Source = b"",
    *,
    thumbnail: int = 0,
    pixel_digest: bool = False,
    frame: int | None = None,
    dataset: str = "",
    file: bytes = b"",
    path: str = "",
) -> tuple[wire.Looked, bytes]:
    """Have a worker look at an image.

    Args:
        hub: the hub.
        data: its bytes.
        thumbnail: longer side in pixels, 0 for none.
        pixel_digest: whether that is wanted.
        frame: of a stack; without it the first one.
        dataset: of an HDF5 file, "" for the only one.
        file: its digest, where more looks at it may follow: the worker keeps it for a while.
        path: of a local file that workers read themselves, instead of `data`.

    Raises:
        ImageError: three workers died of it, or it cannot be decoded; of the kind that a run would give.
        TooBusy: no worker that could look within a minute.
    """
    kept = b"" if path else file
    wanted = wire.Look(0, thumbnail, pixel_digest, hub.settings.max_pixels, kept, path, frame, dataset)
    looked, thumbnail_bytes = await ask(hub, wanted, data)
    if looked.error_kind:
        raise image_error(looked.error_kind, looked.error)
    return looked, thumbnail_bytes


async def ask(hub: HubState, wanted: wire.Look, data: Source = b"") -> tuple[wire.Looked, bytes]:
    """Ask one worker, and up to two others if it dies; what is wrong with the image stands in the answer.

    Raises:
        TooBusy: no worker that could look within a minute.
    """
    deadline = hub.clock() + WAIT_SECONDS
    tried: set[int] = set()  # python ids of links, which live as long as the hub's messages to them
    while len(tried) < TRIES:
        link = await _free(hub, tried, wanted.file, deadline)
        payload: list[bytes] = []
        if not wanted.path and wanted.file not in link.shelf:  # nothing of an empty name is there
            payload.append(data if isinstance(data, bytes) else await data())
            if link.left:  # it has gone while they were read
                continue
        tried.add(id(link))
        answer = await _asked(hub, link, wanted, payload, deadline)
        if answer is not None:
            return answer
    message = "Each worker that looked at it died, or took too long."
    return wire.Looked(0, error_kind=WorkerDied.code, error=message), b""


async def _free(hub: HubState, tried: set[int], file: bytes, deadline: float) -> WorkerLink:
    """A worker that has not tried it: one that has the file, else the one with the least to do."""
    while True:
        if hub.draining:
            raise TooBusy("The server is about to end; try again in a moment.")
        links = [link for link in hub.workers() if not link.left and id(link) not in tried]
        if links:
            return min(links, key=lambda link: (file not in link.shelf, link.held_ms + LOOK_MS * len(link.looks)))
        if hub.clock() > deadline:
            raise TooBusy("No worker is there to look at the image; start one with `onceseen worker`.")
        await asyncio.sleep(0.05)


async def _asked(
    hub: HubState, link: WorkerLink, wanted: wire.Look, payload: list[bytes], deadline: float
) -> tuple[wire.Looked, bytes] | None:
    """A worker's answer; None when it is gone."""
    hub.looks.numbers += 1
    number = hub.looks.numbers
    answered: asyncio.Future[tuple[wire.Looked, bytes] | None] = asyncio.get_running_loop().create_future()
    hub.looks.open[number] = answered
    link.looks[number] = hub.clock()
    if wanted.file and not link.shelve(wanted.file, payload[0] if payload else None):
        payload = []  # it has the file already
    link.send(msgspec.structs.replace(wanted, look=number), payload)
    try:
        return await asyncio.wait_for(answered, max(1.0, deadline - hub.clock()))
    except TimeoutError as error:
        raise TooBusy("No worker answered about the image within a minute; try again.") from error
    finally:
        hub.looks.open.pop(number, None)


def looked(hub: HubState, link: WorkerLink, message: wire.Looked, payload: bytes) -> None:
    """A worker's answer."""
    link.looks.pop(message.look, None)
    answered = hub.looks.open.pop(message.look, None)
    if answered is not None and not answered.done():
        answered.set_result((message, payload))


def moved(hub: HubState, link: WorkerLink) -> None:
    """A worker is gone: who waits for its answers asks another one."""
    for number in link.looks:
        answered = hub.looks.open.pop(number, None)
        if answered is not None and not answered.done():
            answered.set_result(None)
    link.looks.clear()


def is_overdue(link: WorkerLink, time: float) -> bool:
    """Whether a look takes so long that the worker must be stuck in it: it has no batch in hand, and nothing comes back."""
    if not link.looks or any(lease.begun_at is not None for lease in link.leases.values()):
        return False
    return time - max(link.turned, min(link.looks.values())) > LOOK_SECONDS
