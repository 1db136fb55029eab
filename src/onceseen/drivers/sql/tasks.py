from collections.abc import Sequence

from onceseen.domain.machine import Verdict
from onceseen.domain.task import AnsweredTask, Claimed, Fence, Head, NewTask, Settlement, TaskRow
from onceseen.drivers.sql.cursor import Statements
from onceseen.errors import REMEMBERED

ROW = ", ".join(TaskRow._fields)
REMEMBERED_KINDS = ", ".join(f"'{kind}'" for kind in sorted(REMEMBERED))

# Failed and not remembered, or cancelled: the next submission opens it again. Queued: a newcomer may start it at once.
OPENED = f"(task.state = 4 OR (task.state = 3 AND task.error_kind NOT IN ({REMEMBERED_KINDS})))"
FREE = f"(task.state = 0 OR {OPENED})"

UPSERT = f"""
INSERT INTO task ({", ".join(NewTask._fields)}) VALUES :values
ON CONFLICT (key) DO UPDATE SET
  priority = min(task.priority, excluded.priority),
  state = CASE WHEN {FREE} THEN excluded.state ELSE task.state END,
  attempt = task.attempt + CASE WHEN {FREE} THEN excluded.attempt ELSE 0 END,
  server = CASE WHEN {FREE} THEN excluded.server ELSE task.server END,
  started_at = CASE WHEN {FREE} THEN excluded.started_at ELSE task.started_at END,
  queued_at = CASE WHEN {OPENED} THEN excluded.queued_at ELSE task.queued_at END,
  finished_at = CASE WHEN {OPENED} THEN NULL ELSE task.finished_at END,
  deaths = CASE WHEN {OPENED} THEN 0 ELSE task.deaths END,
  losses = CASE WHEN {OPENED} THEN 0 ELSE task.losses END,
  error = CASE WHEN {OPENED} THEN NULL ELSE task.error END,
  error_kind = CASE WHEN {OPENED} THEN NULL ELSE task.error_kind END
RETURNING {ROW}
"""

ANSWERED = f"(task.state = 2 OR (task.state = 3 AND task.error_kind IN ({REMEMBERED_KINDS})))"
TAKEN = (
    "state",
    "server",
    "worker",
    "error_kind",
    "error",
    "label",
    "score",
    "started_at",
    "finished_at",
    "run_ms",
    "result",
)
ANSWER = f"""
INSERT INTO task ({", ".join(AnsweredTask._fields)}) VALUES :values
ON CONFLICT (key) DO UPDATE SET
  attempt = task.attempt + CASE WHEN {ANSWERED} THEN 0 ELSE 1 END,
  {", ".join(f"{column} = CASE WHEN {ANSWERED} THEN task.{column} ELSE excluded.{column} END" for column in TAKEN)}
RETURNING {ROW}
"""

SETTLE = """
UPDATE task SET state = q.state, label = q.label, score = q.score, result = q.result, error_kind = q.error_kind,
  error = q.error, worker = q.worker, started_at = q.started_at, finished_at = q.finished_at, run_ms = q.run_ms
FROM (SELECT column1 AS id, column2 AS attempt, column3 AS server, column4 AS state, column5 AS label, column6 AS score,
  column7 AS result, column8 AS error_kind, column9 AS error, column10 AS worker, column11 AS started_at,
  column12 AS finished_at, column13 AS run_ms FROM (VALUES :values)) AS q
WHERE task.id = q.id AND task.attempt = q.attempt AND task.server = q.server AND task.state = 1
RETURNING task.id
"""

CLAIM = """
UPDATE task SET state = 1, attempt = attempt + 1, server = ?, started_at = NULL
WHERE id IN (SELECT id FROM task WHERE state = 0 AND lane = ? ORDER BY {order} LIMIT ?)
RETURNING id, key, attempt, project, input, frame, params, suspect, priority, queued_at
"""
CLAIM_FIRST, CLAIM_OLDEST = CLAIM.format(order="priority, id"), CLAIM.format(order="id")

GIVE_BACK = """
UPDATE task SET state = ?, suspect = ?, deaths = ?, losses = ?, error_kind = ?, error = ?, finished_at = ?, server = NULL
WHERE id = ? AND attempt = ? AND server = ? AND state = 1
RETURNING id
"""

REOPEN = """
UPDATE task SET state = 0, suspect = 0, deaths = 0, losses = 0, error = NULL, error_kind = NULL, finished_at = NULL, server = NULL
WHERE id IN (:list) AND state IN (3, 4)
"""
CANCEL = "UPDATE task SET state = 4 WHERE id IN (:list) AND state IN (0, 1)"
PURGE = f"UPDATE task SET state = 4 WHERE id IN (:list) AND state = 3 AND error_kind NOT IN ({REMEMBERED_KINDS}) RETURNING id"
HEAD = "SELECT priority FROM task WHERE state = 0 AND lane = ? ORDER BY priority, id LIMIT 1"
OLDEST = "SELECT queued_at FROM task WHERE state = 0 AND lane = ? ORDER BY id LIMIT 1"


class SqlTasks(Statements):
    """ports.database.Tasks."""

    def upsert(self, tasks: Sequence[NewTask]) -> list[TaskRow]:
        return [TaskRow._make(row) for row in self._values(UPSERT, tasks, returns=True)]

    def answer(self, tasks: Sequence[AnsweredTask]) -> list[TaskRow]:
        return [TaskRow._make(row) for row in self._values(ANSWER, tasks, returns=True)]

    def settle(self, settlements: Sequence[Settlement]) -> set[bytes]:
        return {row[0] for row in self._values(SETTLE, settlements, returns=True)}

    def claim(self, lane: bytes, server: int, n: int, *, oldest: bool = False) -> list[Claimed]:
        rows = self._all(CLAIM_OLDEST if oldest else CLAIM_FIRST, (server, lane, n))
        # RETURNING promises no order, and the order is what a claim is about.
        return sorted((Claimed._make(row) for row in rows), key=lambda task: (0 if oldest else task.priority, task.id))

    def give_back(self, verdicts: Sequence[tuple[Fence, Verdict]], now: int) -> set[bytes]:
        done: set[bytes] = set()
        for fence, verdict in verdicts:
            kind = None if verdict.error is None else "worker-died"
            values = (verdict.state, *verdict.standing, kind, verdict.error, now if kind else None, *fence)
            done.update(row[0] for row in self._all(GIVE_BACK, values))
        return done

    def reopen(self, tasks: Sequence[bytes]) -> None:
        self._among(REOPEN, tasks)

    def cancel(self, tasks: Sequence[bytes]) -> None:
        self._among(CANCEL, tasks)

    def purge(self, tasks: Sequence[bytes]) -> set[bytes]:
        return {row[0] for row in self._among(PURGE, tasks)}

    def get(self, tasks: Sequence[bytes]) -> list[TaskRow]:
        return [TaskRow._make(row) for row in self._among(f"SELECT {ROW} FROM task WHERE id IN (:list)", tasks)]

    def running(self, server: int | None = None) -> list[TaskRow]:
        if server is None:
            rows = self._all(f"SELECT {ROW} FROM task WHERE state = 1 AND server IS NOT NULL")
        else:
            rows = self._all(f"SELECT {ROW} FROM task WHERE state = 1 AND server = ?", (server,))
        return [TaskRow._make(row) for row in rows]

    def find(self, key: bytes) -> TaskRow | None:
        row = self._one(f"SELECT {ROW} FROM task WHERE key = ?", (key,))
        return TaskRow._make(row) if row else None

    def newest(self) -> bytes | None:
        row = self._one("SELECT max(id) FROM task")
        return row[0] if row else None

    def heads(self, lanes: Sequence[bytes] | None = None) -> dict[bytes, Head]:
        if lanes is None:
            lanes = [row[0] for row in self._all("SELECT DISTINCT lane FROM task WHERE state = 0")]
        heads = {}
        for lane in lanes:
            if first := self._one(HEAD, (lane,)):
                oldest = self._one(OLDEST, (lane,))
                heads[lane] = Head(first[0], oldest[0] if oldest else 0)
        return heads
