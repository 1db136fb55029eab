"""The figures of the whole record, at a bounded price: adding up ten million jobs takes seconds, and everybody asks."""

import threading
import time
from collections.abc import Callable

from onceseen.domain.views import Totals
from onceseen.ports.database import Database

REST = 50
"""What was added up is good for so many times the processor time that it took: at most one part in fifty goes into it."""


class Counted:
    """Totals: what waits and runs is counted each time, answers and failures of all jobs are remembered for a while.

    With thousands of jobs that is a few milliseconds, with ten millions about a minute. Safe from many threads, and blocks.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float] = time.monotonic,
        cost: Callable[[], float] = time.thread_time,
    ) -> None:
        self._database = database
        self._clock = clock
        self._cost = cost
        self._adding = threading.Lock()
        self._known: Totals | None = None
        self._until = 0.0

    def read(self) -> Totals:
        """Totals; one thread adds up, the others get what was known before."""
        known = self._known
        if known is None or self._clock() >= self._until:
            known = self._add_up(known)
        with self._database.read() as reader:
            queued, running = reader.views.waiting()
        return known._replace(queued=queued, running=running)

    def _add_up(self, known: Totals | None) -> Totals:
        if not self._adding.acquire(blocking=known is None):
            assert known is not None
            return known
        try:
            if self._known is not None and self._known is not known:
                return self._known  # somebody else has done it meanwhile
            began = self._cost()
            with self._database.read() as reader:
                found = reader.views.totals()
            self._until = self._clock() + REST * (self._cost() - began)
            self._known = found
            return found
        finally:
            self._adding.release()
