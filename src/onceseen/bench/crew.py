"""The processes of one figure: started together, measured together, ended together."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from onceseen.bench.board import Board
from onceseen.errors import OnceseenError
from onceseen.worker.supervisor import CHILD_ENVIRONMENT

END_SECONDS = 10.0
START_SECONDS = 120.0
LOG_TAIL = 2000
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


def environment() -> dict[str, str]:
    """This process's without any setting of ours: what is measured is what is shipped."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ONCESEEN_")}
    kept["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [kept.get("PYTHONPATH")])])
    return kept


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """SIGINT and SIGTERM come after the block: a process that was started and not yet noted would be left behind."""
    came: list[int] = []
    usual = {number: signal.signal(number, lambda number, _: came.append(number)) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


class Crew:
    """A context manager: whatever it started or wrote is gone when it ends.

    Args:
        place: a directory of its own, for the board and the processes' logs.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(parents=True, exist_ok=True)
        self.board = Board(place / "board")
        self.processes: list[subprocess.Popen[bytes]] = []
        self._texts: dict[int, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _uninterrupted():
            for process in self.processes:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        with suppress(OSError):
                            pipe.close()
            self.board.close()
            shutil.rmtree(self.place, ignore_errors=True)  # a record of some seconds may have gigabytes

    def start(self, arguments: Sequence[str], more: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
        """Start `python ARGUMENTS` in a process group of its own; it may end when its stdin does.

        Args:
            arguments: of Python.
            more: environment variables that this process does not set.
        """
        with (self.place / f"log-{len(self.processes)}").open("wb") as log, _uninterrupted():
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env={**(more or {}), **environment()},
                cwd=self.place,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
            self.processes.append(process)
            self._texts[process.pid] = b""
        return process

    def start_part(self, module: str, **told: Any) -> "subprocess.Popen[bytes]":
        """Start one of this package's own programs as a worker is started, with what it is told as JSON in a file."""
        file = self.place / f"told-{len(self.processes)}.json"
        file.write_text(json.dumps({"board": str(self.place / "board"), **told}))
        return self.start(["-m", f"onceseen.bench.{module}", str(file)], CHILD_ENVIRONMENT)

    def line(self, process: "subprocess.Popen[bytes]", timeout: float = START_SECONDS) -> str:
        """The next line that it writes.

        Raises:
            OnceseenError: it ended or was silent; with the end of its log.
        """
        assert process.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in (text := self._texts[process.pid]):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
            if not part:
                raise OnceseenError(
                    f"A process of the benchmark {'ended' if ready else 'was silent'}: {self.log(process)}"
                )
            self._texts[process.pid] = text + part
        line, _, self._texts[process.pid] = text.partition(b"\n")
        return line.decode(errors="replace")

    def answer(self, process: "subprocess.Popen[bytes]") -> Any:
        """The next line as JSON."""
        return json.loads(self.line(process))

    def check(self) -> None:
        """Nobody has died.

        Raises:
            OnceseenError: somebody has; with the end of its log.
        """
        for process in self.processes:
            if process.poll() is not None:
                raise OnceseenError(f"A process of the benchmark ended with {process.returncode}: {self.log(process)}")

    def wait(self, process: "subprocess.Popen[bytes]") -> int:
        """Its exit code.

        Raises:
            OnceseenError: it does not end.
        """
        try:
            return process.wait(START_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise OnceseenError(f"A process of the benchmark does not end: {self.log(process)}") from error

    def stop(self, process: "subprocess.Popen[bytes]") -> None:
        """SIGTERM, and wait; whoever is late is killed with the crew."""
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)

    def log(self, process: "subprocess.Popen[bytes]") -> str:
        """The end of what it wrote to stderr."""
        file = self.place / f"log-{self.processes.index(process)}"
        return file.read_bytes()[-LOG_TAIL:].decode(errors="replace").strip() or "it said nothing"
