from onceseen.domain.job import KeyRow
from onceseen.drivers.sql.cursor import Statements

KEY = ", ".join(KeyRow._fields)
ALIVE = "EXISTS (SELECT 1 FROM server WHERE server.id = idempotency_key.server AND server.dead = 0)"


class SqlKeys(Statements):
    """ports.database.Keys."""

    def get(self, project: int, key: str) -> tuple[KeyRow, bool] | None:
        row = self._one(f"SELECT {KEY}, {ALIVE} FROM idempotency_key WHERE project = ? AND key = ?", (project, key))
        return (KeyRow._make(row[:-1]), bool(row[-1])) if row else None

    def claim(self, row: KeyRow) -> bool:
        self._values(f"INSERT INTO idempotency_key ({KEY}) VALUES :values ON CONFLICT (project, key) DO NOTHING", [row])
        found = self._one("SELECT job FROM idempotency_key WHERE project = ? AND key = ?", (row.project, row.key))
        return found is not None and found[0] == row.job

    def complete(self, row: KeyRow) -> None:
        sql = "UPDATE idempotency_key SET body_hash = ? WHERE project = ? AND key = ? AND job = ?"
        self._cursor.execute(sql, (row.body_hash, row.project, row.key, row.job))

    def forget(self, project: int, key: str, job: bytes) -> None:
        sql = "DELETE FROM idempotency_key WHERE project = ? AND key = ? AND job = ?"
        self._cursor.execute(sql, (project, key, job))

    def prune(self, before: int) -> None:
        self._cursor.execute("DELETE FROM idempotency_key WHERE created_at < ?", (before,))
