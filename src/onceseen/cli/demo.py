"""`demo`: everything at once, and nothing left behind."""

import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from onceseen import wiring
from onceseen.cli.output import note
from onceseen.cli.run import Quiet, supervise

READY_SECONDS = 60.0


def demo(
    port: Annotated[int | None, typer.Option("--port", help="Port to listen on (default: a free one).")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", "-n", help="Worker processes (default: one per core).")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
    no_samples: Annotated[bool, typer.Option("--no-samples", help="Do not classify the sample images.")] = False,
    quiet: Quiet = False,
) -> None:
    """Run everything on a temporary directory, with sample images, and open a browser; Ctrl-C removes it all.

    [bold]Example[/bold]

    onceseen demo
    """
    from onceseen.settings import load

    with tempfile.TemporaryDirectory(prefix="onceseen-demo-", ignore_cleanup_errors=True) as folder:
        data = Path(folder)
        flags: dict[str, Any] = {"samples": False if no_samples else None, "quiet": True if quiet else None}
        # Port 0: a demonstration stands beside whatever runs on the usual one.
        settings = load(data=data, port=0 if port is None else port, workers=workers, **flags)
        if not no_browser:
            threading.Thread(target=_open, args=(data,), daemon=True).start()
        code = supervise(settings)
    note("The demonstration and its directory are gone.")
    raise typer.Exit(code)


def _open(data: Path) -> None:
    """Show the page as soon as there is one."""
    import webbrowser

    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        url = wiring.running_server(data)
        if url is not None:
            webbrowser.open(url)
            return
        time.sleep(0.1)
