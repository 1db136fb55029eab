"""What people read; these statements may cost a little more and are written with SQLAlchemy Core."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select, text, tuple_

from onceseen.domain.ids import now
from onceseen.domain.job import JobRow
from onceseen.domain.task import TaskState
from onceseen.domain.views import AttemptRow, ImageView, ItemFilter, ItemView, LaneTotals, Totals
from onceseen.drivers.sql.schema import attempt, image, item, job, task
from onceseen.errors import REMEMBERED

DAY = 86_400_000_000  # microseconds

_ITEM = [item.c[name] for name in ItemView._fields[:17]]
_TASK = [task.c.state.label("task_state"), *(task.c[name] for name in ItemView._fields[18:])]
_JOB = [job.c[name] for name in JobRow._fields]
_STATES = {"succeeded": 2, "failed": 3, "cancelled": 4}


class SqlViews:
    """ports.database.Views."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def items(self, where: ItemFilter, limit: int) -> list[ItemView]:
        query = select(*_ITEM, *_TASK, task.c.finished_at.label("task_end")).select_from(
            item.outerjoin(task, item.c.task == task.c.id)
        )
        query = query.where(*_conditions(where)).limit(limit)
        rows = self._connection.execute(_ordered(query, where))
        return [_consistent(ItemView._make(row[:-1]), row[-1]) for row in rows]

    def job(self, job_id: bytes) -> tuple[JobRow, int] | None:
        row = self._connection.execute(select(*_JOB).where(job.c.id == job_id)).first()
        if row is None:
            return None
        return JobRow._make(row), self._running([job_id]).get(job_id, 0)

    def jobs(self, before: bytes | None, limit: int) -> list[tuple[JobRow, int]]:
        query = select(*_JOB).where(job.c.state != 0, job.c.control != 2).order_by(job.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(job.c.id < before)
        rows = [JobRow._make(row) for row in self._connection.execute(query)]
        running = self._running([row.id for row in rows if row.pending])
        return [(row, running.get(row.id, 0)) for row in rows]

    def image(self, project: int, digest: bytes) -> ImageView | None:
        columns = [image.c[name] for name in ImageView._fields[:-1]]
        named = image.c.digest == digest
        row = self._connection.execute(select(*columns).where(image.c.project == project, named)).first()
        if row is None:
            pixels = and_(image.c.pixel_digest == digest, image.c.pixel_digest.is_not(None))
            row = self._connection.execute(select(*columns).where(image.c.project == project, pixels).limit(1)).first()
        if row is None:
            return None
        found = ImageView._make([*row, ()])
        query = select(item.c.name).distinct().where(item.c.digest == found.digest, item.c.project == project)
        names = self._connection.execute(query.order_by(item.c.name).limit(1000)).scalars()
        return found._replace(names=tuple(names))

    def totals(self) -> Totals:
        by_state = dict(
            self._rows(select(task.c.state, func.count()).where(task.c.state.in_((0, 1))).group_by(task.c.state))
        )
        sums = self._rows(select(func.sum(job.c.succeeded), func.sum(job.c.failed)))[0]
        recent = select(func.sum(job.c.failed)).where(job.c.finished_at > now() - DAY)
        failed_24h = self._rows(recent)[0][0]
        return Totals(by_state.get(0, 0), by_state.get(1, 0), sums[0] or 0, sums[1] or 0, failed_24h or 0)

    def lanes(self) -> list[LaneTotals]:
        queued = text("state = 0")  # in words, so that the partial index serves it
        groups = self._rows(select(task.c.lane, func.count(), func.min(task.c.id)).where(queued).group_by(task.c.lane))
        since = dict(self._rows(select(task.c.id, task.c.queued_at).where(task.c.id.in_([row[2] for row in groups]))))
        return [LaneTotals(lane, count, since[first]) for lane, count, first in groups]

    def attempts(self, task_id: bytes) -> list[AttemptRow]:
        query = select(*(attempt.c[name] for name in AttemptRow._fields)).where(attempt.c.task == task_id)
        return [AttemptRow._make(row) for row in self._connection.execute(query.order_by(attempt.c.n))]

    def _rows(self, query: Select[Any]) -> list[Any]:
        return list(self._connection.execute(query))

    def _running(self, jobs: Sequence[bytes]) -> dict[bytes, int]:
        """Running is counted from the tasks that run: they are few (RECORD.md 3.1)."""
        if not jobs:
            return {}
        query = select(item.c.job, func.count()).select_from(task.join(item, item.c.task == task.c.id))
        query = query.where(task.c.state == int(TaskState.RUNNING), item.c.state == 0, item.c.job.in_(jobs))
        return {row[0]: row[1] for row in self._connection.execute(query.group_by(item.c.job))}


def _conditions(where: ItemFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [item.c.project == where.project]
    if where.job is not None:
        found.append(item.c.job == where.job)
    if where.n is not None:
        found.append(item.c.n == where.n)
    if where.digest is not None:
        found.append(item.c.digest == where.digest)
    if where.label is not None:
        found.append(item.c.label == where.label)
    if where.states:
        found.append(or_(*(_is(state) for state in where.states)))
    if where.dead_letters:
        found += [item.c.state == 3, task.c.state == 3, task.c.error_kind.not_in(sorted(REMEMBERED))]
    if where.after is not None:
        place = tuple_(item.c.job, item.c.n)
        found.append(item.c.n > where.after[1] if where.job is not None else place < tuple_(*where.after))
    return found


def _is(state: str) -> ColumnElement[bool]:
    if state in _STATES:
        return item.c.state == _STATES[state]
    running = task.c.state == int(TaskState.RUNNING)
    if state == "running":
        return and_(item.c.state == 0, running)
    if state == "queued":
        return and_(item.c.state == 0, or_(task.c.state.is_(None), ~running))
    return item.c.state == 0


def _ordered(query: Select[Any], where: ItemFilter) -> Select[Any]:
    if where.job is not None:
        return query.order_by(item.c.n)
    return query.order_by(item.c.job.desc(), item.c.n.desc())


def _consistent(view: ItemView, task_end: int | None) -> ItemView:
    """RECORD.md 3.2: what the task says belongs to a failed item only while the task has not run again.

    A task that failed once more is told by its end, which is later than the item's.
    """
    if view.state == 3 and (view.task_state != TaskState.FAILED or view.finished_at != task_end):
        return view._replace(attempt=None, run_ms=None, started_at=None, result=None)
    return view
