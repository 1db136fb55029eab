"""The signal inside one server: wake-ups between threads and coroutines of one process."""

import asyncio
import contextlib
import threading
from collections.abc import Iterable


class SignalLocal:
    """See ports/signal.py. Waiters may be on any number of loops; each is woken on its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: dict[str, set[_Waiter]] = {}

    def notify(self, topic: str) -> None:
        """Wake all that wait for the topic now, from any thread."""
        with self._lock:
            waiters = list(self._waiters.get(topic, ()))
        for waiter in waiters:
            waiter.wake()

    async def wait(self, topics: Iterable[str], timeout: float) -> bool:
        """Return True soon after one of the topics was notified during this call, False after `timeout` seconds."""
        waiter = _Waiter(asyncio.get_running_loop())
        names = set(topics)
        with self._lock:
            for name in names:
                self._waiters.setdefault(name, set()).add(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter.woken
        except TimeoutError:
            return False
        finally:
            self._forget(waiter, names)
        return True

    def _forget(self, waiter: "_Waiter", names: set[str]) -> None:
        with self._lock:
            for name in names:
                waiters = self._waiters[name]
                waiters.discard(waiter)
                if not waiters:
                    del self._waiters[name]


class _Waiter:
    """One call of wait()."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._called = False  # many notifications, one callback
        self.woken: asyncio.Future[None] = loop.create_future()

    def wake(self) -> None:
        """End the wait, from any thread."""
        if self._called:
            return
        self._called = True
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the wait with it
            self._loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)
