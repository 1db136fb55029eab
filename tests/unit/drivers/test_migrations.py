"""The data directory: one owner, a format that is checked, a schema that equals the migrated one."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine

from onceseen import wiring
from onceseen.domain.job import KeyRow
from onceseen.domain.views import JobFilter
from onceseen.drivers import directory
from onceseen.drivers.directory import DataDirectory, is_free, server_facts
from onceseen.drivers.sql import database as sql_database
from onceseen.drivers.sql.database import SqliteDatabase
from onceseen.drivers.sql.schema import metadata
from onceseen.errors import DirectoryInUse, NewerData, SettingsError

BREAKS = """
from alembic import op
revision, down_revision, branch_labels, depends_on = "9999", "{newest}", None, None
def upgrade():
    op.execute("CREATE TABLE half (id INTEGER)")
    op.execute("UPDATE project SET name = 'half'")
    op.execute("THIS IS NO SQL")
"""
WORKS = BREAKS.replace('    op.execute("THIS IS NO SQL")\n', "")


def schema(file):
    """Every table, index and trigger as SQLite keeps it, blanks apart."""
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
    return {(kind, name): " ".join((sql or "").split()) for kind, name, sql in rows if name != "alembic_version"}


@pytest.fixture
def later(tmp_path, monkeypatch):
    """Pretend that a later release has one more migration, with this text."""

    def install(text):
        scripts = tmp_path / "migrations"
        shutil.copytree(Path(sql_database.__file__).parent / "migrations", scripts)
        (scripts / "versions" / "v9999_later.py").write_text(text.format(newest=SqliteDatabase.newest()))
        config = Config()
        config.set_main_option("script_location", str(scripts))
        monkeypatch.setattr(sql_database, "_alembic", lambda: config)

    return install


def test_a_fresh_schema_equals_the_migrated_one(tmp_path):
    migrated = SqliteDatabase(tmp_path / "migrated.db")
    migrated.migrate()
    assert migrated.version() == migrated.newest()
    migrated.close()
    fresh = create_engine(f"sqlite:///{tmp_path / 'fresh.db'}")
    metadata.create_all(fresh)
    fresh.dispose()
    engine = create_engine(f"sqlite:///{tmp_path / 'migrated.db'}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    there, wanted = schema(tmp_path / "migrated.db"), schema(tmp_path / "fresh.db")
    assert there.keys() == wanted.keys()
    indexes = {name: sql for (kind, name), sql in wanted.items() if kind == "index"}
    assert {name: sql for (kind, name), sql in there.items() if kind == "index"} == indexes
    assert sum(" WHERE " in sql for sql in indexes.values()) >= 8
    for (kind, name), sql in wanted.items():
        if kind == "table":  # the ends of the statements: WITHOUT ROWID, and how ids count up
            assert there[kind, name].rpartition(")")[2] == sql.rpartition(")")[2]
            assert ("AUTOINCREMENT" in there[kind, name]) == ("AUTOINCREMENT" in sql)


def test_migrating_again_changes_nothing(tmp_path):
    database = SqliteDatabase(tmp_path / "record.db")
    assert database.version() is None
    database.migrate()
    before = schema(tmp_path / "record.db")
    database.migrate()
    assert schema(tmp_path / "record.db") == before
    database.close()


def test_a_migration_that_breaks_leaves_nothing_behind(tmp_path, later):
    database = SqliteDatabase(tmp_path / "record.db")
    database.migrate()
    before, version = schema(tmp_path / "record.db"), database.version()
    later(BREAKS)
    with pytest.raises(Exception, match="syntax error"):
        database.migrate()
    assert schema(tmp_path / "record.db") == before
    assert database.version() == version
    with database.begin() as tx:
        assert tx.servers.begin("host", 1, 1) == 1
    database.close()


def test_an_older_record_is_backed_up_and_migrated(tmp_path, later):
    data = DataDirectory(tmp_path / "data")
    database = data.open_database()
    with database.begin() as tx:
        tx.servers.meta("kept", "yes")
    database.close()
    later(WORKS)
    database = data.open_database()
    with database.read() as reader, closing(sqlite3.connect(tmp_path / "data" / "record.db")) as now:
        assert reader.models.all() == []
        assert now.execute("SELECT value FROM meta").fetchall() == [("yes",)]
        assert now.execute("SELECT name FROM project").fetchall() == [("half",)]
    assert database.version() == "9999"
    database.close()
    (backup,) = (tmp_path / "data").glob("record-before-9999-*.db")
    assert ("table", "half") not in schema(backup)
    with closing(sqlite3.connect(backup)) as old:
        assert old.execute("SELECT value FROM meta").fetchall() == [("yes",)]
    data.open_database().close()
    assert len(list((tmp_path / "data").glob("record-before-*"))) == 1
    data.release()


def filled_at_the_first_version(file):
    """A record as the first release made it, with a finished and a waiting job."""
    engine = create_engine(f"sqlite:///{file}")
    config = sql_database._alembic()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    job = "INSERT INTO job (id, project, name, state, server, model, priority, total, {0}, source, owner, created_at) VALUES"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("INSERT INTO server (id, host, pid, started_at, seen_at) VALUES (4, 'host', 9, 1, 1)")
        for n, (column, state) in enumerate([("succeeded", 2), ("pending", 1)]):
            place = bytes([n]) * 16
            connection.execute(
                f"{job.format(column)} (?, 1, 'old', ?, 4, 'm:1', 5, 1, 1, 'http', 'me', 7)", (place, state)
            )
            connection.execute(
                "INSERT INTO item (project, job, n, name, owner, state, model) VALUES (1, ?, 0, 'a.png', 'me', ?, 'm:1')",
                (place, 0 if column == "pending" else 2),
            )
        connection.commit()


def test_a_directory_of_the_first_release_opens_with_all_its_rows(tmp_path):
    data = DataDirectory(tmp_path / "data")
    (data.path / "FORMAT").write_text("1\n")
    filled_at_the_first_version(data.path / "record.db")
    assert wiring.migration_needed(data.path)
    database = data.open_database()
    assert database.version() == database.newest() != "0001"
    with database.begin() as tx:
        assert [(row.name, row.state, row.total) for row, _ in tx.views.jobs(JobFilter(1), 9)] == [
            ("old", 1, 1),
            ("old", 2, 1),
        ]
        assert [item.name for item in tx.items.slice(bytes(16), 0, 9)] == ["a.png"]
        assert tx.keys.get(1, "k") is None
        assert tx.keys.claim(KeyRow(1, "k", bytes(16), 4, None, 8))
        assert tx.keys.get(1, "k") == (KeyRow(1, "k", bytes(16), 4, None, 8), True)
    database.close()
    assert not wiring.migration_needed(data.path)
    (backup,) = data.path.glob("record-before-*.db")
    assert ("table", "idempotency_key") not in schema(backup)
    assert ("table", "idempotency_key") in schema(data.path / "record.db")
    data.release()


def test_a_new_directory_needs_no_backup_and_says_its_format(tmp_path):
    data = DataDirectory(tmp_path / "data")
    assert DataDirectory.check_format(data.path) is None
    data.open_database().close()
    assert (data.path / "FORMAT").read_text() == f"{directory.FORMAT}\n"
    assert list(data.path.glob("record-before-*")) == []
    data.release()


def test_data_of_the_future_are_refused_and_left_alone(tmp_path):
    (tmp_path / "FORMAT").write_text(f"{directory.FORMAT + 1}\n")
    with pytest.raises(NewerData, match="upgrade"):
        DataDirectory(tmp_path)
    assert is_free(tmp_path)
    assert not (tmp_path / "record.db").exists()
    (tmp_path / "FORMAT").write_text("two\n")
    with pytest.raises(SettingsError, match="'two'"):
        DataDirectory(tmp_path)


def test_a_second_owner_is_told_where_the_first_is(tmp_path):
    first = DataDirectory(tmp_path)
    assert not is_free(tmp_path)
    with pytest.raises(DirectoryInUse, match="another process"):
        DataDirectory(tmp_path, wait=0)
    first.announce("http://127.0.0.1:8123", "unix:/somewhere.sock")
    with pytest.raises(DirectoryInUse, match=rf"http://127\.0\.0\.1:8123 \(process {os.getpid()}\)"):
        DataDirectory(tmp_path, wait=0)
    facts = server_facts(tmp_path)
    assert facts is not None
    assert facts["link"] == "unix:/somewhere.sock"
    first.release()
    assert is_free(tmp_path)
    assert server_facts(tmp_path) is None
    DataDirectory(tmp_path, wait=0).release()


def test_a_directory_that_was_never_used_is_free(tmp_path):
    assert is_free(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_kill_frees_the_directory(tmp_path):
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from onceseen.drivers.directory import DataDirectory\n"
        "data = DataDirectory(Path(sys.argv[1]))\n"
        "data.announce('http://127.0.0.1:1', 'unix:x')\n"
        "print('mine', flush=True)\n"
        "time.sleep(60)\n"
    )
    source = str(Path(sql_database.__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": source}
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"mine\n"
        assert not is_free(tmp_path)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert is_free(tmp_path)
    data = DataDirectory(tmp_path, wait=0)
    data.open_database().close()
    data.release()
