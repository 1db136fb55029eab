"""The gauges of `/metrics`: read when somebody asks."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from onceseen.hub.state import HubState


class Gauges(Collector):
    """Register it with `hub.metrics.registry`."""

    def __init__(self, hub: HubState) -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        """What holds now."""
        workers = self._hub.workers()
        yield GaugeMetricFamily("onceseen_workers", "Workers that are connected", len(workers))
        yield GaugeMetricFamily(
            "onceseen_images_in_flight",
            "Images that workers hold",
            sum(len(lease.units) for link in workers for lease in link.leases.values()),
        )
        totals = self._hub.totals.read()
        tasks = GaugeMetricFamily("onceseen_tasks", "Tasks that wait or run", labels=["state"])
        tasks.add_metric(["queued"], totals.queued)
        tasks.add_metric(["running"], totals.running)
        yield tasks
        items = GaugeMetricFamily("onceseen_items", "Items that are answered, over all jobs", labels=["state"])
        items.add_metric(["succeeded"], totals.succeeded)
        items.add_metric(["failed"], totals.failed)
        yield items
