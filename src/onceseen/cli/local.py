"""The work of `classify`: a hub of its own, workers of its own, and a record of its own, for the time of one call."""

import asyncio
import gc
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from onceseen import wiring
from onceseen.cli.options import worker_options
from onceseen.cli.order import Order
from onceseen.cli.output import Printer, progress
from onceseen.errors import InvalidRequest
from onceseen.flow.work import DoneItem
from onceseen.hub.handed import result_of
from onceseen.hub.hub import Hub
from onceseen.hub.models import add_bundled, adopt
from onceseen.hub.paths import submit_paths
from onceseen.hub.submission import Request
from onceseen.inference.registry import Catalog, Model
from onceseen.ports.database import Transaction
from onceseen.settings import Settings
from onceseen.worker.supervisor import Supervisor


class Run:
    """One call of `classify`."""

    def __init__(self, settings: Settings, place: Path, order: Order, printer: Printer) -> None:
        self._settings = settings
        self._place = place
        self._order = order
        self._printer = printer
        self._total: int | None = None  # items; known when the job is written
        self._finished = asyncio.Event()
        self._interrupted = False
        self._unread = False
        self._advance: Callable[[], None] = lambda: None

    async def run(self) -> int:
        """The exit code."""
        directory = wiring.open_directory(self._place, wait=0)
        hub = wiring.build_hub(directory, wiring.hub_settings(self._settings))
        try:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGINT, self._interrupt)
            loop.add_signal_handler(signal.SIGTERM, self._interrupt)
            await hub.start()
            model = await self._find_model(hub)
            address = wiring.own_address(self._place)
            listener = await wiring.listen(address, hub.accept)
            with _workers(address, min(self._settings.workers, len(self._order.files)), self._settings):
                await self._classify(hub, model)
                await hub.stop(0.5)
            await listener.close()
            broken = hub.dispatcher.lane(model.lane).broken
        finally:
            hub.database.close()
            hub.blobs.close()
            directory.release()
        if self._unread:
            raise BrokenPipeError
        self._printer.close()
        if self._interrupted:
            return 130
        if broken and not self._printer.succeeded:
            raise InvalidRequest(f"The model {model.ref} cannot run: {broken}")
        return 1 if self._printer.failed else 0

    async def _classify(self, hub: Hub, model: Model) -> None:
        order = self._order
        request = Request(
            model, name="classify", source="local", fresh=order.fresh, frames=order.frames, dataset=order.dataset
        )
        with progress() as bar:
            task = bar.add_task(f"{model.ref}", total=len(order.files))
            self._advance = lambda: bar.advance(task)
            row = await submit_paths(
                hub, request, order.files, lambda done, result: self._told(hub.catalog, model, done, result)
            )
            self._total = row.total
            bar.update(task, total=row.total)
            self._end_when_all_is_told()
            gc.freeze()  # a collection of all that waits would hold up the workers, for nothing
            await self._finished.wait()

    def _told(self, catalog: Catalog, model: Model, done: DoneItem, packed: bytes | None) -> None:
        """One answer is committed; print what is next in input order."""
        self._advance()
        try:
            self._printer.add_at(done.item.n, result_of(catalog, model, done, packed, self._order.top))
        except BrokenPipeError:
            self._unread = True
            self._finished.set()
        self._end_when_all_is_told()

    def _end_when_all_is_told(self) -> None:
        if self._printer.printed == self._total:
            self._finished.set()

    def _interrupt(self) -> None:
        self._interrupted = True
        self._finished.set()

    async def _find_model(self, hub: Hub) -> Model:
        """A path is a model of its own; a name is looked up in the directory, the default directory, and the package."""
        if self._order.model_is_path:
            return await adopt(hub, Path(self._order.model or ""), self._order.sets)
        rows = wiring.models_of(self._settings.data) if self._place != self._settings.data else []

        def write(tx: Transaction) -> None:
            for row in rows:
                tx.models.add(row)

        await hub.writer.call(write)
        await hub.writer.call(lambda tx: add_bundled(lambda function: function(tx)))
        await hub.reload_catalog()
        return hub.catalog.resolve(self._order.model)


class _workers:  # noqa: N801  (a context manager, used like a function)
    """Worker processes for the time of a block."""

    def __init__(self, address: str, n: int, settings: Settings) -> None:
        options = ["--quiet", *worker_options(settings)]
        self._supervisor = Supervisor(address, lambda: wiring.connect(address), max(1, n), worker_options=options)
        self._thread = threading.Thread(target=self._supervisor.run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._supervisor.end()
        self._thread.join()
