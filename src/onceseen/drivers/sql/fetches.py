from collections.abc import Sequence

from onceseen.domain.fetch import FetchRow, Postponed
from onceseen.drivers.sql.cursor import Statements

FETCH = ", ".join(FetchRow._fields)
DUE = f"SELECT {FETCH} FROM fetch WHERE server = ? AND job = ? AND next_at <= ? ORDER BY next_at, n LIMIT ?"
POSTPONE = "UPDATE fetch SET tries = ?, next_at = ? WHERE job = ? AND n = ? AND server = ?"
ORPHANS = "SELECT job, n FROM fetch WHERE server IN (SELECT id FROM server WHERE dead = 1) LIMIT ?"
FORGET = """
DELETE FROM fetch WHERE job = ? AND n IN (SELECT n FROM fetch WHERE job = ? AND n >= ? ORDER BY n LIMIT ?)
"""


class SqlFetches(Statements):
    """ports.database.Fetches."""

    def insert(self, rows: Sequence[FetchRow]) -> None:
        self._values(f"INSERT INTO fetch ({FETCH}) VALUES :values", rows)

    def jobs(self, server: int | None, after: bytes, limit: int) -> list[bytes]:
        # From one job to the next: a job may have a million rows, and DISTINCT would read them all.
        owned, values = ("", ()) if server is None else ("server = ? AND", (server,))
        found: list[bytes] = []
        while len(found) < limit:
            row = self._one(f"SELECT job FROM fetch WHERE {owned} job > ? ORDER BY job LIMIT 1", (*values, after))
            if row is None:
                break
            after = row[0]
            found.append(after)
        return found

    def due(self, server: int, job: bytes, now: int, limit: int) -> list[FetchRow]:
        return [FetchRow._make(row) for row in self._all(DUE, (server, job, now, limit))]

    def take(self, items: Sequence[tuple[bytes, int]], server: int) -> set[tuple[bytes, int]]:
        taken = set()
        for job, n in items:
            self._cursor.execute("DELETE FROM fetch WHERE job = ? AND n = ? AND server = ?", (job, n, server))
            if self._cursor.rowcount:
                taken.add((job, n))
        return taken

    def postpone(self, rows: Sequence[Postponed]) -> None:
        self._cursor.executemany(POSTPONE, rows)

    def adopt(self, server: int, limit: int) -> int:
        orphans = self._all(ORPHANS, (limit,))
        sql = "UPDATE fetch SET server = ? WHERE job = ? AND n = ?"
        self._cursor.executemany(sql, [(server, job, n) for job, n in orphans])
        return len(orphans)

    def forget(self, job: bytes, first: int, limit: int) -> None:
        self._cursor.execute(FORGET, (job, job, first, limit))
