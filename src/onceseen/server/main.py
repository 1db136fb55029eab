"""The server's process: the record's owner, the hub, HTTP. `python -m onceseen.server.main` is what a supervisor starts."""

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import IO

import structlog
import uvloop

from onceseen import wiring
from onceseen.bundled import samples
from onceseen.domain.model import DIALECT_DEFAULTS
from onceseen.domain.task import BACKGROUND
from onceseen.domain.views import JobFilter
from onceseen.errors import OnceseenError, SettingsError, UnknownModel
from onceseen.hub.gauges import Gauges
from onceseen.hub.hub import Hub
from onceseen.hub.models import add_bundled
from onceseen.hub.submission import Request, Submission
from onceseen.log import configure, silence
from onceseen.ports.database import Transaction
from onceseen.process import end_with, open_files
from onceseen.server.app import build_app
from onceseen.server.http import Server
from onceseen.settings import Settings

log = structlog.get_logger()

WARM_SECONDS = 30.0
SAMPLES_SECONDS = 20.0
FILES_OF_OURS = 200
"""Files that a server needs beside its connections."""
DRAIN_SECONDS = 3.0
BROKEN = 70
"""Exit code of a server that cannot go on for a fault of its own."""


def run(settings: Settings, *, workers_expected: bool = False) -> int:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: checked settings.
        workers_expected: workers come by themselves (`up`): say "ready" once one is warm and the samples are answered.

    Raises:
        SettingsError: another server owns the data directory, the port is taken, the data are newer, ...
    """
    configure(quiet=settings.quiet, process="server")
    directory = wiring.open_directory(settings.data)
    try:
        with bind(settings) as door:
            preload = tuple(dict.fromkeys(DIALECT_DEFAULTS.values()))
            hub = wiring.build_hub(directory, wiring.hub_settings(settings, preload), wiring.fetcher(settings))
            address = wiring.own_address(settings.data)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_serve(hub, settings, door, address, directory.announce, workers_expected=workers_expected))
            hub.database.close()
            hub.blobs.close()
    finally:
        directory.release()
    return 0


async def _serve(
    hub: Hub,
    settings: Settings,
    door: socket.socket,
    address: str,
    announce: Callable[[str, str], None],
    *,
    workers_expected: bool,
) -> None:
    most = max(FILES_OF_OURS, open_files() - FILES_OF_OURS)
    server = Server(build_app(hub, settings), settings.read_timeout, most)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _begin_to_end, hub, server)
    hub.broken = lambda: os._exit(BROKEN)  # what was promised is safe; a supervisor starts the next one at once
    await hub.start()
    await hub.writer.call(lambda tx: add_bundled(lambda write: write(tx)))
    await hub.reload_catalog()
    hub.metrics.registry.register(Gauges(hub))
    listener = await wiring.listen(address, hub.accept)
    url = f"http://{_shown(settings.host)}:{door.getsockname()[1]}"
    announce(url, address)
    greeting = asyncio.create_task(_greet(hub, settings, server, url, workers_expected=workers_expected))
    gc.freeze()  # what has been built stays: no full collection need look at it again
    if not server.should_exit:  # a signal may have come while the record was opened
        await server.serve(sockets=[door])
    greeting.cancel()
    await hub.stop(DRAIN_SECONDS)
    await listener.close()
    log.info("server.ended")


def _begin_to_end(hub: Hub, server: Server) -> None:
    log.info("server.draining")
    hub.drain()
    server.should_exit = True


async def _greet(hub: Hub, settings: Settings, server: Server, url: str, *, workers_expected: bool) -> None:
    """Say "ready" on stdout, once it is."""
    while not server.started:
        await asyncio.sleep(0.01)
    if workers_expected:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WARM_SECONDS):
                await hub.joined.wait()
        if settings.samples:
            await _classify_samples(hub)
    log.info("server.ready", url=url, data=str(settings.data))
    try:
        sys.stdout.write(f"Onceseen is ready on {url}\n")
        sys.stdout.flush()
    except OSError:
        silence(sys.stdout)


async def _classify_samples(hub: Hub) -> None:
    """At the first start there is something to see: the sample images, each by its own model."""

    def is_new(tx: Transaction) -> bool:
        return tx.servers.meta("samples", None) is None and not tx.views.jobs(JobFilter(), 1)

    if not await hub.writer.call(is_new):
        return
    waiting = []
    for name, files in samples().items():
        try:
            model = hub.catalog.resolve(name)
        except UnknownModel:
            continue
        submission = Submission(hub, Request(model, f"samples: {name}", BACKGROUND, "samples"))
        ended = hub.waiters.expect(submission.head.id)
        for file in files:
            await submission.add(file.name, file.read_bytes())
        await submission.finish()
        waiting.append(ended)
    await hub.writer.call(lambda tx: tx.servers.meta("samples", "submitted"))
    if waiting:
        await asyncio.wait(waiting, timeout=SAMPLES_SECONDS)


def bind(settings: Settings) -> socket.socket:
    """The listening socket.

    Raises:
        SettingsError: the port is taken, or the address is not this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise SettingsError(
            f"Cannot listen on {settings.host} port {settings.port}: {reason}. Choose another port (--port 0 takes a free one)."
        ) from error


def _shown(host: str) -> str:
    if host in ("0.0.0.0", "::"):  # noqa: S104  (an address to show, not to bind)
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def main(stdin: IO[str]) -> int:
    """A supervised server: settings as JSON on stdin, and the pipe that shows that the supervisor lives."""
    parser = argparse.ArgumentParser(prog="onceseen-server")
    parser.add_argument("--alive-fd", type=int, required=True)
    options = parser.parse_args()
    settings = Settings.model_validate_json(stdin.read())
    end_with(options.alive_fd)
    try:
        return run(settings, workers_expected=settings.workers > 0)
    except OnceseenError as error:
        sys.stderr.write(f"onceseen: {error}\n")
        return 2 if isinstance(error, SettingsError) else 1  # after a 1 its supervisor tries again


if __name__ == "__main__":
    sys.exit(main(sys.stdin))
