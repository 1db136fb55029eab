"""Pictures known by their pixels: lossless copies in several files have one digest, and share an answer where one is known."""

import asyncio
import hashlib
from functools import cache
from typing import NamedTuple

from onceseen.domain.fetch import name_of
from onceseen.domain.job import JobRow
from onceseen.domain.task import NO_PARAMS, TaskState, task_key
from onceseen.errors import FetchRefused, ImageError, TooBusy
from onceseen.flow.work import Entry
from onceseen.hub import looks
from onceseen.hub.state import HubState
from onceseen.hub.submission import Request, Submission
from onceseen.inference.registry import Model

LOOKS = 16
"""Pictures that workers hold for a look at once; the others wait here, where their bytes are counted."""
COPIES = 20
"""Copies of a picture that are asked for an answer."""


class Taken(NamedTuple):
    """What became of a picture: its job, durable, and the digest of its pixels or the reason why it has none."""

    job: JobRow
    pixels: bytes
    refused: ImageError | None = None


async def take(hub: HubState, request: Request, name: str, data: bytes, patience: float) -> Taken:
    """Have a worker look at a picture, then write it with the digest of its pixels, its name and its question in one commit.

    A picture that cannot be decoded becomes a failed item. Nothing is written when an error is raised.

    Raises:
        TooBusy: no worker has looked within `patience` seconds, or there is no room for more bytes that wait for the disk.
        StorageFull, DatabaseAway: the record cannot take it.
    """
    try:
        pixels = await _pixels(hub, name, data, patience)
    except ImageError as error:
        return Taken(await _submit(Submission(hub, request), name, data), b"", error)
    asked = own = hashlib.sha256(data).digest()
    if request.model.manifest.cache and not request.fresh:
        asked = await hub.read(lambda: _answered(hub, request.model, own, pixels))
    return Taken(await _submit(_LookedAt(hub, request, pixels, asked), name, data), pixels)


async def take_url(hub: HubState, request: Request, url: str, patience: float) -> Taken:
    """The same for a picture at a URL, which is its name; one that cannot be fetched becomes a failed item too.

    It is fetched while its sender waits, and once: nothing is promised before the answer.

    Raises:
        TooBusy, StorageFull, DatabaseAway: as `take`.
    """
    name = name_of(url)
    try:
        if hub.fetcher is None:
            raise FetchRefused("This server fetches no URLs; send the picture itself.")
        async with _slots("fetch", hub.settings.fetch_connections):
            data = await hub.fetcher.fetch(hub.fetcher.check(url))
    except ImageError as error:
        submission = Submission(hub, request)
        submission.refuse(name, error.code, error.message)
        return Taken(await _finished(submission), b"", error)
    return await take(hub, request, name, data, patience)


@cache
def _slots(_of: str, count: int) -> asyncio.Semaphore:
    """How many pictures are looked at, or fetched, at once for senders that wait; the server has one event loop."""
    return asyncio.Semaphore(count)


async def _pixels(hub: HubState, name: str, data: bytes, patience: float) -> bytes:
    """The digest of a picture's pixels, by a worker. While it waits, its bytes count like those that wait for the disk."""
    if hub.pending_bytes + len(data) > hub.settings.max_pending_bytes:
        raise TooBusy(f"{hub.pending_bytes >> 20} MB of pictures wait already; try again in a moment.")
    hub.pending_bytes += len(data)
    try:
        async with asyncio.timeout(patience), _slots("look", LOOKS):
            looked, _ = await looks.look(hub, data, pixel_digest=True)
            return looked.pixel_digest
    except TimeoutError as error:
        raise TooBusy(
            f"No worker has looked at {name[:100]!r} within {patience:g} s, so it was not kept; start workers with "
            "`onceseen worker`, and send it again."
        ) from error
    finally:
        hub.pending_bytes -= len(data)


async def _submit(submission: Submission, name: str, data: bytes) -> JobRow:
    await submission.add(name, data)
    return await _finished(submission)


async def _finished(submission: Submission) -> JobRow:
    try:
        return await submission.finish()
    except BaseException:
        submission.abandon()
        raise


def _answered(hub: HubState, model: Model, own: bytes, pixels: bytes) -> bytes:
    """The copy of a picture that this model has answered; the picture itself when there is none.

    An answered question stays answered, so its bytes are not needed. One that still waits is not joined: its copy may be
    deleted before its turn.
    """
    project = hub.settings.project
    with hub.database.read() as reader:
        for digest in (own, *reader.images.alike(project, pixels, COPIES)):
            task = reader.tasks.find(task_key(project, digest, None, model.lane, NO_PARAMS, None))
            if task is not None and task.state == TaskState.SUCCEEDED:
                return digest
    return own


class _LookedAt(Submission):
    """A submission of one picture whose pixels are known; its question may be that of a copy, `asked`."""

    def __init__(self, hub: HubState, request: Request, pixels: bytes, asked: bytes) -> None:
        super().__init__(hub, request)
        self._pixels = pixels
        self._asked = asked

    def _entry(self, name: str, digest: bytes, data: bytes) -> Entry:
        entry = super()._entry(name, self._asked, data)
        assert entry.image is not None
        if digest != self._asked:
            self.hub.cache.take(self._asked)  # these bytes are another file's, and nobody will run them
            entry.digest = digest
        entry.image = entry.image._replace(digest=digest, pixel_digest=self._pixels)
        return entry
