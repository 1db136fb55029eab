"""`onceseen`: exit codes are 0 (all well), 1 (some images failed), 2 (usage, or nothing could run), 130 (interrupted)."""

import os
import sys
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from onceseen.errors import OnceseenError

VERBS = {
    "up": "run",
    "server": "run",
    "worker": "run",
    "demo": "demo",
    "migrate": "run",
    "classify": "classify",
    "submit": "submit",
    "results": "results",
    "jobs": "jobs",
    "show": "jobs",
    "follow": "jobs",
    "retry": "jobs",
    "cancel": "jobs",
    "workers": "workers",
    "models": "models",
    "dead-letters": "dead_letters",
    "bench": "bench",
    "config": "config",
}
"""Verb -> the module that has it, as a function of that name or as an `app` with verbs of its own."""


class Verbs(TyperGroup):
    """Imports a verb's module when the verb is called: `onceseen jobs` loads nothing that `onceseen up` needs."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All verbs, in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One verb; None when there is none by this name."""
        if cmd_name not in VERBS:
            return None
        module = import_module(f"onceseen.cli.{VERBS[cmd_name]}")
        found = getattr(module, cmd_name, None)
        if found is None:
            group = module.app
        else:
            group = typer.Typer(add_completion=False, rich_markup_mode="rich")
            group.command(cmd_name)(found)
        command = get_command(group)
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb that is meant; typer suggests only what it has loaded."""
        if args and args[0] not in VERBS and (near := get_close_matches(args[0], VERBS)):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {' or '.join(map(repr, near))}?")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="onceseen",
    cls=Verbs,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Every image gets its answer, exactly once.\n\n"
    "Start here: [bold]onceseen up[/bold] and open http://127.0.0.1:8000, "
    "or [bold]onceseen classify FOLDER --model imagenet[/bold].",
)


def _version(value: bool) -> None:
    if value:
        from onceseen import __version__

        typer.echo(f"onceseen {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of every verb."""


def main() -> None:
    """Run one verb; an error of ours is one sentence and exit code 2. A pipe that nobody reads any more is no error."""
    try:
        try:
            app(prog_name="onceseen")
        finally:
            sys.stdout.flush()  # the app ends with SystemExit; left to the interpreter's end, a broken pipe would be a complaint
    except OnceseenError as error:
        sys.stderr.write(f"onceseen: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError as broken:
        _unread(broken.__context__)
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):  # click has made a 1 of it
            raise
        _unread()


def _unread(reason: BaseException | None = None) -> None:
    """Nobody reads stdout any more; what is still buffered must not be an error at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(reason, OnceseenError):
        sys.stderr.write(f"onceseen: {reason}\n")
        sys.exit(2)
    sys.exit(reason.code if isinstance(reason, SystemExit) else 0)
