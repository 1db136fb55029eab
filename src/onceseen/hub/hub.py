"""The hub: takes submissions, hands tasks to workers, writes what they answer.

Everything here runs on one event loop; bytes and rows are written by the two threads of `writer`. ARCHITECTURE.md has
the map. What people ask (`submit`, `wait`, `look`, `control`) is in `desk`, the life of links in `reception`.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

import structlog

from onceseen.domain.events import TOPIC
from onceseen.domain.ids import now
from onceseen.domain.machine import INNOCENT, Blame
from onceseen.domain.task import Fence, Head, TaskRow
from onceseen.flow import group as flow_group
from onceseen.flow import sweep
from onceseen.flow.work import GivenBack, Group, Outcome
from onceseen.hub import answers, reception
from onceseen.hub.cache import ImageCache
from onceseen.hub.dispatch import Dispatcher, Plan
from onceseen.hub.links import WorkerLink
from onceseen.hub.looks import Looks
from onceseen.hub.metrics import Metrics
from onceseen.hub.outbox import Outbox
from onceseen.hub.settings import HubSettings
from onceseen.hub.units import Unit, claimed_unit
from onceseen.hub.waiters import Waiters
from onceseen.hub.writer import LINGER_SECONDS, PackStage, Pending, WriterStage, fail
from onceseen.inference import manifest
from onceseen.inference.registry import Catalog
from onceseen.ports.blobs import Blobs
from onceseen.ports.database import Database, Reader, Transaction
from onceseen.ports.link import Link
from onceseen.ports.signal import Signal
from onceseen.wire.link import FromWorker

log = structlog.get_logger()
T = TypeVar("T")


class Hub:
    """One server's part that holds workers and writes the record.

    Args:
        database: the record; this hub is its only writer on SQLite.
        blobs: where bytes lie.
        signal: wakes whoever watches events.
        models: the directory that holds models' own directories.
        settings: limits and times.
    """

    def __init__(self, database: Database, blobs: Blobs, signal: Signal, models: Path, settings: HubSettings) -> None:
        self.database = database
        self.blobs = blobs
        self.signal = signal
        self.models = models
        self.settings = settings
        self.metrics = Metrics()
        self.me = 0
        self.loop: asyncio.AbstractEventLoop = None  # type: ignore[assignment]  # set by start
        self.catalog = Catalog()
        self.links: dict[bytes, WorkerLink] = {}  # by the peer's id
        self.dispatcher = Dispatcher()
        self.waiters = Waiters()
        self.outbox = Outbox()
        self.open: dict[bytes, Unit] = {}  # keys that run here or are about to
        self.held: dict[
            tuple[bytes, int], Unit
        ] = {}  # (task, attempt) from claim or insert until its settle is committed
        self.cache = ImageCache(settings.cache_bytes)
        self.pending_bytes = 0  # of submissions on their way to the disk
        self.draining = False
        self.stopped = False
        self.open_jobs: set[bytes] = set()  # submissions that are being received
        self.check_held = False  # the next transaction puts back running rows that no lease names
        self.controlled = False  # jobs that a cancel, delete or retry has still to follow through
        self.joined = asyncio.Event()  # a worker is warm, or will never be
        self.looks = Looks()
        self.pack = PackStage(blobs, database, self._packed, self._linger)
        took = self.metrics.commit_seconds.observe
        self.writer = WriterStage(database, self._commit, self._gather, self._apply, self._refused, self._linger, took)
        self._plans: list[Plan] = []
        self._peek_stack = ExitStack()
        self._peeking: Reader | None = None
        self._readers = ThreadPoolExecutor(4, "readers")
        self._tasks: list[asyncio.Task[None]] = []
        self._errands: set[asyncio.Task[None]] = set()

    # -- life ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the record over: a new server id, tasks of dead servers back, the queue goes on by itself."""
        self.loop = asyncio.get_running_loop()
        self._tasks = [asyncio.create_task(self.pack.run()), asyncio.create_task(self.writer.run())]
        started = now()

        def begin(tx: Transaction) -> None:
            self.me = tx.servers.begin(socket.gethostname(), os.getpid(), started)
            self.outbox.given_back += sweep.of_dead_servers(tx, self.me)
            sweep.broken_off(tx, self.me, ())
            sweep.unfinished_local(tx, self.me)
            self.outbox.leftovers += tx.items.stranded(500)
            self.dispatcher.heads = tx.tasks.heads()

        await self.writer.call(begin)
        await self.reload_catalog()
        self._tasks.append(asyncio.create_task(reception.watch(self)))
        self._tasks.append(asyncio.create_task(reception.sweeps(self)))
        self.writer.wake()

    def drain(self) -> None:
        """Begin to end: nothing new goes to workers, whoever waits for a job hears what there is."""
        self.draining = True
        self.waiters.close()

    async def stop(self, grace: float = 4.0) -> None:
        """Drain: nothing new is begun; what workers have begun may end within `grace` seconds, the rest goes back."""
        self.drain()
        deadline = self.clock() + grace
        for link in self.workers():
            for lease in list(link.leases.values()):
                if lease.begun_at is None:
                    self.give_back(link, lease.number, INNOCENT)
        while self.clock() < deadline and any(link.leases for link in self.workers()):
            await asyncio.sleep(0.02)
        reception.dismiss(self)
        while self.clock() < deadline + 2 and self.outbox:
            self.writer.wake()
            await asyncio.sleep(0.02)
        self.stopped = True
        for task in [*self._tasks, *self._errands]:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self.waiters.close()
        self.pack.close()
        self.writer.close()
        self._readers.shutdown()
        self._peek_stack.close()

    def clock(self) -> float:
        """The loop's clock, seconds."""
        return asyncio.get_running_loop().time()

    async def reload_catalog(self) -> None:
        """Read the models anew."""

        def read() -> Catalog:
            with self.database.read() as reader:
                return Catalog(reader.models.all(), reader.models.defaults())

        self.catalog = await self.read(read)
        for model in self.catalog.models:
            self.dispatcher.lane(model.lane).timeout = model.manifest.timeout

    def peek(self, key: bytes) -> TaskRow | None:
        """What the record says of a key, now, on the event loop: one look in memory-mapped pages."""
        if self._peeking is None:
            self._peeking = self._peek_stack.enter_context(self.database.read())
        return self._peeking.tasks.find(key)

    async def refresh_heads(self) -> None:
        """Ask the record anew which lanes have waiting tasks."""

        def heads() -> dict[bytes, Head]:
            with self.database.read() as reader:
                return reader.tasks.heads()

        self.dispatcher.heads = await self.read(heads)
        self.writer.wake()

    async def read(self, function: Callable[[], T]) -> T:
        """Run a blocking read in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, function)

    def errand(self, coroutine: Coroutine[None, None, None]) -> None:
        """Run a coroutine beside everything else; it ends with the hub at the latest."""
        if self.stopped:
            coroutine.close()
            return
        task = asyncio.create_task(coroutine)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    # -- links ---------------------------------------------------------------------------------------------------------

    def accept(self, link: Link) -> WorkerLink:
        """ports.link.Accept."""
        return WorkerLink(self, link, self.clock())

    def heard(self, link: WorkerLink, message: FromWorker, payload: bytes) -> None:
        """A message of a worker or supervisor."""
        reception.heard(self, link, message, payload)

    def link_closed(self, link: WorkerLink) -> None:
        """A link ended."""
        reception.closed(self, link)

    def workers(self) -> list[WorkerLink]:
        """Links of workers."""
        return [link for link in self.links.values() if link.is_worker]

    def forgive(self, lane: bytes) -> None:
        """A model was added or promoted again: a lane that was given up is tried anew."""
        state = self.dispatcher.lane(lane)
        state.broken, state.load_deaths = None, 0
        self.writer.wake()

    def place_of(self, lane: bytes) -> tuple[str, bytes] | None:
        """Where a worker finds a model: its directory and its manifest."""
        model = self.catalog.of_lane(lane)
        if model is None:
            return None
        return str(self.models / model.row.location), manifest.to_json(model.manifest)

    # -- from the pack thread to the writer -------------------------------------------------------------------------------

    def _packed(self, group: list[Pending]) -> None:
        self.outbox.chunks += group
        self.writer.wake()

    def _linger(self) -> float:
        """Gather for half of the time that the ready work will last, at most 25 ms; not at all when workers would idle."""
        workers = self.workers()
        if not workers:
            return 0.0
        waiting = sum(link.waiting_ms for link in workers) / len(workers) / 1e3
        return min(LINGER_SECONDS, waiting / 2)

    def _commit(self, tx: Transaction, group: Group) -> Outcome:
        return flow_group.commit(tx, group, self.me, self.catalog, now(), self.settings.max_deaths)

    def _gather(self) -> tuple[Group, list[Pending]]:
        group, pendings = self.outbox.take()
        if self.check_held:
            group.held, self.check_held = set(self.held), False
        coming: dict[bytes, int] = {}
        for chunk in group.chunks:
            for entry in chunk.entries:
                if entry.task and entry.task.server is None:
                    known = coming.get(entry.task.lane, entry.task.priority)
                    coming[entry.task.lane] = min(known, entry.task.priority)
        if not self.draining:
            free = [link for link in self.workers() if not link.left]
            self._plans = self.dispatcher.plan(free, self.clock(), coming)
            group.claims = self.dispatcher.wishes(self._plans)
        group.lanes = {*coming, *self.dispatcher.heads, *(given.lane for given in group.given_back)}
        return group, pendings

    def _refused(self, group: Group, pendings: list[Pending], error: Exception) -> None:
        """The transaction did not happen: submissions hear of it, all else is tried again."""
        self._end_plans()
        for pending in pendings:
            answers.drop_early(self, pending)
            fail(pending.done, error)
        self.outbox.put_back(group)

    def _end_plans(self) -> list[Plan]:
        plans, self._plans = self._plans, []
        for plan in plans:
            plan.link.planned_ms = max(0.0, plan.link.planned_ms - plan.n * plan.cost_ms)
        return plans

    def _apply(self, group: Group, pendings: list[Pending], outcome: Outcome) -> None:
        """What a committed transaction means for everybody."""
        plans = self._end_plans()
        for lane in group.lanes:
            self.dispatcher.heads.pop(lane, None)
        self.dispatcher.heads |= outcome.heads
        self.outbox.leftovers += outcome.leftovers
        answers.early_rows(self, pendings, outcome)
        facts = answers.settled(self, group, outcome)
        for pending in pendings:
            if not pending.done.done():
                pending.done.set_result(outcome)
        self.waiters.tell(outcome, facts)
        if outcome.claimed:
            units = {lane: [claimed_unit(lane, task) for task in tasks] for lane, tasks in outcome.claimed.items()}
            for lane_units in units.values():
                for unit in lane_units:
                    self.held[unit.task, unit.attempt] = unit
                    self.open[unit.key] = unit
            self._hand_out(plans, self._without_broken(units), outcome.places)
        if outcome.events:
            self.signal.notify(TOPIC)
        self.feed_local()
        if self.outbox or (self.dispatcher.heads and self._free_credit()):
            self.writer.wake()

    def _free_credit(self) -> bool:
        lanes = [self.dispatcher.lane(lane) for lane in self.dispatcher.heads]
        return any(self.dispatcher.credit(link, lane) for link in self.workers() if not link.left for lane in lanes)

    # -- to the workers ------------------------------------------------------------------------------------------------

    def _hand_out(self, plans: list[Plan], units: dict[bytes, list[Unit]], places: dict[bytes, str]) -> None:
        """Give claimed units their bytes, from memory where they still are, else from the store."""
        missing = []
        for lane_units in units.values():
            for unit in lane_units:
                unit.data = self.cache.take(unit.digest)
                if unit.data is None:
                    place = places.get(unit.digest)
                    if place is not None and place.startswith("path:"):
                        unit.path = place[5:]
                    else:
                        missing.append((unit, place))
        if not missing:
            self._lease_out(plans, units)
            return
        for plan in plans:
            plan.link.planned_ms += plan.n * plan.cost_ms  # still reserved while the store is read

        async def fetch() -> None:
            await answers.fetch(self, missing)
            for plan in plans:
                plan.link.planned_ms = max(0.0, plan.link.planned_ms - plan.n * plan.cost_ms)
            self._lease_out(plans, units)

        self.errand(fetch())

    def _without_broken(self, units: dict[bytes, list[Unit]]) -> dict[bytes, list[Unit]]:
        """Tasks of a model that cannot be loaded fail as they are claimed."""
        good = {}
        for lane, lane_units in units.items():
            error = self.dispatcher.lane(lane).broken
            if error is None and self.catalog.of_lane(lane) is None:
                error = "it is not known here any more"
            if error is None:
                good[lane] = lane_units
            else:
                answers.fail_units(self, lane_units, f"The model cannot be loaded: {error}")
        return good

    def _lease_out(self, plans: list[Plan], units: dict[bytes, list[Unit]]) -> None:
        for plan in plans:
            waiting = [unit for unit in units.get(plan.lane, ()) if not unit.dropped]
            mine, units[plan.lane] = waiting[: plan.n], waiting[plan.n :]
            if mine and not self.lease(plan.link, mine):
                units[plan.lane] = mine + units[plan.lane]
        for rest in units.values():
            for unit in rest:  # its worker has gone meanwhile
                if not unit.dropped:
                    self.back(unit, INNOCENT, None)

    def lease(self, link: WorkerLink, units: list[Unit]) -> bool:
        """Hand units of one lane to a worker; False when it cannot take them."""
        lane = units[0].lane
        state = self.dispatcher.lane(lane)
        if self.draining or link.left or link.hello is None or link.hello.id not in self.links or not link.load(lane):
            return False
        for batch in self.dispatcher.batches(units, state.cost_ms):
            link.lease(lane, batch, state.cost_ms)
        return True

    def feed_local(self) -> None:
        """Hand files of local jobs to workers with free credit; no transaction is needed for them."""
        for lane in list(self.dispatcher.local):
            for link in sorted(self.workers(), key=lambda link: link.held_ms):
                credit = 0 if self.draining or link.left else self.dispatcher.credit(link, self.dispatcher.lane(lane))
                if credit and (units := self.dispatcher.take_local(lane, credit)) and not self.lease(link, units):
                    self.dispatcher.return_local(lane, units)

    # -- what comes back -----------------------------------------------------------------------------------------------

    def give_back(self, link: WorkerLink, number: int, blame: Blame) -> None:
        """End a lease without answers; the blame's `begun` is what this lease was."""
        lease = link.leases.pop(number)
        for unit in lease.units:
            unit.started_at = lease.begun_at
            self.back(unit, blame._replace(begun=lease.begun_at is not None and blame.death), link)

    def back(self, unit: Unit, blame: Blame, link: WorkerLink | None) -> None:
        """One unit's attempt ended without an answer."""
        if unit.dropped:
            return
        if unit.local:
            answers.local_back(self, unit, blame)
        elif not unit.task:
            unit.lost = blame  # its rows decide what there is to give back
        else:
            worker = link.hello.id if link and link.hello else None
            fence = Fence(unit.task, unit.attempt, self.me)
            self.outbox.given_back.append(GivenBack(fence, unit.lane, blame, worker, unit.started_at))
            self.writer.wake()
