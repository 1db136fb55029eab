"""The life of links: who joins, who is alive, what a death means (RECORD.md section 5)."""

import asyncio
from typing import assert_never

import structlog

from onceseen.domain.events import TOPIC, WORKER_JOINED, WORKER_LEFT, NewEvent
from onceseen.domain.ids import now, text_of
from onceseen.domain.machine import INNOCENT, Blame
from onceseen.domain.views import WorkerRow
from onceseen.errors import UnknownModel
from onceseen.hub import answers, handed, looks
from onceseen.hub.links import WorkerLink
from onceseen.hub.state import HubState
from onceseen.ports.database import Transaction
from onceseen.wire import link as wire
from onceseen.wire.http import encode_text

log = structlog.get_logger()

WATCH_SECONDS = 0.25
LOAD_DEATHS = 3
LOAD_SECONDS = 60.0
"""Silence that is allowed while a model is loaded: a runtime may hold the interpreter's lock all the while."""


def heard(hub: HubState, link: WorkerLink, message: wire.FromWorker, payload: bytes) -> None:
    """One message of a worker or supervisor."""
    if link.hello is None and not isinstance(message, wire.Hello):
        link.link.close()
        return
    match message:
        case wire.Hello():
            _joined(hub, link, message)
        case wire.Ready(lane, ms):
            _ready(hub, link, lane, ms)
        case wire.LoadFailed(lane, error):
            link.loaded.pop(lane, None)
            broken(hub, lane, error)
        case wire.Begin(number):
            _begun(hub, link, number)
        case wire.Done():
            answers.done(hub, link, message)
            _begun(hub, link, message.begun)
        case wire.Looked():
            looks.looked(hub, link, message, payload)
        case wire.Beat(memory_mb):
            link.memory_mb = memory_mb
        case wire.Bye():
            link.left = True
        case wire.Started() | wire.Died():
            _child(message)
        case wire.Ask():
            handed.asked(hub, link, message, payload)
        case _:
            assert_never(message)


def _child(message: wire.Started | wire.Died) -> None:
    if isinstance(message, wire.Started):
        log.info("worker.started", pid=message.pid)
    else:
        log.warning("worker.died", pid=message.pid, reason=message.reason)


def _joined(hub: HubState, link: WorkerLink, hello: wire.Hello) -> None:
    if hello.link_version not in (wire.LINK_VERSION, wire.LINK_VERSION - 1):
        log.warning("link.version", theirs=hello.link_version, ours=wire.LINK_VERSION, release=hello.release)
        link.link.close()
        return
    link.hello, link.started_at = hello, now()
    hub.links[hello.id] = link
    link.send(wire.Welcome(hub.me))
    if hello.kind != "worker":
        return
    for name in hub.settings.preload:
        try:
            lane = hub.catalog.resolve(name).lane
        except UnknownModel:
            continue
        if hub.dispatcher.lane(lane).broken is None:  # else each new worker would die of it
            link.load(lane)
    row = WorkerRow(hello.id, hub.me, hello.host, hello.pid, link.started_at, link.started_at, "ready")
    hub.errand(_announce(hub, WORKER_JOINED, row))
    hub.writer.wake()
    hub.feed_local()


def _ready(hub: HubState, link: WorkerLink, lane: bytes, ms: float) -> None:
    if lane in link.loaded:
        link.loaded[lane] = True
    state = hub.dispatcher.lane(lane)
    state.load_deaths = 0
    if state.ms is None:
        state.ms = ms
    hub.joined.set()
    hub.writer.wake()
    hub.feed_local()


def _begun(hub: HubState, link: WorkerLink, number: int) -> None:
    lease = link.leases.get(number)
    if lease is not None:
        lease.begun_at = now()
        lease.deadline = hub.clock() + hub.dispatcher.lane(lease.lane).batch_seconds(len(lease.units))


def closed(hub: HubState, link: WorkerLink) -> None:
    """A link ended. Without `bye` that was a death: tasks of the begun batch are suspect, the others innocent."""
    if link.hello is None or hub.links.get(link.hello.id) is not link:
        return
    del hub.links[link.hello.id]
    if not link.is_worker:
        return
    _bury(hub, link, Blame(begun=True, death=True, why=f"worker {link.hello.pid} on {link.hello.host} ended"))


def _bury(hub: HubState, link: WorkerLink, blame: Blame) -> None:
    """Everything that a worker held goes back."""
    assert link.hello is not None
    died = not link.left
    link.left = True
    if died and not hub.draining:
        hub.metrics.death()
        begun = any(lease.begun_at is not None for lease in link.leases.values())
        loading = [lane for lane, ready in link.loaded.items() if not ready]
        if loading and not begun:
            _died_loading(hub, loading[0])
    for number in list(link.leases):
        answers.give_back(hub, link, number, blame if died else INNOCENT)
    looks.moved(hub, link)
    hub.errand(
        _announce(hub, WORKER_LEFT, WorkerRow(link.hello.id, hub.me, link.hello.host, link.hello.pid, 0, now(), "gone"))
    )


def _died_loading(hub: HubState, lane: bytes) -> None:
    state = hub.dispatcher.lane(lane)
    state.load_deaths += 1
    if state.load_deaths >= LOAD_DEATHS:
        broken(hub, lane, f"{state.load_deaths} workers in a row died while they loaded it")


def broken(hub: HubState, lane: bytes, error: str) -> None:
    """A model that cannot be loaded: its waiting tasks fail, until it is added or promoted again."""
    log.error("model.broken", lane=lane.hex(), error=error)
    hub.dispatcher.lane(lane).broken = error
    files = hub.dispatcher.local.pop(lane, ())
    answers.fail_units(hub, list(files), f"The model cannot be loaded: {error}")
    hub.joined.set()
    hub.writer.wake()


async def _announce(hub: HubState, kind: str, row: WorkerRow) -> None:
    def write(tx: Transaction) -> None:
        if kind == WORKER_JOINED:
            tx.servers.joined(row)
        else:
            tx.servers.left([row.id], row.seen_at)
        data = encode_text({"id": text_of(row.id), "host": row.host, "pid": row.pid})
        tx.events.append([NewEvent(now(), kind, hub.settings.project, text_of(row.id), data)])

    await hub.writer.call(write)
    hub.signal.notify(TOPIC)


async def watch(hub: HubState) -> None:
    """Notice workers that are silent or over their deadline, and our own sleep."""
    last = hub.clock()
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        time = hub.clock()
        if time - last > WATCH_SECONDS + 1.0:  # we were frozen, not they: read their messages first (RECORD.md 5.4)
            for link in hub.links.values():
                link.heard = link.turned = time
                for lease in link.leases.values():
                    if lease.deadline is not None:
                        lease.deadline += time - last
        last = time
        for link in hub.workers():
            patience = hub.settings.lease_seconds if all(link.loaded.values()) else LOAD_SECONDS
            if time - link.heard > patience:
                _frozen(hub, link, f"worker {_name(link)} was silent for {time - link.heard:.0f} s")
            elif any(lease.deadline is not None and time > lease.deadline for lease in link.leases.values()):
                _frozen(hub, link, f"worker {_name(link)} took longer than a batch of this model may take")
            elif looks.is_overdue(link, time):
                _frozen(hub, link, f"worker {_name(link)} took longer than it may take to look at an image")
            else:
                link.tidy()


def _name(link: WorkerLink) -> str:
    return f"{link.hello.pid} on {link.hello.host}" if link.hello else "unknown"


def _frozen(hub: HubState, link: WorkerLink, why: str) -> None:
    """Its tasks go back as at a death; its supervisor kills it if it has one here, else it is fenced when it wakes."""
    log.warning("worker.frozen", why=why)
    assert link.hello is not None
    supervisor = hub.links.get(link.hello.supervisor)
    if supervisor is not None:
        supervisor.send(wire.Kill(link.hello.pid))
    del hub.links[link.hello.id]
    owed = sum(lease.is_sent for lease in link.leases.values())
    _bury(hub, link, Blame(begun=True, death=True, why=why))
    if supervisor is not None or not owed:
        link.link.close()
    else:
        link.owed = owed


def woke(hub: HubState, link: WorkerLink, message: wire.FromWorker) -> None:
    """A worker that was given up has woken: its late answers are counted and change nothing; then it joins anew."""
    if isinstance(message, wire.Done):
        answers.done(hub, link, message)
        link.owed -= 1
        if not link.owed:
            link.link.close()


def dismiss(hub: HubState) -> None:
    """The hub ends: what workers still hold goes back. They look for a server again when their link ends."""
    for link in list(hub.links.values()):
        if link.is_worker:
            for number in list(link.leases):
                answers.give_back(hub, link, number, INNOCENT)
        link.left = True
