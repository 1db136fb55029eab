"""`bench`: how near Onceseen comes to the bare model on this machine."""

import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from onceseen.errors import InvalidRequest
from onceseen.settings import load

FIGURES = "classify,batch,posts,inline"


def bench(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="A model's name, directory or weights file; a tiny one without it."),
    ] = None,
    images: Annotated[Path | None, typer.Option("--images", help="A folder of images for it.")] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Measure on the disk of this directory; without it on that of the data directory."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    pairs: Annotated[int, typer.Option("--pairs", help="How often each figure is measured.", min=1)] = 3,
    seconds: Annotated[float, typer.Option("--seconds", help="For how long.", min=0.1)] = 10.0,
    only: Annotated[str, typer.Option("--only", help="Which figures.")] = FIGURES,
    concurrency: Annotated[str, typer.Option("--concurrency", help="Posts in flight.")] = "1,8,32",
) -> None:
    """Measure throughput and latency against the bare model, in one run; no server is needed. Takes minutes.

    [bold]Examples[/bold]

    onceseen bench

    onceseen bench --model ./mobilenet --images photos/ --only posts,inline --json > bench.json
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from onceseen.bench import machine, report, workload
    from onceseen.bench.plan import Options, Plan
    from onceseen.cli.output import WIDE
    from onceseen.wire.http import encode_text

    options = Options(pairs, seconds, _figures(only), _numbers(concurrency))
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    place = load(None, data=data).data
    with (
        _temporary(nearest(place)) as name,
        Progress(
            *columns, console=console, transient=True, refresh_per_second=1, disable=not console.is_terminal
        ) as bar,
    ):
        task = bar.add_task("preparing", total=None)
        work = workload.make(Path(name), model, images, place)
        facts = machine.describe(Path(name))

        def tell(title: str) -> None:
            bar.update(task, total=plan.runs, description=title, advance=int(bar.tasks[0].total is not None))

        plan = Plan(
            Path(name), work, options, tell, lambda said: bar.console.print(said, markup=False, highlight=False)
        )
        found = report.result(facts, work, options, plan.run())
    if as_json:
        sys.stdout.write(encode_text(found) + "\n")
    else:
        report.show(found, Console(width=None if sys.stdout.isatty() else WIDE))
    raise typer.Exit(1 if found["wrong"] else 0)


def nearest(data: Path) -> Path:
    """The directory itself, or the nearest one above it: the same disk, most likely."""
    return next(place for place in (data.absolute(), *data.absolute().parents) if place.is_dir())


def _temporary(place: Path) -> "tempfile.TemporaryDirectory[str]":
    try:
        return tempfile.TemporaryDirectory(prefix="onceseen-bench-", dir=place, ignore_cleanup_errors=True)
    except OSError as error:
        raise InvalidRequest(
            f"{place} cannot be written to ({error.strerror}); choose another place by --data."
        ) from error


def _figures(text: str) -> tuple[str, ...]:
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    for part in wanted:
        if part not in FIGURES.split(","):
            raise InvalidRequest(f"--only {part!r} is no figure; known are {FIGURES}.")
    if not wanted:
        raise InvalidRequest(f"--only names no figure; known are {FIGURES}.")
    return tuple(figure for figure in FIGURES.split(",") if figure in wanted)


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isascii() and part.isdigit() and 0 < int(part) <= 1000 for part in parts):
        raise InvalidRequest(f"--concurrency {text!r}: give numbers from 1 to 1000, with commas between them.")
    return tuple(sorted({int(part) for part in parts}))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
