"""A server for tests: `onceseen up` in a process group of its own, on a private data directory and a free port."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

import httpx2 as httpx

T = TypeVar("T")
READY = "Onceseen is ready on "
START_SECONDS = 60.0
END_SECONDS = 10.0
LOG_TAIL = 4000
GUARD = """import os, sys
sys.stdin.buffer.read()
try:
    os.killpg(int(sys.argv[1]), 9)
except ProcessLookupError:
    pass
"""
"""Waits for its stdin to end: a test process that is killed takes its servers along."""


def environment(**more: str) -> dict[str, str]:
    """This process's environment without any setting of ours, and with `more`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if (not name.startswith("ONCESEEN_") or name.startswith("ONCESEEN_TEST_")) and name != "PYTHONUNBUFFERED"
    }
    source = str(Path(__file__).parents[2])
    kept["PYTHONPATH"] = os.pathsep.join([source, *filter(None, [kept.get("PYTHONPATH")])])
    return kept | more


def command(*arguments: str) -> list[str]:
    """The command line of one verb, with this very interpreter."""
    return [sys.executable, "-m", "onceseen", *arguments]


def eventually(look: Callable[[], T], timeout: float = 10.0, every: float = 0.02) -> T:
    """The first true thing that `look` gives; fails the test when there is none in time."""
    deadline = time.monotonic() + timeout
    while True:
        if found := look():
            return found
        assert time.monotonic() < deadline, f"nothing after {timeout} s"
        time.sleep(every)


class RunningServer:
    """A context manager around one server and its workers; everything it started is gone when it ends.

    Args:
        data: the data directory; a temporary one, removed at the end, without it.
        workers: worker processes of `up`.
        verb: "up", or "server" for one without workers.
        flags: further flags.
        settings: environment variables.
        samples: classify the sample images at the first start.
    """

    def __init__(
        self,
        data: Path | None = None,
        *,
        workers: int = 2,
        verb: str = "up",
        flags: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        samples: bool = False,
    ) -> None:
        self.data = data or Path(tempfile.mkdtemp(prefix="onceseen-test-"))
        self._own = data is None
        self._flags = ["--data", str(self.data), "--port", "0", *flags]
        self._flags += [] if samples else ["--no-samples"]
        self._flags += ["--workers", str(workers)] if verb == "up" else []
        self._verb = verb
        self._settings = dict(settings or {})
        self._log: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: list[int] = []
        self._guards: list[subprocess.Popen[bytes]] = []
        self._http: httpx.Client | None = None
        self.url = ""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.clean_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clean_up()

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it and wait for its ready line; also again after `stop` or a kill, on the same directory."""
        self._close()
        if self._process is not None:
            self._process.wait(END_SECONDS)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed by _close)
        self._process = subprocess.Popen(
            command(self._verb, *self._flags),
            env=environment(**self._settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=self.data.parent,
            start_new_session=True,
        )
        self._groups.append(self._process.pid)
        guard = [sys.executable, "-S", "-E", "-c", GUARD, str(self._process.pid)]
        self._guards.append(subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True))
        line = self._first_line()
        assert line.startswith(READY), f"no ready line but {line!r}; its log:\n{self.log()}"
        self.connect(line.removeprefix(READY).strip())

    def connect(self, url: str) -> None:
        """Speak to this address from now on."""
        if self._http is not None:
            self._http.close()
        self.url = url
        key = self._settings.get("ONCESEEN_API_KEY")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False, limits=limits)

    def stop(self) -> float:
        """SIGTERM; it must end with 0 within ten seconds. Returns how many it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.wait(END_SECONDS)
        assert code == 0, f"exit code {code}; its log:\n{self.log()}"
        return time.monotonic() - began

    def wait(self, timeout: float = END_SECONDS) -> int:
        """The exit code of the process that was started."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {timeout} s; its log:\n{self.log()}") from None

    def clean_up(self) -> None:
        """Kill whatever is left, remove a directory of our own."""
        for guard in self._guards:
            guard.kill()
            guard.communicate()
        for group in self._groups:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        self._guards, self._groups = [], []
        self._close()
        if self._own:
            shutil.rmtree(self.data, ignore_errors=True)

    # -- its processes -------------------------------------------------------------------------------------------------

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The process that was started."""
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        """Of the process that was started: the supervisor of `up`."""
        return self.process.pid

    @property
    def server_pid(self) -> int:
        """Of the process that serves."""
        return int(json.loads((self.data / "server.json").read_text())["pid"])

    def workers(self) -> list[int]:
        """Pids of the worker processes of this group, oldest first."""
        return [pid for pid, arguments in self.processes().items() if "onceseen.worker.main" in arguments]

    def processes(self) -> dict[int, str]:
        """Pid -> command line of every process of this group that lives."""
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,pgid=,stat=,args="], capture_output=True, text=True, check=True
        ).stdout
        found = {}
        for line in listed.splitlines():
            pid, group, state, arguments = line.split(None, 3)
            if int(group) == self.pid and not state.startswith("Z"):
                found[int(pid)] = arguments
        return dict(sorted(found.items()))

    def kill9(self, pid: int) -> None:
        """SIGKILL for one of our processes."""
        os.kill(pid, signal.SIGKILL)

    def log(self) -> str:
        """The end of what it wrote to stderr."""
        if self._log is None:
            return ""
        end = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), LOG_TAIL, max(0, end - LOG_TAIL)).decode(errors="replace")

    # -- requests --------------------------------------------------------------------------------------------------------

    @property
    def http(self) -> httpx.Client:
        """A client of the running server."""
        assert self._http is not None
        return self._http

    def get(self, path: str, **query: Any) -> Any:
        """A GET that must succeed; its JSON."""
        answer = self.http.get(path, params=query)
        assert answer.status_code == 200, (answer.status_code, answer.text)
        return answer.json()

    def submit(self, images: bytes | Sequence[tuple[str, bytes]], **query: Any) -> Any:
        """Submit one image, or a form of (name, bytes); the answer of the 201."""
        if isinstance(images, bytes):
            answer = self.http.post("/v1/jobs", params=query, content=images, headers={"content-type": "image/png"})
        else:
            files = [("images", (name, data)) for name, data in images]
            answer = self.http.post("/v1/jobs", params=query, files=files)
        assert answer.status_code == 201, (answer.status_code, answer.text)
        return answer.json()

    def wait_job(self, job: str, timeout: float = 30.0) -> Any:
        """The job once it is finished."""

        def finished() -> Any:
            found = self.get(f"/v1/jobs/{job}")
            return found if found["finished_at"] else None

        return eventually(finished, timeout, 0.03)

    def items(self, job: str, **query: Any) -> list[Any]:
        """All items of a job, page by page."""
        found: list[Any] = []
        cursor: str | None = None
        while True:
            more = {"cursor": cursor} if cursor else {}
            page = self.get(f"/v1/jobs/{job}/items", **{"limit": 1000, **query, **more})
            found += page["items"]
            cursor = page["next"]
            if cursor is None:
                return found

    def inferred(self, model: str) -> int:
        """How many images really went through a model (NAME:VERSION), by `/metrics`."""
        name, _, version = model.partition(":")
        wanted = f'onceseen_images_inferred_total{{model="{name}",version="{version}"}} '
        for line in self.http.get("/metrics").text.splitlines():
            if line.startswith(wanted):
                return int(float(line.removeprefix(wanted)))
        return 0

    def add_model(self, directory: Path) -> Any:
        """Upload a model's directory as a zip."""
        from onceseen.testing.pictures import zipped

        files = [(file.name, file.read_bytes()) for file in sorted(directory.iterdir())]
        answer = self.http.post("/v1/models", content=zipped(files))
        assert answer.status_code == 201, answer.text
        return answer.json()

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _first_line(self) -> str:
        stdout = self.process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], START_SECONDS)
        return stdout.readline().decode() if ready else ""

    def _close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        if self._log is not None:
            self._log.close()
            self._log = None
