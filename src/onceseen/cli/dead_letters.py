"""`dead-letters`: items whose task was given up for another reason than its image."""

import itertools
from typing import Annotated

import typer

from onceseen.cli.jobs import cut_short
from onceseen.cli.options import ROWS, ApiKey, AsJson, Data, Limit, Query, Server, query_text
from onceseen.cli.output import note, print_json, print_table
from onceseen.cli.remote import connect
from onceseen.errors import InvalidRequest

app = typer.Typer(
    help="List, retry and purge what was given up: a model that failed, an image that killed its workers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
)

Tasks = Annotated[list[str] | None, typer.Option("--task", help="The task of this id; may be given again.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]


@app.command("list")
def list_dead_letters(
    query: Query = None,
    limit: Limit = None,
    server: Server = None,
    data: Data = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first.

    [bold]Examples[/bold]

    onceseen dead-letters list

    onceseen dead-letters list model:digits --json
    """
    with connect(server, data, api_key) as client:
        found = client.dead_letters(query_text(query))
        if as_json:
            for item in itertools.islice(found, limit):
                print_json(item)
            return
        rows = [
            (item.task, item.name, item.model, item.deaths, item.error.message if item.error else "")
            for item in itertools.islice(found, limit or ROWS)
        ]
    print_table(("task", "name", "model", "deaths", "reason"), rows)
    cut_short(len(rows), limit)


@app.command("retry")
def retry(
    query: Query = None,
    tasks: Tasks = None,
    everything: All = False,
    server: Server = None,
    data: Data = None,
    api_key: ApiKey = None,
) -> None:
    """Run dead letters again: those of a search, of some tasks, or all.

    [bold]Examples[/bold]

    onceseen dead-letters retry model:digits

    onceseen dead-letters retry --all
    """
    q = _chosen(query, tasks, everything)
    with connect(server, data, api_key) as client:
        count = client.retry_dead_letters(q, tasks=tasks or None)
    note(f"{count} run again.")


@app.command("purge")
def purge(
    query: Query = None,
    tasks: Tasks = None,
    everything: All = False,
    server: Server = None,
    data: Data = None,
    api_key: ApiKey = None,
) -> None:
    """Forget dead letters for good: those of a search, of some tasks, or all.

    [bold]Examples[/bold]

    onceseen dead-letters purge age:>30d

    onceseen dead-letters purge --all
    """
    q = _chosen(query, tasks, everything)
    with connect(server, data, api_key) as client:
        count = client.purge_dead_letters(q, tasks=tasks or None)
    note(f"{count} purged.")


def _chosen(query: list[str] | None, tasks: list[str] | None, everything: bool) -> str:
    if (bool(query) + bool(tasks) + everything) != 1:
        raise InvalidRequest("Say which dead letters: a search, --task ID, or --all.")
    return query_text(query)
