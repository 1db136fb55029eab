"""`classify`: images in, answers out, no server needed. A hub of its own, workers of its own, and a record of its own."""

import asyncio
import signal
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from onceseen import wiring
from onceseen.cli.output import Form, Printer, Result, progress
from onceseen.cli.paths import expand
from onceseen.domain.ids import now
from onceseen.errors import InvalidRequest
from onceseen.flow.work import DoneItem
from onceseen.hub.hub import Hub
from onceseen.inference.registry import Catalog, Model
from onceseen.log import configure
from onceseen.ports.database import Transaction
from onceseen.settings import Settings, load
from onceseen.wire.http import ITEM_STATES

Paths = Annotated[list[str], typer.Argument(help="Files, folders, globs.", show_default=False)]
Top = Annotated[
    int | None, typer.Option("--top", help="How many predictions to print [default: the manifest's].", min=1)
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="CSV with a header.")]


def form_of(as_json: bool, as_csv: bool) -> Form:
    """The form that the flags ask for."""
    if as_json and as_csv:
        raise InvalidRequest("Give --json or --csv, not both.")
    return Form.JSON if as_json else Form.CSV if as_csv else Form.TABLE


def classify(
    paths: Paths,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A model's name, directory or weights file.")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="A key of the manifest: input.size=[224,224].")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Keep the record in this data directory.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", "-n", help="Worker processes.", min=1)] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Answer anew what was answered before.")] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    top: Top = None,
) -> None:
    """Classify files and folders on this machine; no server is needed.

    [bold]Examples[/bold]

    onceseen classify photos/ --model imagenet

    onceseen classify scan-*.png --model digits --json

    onceseen classify photos/ --model ./my-model.onnx --set labels=labels.txt --set input.size=[224,224] --csv > answers.csv
    """
    form = form_of(as_json, as_csv)
    files = expand(paths)
    settings = load(None, workers=workers)
    configure(quiet=True, process="classify")
    with ExitStack() as stack:
        place = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onceseen-")))
        run = Run(
            settings, place.absolute(), files, model, dict(pair(text) for text in sets or ()), fresh, Printer(form), top
        )
        raise typer.Exit(asyncio.run(run.run()))


def pair(text: str) -> tuple[str, str]:
    """The two sides of KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidRequest(f"--set {text!r} is not of the form KEY=VALUE.")
    return key, value


class Run:
    """One call of `classify`."""

    def __init__(
        self,
        settings: Settings,
        place: Path,
        files: list[tuple[str, Path]],
        model: str | None,
        sets: dict[str, str],
        fresh: bool,
        printer: Printer,
        top: int | None,
    ) -> None:
        self._settings = settings
        self._place = place
        self._files = files
        self._model = model
        self._sets = sets
        self._fresh = fresh
        self._printer = printer
        self._top = top
        self._results: dict[int, Result] = {}
        self._printed = 0
        self._finished = asyncio.Event()
        self._interrupted = False
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
            with _workers(address, min(self._settings.workers, len(self._files)), self._settings):
                await self._classify(hub, model)
                await hub.stop(0.5)
            await listener.close()
            broken = hub.dispatcher.lane(model.lane).broken
        finally:
            hub.database.close()
            hub.blobs.close()
            directory.release()
        self._printer.close()
        if self._interrupted:
            return 130
        if broken and not self._printer.succeeded:
            raise InvalidRequest(f"The model {model.ref} cannot run: {broken}")
        return 1 if self._printer.failed else 0

    async def _classify(self, hub: Hub, model: Model) -> None:
        from onceseen.hub.submission import Request, submit_paths

        request = Request(model, name="classify", source="local", fresh=self._fresh)
        with progress() as bar:
            task = bar.add_task(f"{model.ref}", total=len(self._files))
            self._advance = lambda: bar.advance(task)
            await submit_paths(
                hub, request, self._files, lambda done, result: self._told(hub.catalog, model, done, result)
            )
            await self._finished.wait()

    def _told(self, catalog: Catalog, model: Model, done: DoneItem, packed: bytes | None) -> None:
        """One answer is committed; print what is next in input order."""
        item, end = done.item, done.finished
        top = catalog.predictions(model.lane, packed, end.score, self._top)
        error = {"kind": end.error_kind, "message": end.error or ""} if end.error_kind else None
        found = None if end.found is None else bool(end.found)
        digest = item.digest.hex() if item.digest else None
        state = ITEM_STATES[end.state]
        self._results[item.n] = Result(
            item.name, digest, state, end.label, end.score, item.model, top, end.risk, found, error
        )
        self._advance()
        while self._printed in self._results:
            self._printer.add(self._results.pop(self._printed))
            self._printed += 1
        if self._printed == len(self._files):
            self._finished.set()

    def _interrupt(self) -> None:
        self._interrupted = True
        self._finished.set()

    async def _find_model(self, hub: Hub) -> Model:
        """A path is a model of its own; a name is looked up in the directory, the default directory, and the package."""
        from onceseen.flow import models
        from onceseen.hub.models import add_bundled
        from onceseen.inference.manifest import content_digest, read

        given = Path(self._model) if self._model else None
        is_path = given is not None and (given.suffix or given.is_dir()) and given.exists()
        if given is not None and is_path:
            manifest, directory = read(given, self._sets)
            digest = content_digest(manifest, directory)
            row = await hub.writer.call(lambda tx: models.add(tx, manifest, digest, str(directory.absolute()), now()))
            await hub.reload_catalog()
            return hub.catalog.resolve(row.ref)
        if self._sets:
            raise InvalidRequest(
                "--set goes with a model's directory or weights file; a model that was added has its manifest."
            )
        if given is not None and (given.suffix in (".onnx", ".toml") or "/" in str(given)):
            raise InvalidRequest(f"There is no model at {given}.")
        rows = wiring.models_of(self._settings.data) if self._place != self._settings.data else []

        def write(tx: Transaction) -> None:
            for row in rows:
                tx.models.add(row)

        await hub.writer.call(write)
        await hub.writer.call(lambda tx: add_bundled(lambda function: function(tx)))
        await hub.reload_catalog()
        return hub.catalog.resolve(self._model)


class _workers:  # noqa: N801  (a context manager, used like a function)
    """Worker processes for the time of a block."""

    def __init__(self, address: str, n: int, settings: Settings) -> None:
        from onceseen.worker.supervisor import Supervisor

        options = ["--quiet", "--max-pixels", str(settings.max_pixels), "--max-bytes", str(settings.max_image_bytes)]
        self._supervisor = Supervisor(address, lambda: wiring.connect(address), max(1, n), worker_options=options)
        self._thread = threading.Thread(target=self._supervisor.run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._supervisor.end()
        self._thread.join()
