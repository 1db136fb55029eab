"""What people read; these statements may cost a little more and are written with SQLAlchemy Core."""

from collections.abc import Container
from typing import Any

from sqlalchemy import Connection, Select, case, func, select, text

from onceseen.domain.ids import now
from onceseen.domain.job import JobRow
from onceseen.domain.task import TaskState
from onceseen.domain.views import AttemptRow, ImageView, ItemFilter, ItemView, JobFilter, LaneTotals, Totals
from onceseen.drivers.sql.schema import attempt, image, item, job, task
from onceseen.drivers.sql.search import RUNNING_ITEM, copies, item_conditions, job_conditions

DAY = 86_400_000_000  # microseconds

_ITEM = [item.c[name] for name in ItemView._fields[:17]]
_TASK = [task.c.state.label("task_state"), *(task.c[name] for name in ItemView._fields[18:])]
_WITH_TASK = item.outerjoin(task, item.c.task == task.c.id)
_JOB = [job.c[name] for name in JobRow._fields]


class SqlViews:
    """ports.database.Views."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def items(self, where: ItemFilter, limit: int) -> list[ItemView]:
        query = select(*_ITEM, *_TASK, task.c.finished_at.label("task_end")).select_from(_WITH_TASK)
        query = query.where(*item_conditions(where)).limit(limit)
        rows = self._connection.execute(_ordered(query, where))
        return [_consistent(ItemView._make(row[:-1]), row[-1]) for row in rows]

    def names(self, where: ItemFilter, limit: int) -> list[str]:
        query = select(item.c.name).distinct().select_from(_WITH_TASK).where(*item_conditions(where))
        return list(self._connection.execute(query.order_by(item.c.name).limit(limit)).scalars())

    def job(self, job_id: bytes) -> tuple[JobRow, int] | None:
        row = self._connection.execute(select(*_JOB).where(job.c.id == job_id)).first()
        if row is None:
            return None
        return JobRow._make(row), self._running([job_id]).get(job_id, 0)

    def jobs(self, where: JobFilter, limit: int) -> list[tuple[JobRow, int]]:
        query = select(*_JOB).where(*job_conditions(where)).order_by(job.c.id.desc()).limit(limit)
        rows = [JobRow._make(row) for row in self._connection.execute(query)]
        running = self._running({row.id for row in rows if row.pending})
        return [(row, running.get(row.id, 0)) for row in rows]

    def dead_letters(self, where: ItemFilter) -> list[bytes]:
        query = select(item.c.task).distinct().select_from(_WITH_TASK)
        query = query.where(*item_conditions(where._replace(dead_letters=True))).order_by(item.c.task)
        return [row[0] for row in self._connection.execute(query)]

    def image(self, project: int, digest: bytes) -> ImageView | None:
        columns = [image.c[name] for name in ImageView._fields[:-1]]
        named = image.c.digest == digest
        row = self._connection.execute(select(*columns).where(image.c.project == project, named)).first()
        if row is None:  # of several images with these pixels the oldest that is still there
            alike = select(*columns).where(image.c.project == project, image.c.digest.in_(copies(project, digest)))
            alike = alike.where(image.c.deleted_at.is_(None)).order_by(image.c.created_at, image.c.digest)
            row = self._connection.execute(alike.limit(1)).first()
        if row is None:
            return None
        found = ImageView._make([*row, ()])
        query = select(item.c.name).distinct().where(item.c.digest == found.digest, item.c.project == project)
        names = self._connection.execute(query.order_by(item.c.name).limit(1000)).scalars()
        return found._replace(names=tuple(names))

    def totals(self) -> Totals:
        recent = case((job.c.finished_at > now() - DAY, job.c.failed), else_=0)
        sums = self._rows(select(func.sum(job.c.succeeded), func.sum(job.c.failed), func.sum(recent)))[0]
        return Totals(*self.waiting(), *(value or 0 for value in sums))

    def waiting(self) -> tuple[int, int]:
        states = (text("state = 0"), text("state = 1"))  # in words, so that the partial indexes serve them
        queued, running = (self._rows(select(func.count()).select_from(task).where(state))[0][0] for state in states)
        return queued, running

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

    def _running(self, jobs: Container[bytes]) -> dict[bytes, int]:
        """Running is counted from the tasks that run: they are few (RECORD.md 3.1)."""
        if not jobs:
            return {}
        query = select(item.c.job, func.count()).where(RUNNING_ITEM).group_by(item.c.job)
        return {row[0]: row[1] for row in self._connection.execute(query) if row[0] in jobs}


def _ordered(query: Select[Any], where: ItemFilter) -> Select[Any]:
    if where.job is not None:
        return query.order_by(item.c.n)
    return query.order_by(item.c.job.desc(), item.c.n.desc())


def _consistent(view: ItemView, task_end: int | None) -> ItemView:
    """RECORD.md 3.2: what the task says belongs to a failed item only while the task has not run again.

    A task that failed once more is told by its end, which is later than the item's. A purged one has kept its end.
    """
    ran = view.task_state in (TaskState.FAILED, TaskState.CANCELLED) and view.finished_at == task_end
    if view.state == 3 and not ran:
        return view._replace(attempt=None, run_ms=None, started_at=None, result=None)
    return view
