"""Kills and freezes at random while clients submit: what `tests/chaos` runs and the referee judges."""

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

import httpx2 as httpx

from onceseen.testing.running import RunningServer

KINDS = ("worker", "server", "supervisor")
FREEZES = {"worker": 6.5, "server": 7.0}
"""Seconds at most: longer than the lease, so that the frozen are given up, and woken when they are."""


def free_port() -> int:
    """A port that was free a moment ago: a server that is started again must be found where it was."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class ServiceManager:
    """Starts `up` again whenever it has ended, as systemd would."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._ended = threading.Event()
        self.lock = threading.Lock()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self._ended.wait(0.05):
                if self._server.process.poll() is not None:
                    with self.lock:
                        self._server.start()
        except BaseException as error:  # a start that was refused: the test's failure, not only a thread's
            self.failure = error


class Clients:
    """Threads that submit images in posts of different sizes, each until it is promised or nobody wants it any more.

    Attributes:
        promised: images whose 201 came.
        jobs: ids of the jobs that were promised.
        refused: how often a status other than 201 came, by status.
    """

    def __init__(self, url: str, images: Sequence[bytes], model: str, seed: int, threads: int = 4) -> None:
        self._url = url
        self._model = model
        self._random = random.Random(seed)
        self._todo = [(f"{number}.png", image) for number, image in enumerate(images)]
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.promised = 0
        self.jobs: list[str] = []
        self.refused: dict[int, int] = {}
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> Self:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Send no more."""
        self._ended.set()
        self.join()

    def join(self) -> None:
        """Until every image is promised."""
        for thread in self._threads:
            thread.join()

    @property
    def left(self) -> int:
        """Images that nobody has sent yet."""
        return len(self._todo)

    def _take(self) -> list[tuple[str, bytes]]:
        with self._lock:
            count = min(len(self._todo), self._random.choice((1, 1, 5, 20)))
            return [self._todo.pop() for _ in range(count)]

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30, trust_env=False) as http:
            while not self._ended.is_set() and (images := self._take()):
                while not self._is_promised(http, images):
                    if self._ended.wait(0.1):
                        return
                time.sleep(0.02)

    def _is_promised(self, http: httpx.Client, images: Sequence[tuple[str, bytes]]) -> bool:
        with suppress(httpx.HTTPError):
            files = [("images", image) for image in images]
            answer = http.post("/v1/jobs", params={"model": self._model}, files=files)
            with self._lock:
                if answer.status_code == 201:
                    self.promised += len(images)
                    self.jobs.append(answer.json()["id"])
                else:
                    self.refused[answer.status_code] = self.refused.get(answer.status_code, 0) + 1
            return answer.status_code == 201
        return False


def kill_at_random(
    server: RunningServer, manager: ServiceManager, kills: int, freezes: int, seed: int, wanted: Callable[[], bool]
) -> list[str]:
    """SIGKILL workers, server and supervisor, and SIGSTOP the first two for some seconds, one now and then, in random order.

    `wanted`: whether there is still work to disturb; what is left over then is done all the same. Returns whom it met.
    """
    choice = random.Random(seed)
    acts = ["kill"] * kills + ["freeze"] * freezes
    choice.shuffle(acts)
    met: list[str] = []
    for act in acts:
        done = None
        while done is None:
            if wanted():
                time.sleep(choice.uniform(0.2, 0.9))
            done = _kill(server, manager, choice) if act == "kill" else _freeze(server, manager, choice)
        met.append(done)
    return met


def _kill(server: RunningServer, manager: ServiceManager, choice: random.Random) -> str | None:
    kind = choice.choice(KINDS)
    with manager.lock:  # not in the middle of a start: a service manager waits for it
        if (pid := _find(server, kind, choice)) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return f"{kind} killed"
    return None


def _freeze(server: RunningServer, manager: ServiceManager, choice: random.Random) -> str | None:
    kind = choice.choice(list(FREEZES))
    with manager.lock:
        pid = _find(server, kind, choice)
        if pid is None:
            return None
        try:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(choice.uniform(0.1, FREEZES[kind]))
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:  # its supervisor has killed it meanwhile
            pass
    return f"{kind} frozen"


def _find(server: RunningServer, kind: str, choice: random.Random) -> int | None:
    marks = {"worker": "onceseen.worker.main", "server": "onceseen.server.main"}
    if kind == "supervisor":
        return server.pid if server.process.poll() is None else None
    found = [pid for pid, line in server.processes().items() if marks[kind] in line]
    return choice.choice(found) if found else None
