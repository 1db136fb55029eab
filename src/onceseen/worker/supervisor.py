"""Keeps a server and its workers alive: starts them, starts them again when they die, ends them in order.

Order of ending: the server drains first (so that what workers have begun is settled), then the workers go. Children hold
the read end of a pipe from here and end at its EOF, so that `kill -9` of the supervisor leaves nobody behind.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version

import structlog

from onceseen.domain.ids import new_id
from onceseen.ports.link import Stream
from onceseen.wire import link as wire

log = structlog.get_logger()

TICK_SECONDS = 0.05
SERVER_GRACE = 7.5
WORKER_GRACE = 1.5
"""Together with what it takes to kill who does not hear: all is over within ten seconds."""
SLOWEST_RESTART = 5.0
NO_SERVER = 1
"""Exit code of a worker that lost its patience; where the supervisor has no link either, there is no server."""
CHILD_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # one process per core: no library starts threads of its own
    "MALLOC_ARENA_MAX": "2",
    # A decoded picture is some hundred kB. glibc would hand each one back to the system and take the next one anew,
    # page fault by page fault: 8 % of a MobileNet. Larger ones (over 32 MB) still go back at once.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    # Weights and pictures in pages of 2 MB where the system gives them on request: 3 % of a MobileNet (glibc 2.35, Linux).
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""What must stand in the environment before a child's libraries are loaded; the user's own values win."""
GAVE_UP = 2
"""Exit code of a child that cannot run with these settings: starting it again would change nothing."""


@dataclass
class Child:
    """One process that should run."""

    name: str
    command: Sequence[str]
    stdin: bytes | None = None
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0  # quick ones in a row
    restarts: int = 0
    not_before: float = 0.0


class Supervisor:
    """Runs until SIGTERM or SIGINT, or until the server gives up.

    Args:
        address: the server's data directory, or the address of its link.
        connect: opens the supervisor's own link, or raises OSError.
        workers: how many worker processes.
        server: the server's command and what it reads on stdin; None when another process runs it.
        worker_options: further options of each worker.
    """

    def __init__(
        self,
        address: str,
        connect: Callable[[], Stream],
        workers: int,
        server: tuple[Sequence[str], bytes] | None = None,
        worker_options: Sequence[str] = (),
    ) -> None:
        self._id = new_id()
        self._connect = connect
        self._alive, self._pipe = os.pipe()
        os.set_inheritable(self._alive, True)
        alive = ["--alive-fd", str(self._alive)]
        command = [sys.executable, "-m", "onceseen.worker.main", "--server", address, "--supervisor", self._id.hex()]
        self._workers = [Child("worker", [*command, *alive, *worker_options]) for _ in range(workers)]
        self._server = Child("server", [*server[0], *alive], server[1]) if server else None
        self._stream: Stream | None = None
        self._ending = False  # no Event: a signal's handler that took its lock inside `wait` would wait for ever
        self._code = 0

    def end(self) -> None:
        """Begin to end; safe in a signal handler."""
        self._ending = True

    def run(self) -> int:
        """The exit code: 0, or the server's own when it gave up."""
        threading.Thread(target=self._talk, daemon=True).start()
        children = [*([self._server] if self._server else []), *self._workers]
        while not self._ending:
            for child in children:
                self._look_after(child)
            time.sleep(TICK_SECONDS)
        self._end_children()
        os.close(self._alive)
        os.close(self._pipe)
        return self._code

    def _look_after(self, child: Child) -> None:
        now = time.monotonic()
        if child.process is not None:
            code = child.process.poll()
            if code is None:
                return
            self._report(child, code)
            child.process = None
            child.restarts += 1
            child.failures = child.failures + 1 if now - child.started < SLOWEST_RESTART else 0
            # The first restart is at once; one that keeps dying waits longer and longer.
            child.not_before = now + min(SLOWEST_RESTART, 0.1 * 2**child.failures - 0.1) if child.failures else now
            if child is self._server and code == GAVE_UP:
                self._code = code
                self._ending = True
                return
            if self._server is None and code == NO_SERVER and self._stream is None:
                self._code = code
                self._ending = True
                return
        if now >= child.not_before and not self._ending:
            self._start(child)

    def _start(self, child: Child) -> None:
        environment = CHILD_ENVIRONMENT | os.environ
        child.process = subprocess.Popen(
            [*child.command, *(["--restarts", str(child.restarts)] if child.name == "worker" else [])],
            stdin=subprocess.PIPE if child.stdin is not None else subprocess.DEVNULL,
            pass_fds=[self._alive],
            env=environment,
        )
        child.started = time.monotonic()
        if child.stdin is not None and child.process.stdin is not None:
            with suppress(BrokenPipeError):  # it was killed already: the next look notices
                child.process.stdin.write(child.stdin)
                child.process.stdin.close()
        if child.name == "worker":
            self._tell(wire.Started(child.process.pid))

    def _report(self, child: Child, code: int) -> None:
        assert child.process is not None
        reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        log.warning("child.ended", child=child.name, pid=child.process.pid, reason=reason)
        if child.name == "worker":
            self._tell(wire.Died(child.process.pid, reason))

    def _end_children(self) -> None:
        """Server first, then workers; whoever is late is killed."""
        if self._server and self._server.process:
            _end([self._server.process], SERVER_GRACE)
        _end([child.process for child in self._workers if child.process], WORKER_GRACE)

    # -- the supervisor's own link ---------------------------------------------------------------------------------------

    def _talk(self) -> None:
        """The link's thread: says who we are, kills our own workers when the hub says they are frozen."""
        while not self._ending:
            try:
                stream = self._connect()
            except OSError:
                time.sleep(0.2)
                continue
            hello = wire.Hello(
                wire.LINK_VERSION, version("onceseen"), self._id, socket.gethostname(), os.getpid(), "supervisor"
            )
            self._stream = stream
            self._tell(hello)
            while (frame := stream.receive()) is not None:
                message = wire.decode_from_server(frame.header)
                if isinstance(message, wire.Kill):
                    self._kill(message.pid)
            self._stream = None
            stream.close()

    def _kill(self, pid: int) -> None:
        """Only a process that we started and that still runs: a number may be used again by another program."""
        for child in self._workers:
            if child.process is not None and child.process.pid == pid and child.process.poll() is None:
                log.warning("worker.killed", pid=pid)
                child.process.kill()

    def _tell(self, message: wire.FromWorker) -> None:
        stream = self._stream
        if stream is not None:
            try:
                stream.send(wire.encode(message))
            except ConnectionError:
                log.debug("link.ended")


def _end(processes: Sequence["subprocess.Popen[bytes]"], grace: float) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + grace
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
