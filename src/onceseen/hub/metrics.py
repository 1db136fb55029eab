"""The counters of `/metrics`."""

import time
from collections import deque

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

RATE_SECONDS = 10.0


class Metrics:
    """One registry per hub, so that several hubs of one process (tests) do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._answered: deque[tuple[float, float]] = deque(maxlen=10_000)
        self._inferred_of: dict[tuple[str, str], Counter] = {}
        self._inferred = Counter(
            "onceseen_images_inferred",
            "Images that really went through a model; shared and remembered answers do not count",
            ["model", "version"],
            registry=self.registry,
        )
        self._fenced = Counter("onceseen_settles_fenced", "Late answers that changed nothing", registry=self.registry)
        self._submitted = Counter("onceseen_items_submitted", "Items that were submitted", registry=self.registry)
        self._deaths = Counter("onceseen_worker_deaths", "Workers that died or were frozen", registry=self.registry)
        self.commit_seconds = Histogram(
            "onceseen_commit_seconds", "One transaction of the writer", registry=self.registry
        )

    def inferred(self, model: str, version: str) -> None:
        """Count one run of a model."""
        key = (model, version)
        counter = self._inferred_of.get(key)
        if counter is None:  # looking it up by its labels is ten times the price of counting
            counter = self._inferred_of[key] = self._inferred.labels(model, version)
        counter.inc()

    def answered(self, waited_ms: float) -> None:
        """Note when an answer came, and how long after its submission."""
        self._answered.append((time.monotonic(), waited_ms))

    def images_per_s(self) -> float:
        """Answers of workers in the last seconds."""
        since = time.monotonic() - RATE_SECONDS
        return sum(moment > since for moment, _ in self._answered) / RATE_SECONDS

    def p95_ms(self) -> float | None:
        """95 of 100 of the latest answers came within so many milliseconds after their submission; None without any."""
        waited = sorted(waited for _, waited in self._answered)
        return waited[len(waited) * 95 // 100] if waited else None

    def images_of(self, model: str, version: str) -> int:
        """Runs of one version so far."""
        for metric in self._inferred.collect():
            for sample in metric.samples:
                if sample.name.endswith("_total") and sample.labels == {"model": model, "version": version}:
                    return int(sample.value)
        return 0

    def fenced(self, n: int) -> None:
        """Count late answers."""
        self._fenced.inc(n)

    def submitted(self, n: int) -> None:
        """Count items."""
        self._submitted.inc(n)

    def death(self) -> None:
        """Count a worker's death."""
        self._deaths.inc()

    def text(self) -> bytes:
        """All of it in the Prometheus text format."""
        return generate_latest(self.registry)
