"""One worker's or supervisor's connection as the hub sees it: what it has loaded, what it holds, whether it lives."""

from typing import Protocol

import structlog

from onceseen.domain.task import dataset_of
from onceseen.hub.units import Lease, Unit
from onceseen.ports.link import Frame, Link
from onceseen.wire import link as wire
from onceseen.wire.shelf import Shelf

log = structlog.get_logger()

BATCH_MS = 50.0
"""Work in one batch at most; a worker holds one that it runs and one that waits (RECORD.md 4.3)."""
SHELF_SECONDS = 10.0
MODELS_A_WORKER = 4
"""Models a worker keeps loaded; the one used longest ago makes room."""


class Host(Protocol):
    """What a link needs of its hub."""

    def clock(self) -> float:
        """Seconds, of the event loop."""

    def heard(self, link: "WorkerLink", message: wire.FromWorker, payload: bytes) -> None:
        """A message came."""

    def link_closed(self, link: "WorkerLink") -> None:
        """The link has ended."""

    def place_of(self, lane: bytes) -> tuple[str, bytes] | None:
        """A model's directory and manifest."""

    def bring(self, link: "WorkerLink", lease: Lease) -> None:
        """Read the stacks of a batch that the worker does not have; then `pump` again."""


class WorkerLink:
    """ports.link.LinkHandler for both kinds of peers; which one it is, its Hello says."""

    def __init__(self, hub: Host, link: Link, now: float) -> None:
        self.hub = hub
        self.link = link
        self.hello: wire.Hello | None = None
        self.heard = now  # the loop's clock
        self.leases: dict[int, Lease] = {}
        self.loaded: dict[bytes, bool] = {}  # lane -> ready; in the order of use
        self.looks: dict[int, float] = {}  # numbers of looks in hand -> when they were sent, the loop's clock
        self.turned = now  # when it last finished something
        self.shelf: Shelf[None] = Shelf()  # stacks that it has
        self.shelf_used = now
        self.current: bytes | None = None  # the lane it stays with, since when
        self.current_since = 0.0
        self.planned_ms = 0.0  # work that a running claim will bring
        self.started_at = 0
        self.memory_mb = 0.0
        self.answered = 0
        self.left = False  # said Bye, or the hub ended it on purpose
        self.owed = 0  # batches of a worker that was given up as frozen; it may still wake and answer them
        self._numbers = 0

    @property
    def is_worker(self) -> bool:
        """Whether it takes batches."""
        return self.hello is not None and self.hello.kind == "worker"

    @property
    def held_ms(self) -> float:
        """Estimated work that it holds."""
        return sum(lease.cost_ms for lease in self.leases.values())

    @property
    def waiting_ms(self) -> float:
        """Estimated work that it holds and has not begun."""
        return sum(lease.cost_ms for lease in self.leases.values() if lease.begun_at is None)

    def received(self, frame: Frame) -> None:
        """Take one message; a peer that speaks another language is cut off."""
        self.heard = self.hub.clock()
        try:
            message = wire.decode_from_worker(frame.header)
        except Exception as error:
            log.warning("link.unreadable", error=str(error))
            self.link.close()
            return
        if isinstance(message, wire.Ready | wire.Done | wire.Looked):
            self.turned = self.heard
        self.hub.heard(self, message, frame.payload)

    def closed(self) -> None:
        """The connection ended."""
        self.hub.link_closed(self)

    def send(self, message: wire.FromServer, payload: list[bytes] | tuple[()] = ()) -> None:
        """Send one message."""
        self.link.send(wire.encode(message), payload)

    def load(self, lane: bytes) -> bool:
        """Make sure the worker has a model, in order before what follows; False when nobody knows it."""
        if lane in self.loaded:
            self.loaded[lane] = self.loaded.pop(lane)  # used last
            return True
        place = self.hub.place_of(lane)
        if place is None:
            return False
        busy = {lease.lane for lease in self.leases.values()}
        for oldest in [known for known in self.loaded if known not in busy][: len(self.loaded) - MODELS_A_WORKER + 1]:
            del self.loaded[oldest]
            self.send(wire.Unload(oldest))
        self.loaded[lane] = False
        self.send(wire.Load(lane, *place))
        return True

    def lease(self, lane: bytes, units: list[Unit], cost_ms: float, at_most: int) -> None:
        """Hand the worker one batch. While it has enough to do, the batch stays here and may grow to `at_most` images.

        So a lone image leaves at once, and under load one message, one wake-up and one answer serve several.
        """
        last = next(reversed(self.leases.values()), None)
        if last is not None and not last.is_sent and last.lane == lane and last.has_room(units, at_most):
            last.units += units
            last.cost_ms += cost_ms * len(units)
        else:
            self._numbers += 1
            self.leases[self._numbers] = Lease(self._numbers, lane, units, cost_ms * len(units))
        self.pump()

    def pump(self) -> None:
        """Send batches until the worker holds one batch's worth of work."""
        sent_ms = sum(lease.cost_ms for lease in self.leases.values() if lease.is_sent)
        for lease in self.leases.values():
            if lease.is_sent:
                continue
            if sent_ms >= BATCH_MS:
                return
            if self.missing(lease):
                if not lease.is_waiting:
                    lease.is_waiting = True
                    self.hub.bring(self, lease)
                return
            self._send_batch(lease)
            sent_ms += lease.cost_ms

    def missing(self, lease: Lease) -> dict[bytes, Unit]:
        """Stacks of a batch that the worker does not have and nobody has read: digest -> the first unit of it."""
        wanted: dict[bytes, Unit] = {}
        for unit in lease.units:
            if unit.of_stack and unit.digest not in self.shelf:
                wanted.setdefault(unit.digest, unit)
        return {digest: unit for digest, unit in wanted.items() if unit.data is None}

    def shelve(self, digest: bytes, data: bytes | None) -> int:
        """A stack is sent for, which must be here or in `data`; how many bytes of it have to travel."""
        self.shelf_used = self.hub.clock()
        if digest not in self.shelf:
            assert data is not None
            self.shelf.put(digest, len(data), None)
            return len(data)
        self.shelf.take(digest)
        return 0

    def tidy(self) -> None:
        """Have the worker forget stacks that nobody has asked for in a while."""
        if len(self.shelf) and self.hub.clock() - self.shelf_used > SHELF_SECONDS:
            self.shelf.clear()
            self.send(wire.Forget())

    def _send_batch(self, lease: Lease) -> None:
        lease.is_sent = True
        # Frames of one file stand together, and files that the worker has come first: none makes room for another too early.
        lease.units.sort(
            key=lambda unit: (unit.digest not in self.shelf, unit.digest) if unit.of_stack else (False, b"")
        )
        payload: list[bytes] = []
        images = [self._image(unit, payload) for unit in lease.units]
        self.send(wire.Batch(lease.number, lease.lane, images), payload)

    def _image(self, unit: Unit, payload: list[bytes]) -> wire.ImageRef:
        """What is said of an image; its bytes, where they travel, are added to the payload."""
        dataset = dataset_of(unit.params)
        if unit.path:
            return wire.ImageRef(path=unit.path, frame=unit.frame, dataset=dataset)
        data, unit.data = unit.data, None  # it travels once; another attempt reads it from the store
        if unit.frame is None:
            payload.append(data or b"")
            return wire.ImageRef(len(data or b""), dataset=dataset)
        size = self.shelve(unit.digest, data)
        if size and data:
            payload.append(data)
        return wire.ImageRef(size, file=unit.digest, frame=unit.frame, dataset=dataset)
