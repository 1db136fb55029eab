"""The figures of the whole record are right, and are not added up for everybody who asks."""

import threading
from contextlib import contextmanager
from typing import Any

from onceseen.domain.views import Totals
from onceseen.hub.totals import REST, Counted


class Counts:
    """A database of which adding up costs one second, and which counts how often it does."""

    def __init__(self):
        self.seconds = self.spent = 0.0
        self.added = 0
        self.waiting_now = (1, 2)
        self.hold = threading.Event()
        self.hold.set()
        self.views = self

    @contextmanager
    def read(self):
        yield self

    def totals(self):
        self.added += 1
        self.spent += 1.0
        assert self.hold.wait(30)
        return Totals(0, 0, 10 * self.added, 5, 3)

    def waiting(self):
        return self.waiting_now

    def counted(self):
        database: Any = self
        return Counted(database, lambda: self.seconds, lambda: self.spent)


def test_what_waits_is_counted_each_time_and_the_rest_now_and_then():
    counts = Counts()
    totals = counts.counted()
    assert totals.read() == Totals(1, 2, 10, 5, 3)
    counts.waiting_now = (7, 8)
    counts.seconds = REST - 0.5
    assert totals.read() == Totals(7, 8, 10, 5, 3)
    assert counts.added == 1
    counts.seconds = REST + 0.5
    assert totals.read() == Totals(7, 8, 20, 5, 3)
    assert counts.added == 2


def test_one_adds_up_and_the_others_take_what_is_known():
    counts = Counts()
    totals = counts.counted()
    totals.read()
    counts.seconds, found = REST + 1.0, []
    counts.hold.clear()
    one = threading.Thread(target=lambda: found.append(totals.read()))
    one.start()
    while counts.added < 2:
        pass
    assert totals.read().succeeded == 10
    counts.hold.set()
    one.join()
    assert found[0].succeeded == 20
    assert counts.added == 2


def test_at_the_first_time_all_wait_for_the_one_who_adds_up():
    counts = Counts()
    counts.hold.clear()
    totals, found = counts.counted(), []
    threads = [threading.Thread(target=lambda: found.append(totals.read())) for _ in range(5)]
    for thread in threads:
        thread.start()
    counts.hold.set()
    for thread in threads:
        thread.join()
    assert found == [Totals(1, 2, 10, 5, 3)] * 5
    assert counts.added == 1
