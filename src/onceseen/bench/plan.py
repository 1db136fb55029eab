"""The order of measuring: limit, figure, limit, figure, limit ...; machines drift, so each figure stands between two limits."""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from onceseen.bench import folder, served
from onceseen.bench.loop import Limit, limit
from onceseen.bench.served import Served
from onceseen.bench.workload import Workload
from onceseen.errors import InvalidRequest

FIGURES = ("classify", "batch", "posts", "inline")
MORE = 1.05
"""How much more images a folder or batch has than the limit would take in the time: it shall last that long."""


class Options(msgspec.Struct, frozen=True):
    """How much is measured.

    Attributes:
        pairs: how often each figure is measured.
        seconds: for how long; limits half of it, but there are twice as many.
        only: of FIGURES, in their order.
        concurrency: posts in flight, ascending.
    """

    pairs: int = 3
    seconds: float = 10.0
    only: tuple[str, ...] = FIGURES
    concurrency: tuple[int, ...] = (1, 8, 32)


class Step(msgspec.Struct, frozen=True):
    """One figure; `concurrency` is 0 where there is none."""

    figure: str
    concurrency: int = 0

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.figure}, {self.concurrency} in flight" if self.concurrency else self.figure


class Pair(msgspec.Struct, frozen=True):
    """One figure with the limits before and after it; `bare`: the loop in one process alone, beside one post in flight."""

    served: Served
    before: Limit
    after: Limit
    bare: Limit | None = None

    @property
    def limit_rate(self) -> float:
        """Images per second."""
        return (self.before.reading.images_per_s + self.after.reading.images_per_s) / 2

    @property
    def limit_cpu_ms(self) -> float | None:
        """CPU per image."""
        before, after = self.before.reading.cpu_ms, self.after.reading.cpu_ms
        return None if before is None or after is None else (before + after) / 2

    @property
    def ratio(self) -> float:
        """By throughput."""
        return self.served.reading.images_per_s / self.limit_rate

    @property
    def ratio_cpu(self) -> float | None:
        """By CPU per image."""
        mine, theirs = self.served.reading.cpu_ms, self.limit_cpu_ms
        return None if mine is None or theirs is None or not mine else theirs / mine


class Measured(msgspec.Struct, frozen=True):
    """Everything that was measured, by step."""

    pairs: dict[Step, list[Pair]]
    limits: list[Limit]


def steps(options: Options) -> list[Step]:
    """The figures in their first order."""
    found = []
    for figure in options.only:
        if figure == "posts":
            found += [Step(figure, concurrency) for concurrency in options.concurrency]
        else:
            found.append(Step(figure, options.concurrency[-1] if figure == "inline" else 0))
    return found


class Plan:
    """Measures.

    Args:
        place: a temporary directory on the disk that is meant.
        workload: model and images.
        options: how much.
        tell: called with a title before each run.
        note: called with a sentence after each pair.
    """

    def __init__(
        self,
        place: Path,
        workload: Workload,
        options: Options,
        tell: Callable[[str], None],
        note: Callable[[str], None],
    ) -> None:
        self._place = place
        self._workload = workload
        self._options = options
        self._tell = tell
        self._say = note
        self._cores = os.cpu_count() or 1
        self._numbers: Iterator[int] = itertools.count()
        self._folder: Path | None = None

    @property
    def runs(self) -> int:
        """How often `tell` is called."""
        figures = steps(self._options)
        single = sum(step == Step("posts", 1) for step in figures)
        return 1 + self._options.pairs * (2 * len(figures) + single)

    def run(self) -> Measured:
        """All pairs; every other one in the opposite order."""
        order = steps(self._options)
        data = served.prepare_data(self._place, self._workload)
        limits = [self._limit("limit")]
        total = max(1, round(limits[0].reading.images_per_s * self._options.seconds * MORE))
        self._check_space(total)
        pairs: dict[Step, list[Pair]] = {step: [] for step in order}
        for number in range(self._options.pairs):
            for step in order if number % 2 == 0 else reversed(order):
                bare = self._limit("limit, one process", 1) if step == Step("posts", 1) else None
                self._tell(f"pair {number + 1} of {self._options.pairs}: {step.title}")
                figure = self._figure(step, data, total)
                limits.append(self._limit("limit"))
                pairs[step].append(Pair(figure, limits[-2], limits[-1], bare))
                self._note(step, pairs[step][-1])
        return Measured(pairs, limits)

    def _check_space(self, total: int) -> None:
        """A folder of so many images and a record of as many must fit.

        Raises:
            InvalidRequest: they do not.
        """
        images = [Path(image).stat().st_size for image in self._workload.images]
        needed, free = 3 * total * sum(images) // len(images), shutil.disk_usage(self._place).free
        if needed > free:
            raise InvalidRequest(
                f"{total} images need {needed >> 20:,} MB on the disk of {self._place.parent}, where {free >> 20:,} MB are free; "
                "give fewer --seconds, or another disk by --data."
            )

    def _note(self, step: Step, pair: Pair) -> None:
        rate, before, after = (
            reading.images_per_s for reading in (pair.served.reading, pair.before.reading, pair.after.reading)
        )
        self._say(f"{step.title}: {rate:,.1f}/s between limits of {before:,.1f}/s and {after:,.1f}/s")
        for reason in pair.served.reasons:
            self._say(f"  not right: {reason}")

    def _limit(self, title: str, processes: int = 0) -> Limit:
        self._tell(title)
        return limit(self._next(), self._workload, self._options.seconds / 2, processes or self._cores)

    def _figure(self, step: Step, data: Path, total: int) -> Served:
        seconds, workload = self._options.seconds, self._workload
        if step.figure == "classify":
            if self._folder is None:
                self._folder = folder.write_folder(self._place / "folder", workload, total)
            return folder.classify(self._next(), self._folder, workload, total)
        if step.figure == "batch":
            return served.served(self._next(), data, workload, seconds, served.FORMS_IN_FLIGHT, total)
        if step.figure == "inline":
            return served.served_inline(self._next(), workload, seconds, step.concurrency, self._cores)
        return served.served(self._next(), data, workload, seconds, step.concurrency)

    def _next(self) -> Path:
        return self._place / f"run-{next(self._numbers)}"
