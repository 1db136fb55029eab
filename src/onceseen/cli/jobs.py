"""`jobs`, `show`, `follow`, `retry`, `cancel`: what a server has in hand, and what becomes of it."""

import itertools
import re
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onceseen.cli.options import (
    ROWS,
    ApiKey,
    AsCsv,
    AsJson,
    Data,
    Limit,
    Query,
    Server,
    State,
    Top,
    form_of,
    query_text,
)
from onceseen.cli.output import note, print_json, print_table
from onceseen.cli.remote import connect
from onceseen.cli.submit import print_job
from onceseen.errors import InvalidRequest

if TYPE_CHECKING:
    from onceseen.client import Client

DIGEST = re.compile(r"[0-9a-fA-F]{64}")
Ids = Annotated[list[str], typer.Argument(help="Ids of jobs.", metavar="JOB...", show_default=False)]


def jobs(
    query: Query = None,
    state: State = None,
    limit: Limit = None,
    server: Server = None,
    data: Data = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first.

    [bold]Examples[/bold]

    onceseen jobs

    onceseen jobs state:failed age:<1h --json
    """
    with connect(server, data, api_key) as client:
        found = client.jobs(query_text(query), state=state)
        if as_json:
            for job in itertools.islice(found, limit):
                print_json(job)
            return
        rows = [
            (job.id, job.state, f"{job.answered}/{job.total}", job.failed, job.model, when(job.created_at), job.name)
            for job in itertools.islice(found, limit or ROWS)
        ]
    print_table(("job", "state", "done", "failed", "model", "created", "name"), rows)
    cut_short(len(rows), limit)


def show(
    what: Annotated[str, typer.Argument(help="JOB, JOB/N or DIGEST.", metavar="JOB|JOB/N|DIGEST")],
    server: Server = None,
    data: Data = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show a job, one item of it, or an image with all its names.

    [bold]Examples[/bold]

    onceseen show 01990f6e-1c5b-7c3e-8a52-0f7d3b2c1a90/17

    onceseen show 7a4e6d1cbb1b5b0d8b3c6e1f0a9d8c7b6a5f4e3d2c1b0a998877665544332211 --json
    """
    with connect(server, data, api_key) as client:
        found = _found(client, what)
        if as_json:
            print_json(found)
            return
        import msgspec

        fields = msgspec.to_builtins(found)
        print_table(("", ""), [(name, _plain(value)) for name, value in fields.items()])


def follow(
    job: Annotated[str | None, typer.Argument(help="The id of a job.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything that happens, until Ctrl-C.")] = False,
    server: Server = None,
    data: Data = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    top: Top = None,
) -> None:
    """Print a job's answers as they come, or all events of a server; goes on when the server is restarted.

    [bold]Examples[/bold]

    onceseen follow 01990f6e-1c5b-7c3e-8a52-0f7d3b2c1a90 --json

    onceseen follow --all
    """
    if (job is None) is not everything:
        raise InvalidRequest("Give the id of a job, or --all.")
    form = form_of(as_json, as_csv)
    with connect(server, data, api_key) as client:
        if job is not None:
            raise typer.Exit(print_job(client.job(job), form, top))
        for event in client.follow():
            if as_json:
                print_json(event)
            else:
                sys.stdout.write(f"{when(event.at)}  {event.kind:<15} {_what(event.data)}\n")
            sys.stdout.flush()


def retry(ids: Ids, server: Server = None, data: Data = None, api_key: ApiKey = None) -> None:
    """Run a job's failed items again, but not those whose image is unreadable.

    [bold]Example[/bold]

    onceseen retry 01990f6e-1c5b-7c3e-8a52-0f7d3b2c1a90
    """
    with connect(server, data, api_key) as client:
        for id_ in ids:
            job = client.job(id_)
            failed = job.failed
            job.retry()
            note(f"{job.id}: {failed} failed items are looked at again.")


def cancel(ids: Ids, server: Server = None, data: Data = None, api_key: ApiKey = None) -> None:
    """Cancel what is not answered yet of a job.

    [bold]Example[/bold]

    onceseen cancel 01990f6e-1c5b-7c3e-8a52-0f7d3b2c1a90
    """
    with connect(server, data, api_key) as client:
        for id_ in ids:
            job = client.job(id_).cancel()
            note(f"{job.id}: {job.state}; {job.answered} of {job.total} had come to their end.")


def cut_short(rows: int, limit: int | None) -> None:
    """Say so where a table may not be all."""
    if limit is None and rows == ROWS:
        note(f"The newest {ROWS}; --limit N shows more, --json all.")


def when(moment: datetime | None) -> str:
    """A time as people here read it."""
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _found(client: "Client", what: str) -> Any:
    if DIGEST.fullmatch(what):
        return client.image(what.lower())
    job, slash, n = what.partition("/")
    if not slash:
        return client.job(job)
    if not (n.isascii() and n.isdigit()):
        raise InvalidRequest(f"{what!r}: after the slash stands the number of an item, from 0.")
    return client.job(job).item(int(n))


def _plain(value: Any) -> str:
    """A field as text: lists one entry a line."""
    if isinstance(value, list | tuple):
        return "\n".join(_plain(entry) for entry in value)
    if isinstance(value, dict):
        return "  ".join(str(entry) for entry in value.values())
    return "" if value is None else str(value)


def _what(data: dict[str, Any]) -> str:
    known = ("id", "name", "state", "model", "version", "succeeded", "failed", "total", "host", "pid")
    return "  ".join(f"{name}={data[name]}" for name in known if data.get(name) not in (None, ""))
