"""`onceseen`: exit codes are 0 (all well), 1 (some images failed), 2 (usage, or nothing could run), 130 (interrupted)."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from onceseen.cli import classify, models, run, submit
from onceseen.errors import OnceseenError

app = typer.Typer(
    name="onceseen",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Every image gets its answer, exactly once.\n\n"
    "Start here: [bold]onceseen up[/bold] and open http://127.0.0.1:8000, "
    "or [bold]onceseen classify FOLDER --model imagenet[/bold].",
)
app.command("up")(run.up)
app.command("server")(run.server)
app.command("worker")(run.worker)
app.command("migrate")(run.migrate)
app.command("classify")(classify.classify)
app.command("submit")(submit.submit)
app.add_typer(models.app, name="models")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"onceseen {version('onceseen')}")
        raise typer.Exit


@app.callback()
def _options(
    _show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of every verb."""


def main() -> None:
    """Run one verb; an error of ours is one sentence and exit code 2."""
    try:
        app()
    except OnceseenError as error:
        sys.stderr.write(f"onceseen: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
