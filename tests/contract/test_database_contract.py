"""Every database against the suite of its port."""

import pytest

from onceseen.domain.views import WorkerRow
from onceseen.drivers.sql.database import SqliteDatabase
from onceseen.testing.database_memory import database_in_memory
from onceseen.testing.database_suite import DatabaseSuite


class SqlSuite(DatabaseSuite):
    """What is alike for all drivers on SQL."""

    def workers(self, tx):
        return [WorkerRow._make(row) for row in tx.servers._all(f"SELECT {', '.join(WorkerRow._fields)} FROM worker")]


class TestSqliteOnDisk(SqlSuite):
    @pytest.fixture
    def database(self, tmp_path):
        database = SqliteDatabase(tmp_path / "record.db")
        database.migrate()
        yield database
        database.close()


class TestInMemory(SqlSuite):
    @pytest.fixture
    def database(self):
        with database_in_memory() as database:
            yield database
