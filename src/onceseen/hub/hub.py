"""The hub: takes submissions, hands tasks to workers, writes what they answer.

Everything runs on one event loop; bytes and rows are written by the two threads of `writer`. `state` is what everybody
works on; images come in by `submission`, links by `reception`, answers go back by `answers`. This file ties them together:
the life of a hub, and what goes into each transaction and comes of it.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path

import structlog

from onceseen.domain.events import TOPIC
from onceseen.domain.ids import go_on_after, now
from onceseen.domain.machine import INNOCENT
from onceseen.errors import DatabaseAway, KeyInFlight, StoreError
from onceseen.flow import group as flow_group
from onceseen.flow import sweep
from onceseen.flow.work import Group, Outcome
from onceseen.hub import answers, chores, fetching, reception, stacks
from onceseen.hub.dispatch import Plan
from onceseen.hub.links import WorkerLink
from onceseen.hub.settings import HubSettings
from onceseen.hub.state import HubState
from onceseen.hub.units import Lease, Unit, claimed_unit
from onceseen.hub.writer import LINGER_SECONDS, TRIES, PackStage, Pending, WriterStage, fail
from onceseen.ports.blobs import Blobs
from onceseen.ports.database import Database, Transaction
from onceseen.ports.fetcher import Fetcher
from onceseen.ports.link import Link
from onceseen.ports.signal import Signal
from onceseen.wire.link import FromWorker

log = structlog.get_logger()

STRANDED = 1_000_000
"""Tasks, not items: those that had more items than one transaction settles when a server died."""


class Hub(HubState):
    """One server's part that holds workers and writes the record; see HubState for its arguments."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        signal: Signal,
        models: Path,
        settings: HubSettings,
        fetcher: Fetcher | None = None,
    ) -> None:
        super().__init__(database, blobs, signal, models, settings, fetcher)
        self.pack = PackStage(blobs, database, self._packed, self._unpacked, self._linger)
        self.writer = WriterStage(database, self, self._linger, self.metrics.commit_seconds.observe)
        self.broken: Callable[[], None] = lambda: None  # a fault of ours has ended a part of the hub
        self._mark = 0  # of the newest transaction
        self._plans: list[Plan] = []
        self._tasks: list[asyncio.Task[None]] = []

    # -- life ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the record over: a new server id, tasks of dead servers back, the queue goes on by itself."""
        self.loop = asyncio.get_running_loop()
        self._tasks = [self._stage(self.pack.run()), self._stage(self.writer.run())]
        started = now()

        def begin(tx: Transaction) -> None:
            self.me = tx.servers.begin(socket.gethostname(), os.getpid(), started)
            tx.servers.bury(self.me)  # we hold the directory's lock, so nobody else lives (RECORD.md 5.3)
            self.outbox.given_back += sweep.of_dead_servers(tx)
            sweep.broken_off(tx, self.me, ())
            sweep.unfinished_local(tx)
            self.outbox.leftovers += tx.items.stranded(STRANDED)
            self.dispatcher.heads = tx.tasks.heads()
            if (newest := tx.tasks.newest()) is not None:
                go_on_after(newest)  # queues are first in, first out, whatever the clock did meanwhile

        await self.writer.call(begin)
        await self.reload_catalog()
        self._tasks += [self._stage(reception.watch(self)), self._stage(chores.run(self))]
        if self.fetcher is not None:
            self._tasks.append(self._stage(fetching.run(self, self.fetcher)))
        self.writer.wake()

    def _stage(self, work: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        """Something that must run as long as the hub does: without it nothing would be promised or answered any more."""

        def ended(task: "asyncio.Task[None]") -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                log.critical("hub.broken", exc_info=error)
                self.broken()

        task = asyncio.create_task(work)
        task.add_done_callback(ended)
        return task

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
                    answers.give_back(self, link, lease.number, INNOCENT)
        while self.clock() < deadline and any(link.leases for link in self.workers()):
            await asyncio.sleep(0.02)
        reception.dismiss(self)
        while self.clock() < deadline + 2 and self.outbox:
            self.writer.wake()
            await asyncio.sleep(0.02)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.end_errands()
        self.waiters.close()
        self.pack.close()
        self.writer.close()

    # -- links ---------------------------------------------------------------------------------------------------------

    def accept(self, link: Link) -> WorkerLink:
        """ports.link.Accept."""
        return WorkerLink(self, link, self.clock())

    def heard(self, link: WorkerLink, message: FromWorker, payload: bytes) -> None:
        """A message of a worker or supervisor."""
        if link.owed:
            reception.woke(self, link, message)
        else:
            reception.heard(self, link, message, payload)

    def bring(self, link: WorkerLink, lease: Lease) -> None:
        """A batch has frames of stacks that its worker does not have."""
        self.errand(stacks.bring(self, link, lease))

    def link_closed(self, link: WorkerLink) -> None:
        """A link ended."""
        reception.closed(self, link)

    # -- from the pack thread to the writer -------------------------------------------------------------------------------

    def _packed(self, group: list[Pending]) -> None:
        self.outbox.chunks += group
        self.writer.wake()

    def _unpacked(self, group: list[Pending], error: Exception) -> None:
        """The store refused the bytes of these chunks."""
        for pending in group:
            answers.drop_early(self, pending)
            fail(pending.done, error)

    def _linger(self) -> float:
        """Gather for half of the time that the ready work will last, at most 25 ms; not at all when workers would idle."""
        workers = self.workers()
        if not workers:
            return 0.0
        waiting = sum(link.waiting_ms for link in workers) / len(workers) / 1e3
        return min(LINGER_SECONDS, waiting / 2)

    def commit(self, tx: Transaction, group: Group) -> Outcome:
        """hub.writer.Work. The mark tells later whether this very transaction was written."""
        self._mark = max(self._mark + 1, now())
        tx.servers.mark(self.me, self._mark)
        return flow_group.commit(tx, group, self.me, self.catalog, now(), self.settings.max_deaths)

    def is_written(self, tx: Transaction) -> bool:
        """hub.writer.Work."""
        return tx.servers.marked(self.me) == self._mark

    def gather(self) -> tuple[Group, list[Pending]]:
        """hub.writer.Work."""
        for pending in [waiting for waiting in self.outbox.chunks if waiting.is_orphan]:
            self.outbox.chunks.remove(pending)
            answers.drop_early(self, pending)
            fail(pending.done, StoreError("An earlier part of the submission was refused; send it again."))
        group, pendings = self.outbox.take()
        if self.check_held:  # and the heads: another server may have queued what it put back
            group.held, self.check_held = set(self.held), False
            group.lanes |= {model.lane for model in self.catalog.models}
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
        group.lanes |= {*coming, *self.dispatcher.heads, *(given.lane for given in group.given_back)}
        return group, pendings

    def again(self, group: Group, pendings: list[Pending]) -> None:
        """hub.writer.Work: the transaction is repeated whole (RECORD.md 1.5)."""
        for pending in pendings:
            pending.tries += 1
        if any(pending.tries >= TRIES for pending in pendings):
            self.refused(group, pendings, DatabaseAway())
            return
        self._end_plans()
        self.outbox.chunks[:0] = pendings
        self.outbox.put_back(group)

    def refused(self, group: Group, pendings: list[Pending], error: Exception) -> None:
        """hub.writer.Work: the transaction did not happen; submissions hear of it, all else is tried again."""
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

    def apply(self, group: Group, pendings: list[Pending], outcome: Outcome) -> None:
        """hub.writer.Work: what a committed transaction means for everybody."""
        plans = self._end_plans()
        for lane in group.lanes:
            self.dispatcher.heads.pop(lane, None)
        self.dispatcher.heads |= outcome.heads
        self.outbox.leftovers += outcome.leftovers
        if outcome.refused:
            pendings = self._without_refused(pendings, outcome)
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

    def _without_refused(self, pendings: list[Pending], outcome: Outcome) -> list[Pending]:
        """Nothing was written of jobs whose idempotency key another job took first."""
        for pending in pendings:
            if pending.chunk.job.id in outcome.refused:
                answers.drop_early(self, pending)
                fail(pending.done, KeyInFlight())
        return [pending for pending in pendings if pending.chunk.job.id not in outcome.refused]

    def _free_credit(self) -> bool:
        lanes = [self.dispatcher.lane(lane) for lane in self.dispatcher.heads]
        return any(self.dispatcher.credit(link, lane) for link in self.workers() if not link.left for lane in lanes)

    # -- to the workers ------------------------------------------------------------------------------------------------

    def _hand_out(self, plans: list[Plan], units: dict[bytes, list[Unit]], places: dict[bytes, str]) -> None:
        """Give claimed units their bytes, from memory where they still are, else from the store."""
        missing = [
            (unit, places.get(unit.digest))
            for lane_units in units.values()
            for unit in lane_units
            if not self._has_bytes(unit, places.get(unit.digest))
        ]
        if not missing:
            self._lease_out(plans, units)
            return
        for plan in plans:
            plan.link.planned_ms += plan.n * plan.cost_ms  # still reserved while the store is read

        async def fetch() -> None:
            try:
                await answers.fetch(self, missing)
            except Exception as error:  # nothing may stay in nobody's hands
                log.warning("blobs.unread", error=str(error))
                for unit, _ in missing:
                    if unit.data is None:
                        answers.back(self, unit, INNOCENT, None)
                        unit.dropped = True
            finally:
                for plan in plans:
                    plan.link.planned_ms = max(0.0, plan.link.planned_ms - plan.n * plan.cost_ms)
                self._lease_out(plans, units)

        self.errand(fetch())

    def _has_bytes(self, unit: Unit, place: str | None) -> bool:
        """Whether a claimed unit needs nothing of the store now; frames are brought when a worker lacks their file."""
        if unit.frame is None:
            unit.data = self.cache.take(unit.digest)
        if unit.data is None and place is not None and place.startswith("path:"):
            unit.path = place[5:]
        elif unit.frame is not None:
            unit.place = place or ""
        return unit.data is not None or bool(unit.path) or unit.frame is not None

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
                    answers.back(self, unit, INNOCENT, None)
