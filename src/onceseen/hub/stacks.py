"""Files that hold several frames: one item for each, made when a worker has counted them (RECORD.md 2.5).

The bytes of a stack go to a worker once, and stay on the shelf of its link (wire/shelf.py) while its frames are asked for.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from onceseen.errors import ImageError, TooBusy
from onceseen.flow.work import Failure
from onceseen.hub import answers, looks
from onceseen.hub.links import WorkerLink
from onceseen.hub.state import HubState
from onceseen.hub.units import Lease
from onceseen.inference import files
from onceseen.inference.sniff import HEAD, is_hdf5, may_hold_frames
from onceseen.wire import link as wire

LOOKS_AT_ONCE = 8


async def count(hub: HubState, data: bytes, file: bytes, dataset: str, room: int, path: str = "") -> int | Failure:
    """How many frames a file has, or why that cannot be said.

    Args:
        hub: the hub.
        data: its bytes; none for a local one.
        file: their digest.
        dataset: of an HDF5 file.
        room: more frames than so many are refused.
        path: of a local file.

    Raises:
        TooBusy: the server is about to end.
    """
    wanted = wire.Look(0, max_pixels=hub.settings.max_pixels, file=file, path=path, dataset=dataset, count=max(1, room))
    try:
        looked, _ = await looks.ask(hub, wanted, data)
    except TooBusy as error:
        if hub.draining:
            raise
        return Failure(error.code, error.message)
    return Failure(looked.error_kind, looked.error) if looked.error_kind else looked.frames


async def bring(hub: HubState, link: WorkerLink, lease: Lease) -> None:
    """Read the stacks of a batch that its worker does not have, then send it. What is gone from the store fails."""
    missing = list(link.missing(lease).values())
    found = await answers.stored(hub, [unit.place or None for unit in missing])
    lease.is_waiting = False
    if lease not in link.leases.values():
        return  # given back meanwhile
    for unit, data in zip(missing, found, strict=True):
        if isinstance(data, bytes):
            unit.data = data
            continue
        gone = [other for other in lease.units if other.of_stack and other.digest == unit.digest]
        lease.cost_ms -= lease.cost_ms * len(gone) / len(lease.units)
        lease.units = [other for other in lease.units if other not in gone]
        hub.errand(answers.lost(hub, gone, unit.place or None, data))
    if not lease.units:
        del link.leases[lease.number]
    link.pump()
    hub.writer.wake()


class Part(NamedTuple):
    """What becomes one item: a local file, or one frame of it; or why it cannot be told."""

    name: str
    path: Path
    frame: int | None = None
    dataset: str = ""
    failure: Failure | None = None


async def parts(
    hub: HubState, named: Sequence[tuple[str, Path]], dataset: str, room: int, *, frames: bool
) -> list[Part]:
    """Local files as items. With `frames` each frame is one, and workers count them.

    Raises:
        TooBusy: the server is about to end.
    """
    if not (frames or dataset):
        return [Part(name, path) for name, path in named]
    heads = await hub.read(lambda: [_head(path) for _, path in named])
    turns = asyncio.Semaphore(LOOKS_AT_ONCE)

    async def parts_of(name: str, path: Path, head: bytes) -> list[Part]:
        inside = dataset if is_hdf5(head) else ""
        if not frames:
            return [Part(name, path, None, inside)]
        if not may_hold_frames(head):
            return [Part(name, path, 0)]
        async with turns:
            found = await count(hub, b"", b"", inside, room, _place(path))
        if isinstance(found, Failure):
            return [Part(name, path, failure=found)]
        return [Part(name, path, frame, inside) for frame in range(found)]

    found = await asyncio.gather(*(parts_of(*file, head) for file, head in zip(named, heads, strict=True)))
    return [part for one in found for part in one]


def _place(path: Path) -> str:
    return str(path.absolute())


def _head(path: Path) -> bytes:
    """The first bytes of a file; none where it cannot be read: the worker will say what is wrong."""
    try:
        with os.fdopen(files.opened(path)[0], "rb") as stream:
            return stream.read(HEAD)
    except (ImageError, OSError):
        return b""
