"""`submit`: images to a running server."""

import time
from typing import Annotated, Any

import msgspec
import typer

from onceseen.cli.classify import AsCsv, AsJson, Paths, Top, form_of
from onceseen.cli.output import Printer, Result, progress
from onceseen.cli.paths import expand
from onceseen.cli.remote import ApiKey, Data, Server, connect
from onceseen.client.transport import Transport

POLL_SECONDS = 0.2


def submit(
    paths: Paths,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="NAME or NAME:VERSION [default: the server's].")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What to call the job.")] = "",
    priority: Annotated[int, typer.Option("--priority", help="0 (first) to 9 (background).", min=0, max=9)] = 5,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answers and print them.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Answer anew what was answered before.")] = False,
    server: Server = None,
    data: Data = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    top: Top = None,
) -> None:
    """Send files and folders to a running server as one job.

    [bold]Examples[/bold]

    onceseen submit photos/ --model imagenet --wait

    onceseen submit run-17/ --server http://gpu-box:8000 --name "run 17"
    """
    form = form_of(as_json, as_csv)
    files = expand(paths)
    query = {
        "name": name,
        "priority": priority,
        **({"model": model} if model else {}),
        **({"fresh": "true"} if fresh else {}),
    }
    with connect(server, data, api_key) as transport:
        job = transport.upload("/v1/jobs", files, query)
        if not wait:
            typer.echo(job["id"])
            return
        _follow(transport, job)
        printer = Printer(form)
        for item in transport.pages(f"/v1/jobs/{job['id']}/items", limit=1000):
            printer.add(_result(item, top))
        printer.close()
    raise typer.Exit(1 if printer.failed else 0)


def _follow(transport: Transport, job: Any) -> None:
    with progress() as bar:
        task = bar.add_task(job["model"], total=job["total"])
        while True:
            job = transport.json("GET", f"/v1/jobs/{job['id']}")
            bar.update(task, completed=job["succeeded"] + job["failed"] + job["cancelled"])
            if job["finished_at"] is not None:
                return
            time.sleep(POLL_SECONDS)


def _result(item: dict[str, Any], top: int | None) -> Result:
    item["predictions"] = item["predictions"][:top]
    return msgspec.convert({name: item[name] for name in Result.__struct_fields__}, Result)
