from collections.abc import Sequence

from onceseen.domain.events import Event, NewEvent
from onceseen.domain.model import ModelRow
from onceseen.domain.views import AttemptRow, WorkerRow
from onceseen.drivers.sql.cursor import Statements

MODEL = ", ".join(ModelRow._fields)


class SqlEvents(Statements):
    """ports.database.Events."""

    def append(self, events: Sequence[NewEvent]) -> None:
        self._values("INSERT INTO event (at, kind, project, subject, data) VALUES :values", events)

    def after(self, seq: int, limit: int) -> list[Event]:
        sql = "SELECT seq, at, kind, project, subject, data FROM event WHERE seq > ? ORDER BY seq LIMIT ?"
        return [Event._make(row) for row in self._all(sql, (seq, limit))]

    def bounds(self) -> tuple[int, int]:
        row = self._one("SELECT coalesce(min(seq), 0), coalesce(max(seq), 0) FROM event")
        assert row is not None
        return row[0], row[1]

    def prune(self, before: int) -> None:
        sql = "DELETE FROM event WHERE seq < (SELECT coalesce(max(seq), 0) FROM event WHERE at < ?)"
        self._cursor.execute(sql, (before,))


class SqlModels(Statements):
    """ports.database.Models."""

    def all(self) -> list[ModelRow]:
        return [
            ModelRow._make(row) for row in self._all(f"SELECT {MODEL} FROM model ORDER BY created_at, name, version")
        ]

    def add(self, model: ModelRow) -> None:
        sql = f"INSERT INTO model ({MODEL}) VALUES :values ON CONFLICT (name, version) DO UPDATE SET "
        self._values(sql + "manifest = excluded.manifest, location = excluded.location", [model])

    def stage(self, name: str, version: str, stage: str) -> None:
        self._cursor.execute("UPDATE model SET stage = ? WHERE name = ? AND version = ?", (stage, name, version))

    def remove(self, name: str, version: str) -> None:
        self._cursor.execute("DELETE FROM model WHERE name = ? AND version = ?", (name, version))

    def defaults(self) -> dict[str, str]:
        return {row[0]: row[1] for row in self._all("SELECT dialect, model FROM model_default")}

    def set_default(self, dialect: str, ref: str) -> None:
        sql = "INSERT INTO model_default (dialect, model) VALUES (?, ?) ON CONFLICT (dialect) DO UPDATE SET model = excluded.model"
        self._cursor.execute(sql, (dialect, ref))


class SqlServers(Statements):
    """ports.database.Servers."""

    def begin(self, host: str, pid: int, now: int) -> int:
        sql = "INSERT INTO server (host, pid, started_at, seen_at) VALUES (?, ?, ?, ?) RETURNING id"
        row = self._one(sql, (host, pid, now, now))
        assert row is not None
        return int(row[0])

    def bury(self, me: int) -> list[int]:
        return [
            row[0] for row in self._all("UPDATE server SET dead = 1 WHERE id <> ? AND dead = 0 RETURNING id", (me,))
        ]

    def living(self) -> set[int]:
        return {row[0] for row in self._all("SELECT id FROM server WHERE dead = 0")}

    def mark(self, me: int, seen_at: int) -> None:
        self._cursor.execute("UPDATE server SET seen_at = ? WHERE id = ?", (seen_at, me))

    def marked(self, me: int) -> int:
        row = self._one("SELECT seen_at FROM server WHERE id = ?", (me,))
        return row[0] if row else 0

    def joined(self, worker: WorkerRow) -> None:
        sql = "INSERT INTO worker (id, server, host, pid, started_at, seen_at, state) VALUES :values "
        self._values(
            sql
            + "ON CONFLICT (id) DO UPDATE SET server = excluded.server, seen_at = excluded.seen_at, state = excluded.state",
            [worker],
        )

    def left(self, workers: Sequence[bytes], now: int) -> None:
        self._among("UPDATE worker SET state = 'gone', seen_at = ? WHERE id IN (:list)", workers, before=(now,))

    def blame(self, attempts: Sequence[AttemptRow]) -> None:
        sql = "INSERT INTO attempt (task, n, worker, started_at, ended_at, why) VALUES :values ON CONFLICT (task, n) DO NOTHING"
        self._values(sql, attempts)

    def meta(self, key: str, value: str | None = None) -> str | None:
        if value is not None:
            self._cursor.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING", (key, value)
            )
        row = self._one("SELECT value FROM meta WHERE key = ?", (key,))
        return row[0] if row else None
