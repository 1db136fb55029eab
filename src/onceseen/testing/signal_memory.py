"""A signal for tests, made in the simplest way: it counts, and waiters look."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterable

LOOK_EVERY = 0.001  # seconds


class SignalMemory:
    """See ports/signal.py. `deaf`: notifications are lost while it is set; `lost`: how many were."""

    def __init__(self) -> None:
        self.deaf = False
        self.lost = 0
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def notify(self, topic: str) -> None:
        """Count it."""
        with self._lock:
            if self.deaf:
                self.lost += 1
            else:
                self._counts[topic] += 1

    async def wait(self, topics: Iterable[str], timeout: float) -> bool:
        """Look until one of the counts has changed."""
        names = list(topics)
        before = self._seen(names)
        deadline = asyncio.get_running_loop().time() + timeout
        while self._seen(names) == before:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            await asyncio.sleep(min(LOOK_EVERY, left))
        return True

    def _seen(self, names: list[str]) -> list[int]:
        with self._lock:
            return [self._counts[name] for name in names]
