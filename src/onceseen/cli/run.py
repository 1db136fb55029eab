"""`up`, `server`, `worker`, `migrate`: what runs, and keeps running."""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onceseen import wiring
from onceseen.cli.flags import ConfigFlag, with_settings
from onceseen.cli.options import Data, worker_options
from onceseen.settings import Settings, load

if TYPE_CHECKING:
    from onceseen.worker.supervisor import Supervisor

Quiet = Annotated[bool, typer.Option("--quiet", help="Log warnings only.")]


@with_settings()
def up(config: Path | None, flags: dict[str, Any]) -> None:
    """Run a server with its workers and pages on this machine.

    [bold]Examples[/bold]

    onceseen up                          # http://127.0.0.1:8000, one worker per core

    onceseen up --data ./beamtime --port 0 --workers 8
    """
    raise typer.Exit(supervise(load(config, **flags)))


@with_settings(without=("workers",))
def server(config: Path | None, flags: dict[str, Any]) -> None:
    """Run a server without workers; they join with `onceseen worker`.

    [bold]Example[/bold]

    onceseen server --data ./beamtime
    """
    from onceseen.server.main import run

    raise typer.Exit(run(load(config, workers=0, **flags)))


def worker(
    server: Annotated[str, typer.Option("--server", help="A data directory, or unix:PATH.", envvar="ONCESEEN_SERVER")],
    n: Annotated[int, typer.Option("-n", help="Worker processes.", min=1)] = 1,
    patience: Annotated[
        float, typer.Option("--patience", help="Seconds without a server before it ends.", min=0)
    ] = 60.0,
    quiet: Quiet = False,
) -> None:
    """Add workers to a running server; they go on with another start of it.

    [bold]Examples[/bold]

    onceseen worker --server ./beamtime

    onceseen worker --server ./beamtime -n 4
    """
    from onceseen.log import configure
    from onceseen.worker import main as process
    from onceseen.worker.supervisor import Supervisor

    wiring.link_address(server)  # a wrong one is refused now, not after a minute
    options = ["--patience", str(patience), *(["--quiet"] if quiet else [])]
    if n == 1:
        raise typer.Exit(process.run(process.parse(["--server", server, *options])))
    configure(quiet=quiet, process="supervisor")
    supervisor = Supervisor(server, lambda: wiring.connect(wiring.link_address(server)), n, worker_options=options)
    _end_on_signals(supervisor)
    raise typer.Exit(supervisor.run())


def migrate(
    data: Data = None,
    config: ConfigFlag = None,
    check: Annotated[bool, typer.Option("--check", help="Say whether a migration is needed; exit 1 if so.")] = False,
) -> None:
    """Bring a data directory to this release's format; an older record is backed up first.

    [bold]Example[/bold]

    onceseen migrate --data ./beamtime --check
    """
    settings = load(config, data=data)
    if check:
        needed = wiring.migration_needed(settings.data)
        typer.echo("A migration is needed." if needed else "Nothing to migrate.")
        raise typer.Exit(1 if needed else 0)
    directory = wiring.open_directory(settings.data, wait=0)
    try:
        directory.open_database().close()
    finally:
        directory.release()
    typer.echo(f"{settings.data} has the format of this release.")


def supervise(settings: Settings) -> int:
    """Run a server and its workers until a signal comes; the exit code."""
    from onceseen.log import configure
    from onceseen.worker.supervisor import Supervisor

    configure(quiet=settings.quiet, process="supervisor")
    settings.data.mkdir(parents=True, exist_ok=True)
    settings = settings.model_copy(update={"data": settings.data.resolve()})
    address = wiring.own_address(settings.data)
    command = [sys.executable, "-m", "onceseen.server.main"]
    supervisor = Supervisor(
        address,
        lambda: wiring.connect(address),
        settings.workers,
        server=(command, settings.model_dump_json().encode()),
        worker_options=[*worker_options(settings), *(["--quiet"] if settings.quiet else [])],
    )
    _end_on_signals(supervisor)
    return supervisor.run()


def _end_on_signals(supervisor: "Supervisor") -> None:
    from onceseen.process import on_signal

    on_signal(signal.SIGTERM, supervisor.end)
    on_signal(signal.SIGINT, supervisor.end)
