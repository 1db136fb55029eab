"""A hub with its worker inside this very process, on drivers that a test may have wrapped: faults come to the call."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from onceseen import wiring
from onceseen.domain.job import JobRow
from onceseen.drivers.signal_local import SignalLocal
from onceseen.hub.hub import Hub
from onceseen.hub.models import adopt
from onceseen.hub.settings import HubSettings
from onceseen.hub.submission import Request, Submission
from onceseen.hub.waiters import Ended
from onceseen.ports.blobs import Blobs
from onceseen.ports.database import Database
from onceseen.testing.link_memory import MemoryLinks
from onceseen.testing.pictures import COLOURS
from onceseen.worker.loop import Limits, Worker

DOOR = "inside"


@asynccontextmanager
async def hub_inside(
    database: Database, blobs: Blobs, model: Path, settings: HubSettings | None = None, *, working: bool = True
) -> AsyncIterator[Hub]:
    """A started hub that knows one model (by its directory) and, if `working`, has a worker thread; stopped at the end."""
    hub = Hub(database, blobs, SignalLocal(), model.parent, settings or HubSettings())
    await hub.start()
    await adopt(hub, model, {})
    links = MemoryLinks()
    listener = await links.listen(DOOR, hub.accept)
    worker = Worker(partial(links.connect, DOOR), wiring.runtime, Limits(1_000_000, 1_000_000))
    thread = threading.Thread(target=worker.run)
    if working:
        thread.start()
    try:
        yield hub
    finally:
        worker.end()
        while working and thread.is_alive():
            await asyncio.sleep(0.005)
        await hub.stop(0)
        await listener.close()


async def submit(
    hub: Hub,
    model: str,
    pictures: list[bytes],
    promised: Callable[[JobRow], None] = lambda _: None,
    *,
    fresh: bool = False,
) -> "asyncio.Future[Ended | None]":
    """A job of these pictures; `promised` is called when it is durable. Returns the future of its end."""
    submission = Submission(hub, Request(hub.catalog.resolve(model), fresh=fresh))
    ended = hub.waiters.expect(submission.head.id)
    try:
        for n, picture in enumerate(pictures):
            await submission.add(f"{n}", picture)
        promised(await submission.finish())
    except BaseException:
        submission.abandon()
        hub.waiters.forget(submission.head.id, ended)
        raise
    return ended


def label_of(red: int, green: int, blue: int) -> str:
    """What `colour_model` says of a flat picture whose channels differ."""
    values = (red, green, blue)
    return COLOURS[values.index(max(values))]
