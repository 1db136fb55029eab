"""Runs verbs of the command line, each in a process of its own that is forked from one that has imported everything."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Self

from onceseen.testing.running import environment


class Done(NamedTuple):
    """How a verb ended; `returncode` -9: it took too long and was killed."""

    returncode: int
    stdout: str
    stderr: str


class Verbs:
    """A context manager. Importing once instead of for each verb makes a test of fifty verbs four times faster."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "onceseen.testing.verbs"],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # `select` does not see a line that Python has read ahead
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, arguments: list[str], cwd: Path, more: dict[str, str], timeout: float = 30.0) -> Done:
        """Run one verb to its end."""
        assert self._process.stdin is not None
        with tempfile.TemporaryDirectory() as folder:
            places = [f"{folder}/stdout", f"{folder}/stderr"]
            request = {"arguments": arguments, "cwd": str(cwd), "environment": environment(**more), "places": places}
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            pid, code = int(self._line(timeout) or 0), self._line(timeout)
            if not code:
                os.killpg(pid, signal.SIGKILL)
                code = self._line(timeout)
            texts = [Path(place).read_text(errors="replace") for place in places]
        return Done(int(code), *texts)

    def _line(self, timeout: float) -> str:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout)
        return self._process.stdout.readline().decode() if ready else ""


def serve() -> None:
    """The process that forks: a line of JSON in; the child's pid and then its exit code out."""
    for name in ("cli.main", "cli.run", "cli.desk", "cli.local", "client", "server.main"):
        import_module(f"onceseen.{name}")
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(request)
        _tell(pid)
        _, status = os.waitpid(pid, 0)
        _tell(os.waitstatus_to_exitcode(status))


def _tell(number: int) -> None:
    os.write(1, f"{number}\n".encode())


def _become(request: dict[str, Any]) -> NoReturn:
    """In the child: be `onceseen ARGUMENTS`."""
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for number, place in zip((1, 2), request["places"], strict=True):
        os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT, 0o600), number)
    sys.argv = ["onceseen", *request["arguments"]]
    try:
        import_module("onceseen.cli.main").main()  # a program that is run here, not a part that is used
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
