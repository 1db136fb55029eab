"""Kills at random while clients submit: what `tests/chaos` runs and the referee judges."""

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

import httpx2 as httpx

from onceseen.testing.running import RunningServer

KINDS = ("worker", "server", "supervisor")


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
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            if self._server.process.poll() is not None:
                with self.lock:
                    self._server.start()


class Clients:
    """Threads that submit images in posts of different sizes, each until it is promised."""

    def __init__(self, url: str, images: Sequence[bytes], model: str, seed: int, threads: int = 4) -> None:
        self._url = url
        self._model = model
        self._random = random.Random(seed)
        self._todo = [(f"{number}.png", image) for number, image in enumerate(images)]
        self._lock = threading.Lock()
        self.promised = 0
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Until every image is promised."""
        for thread in self._threads:
            thread.join()

    def _take(self) -> list[tuple[str, bytes]]:
        with self._lock:
            count = min(len(self._todo), self._random.choice((1, 1, 5, 20)))
            return [self._todo.pop() for _ in range(count)]

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30, trust_env=False) as http:
            while images := self._take():
                while not self._is_promised(http, images):
                    time.sleep(0.1)
                with self._lock:
                    self.promised += len(images)
                time.sleep(0.02)

    def _is_promised(self, http: httpx.Client, images: Sequence[tuple[str, bytes]]) -> bool:
        with suppress(httpx.HTTPError):
            files = [("images", image) for image in images]
            answer = http.post("/v1/jobs", params={"model": self._model}, files=files)
            return answer.status_code == 201
        return False


def kill_at_random(server: RunningServer, manager: ServiceManager, kills: int, seed: int) -> list[str]:
    """SIGKILL workers, server and supervisor, one now and then; whom it met."""
    choice = random.Random(seed)
    met: list[str] = []
    while len(met) < kills:
        time.sleep(choice.uniform(0.2, 0.9))
        kind = choice.choice(KINDS)
        with manager.lock:  # not in the middle of a start: a service manager waits for it
            found = {
                "worker": server.workers(),
                "server": [pid for pid, line in server.processes().items() if "onceseen.server.main" in line],
                "supervisor": [server.pid] if server.process.poll() is None else [],
            }[kind]
            if found:
                with suppress(ProcessLookupError):
                    os.kill(choice.choice(found), signal.SIGKILL)
                    met.append(kind)
    return met
