"""`submit`: images to a running server."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onceseen.cli.options import (
    AllOrFirst,
    ApiKey,
    AsCsv,
    AsJson,
    Data,
    Dataset,
    Frames,
    Fresh,
    Model,
    Server,
    Top,
    form_of,
)
from onceseen.cli.output import Form, Printer, progress
from onceseen.cli.remote import connect
from onceseen.domain.fetch import is_url
from onceseen.errors import InvalidRequest

if TYPE_CHECKING:
    from onceseen.client import Job


def submit(
    paths: Annotated[list[str] | None, typer.Argument(help="Files, folders, globs, URLs.", show_default=False)] = None,
    urls: Annotated[
        Path | None, typer.Option("--urls", help="A file with a URL in each line; - is the standard input.")
    ] = None,
    model: Model = None,
    name: Annotated[str, typer.Option("--name", help="What to call the job.")] = "",
    priority: Annotated[int, typer.Option("--priority", help="0 (first) to 9 (background).", min=0, max=9)] = 5,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answers and print them.")] = False,
    frames: Frames = AllOrFirst.FIRST,
    dataset: Dataset = "",
    fresh: Fresh = False,
    server: Server = None,
    data: Data = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    top: Top = None,
) -> None:
    """Send files, folders and URLs to a running server as one job; it fetches the URLs itself.

    A lost connection is tried again, and is still one job.

    [bold]Examples[/bold]

    onceseen submit photos/ --model imagenet --wait

    onceseen submit run-17.h5 --frames all --wait --csv > frames.csv

    onceseen submit run-17/ --server http://gpu-box:8000 --name "run 17"

    onceseen submit https://pictures.example/cat.jpg --urls more.txt
    """
    form = form_of(as_json, as_csv)
    with connect(server, data, api_key) as client:
        which = frames.value
        job = client.submit(
            [*(paths or ()), *(_listed(urls) if urls else ())],
            model=model,
            name=name,
            priority=priority,
            frames=which,
            dataset=dataset,
            fresh=fresh,
        )
        if not wait:
            typer.echo(job.id)
            return
        raise typer.Exit(print_job(job, form, top, frames=frames is AllOrFirst.ALL))


def _listed(file: Path) -> list[str]:
    """The URLs in a file; blank lines and those that begin with # are left out."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"--urls {file}: it cannot be read ({error}).") from error
    found = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in found:
        if not is_url(line):
            raise InvalidRequest(f"--urls {file}: {line[:80]!r} is no URL; it must begin with http:// or https://.")
    return found


def print_job(job: "Job", form: Form, top: int | None, *, frames: bool = False) -> int:
    """Print a job's answers in the order of its images, each as soon as it and all before it are there; the exit code."""
    printer = Printer(form, top, frames=frames)
    with progress() as bar:
        task = bar.add_task(job.model, total=job.total)
        for item in job.results():
            bar.advance(task)
            printer.add_at(item.n, item)
    printer.close()
    return 1 if printer.failed else 0
