"""`submit`: images to a running server."""

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
    Paths,
    Server,
    Top,
    form_of,
)
from onceseen.cli.output import Form, Printer, progress
from onceseen.cli.remote import connect

if TYPE_CHECKING:
    from onceseen.client import Job


def submit(
    paths: Paths,
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
    """Send files and folders to a running server as one job.

    A lost connection is tried again, and is still one job.

    [bold]Examples[/bold]

    onceseen submit photos/ --model imagenet --wait

    onceseen submit run-17.h5 --frames all --wait --csv > frames.csv

    onceseen submit run-17/ --server http://gpu-box:8000 --name "run 17"
    """
    form = form_of(as_json, as_csv)
    with connect(server, data, api_key) as client:
        which = frames.value
        job = client.submit(
            paths, model=model, name=name, priority=priority, frames=which, dataset=dataset, fresh=fresh
        )
        if not wait:
            typer.echo(job.id)
            return
        raise typer.Exit(print_job(job, form, top, frames=frames is AllOrFirst.ALL))


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
