"""One measurement: images and CPU between two looks at counters, and what others took meanwhile."""

import os
import time
from collections.abc import Callable, Sequence

import msgspec

from onceseen.bench import procfs
from onceseen.bench.crew import START_SECONDS, Crew
from onceseen.errors import OnceseenError

WARM_SECONDS = 3.0
WINDOW_SECONDS = 0.5
AGREEMENT = 0.05


class Reading(msgspec.Struct, frozen=True):
    """What was measured.

    Attributes:
        images: answered.
        seconds: that it took.
        cpu: seconds of CPU that each part took (procfs.part_of); None where the system does not tell.
        others: share of the machine's CPU that went to other programs or was stolen by its host; None likewise.
    """

    images: int
    seconds: float
    cpu: dict[str, float] | None = None
    others: float | None = None

    @property
    def images_per_s(self) -> float:
        """Throughput."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def cpu_ms(self) -> float | None:
        """CPU milliseconds per image."""
        return None if self.cpu is None or not self.images else 1e3 * sum(self.cpu.values()) / self.images

    @property
    def cpu_parts_ms(self) -> dict[str, float] | None:
        """The same for each part."""
        if self.cpu is None or not self.images:
            return None
        return {part: 1e3 * seconds / self.images for part, seconds in self.cpu.items()}


class Look(msgspec.Struct, frozen=True):
    """Counters at one moment: seconds of time and of CPU."""

    at: float
    images: int
    cpu: dict[str, float] | None
    ours: float | None
    busy: float | None


def look(images: int, pids: Sequence[int]) -> Look:
    """Counters now; `pids`: the processes that are measured, their descendants included."""
    at = time.perf_counter()
    parts = {part: procfs.cpu_seconds(found) for part, found in procfs.by_part(pids).items()}
    cpu = {part: seconds for part, seconds in parts.items() if seconds is not None} if procfs.is_there() else None
    return Look(at, images, cpu, procfs.cpu_seconds(procfs.tree(os.getpid())), procfs.busy_seconds())


def between(first: Look, last: Look) -> Reading:
    """What happened between two looks."""
    seconds = last.at - first.at
    cpu = None
    if first.cpu is not None and last.cpu is not None:
        cpu = {part: used - first.cpu.get(part, 0.0) for part, used in last.cpu.items()}
    others = None
    if None not in (first.ours, last.ours, first.busy, last.busy) and seconds:
        foreign = (last.busy - first.busy) - (last.ours - first.ours)  # type: ignore[operator]
        others = min(1.0, max(0.0, foreign / seconds / (os.cpu_count() or 1)))
    return Reading(last.images - first.images, seconds, cpu, others)


def measure(crew: Crew, count: Callable[[], int], seconds: float, pids: Sequence[int]) -> Reading:
    """Let it run for so long."""
    first = look(count(), pids)
    time.sleep(seconds)
    last = look(count(), pids)
    crew.check()
    return between(first, last)


def warm_up(crew: Crew, count: Callable[[], int], seconds: float) -> None:
    """Wait for the first answer, then until two windows agree, for 3 s at most.

    Windows are half a second, or less where little is measured.

    Raises:
        OnceseenError: no answer came, or somebody died.
    """
    patience = time.perf_counter() + START_SECONDS
    while not (images := count()):
        crew.check()
        if time.perf_counter() > patience:
            raise OnceseenError(f"The benchmark had no answer within {START_SECONDS:.0f} s.")
        time.sleep(0.005)
    window = min(WINDOW_SECONDS, seconds / 4)
    begun, before = time.perf_counter(), 0.0
    deadline = begun + WARM_SECONDS
    while (left := deadline - time.perf_counter()) > 0:
        time.sleep(min(window, left))
        at, now = time.perf_counter(), count()
        rate = (now - images) / (at - begun)
        if rate and abs(rate - before) <= AGREEMENT * rate:
            return
        before, begun, images = rate, at, now


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    """The median and the 99th percentile; zeros without any value."""
    if not values:
        return 0.0, 0.0
    ordered = sorted(values)
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
