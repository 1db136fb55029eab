"""Local paths that another process of this user hands over by the link (RECORD.md 6): answered as `classify` alone would.

Never by HTTP, or any client could read the server's files; here the kernel has said who asks (drivers/link_unix.py).
"""

import asyncio
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from onceseen.domain.ids import text_of
from onceseen.domain.names import dataset_name
from onceseen.errors import InvalidRequest, OnceseenError
from onceseen.flow.work import DoneItem
from onceseen.hub import local
from onceseen.hub.links import WorkerLink
from onceseen.hub.models import adopt
from onceseen.hub.paths import submit_paths
from onceseen.hub.state import HubState
from onceseen.hub.submission import Request
from onceseen.inference.registry import Catalog, Model
from onceseen.wire import link as wire
from onceseen.wire.http import ITEM_STATES, ErrorOut, Result, encode

log = structlog.get_logger()

LOOK_SECONDS = 0.5
"""How often it is looked whether the client is still there."""


def asked(hub: HubState, link: WorkerLink, message: wire.Ask, payload: bytes) -> None:
    """A client hands paths over."""
    hub.errand(_serve(hub, link, message, payload))


async def _serve(hub: HubState, link: WorkerLink, message: wire.Ask, payload: bytes) -> None:
    try:
        names = msgspec.msgpack.decode(payload, type=list[str])
        folder = Path(message.folder)
        if message.model_path:
            model = await adopt(hub, folder / message.model, message.sets)
        else:
            model = hub.catalog.resolve(message.model or None)
        await _answer(hub, link, model, message, [(name, folder / name) for name in names])
    except OnceseenError as error:
        link.send(wire.Refused(error.code, error.message))
    except msgspec.MsgspecError as error:
        link.send(wire.Refused(InvalidRequest.code, f"The list of names cannot be read: {error}."))
    except Exception:
        log.exception("handed.failed")
        link.send(wire.Refused(OnceseenError.code, OnceseenError().message))


async def _answer(
    hub: HubState, link: WorkerLink, model: Model, message: wire.Ask, files: list[tuple[str, Path]]
) -> None:
    told = 0
    news = asyncio.Event()

    def tell(done: DoneItem, packed: bytes | None) -> None:
        nonlocal told
        told += 1
        news.set()
        result = result_of(hub.catalog, model, done, packed, message.top or None)
        link.send(wire.Told(done.item.n), [encode(result)])

    request = Request(
        model,
        name="classify",
        source="local",
        fresh=message.fresh,
        frames=message.frames,
        dataset=dataset_name(message.dataset),
    )
    row = await submit_paths(hub, request, files, tell)
    while told < row.total:
        if link.hello is None or link.hello.id not in hub.links:
            await local.end(hub, row.id)  # nobody waits for the rest; what is answered stays
            return
        news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await news.wait()
    broken = hub.dispatcher.lane(model.lane).broken
    if broken:
        link.send(wire.Refused("model-failed", f"The model {model.ref} cannot run: {broken}"))
    link.send(wire.Over(text_of(row.id)))


def result_of(catalog: Catalog, model: Model, done: DoneItem, packed: bytes | None, top: int | None) -> Result:
    """An item that was just answered, as scripts read it."""
    item, end = done.item, done.finished
    return Result(
        name=item.name,
        digest=item.digest.hex() if item.digest else None,
        state=ITEM_STATES[end.state],
        label=end.label,
        score=end.score,
        model=item.model,
        predictions=catalog.predictions(model.lane, packed, end.score, top),
        risk=end.risk,
        found=None if end.found is None else bool(end.found),
        error=ErrorOut(end.error_kind, end.error or "") if end.error_kind else None,
        frame=msgspec.UNSET if item.frame is None else item.frame,
    )
