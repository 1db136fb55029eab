"""Whether a record kept its promises, recounted from its items; nothing that the servers counted is believed."""

import sqlite3
from pathlib import Path
from typing import NamedTuple

from onceseen import wiring
from onceseen.domain.task import task_key

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
JOBLESS = "SELECT count(*) FROM item LEFT JOIN job ON job.id = item.job WHERE job.id IS NULL"
GAPS = """
SELECT count(*) FROM job
WHERE state <> 0 AND control = 0 AND total <> (SELECT coalesce(max(n) + 1, 0) FROM item WHERE job = id)
"""
REPEATED = """
SELECT task.project, task.input, task.frame, task.lane, task.params, task.key, item.job, item.n FROM task
JOIN (SELECT project, input, frame, lane, params FROM task GROUP BY 1, 2, 3, 4, 5 HAVING count(*) > 1) AS several
  ON (several.project, several.input, several.lane, several.params) = (task.project, task.input, task.lane, task.params)
  AND several.frame IS task.frame
LEFT JOIN item ON item.task = task.id
"""
# A job is announced once, when it is whole, and its end once; those of jobs that were retried are not looked at.
EVENTS = """
SELECT hex(job.id) FROM job
LEFT JOIN (SELECT subject, sum(kind = 'job.created') AS created, sum(kind = 'job.finished') AS finished FROM event
  GROUP BY subject) AS told ON told.subject = lower(substr(hex(job.id), 1, 8) || '-' || substr(hex(job.id), 9, 4) || '-' ||
    substr(hex(job.id), 13, 4) || '-' || substr(hex(job.id), 17, 4) || '-' || substr(hex(job.id), 21))
WHERE job.state <> 0 AND job.source = 'http'
  AND (coalesce(told.created, 0) <> 1 OR coalesce(told.finished, 0) <> (job.finished_at IS NOT NULL))
"""
# The record itself notes each row that gets an end, also one that had one already. (A submission that meets an answered task
# writes the state anew that it had.)
WATCH = """
CREATE TABLE IF NOT EXISTS referee (what TEXT, subject TEXT);
CREATE TRIGGER IF NOT EXISTS referee_task AFTER UPDATE ON task
  WHEN NEW.state IN (2, 3) AND (NEW.state, NEW.finished_at, NEW.attempt) IS NOT (OLD.state, OLD.finished_at, OLD.attempt)
  BEGIN INSERT INTO referee VALUES ('task', hex(NEW.id)); END;
CREATE TRIGGER IF NOT EXISTS referee_item AFTER UPDATE ON item
  WHEN NEW.state IN (2, 3, 4) AND (NEW.state, NEW.finished_at) IS NOT (OLD.state, OLD.finished_at)
  BEGIN INSERT INTO referee VALUES ('item', hex(NEW.job) || NEW.n); END;
CREATE TRIGGER IF NOT EXISTS referee_new AFTER INSERT ON item WHEN NEW.state IN (2, 3, 4)
  BEGIN INSERT INTO referee VALUES ('item', hex(NEW.job) || NEW.n); END;
"""
WATCHED = "SELECT count(*) FROM sqlite_master WHERE name = 'referee' AND type = 'table'"
SETTLED_TWICE = "SELECT what || ' ' || subject FROM referee GROUP BY what, subject HAVING count(*) > 1"


class Verdict(NamedTuple):
    """What the referee saw.

    Attributes:
        answered: images (by digest) with a succeeded item.
        items, tasks: numbers by state.
        wrong_counters: jobs whose counters are not what their items say.
        wrong_events: jobs that were not announced exactly once, or whose end was not.
        disagreeing: succeeded items whose task says something else.
        orphans: items that wait for neither a task nor a fetch, or for both, items without a job, jobs with a gap in their items.
        twice: questions that have more than one task, `fresh` ones aside.
        settled_twice: tasks and items that got a final state more than once; empty unless the record was watched.
        attempts: the greatest attempt of a task.
    """

    answered: set[str]
    items: dict[int, int]
    tasks: dict[int, int]
    wrong_counters: list[str]
    wrong_events: list[str]
    disagreeing: int
    orphans: int
    twice: int
    settled_twice: list[str]
    attempts: int

    @property
    def is_clean(self) -> bool:
        """No promise was broken."""
        return not (
            self.wrong_counters
            or self.wrong_events
            or self.disagreeing
            or self.orphans
            or self.twice
            or self.settled_twice
        )


def watch(data: Path) -> None:
    """Have the record of a data directory, on which no server runs, note every settlement from now on."""
    directory = wiring.open_directory(data)
    try:
        directory.open_database().close()
        connection = sqlite3.connect(data / "record.db")
        connection.executescript(WATCH)
        connection.close()
    finally:
        directory.release()


def judge(data: Path) -> Verdict:
    """Read the record of a data directory, also beside its server."""
    connection = sqlite3.connect(f"file:{data / 'record.db'}?mode=ro", uri=True)
    try:
        connection.execute("BEGIN")  # one moment, also beside a server

        def one(sql: str) -> int:
            return int(connection.execute(sql).fetchone()[0] or 0)

        def first(sql: str) -> list[str]:
            return [row[0] for row in connection.execute(sql)]

        return Verdict(
            answered=set(first("SELECT DISTINCT lower(hex(digest)) FROM item WHERE state = 2")),
            items=dict(connection.execute("SELECT state, count(*) FROM item GROUP BY state").fetchall()),
            tasks=dict(connection.execute("SELECT state, count(*) FROM task GROUP BY state").fetchall()),
            wrong_counters=first(WRONG_COUNTERS),
            wrong_events=first(EVENTS),
            disagreeing=one(DISAGREEING),
            orphans=one(ORPHANS) + one(JOBLESS) + one(GAPS),
            twice=_twice(connection),
            settled_twice=first(SETTLED_TWICE) if one(WATCHED) else [],
            attempts=one("SELECT max(attempt) FROM task"),
        )
    finally:
        connection.close()


def _twice(connection: sqlite3.Connection) -> int:
    """Tasks that ask what another one asks: of those, each but a `fresh` item's own has the question's own key."""
    wrong = 0
    for project, digest, frame, lane, params, key, job, n in connection.execute(REPEATED):
        own = [None] if job is None else [None, (job, n)]
        wrong += key not in [task_key(project, digest, frame, lane, params, one) for one in own]
    return wrong + int(connection.execute("SELECT count(*) - count(DISTINCT key) FROM task").fetchone()[0])
