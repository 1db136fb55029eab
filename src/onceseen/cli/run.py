"""`up`, `server`, `worker`, `migrate`: what runs, and keeps running."""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onceseen import wiring
from onceseen.settings import Settings, load

if TYPE_CHECKING:
    from onceseen.worker.supervisor import Supervisor

Data = Annotated[
    Path | None, typer.Option("--data", help="The data directory.", envvar="ONCESEEN_DATA", show_envvar=True)
]
Host = Annotated[str | None, typer.Option("--host", help="Address to listen on [default: 127.0.0.1].")]
Port = Annotated[int | None, typer.Option("--port", help="Port to listen on; 0 takes a free one [default: 8000].")]
Database = Annotated[
    str | None, typer.Option("--database", help="URL of the record; SQLite in the data directory without it.")
]
Blobs = Annotated[
    str | None, typer.Option("--blobs", help="URL of the blob store; pack files in the data directory without it.")
]
Signal = Annotated[str | None, typer.Option("--signal", help="URL of the signal; inside the server without it.")]
Config = Annotated[
    Path | None, typer.Option("--config", help="Settings file [default: ./onceseen.toml if there is one].")
]
NoSamples = Annotated[bool, typer.Option("--no-samples", help="Do not classify the sample images at the first start.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Log warnings only.")]


def up(
    data: Data = None,
    host: Host = None,
    port: Port = None,
    workers: Annotated[
        int | None, typer.Option("--workers", "-n", help="Worker processes [default: one per core].")
    ] = None,
    database: Database = None,
    blobs: Blobs = None,
    signal_url: Signal = None,
    config: Config = None,
    no_samples: NoSamples = False,
    quiet: Quiet = False,
) -> None:
    """Run a server with its workers and pages on this machine.

    [bold]Examples[/bold]

    onceseen up                          # http://127.0.0.1:8000, one worker per core

    onceseen up --data ./beamtime --port 0 --workers 8
    """
    settings = _settings(config, data, host, port, workers, database, blobs, signal_url, no_samples, quiet)
    raise typer.Exit(_supervise(settings))


def server(
    data: Data = None,
    host: Host = None,
    port: Port = None,
    database: Database = None,
    blobs: Blobs = None,
    signal_url: Signal = None,
    config: Config = None,
    no_samples: NoSamples = False,
    quiet: Quiet = False,
) -> None:
    """Run a server without workers; they join with `onceseen worker`.

    [bold]Example[/bold]

    onceseen server --data ./beamtime
    """
    from onceseen.server.main import run

    settings = _settings(config, data, host, port, 0, database, blobs, signal_url, no_samples, quiet)
    raise typer.Exit(run(settings))


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
    config: Config = None,
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


def _supervise(settings: Settings) -> int:
    from onceseen.log import configure
    from onceseen.worker.supervisor import Supervisor

    configure(quiet=settings.quiet, process="supervisor")
    settings.data.mkdir(parents=True, exist_ok=True)
    settings = settings.model_copy(update={"data": settings.data.resolve()})
    address = wiring.own_address(settings.data)
    command = [sys.executable, "-m", "onceseen.server.main"]
    options = ["--max-pixels", str(settings.max_pixels), "--max-bytes", str(settings.max_image_bytes)]
    supervisor = Supervisor(
        address,
        lambda: wiring.connect(address),
        settings.workers,
        server=(command, settings.model_dump_json().encode()),
        worker_options=[*options, *(["--quiet"] if settings.quiet else [])],
    )
    _end_on_signals(supervisor)
    return supervisor.run()


def _end_on_signals(supervisor: "Supervisor") -> None:
    from onceseen.process import on_signal

    on_signal(signal.SIGTERM, supervisor.end)
    on_signal(signal.SIGINT, supervisor.end)


def _settings(
    config: Path | None,
    data: Path | None,
    host: str | None,
    port: int | None,
    workers: int | None,
    database: str | None,
    blobs: str | None,
    signal_url: str | None,
    no_samples: bool,
    quiet: bool,
) -> Settings:
    """Flags that were given, over everything else."""
    return load(
        config,
        data=data,
        host=host,
        port=port,
        workers=workers,
        database=database,
        blobs=blobs,
        signal=signal_url,
        samples=False if no_samples else None,
        quiet=True if quiet else None,
    )
