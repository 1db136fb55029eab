from collections.abc import Sequence

from onceseen.domain.job import AssignedItem, Counts, FinishedItem, ItemRow, ItemState, JobRow, PendingItem
from onceseen.drivers.sql.cursor import Statements

JOB = ", ".join(JobRow._fields)
ITEM = ", ".join(ItemRow._fields)
PENDING = ", ".join(PendingItem._fields)

# domain/job.py: job_state, as one statement sees it; a contract test holds the two against each other.
STATE = """CASE
  WHEN {control} = 1 THEN 4
  WHEN {pending} > 0 OR {control} <> 0 THEN 1
  WHEN {failed} > 0 THEN 3
  WHEN {cancelled} > 0 THEN 4
  ELSE 2 END"""
ADDED = STATE.format(
    control="job.control",
    pending="job.pending + q.pending",
    failed="job.failed + q.failed",
    cancelled="job.cancelled + q.cancelled",
)
COUNT = f"""
UPDATE job SET total = job.total + q.total, pending = job.pending + q.pending, succeeded = job.succeeded + q.succeeded,
  failed = job.failed + q.failed, cancelled = job.cancelled + q.cancelled,
  state = CASE WHEN job.state = 0 AND NOT q.complete THEN 0 ELSE {ADDED} END,
  finished_at = CASE WHEN (job.state = 0 AND NOT q.complete) OR job.pending + q.pending > 0 OR job.control <> 0 THEN NULL
                     ELSE coalesce(job.finished_at, max(q.at, job.created_at)) END
FROM (SELECT column1 AS id, column2 AS total, column3 AS pending, column4 AS succeeded, column5 AS failed, column6 AS cancelled,
  column7 AS complete, column8 AS at FROM (VALUES :values)) AS q
WHERE job.id = q.id
RETURNING {", ".join("job." + field for field in JobRow._fields)}
"""
RECOUNT = f"""
UPDATE job SET control = 0, control_n = 0, total = q.total, pending = q.pending, succeeded = q.succeeded, failed = q.failed,
  cancelled = q.cancelled, state = {STATE.format(control="0", pending="q.pending", failed="q.failed", cancelled="q.cancelled")},
  finished_at = CASE WHEN q.pending > 0 THEN NULL ELSE coalesce(job.finished_at, max(?, job.created_at)) END
FROM (SELECT count(*) AS total, coalesce(sum(state = 0), 0) AS pending, coalesce(sum(state = 2), 0) AS succeeded,
  coalesce(sum(state = 3), 0) AS failed, coalesce(sum(state = 4), 0) AS cancelled FROM item WHERE job = ?) AS q
WHERE job.id = ?
RETURNING {", ".join("job." + field for field in JobRow._fields)}
"""
CONTROL = f"""
UPDATE job SET control = ?, control_n = ?, state = CASE WHEN ? = 1 THEN 4 WHEN state = 0 THEN 0 ELSE 1 END, finished_at = NULL
WHERE id = ? RETURNING {JOB}
"""
FINISH = """
UPDATE item SET state = ?, label = ?, score = ?, risk = ?, found = ?, error_kind = ?, error = ?, worker = ?, finished_at = ?
WHERE job = ? AND n = ? AND state = 0
"""
REOPEN = """
UPDATE item SET state = 0, label = NULL, score = NULL, risk = NULL, found = NULL, error_kind = NULL, error = NULL, worker = NULL,
  finished_at = NULL, reused = 0
WHERE job = ? AND n IN (:list) AND state = 3
"""


class SqlJobs(Statements):
    """ports.database.Jobs."""

    def insert(self, jobs: Sequence[JobRow]) -> None:
        self._values(f"INSERT INTO job ({JOB}) VALUES :values", jobs)

    def count(self, counts: Sequence[Counts], now: int) -> list[JobRow]:
        rows = self._values(COUNT, [(*count, now) for count in counts], returns=True)
        return [JobRow._make(row) for row in rows]

    def get(self, job: bytes) -> JobRow | None:
        row = self._one(f"SELECT {JOB} FROM job WHERE id = ?", (job,))
        return JobRow._make(row) if row else None

    def control(self, job: bytes, control: int, control_n: int) -> JobRow | None:
        row = self._one(CONTROL, (control, control_n, control, job))
        return JobRow._make(row) if row else None

    def recount(self, job: bytes, now: int) -> JobRow | None:
        row = self._one(RECOUNT, (now, job, job))
        return JobRow._make(row) if row else None

    def remove(self, job: bytes) -> None:
        self._cursor.execute("DELETE FROM job WHERE id = ?", (job,))

    def controlled(self) -> list[JobRow]:
        return [JobRow._make(row) for row in self._all(f"SELECT {JOB} FROM job WHERE control <> 0")]

    def receiving(self) -> list[JobRow]:
        return [JobRow._make(row) for row in self._all(f"SELECT {JOB} FROM job WHERE state = 0")]

    def waiting(self, source: str) -> list[JobRow]:
        rows = self._all(f"SELECT {JOB} FROM job WHERE state = 1 AND source = ?", (source,))
        return [JobRow._make(row) for row in rows]


class SqlItems(Statements):
    """ports.database.Items."""

    def insert(self, items: Sequence[ItemRow]) -> None:
        self._values(f"INSERT INTO item ({ITEM}) VALUES :values", items)

    def assign(self, items: Sequence[AssignedItem]) -> None:
        sql = "UPDATE item SET digest = ?, task = ?, reused = ? WHERE job = ? AND n = ? AND state = 0 AND task IS NULL"
        self._cursor.executemany(sql, items)

    def pending(self, tasks: Sequence[bytes], limit: int) -> list[PendingItem]:
        sql = f"SELECT {PENDING} FROM item WHERE state = 0 AND task IN (:list) LIMIT ?"
        return [PendingItem._make(row) for row in self._among(sql, tasks, after=(limit,))[:limit]]

    def finish(self, items: Sequence[FinishedItem]) -> None:
        self._cursor.executemany(FINISH, items)

    def wanted(self, tasks: Sequence[bytes], state: int = ItemState.PENDING) -> set[bytes]:
        # One look for each task: DISTINCT would step over each of a million items that wait for one.
        found = f"EXISTS (SELECT 1 FROM item WHERE item.task = q.column1 AND item.state = {int(state)})"
        sql = f"SELECT column1 FROM (VALUES :values) AS q WHERE {found}"
        return {row[0] for row in self._values(sql, [(task,) for task in tasks], returns=True)}

    def stranded(self, limit: int) -> list[bytes]:
        sql = "SELECT DISTINCT item.task FROM item JOIN task ON task.id = item.task WHERE item.state = 0 AND task.state IN (2, 3)"
        return [row[0] for row in self._all(f"{sql} LIMIT ?", (limit,))]

    def slice(self, job: bytes, first: int, limit: int) -> list[ItemRow]:
        rows = self._all(f"SELECT {ITEM} FROM item WHERE job = ? AND n >= ? ORDER BY n LIMIT ?", (job, first, limit))
        return [ItemRow._make(row) for row in rows]

    def reopen(self, job: bytes, numbers: Sequence[int]) -> None:
        self._among(REOPEN, numbers, before=(job,))

    def remove(self, job: bytes, numbers: Sequence[int]) -> None:
        self._among("DELETE FROM item WHERE job = ? AND n IN (:list)", numbers, before=(job,))

    def of_tasks(self, tasks: Sequence[bytes], state: int, limit: int) -> list[ItemRow]:
        sql = f"SELECT {ITEM} FROM item WHERE task IN (:list) AND state = {int(state)} LIMIT ?"
        return [ItemRow._make(row) for row in self._among(sql, tasks, after=(limit,))[:limit]]

    def count(self, tasks: Sequence[bytes], state: int) -> int:
        sql = f"SELECT count(*) FROM item WHERE task IN (:list) AND state = {int(state)} GROUP BY task"
        return sum(row[0] for row in self._among(sql, tasks))
