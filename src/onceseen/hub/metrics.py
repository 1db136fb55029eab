"""The counters and gauges of `/metrics`."""

import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from onceseen.hub.hub import Hub


RATE_SECONDS = 10.0


class Metrics:
    """One registry per hub, so that several hubs of one process (tests) do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._answered: deque[tuple[float, float]] = deque(maxlen=10_000)
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
        self._inferred.labels(model, version).inc()

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

    def watch(self, hub: "Hub") -> None:
        """Add gauges that are read when somebody asks."""
        self.registry.register(_Gauges(hub))

    def text(self) -> bytes:
        """All of it in the Prometheus text format."""
        return generate_latest(self.registry)


class _Gauges(Collector):
    def __init__(self, hub: "Hub") -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        workers = self._hub.workers()
        yield GaugeMetricFamily("onceseen_workers", "Workers that are connected", len(workers))
        yield GaugeMetricFamily(
            "onceseen_images_in_flight",
            "Images that workers hold",
            sum(len(lease.units) for link in workers for lease in link.leases.values()),
        )
        with self._hub.database.read() as reader:
            totals = reader.views.totals()
        tasks = GaugeMetricFamily("onceseen_tasks", "Tasks that wait or run", labels=["state"])
        tasks.add_metric(["queued"], totals.queued)
        tasks.add_metric(["running"], totals.running)
        yield tasks
        items = GaugeMetricFamily("onceseen_items", "Items that are answered, over all jobs", labels=["state"])
        items.add_metric(["succeeded"], totals.succeeded)
        items.add_metric(["failed"], totals.failed)
        yield items
