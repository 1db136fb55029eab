"""Whether a record kept its promises, recounted from its items; nothing that the servers counted is believed."""

import sqlite3
from pathlib import Path
from typing import NamedTuple

WRONG_COUNTERS = """
SELECT hex(job.id) FROM job
LEFT JOIN (SELECT job, count(*) AS total, sum(state = 0) AS pending, sum(state = 2) AS succeeded, sum(state = 3) AS failed,
  sum(state = 4) AS cancelled FROM item GROUP BY job) AS told ON told.job = job.id
WHERE job.state <> 0 AND job.control = 0
  AND (job.total, job.pending, job.succeeded, job.failed, job.cancelled) <> (coalesce(told.total, 0), coalesce(told.pending, 0),
    coalesce(told.succeeded, 0), coalesce(told.failed, 0), coalesce(told.cancelled, 0))
"""
# An item and its task must say the same: an answer that another attempt overwrote would show here.
DISAGREEING = """
SELECT count(*) FROM item JOIN task ON task.id = item.task
WHERE item.state = 2 AND (task.state <> 2 OR item.label IS NOT task.label OR item.score IS NOT task.score)
"""
ORPHANS = """
SELECT count(*) FROM item LEFT JOIN task ON task.id = item.task LEFT JOIN fetch ON fetch.job = item.job AND fetch.n = item.n
WHERE item.state = 0 AND (task.id IS NULL) = (fetch.n IS NULL)
"""
TWICE = "SELECT count(*) FROM (SELECT input, lane FROM task GROUP BY input, lane, key HAVING count(*) > 1)"


class Verdict(NamedTuple):
    """What the referee saw.

    Attributes:
        answered: images (by digest) with a succeeded item.
        items, tasks: numbers by state.
        wrong_counters: jobs whose counters are not what their items say.
        disagreeing: succeeded items whose task says something else.
        orphans: items that wait for neither a task nor a fetch, or for both.
        twice: questions that have more than one task.
        attempts: the greatest attempt of a task.
    """

    answered: set[str]
    items: dict[int, int]
    tasks: dict[int, int]
    wrong_counters: list[str]
    disagreeing: int
    orphans: int
    twice: int
    attempts: int

    @property
    def is_clean(self) -> bool:
        """No promise was broken."""
        return not (self.wrong_counters or self.disagreeing or self.orphans or self.twice)


def judge(data: Path) -> Verdict:
    """Read the record of a data directory, also beside its server."""
    connection = sqlite3.connect(f"file:{data / 'record.db'}?mode=ro", uri=True)
    try:

        def one(sql: str) -> int:
            return int(connection.execute(sql).fetchone()[0] or 0)

        return Verdict(
            answered={
                row[0] for row in connection.execute("SELECT DISTINCT lower(hex(digest)) FROM item WHERE state = 2")
            },
            items=dict(connection.execute("SELECT state, count(*) FROM item GROUP BY state").fetchall()),
            tasks=dict(connection.execute("SELECT state, count(*) FROM task GROUP BY state").fetchall()),
            wrong_counters=[row[0] for row in connection.execute(WRONG_COUNTERS)],
            disagreeing=one(DISAGREEING),
            orphans=one(ORPHANS),
            twice=one(TWICE),
            attempts=one("SELECT max(attempt) FROM task"),
        )
    finally:
        connection.close()
