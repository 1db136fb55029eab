"""What workers bring back, on its way into the record."""

import structlog

from onceseen.domain.ids import new_id, now
from onceseen.domain.job import ImageFacts, NewImage
from onceseen.domain.machine import Blame, Standing, after_give_back
from onceseen.domain.task import CLASSIFICATION, AnsweredTask, Fence, Settlement, TaskState, picture_key
from onceseen.domain.views import FileRow
from onceseen.errors import BlobMissing, ImageError, ModelFailed
from onceseen.flow.local import ROWS_AT_ONCE
from onceseen.flow.work import Entry, Failure, GivenBack, Group, LocalAnswer, Outcome, Settled
from onceseen.hub.links import WorkerLink
from onceseen.hub.state import HubState
from onceseen.hub.units import Facts, Lease, Unit
from onceseen.hub.writer import Pending
from onceseen.wire.link import Answer, Done

log = structlog.get_logger()


def done(hub: HubState, link: WorkerLink, message: Done) -> None:
    """A worker finished a lease; a lease it no longer holds changes nothing."""
    lease = link.leases.pop(message.lease, None)
    if lease is None:
        hub.metrics.fenced(len(message.answers))
        return
    model = hub.catalog.of_lane(lease.lane)
    labels = len(model.manifest.labels) if model else 1 << 30
    if len(lease.units) != len(message.answers) or any(answer.index >= labels for answer in message.answers):
        log.error("link.wrong_answers", wanted=len(lease.units), got=len(message.answers))
        link.leases[lease.number] = lease
        link.link.close()
        return
    link.pump()
    state = hub.dispatcher.lane(lease.lane)
    finished_at = now()
    for unit, answer in zip(lease.units, message.answers, strict=True):
        unit.started_at, unit.finished_at = lease.begun_at, finished_at
        unit.answered_by = link.hello.id if link.hello else None
        if answer.scores:
            state.observed(answer.run_ms)
            hub.metrics.inferred(model.row.name if model else "", model.row.version if model else "")
            hub.metrics.answered(max(0.0, (finished_at - unit.queued_at) / 1e3))
            link.answered += 1
        if not unit.dropped:
            _hand_on(hub, unit, answer)
    hub.feed_local()
    if _may_gather(hub, lease):
        hub.writer.wake_soon()
    else:
        hub.writer.wake()


def _may_gather(hub: HubState, lease: Lease) -> bool:
    """Answers of local files wait for more of them while workers read others: a transaction for every batch is dear."""
    more = any(link.leases for link in hub.workers())
    few = len(hub.outbox.local) < ROWS_AT_ONCE
    return more and few and not hub.dispatcher.heads and all(unit.local for unit in lease.units)


def _hand_on(hub: HubState, unit: Unit, answer: Answer) -> None:
    if unit.local:
        hub.outbox.local.append(_local_answer(hub, unit, answer))
    elif unit.task:
        hub.outbox.settled.append(_settled(hub, unit, answer))
    else:
        unit.answer = answer  # an early start: its rows come first


def _settled(hub: HubState, unit: Unit, answer: Answer) -> Settled:
    model = hub.catalog.of_lane(unit.lane)
    if unit.path and answer.digest and answer.digest != unit.digest:
        answer = Answer(
            error_kind=BlobMissing.code, error=f"{unit.path} has changed since it was submitted; submit it again"
        )
    good = bool(answer.scores)
    # A clock that is set back in the middle must not end a run before it began.
    started_at = unit.started_at and max(unit.started_at, unit.queued_at)
    finished_at = max(unit.finished_at or now(), started_at or unit.queued_at)
    settlement = Settlement(
        id=unit.task,
        attempt=unit.attempt,
        server=hub.me,
        state=TaskState.SUCCEEDED if good else TaskState.FAILED,
        label=model.manifest.labels[answer.index] if model and good else None,
        score=answer.score if good else None,
        result=answer.scores if good else None,
        error_kind=answer.error_kind or None,
        error=answer.error or None,
        worker=unit.answered_by,
        started_at=started_at,
        finished_at=finished_at,
        run_ms=round(answer.run_ms, 3) if good else None,
    )
    facts = (
        ImageFacts(answer.media_type, answer.width, answer.height, unit.project, unit.digest) if answer.width else None
    )
    return Settled(settlement, facts)


def fail_units(hub: HubState, units: list[Unit], error: str) -> None:
    """End attempts for a reason that no run would change."""
    for unit in units:
        unit.finished_at = now()
        _hand_on(hub, unit, Answer(error_kind=ModelFailed.code, error=error))
        unit.dropped = True
    hub.writer.wake()


def give_back(hub: HubState, link: WorkerLink, number: int, blame: Blame) -> None:
    """End a lease without answers; the blame's `begun` is what this lease was."""
    lease = link.leases.pop(number)
    for unit in lease.units:
        unit.started_at = lease.begun_at
        back(hub, unit, blame._replace(begun=lease.begun_at is not None and blame.death), link)


def back(hub: HubState, unit: Unit, blame: Blame, link: WorkerLink | None) -> None:
    """One unit's attempt ended without an answer."""
    if unit.dropped:
        return
    if unit.local:
        _local_back(hub, unit, blame)
    elif not unit.task:
        unit.lost = blame  # its rows decide what there is to give back
    else:
        worker = link.hello.id if link and link.hello else None
        fence = Fence(unit.task, unit.attempt, hub.me)
        hub.outbox.given_back.append(GivenBack(fence, unit.lane, blame, worker, unit.started_at))
        hub.writer.wake()


def early_rows(hub: HubState, pendings: list[Pending], outcome: Outcome) -> None:
    """Rows of early starts are written: which of them hold their task now, which were too late (RECORD.md 2.3)."""
    for pending in pendings:
        for unit in pending.early:
            row = outcome.tasks[unit.key]
            late = row.state != TaskState.RUNNING or row.server != hub.me
            if late or (row.id, row.attempt) in hub.held:  # or a claim of ours was committed a moment before
                drop(hub, unit)
                continue
            unit.task, unit.attempt, unit.queued_at = row.id, row.attempt, row.queued_at
            hub.held[unit.task, unit.attempt] = unit
            if unit.answer is not None:
                hub.outbox.settled.append(_settled(hub, unit, unit.answer))
                unit.answer = None
            elif unit.lost is not None:
                back(hub, unit, unit.lost, None)


def drop_early(hub: HubState, pending: Pending) -> None:
    """The rows of these early starts will not be written."""
    for unit in pending.early:
        drop(hub, unit)


def drop(hub: HubState, unit: Unit) -> None:
    """Whatever this attempt answers counts for nothing."""
    unit.dropped = True
    if hub.open.get(unit.key) is unit:
        del hub.open[unit.key]


def settled(hub: HubState, group: Group, outcome: Outcome) -> dict[bytes, Facts]:
    """Attempts that have ended in the record are no longer held; what is known of the answered tasks, by id."""
    facts = {
        row.id: Facts(row.state, row.lane, row.attempt, row.result, row.queued_at, row.started_at, row.run_ms)
        for row in outcome.tasks.values()
        if row.state in (TaskState.SUCCEEDED, TaskState.FAILED)
    }
    late = 0
    for answer in group.settled:
        ended = answer.settlement
        unit = _release(hub, ended.id, ended.attempt)
        if outcome.answers.get(ended.id) is not ended:
            late += 1
        elif unit is not None:
            result = (ended.result, unit.queued_at, ended.started_at, ended.run_ms)
            facts[ended.id] = Facts(ended.state, unit.lane, ended.attempt, *result)
    if late:
        hub.metrics.fenced(late)
    for given in group.given_back:
        _release(hub, given.fence.id, given.fence.attempt)
    _tell_local(hub, group, outcome, facts)
    return facts


def _release(hub: HubState, task: bytes, attempt: int) -> Unit | None:
    unit = hub.held.pop((task, attempt), None)
    if unit is not None and hub.open.get(unit.key) is unit:
        del hub.open[unit.key]
    return unit


async def fetch(hub: HubState, missing: list[tuple[Unit, str | None]]) -> None:
    """Read claimed images from the store; one that is gone or damaged fails with its reason (RECORD.md 3.6)."""
    found = await stored(hub, [place for _, place in missing])
    for (unit, place), data in zip(missing, found, strict=True):
        if isinstance(data, bytes):
            unit.data = data
        else:
            await lost(hub, [unit], place, data)
    hub.writer.wake()


async def stored(hub: HubState, places: list[str | None]) -> list[bytes | ImageError]:
    """The bytes at these places of the store, or why they are not there."""

    def read() -> list[bytes | ImageError]:
        found: list[bytes | ImageError] = []
        for place in places:
            try:
                found.append(hub.blobs.get(place) if place else BlobMissing())
            except ImageError as error:
                found.append(error)
            except OSError as error:
                found.append(BlobMissing(f"The stored bytes cannot be read ({error}); submit the image again."))
        return found

    return await hub.read(read)


async def lost(hub: HubState, units: list[Unit], place: str | None, error: ImageError) -> None:
    """The bytes of an image are gone: its attempts fail, and its row says so."""
    log.error("blob.lost", digest=units[0].digest.hex(), error=error.message)
    for unit in units:
        unit.dropped, unit.finished_at = True, now()
        hub.outbox.settled.append(_settled(hub, unit, Answer(error_kind=error.code, error=error.message)))
    project, digest = units[0].project, units[0].digest
    if place:  # first in the record: who asks it afterwards is told the truth
        await hub.writer.call(lambda tx: tx.images.lose(project, digest, place))
    hub.pack.forget([digest])


# -- local files ---------------------------------------------------------------------------------------------------------


def _local_answer(hub: HubState, unit: Unit, answer: Answer) -> LocalAnswer:
    """The rows of a file that a worker read."""
    file = unit.local
    assert file is not None
    if not answer.digest:  # it could not even be read
        entry = Entry(file.n, file.name, failure=Failure(answer.error_kind, answer.error), frame=unit.frame)
        return LocalAnswer(file.job, entry, None, None, file)
    unit.digest = answer.digest
    ended = _settled(hub, unit, answer).settlement
    moment = ended.finished_at
    own = (file.job.id, file.n) if file.own else None
    key = picture_key(unit.project, answer.digest, unit.frame, unit.lane, file.params, own)
    task = AnsweredTask(
        key=key,
        id=new_id(),
        project=unit.project,
        lane=unit.lane,
        kind=CLASSIFICATION,
        input=answer.digest,
        frame=unit.frame,
        params=file.params,
        state=ended.state,
        priority=file.job.priority,
        attempt=1,
        server=hub.me,
        worker=ended.worker,
        error_kind=ended.error_kind,
        error=ended.error,
        label=ended.label,
        score=ended.score,
        queued_at=file.job.created_at,
        started_at=ended.started_at,
        finished_at=moment,
        run_ms=ended.run_ms,
        result=ended.result,
    )
    facts = (answer.media_type or None, answer.width or None, answer.height or None)
    image = NewImage(unit.project, answer.digest, *facts, answer.size, f"path:{file.path}", moment)
    entry = Entry(file.n, file.name, image=image, digest=answer.digest, key=key, frame=unit.frame)
    row = FileRow(unit.project, file.path, file.size, file.mtime_ns, answer.digest)
    return LocalAnswer(file.job, entry, task, row, file)


def _local_back(hub: HubState, unit: Unit, blame: Blame) -> None:
    """A local file's worker died: deaths and suspects are kept in memory (RECORD.md 6)."""
    verdict = after_give_back(Standing(int(unit.suspect), unit.deaths, 0), blame, hub.settings.max_deaths)
    unit.suspect, unit.deaths = bool(verdict.standing.suspect), verdict.standing.deaths
    if verdict.state == TaskState.FAILED:
        answer = Answer(error_kind="worker-died", error=verdict.error or "")
        hub.outbox.local.append(_local_answer(hub, unit, answer))
        hub.writer.wake()
    else:
        hub.dispatcher.return_local(unit.lane, [unit])
        hub.feed_local()


def _tell_local(hub: HubState, group: Group, outcome: Outcome, facts: dict[bytes, Facts]) -> None:
    """Whoever submitted local files hears of each answer once it is committed."""
    if not group.local:
        return
    by_place = {(answer.job.id, answer.entry.n): answer for answer in group.local}
    for finished in outcome.done:
        answer = by_place.get((finished.finished.job, finished.finished.n))
        if answer is not None:
            known = facts.get(finished.item.task)
            answer.file.settled(finished, known.result if known else None)
