import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from onceseen.drivers.sql.fetches import SqlFetches
from onceseen.drivers.sql.images import SqlFiles, SqlImages
from onceseen.drivers.sql.jobs import SqlItems, SqlJobs
from onceseen.drivers.sql.keys import SqlKeys
from onceseen.drivers.sql.others import SqlEvents, SqlModels, SqlServers
from onceseen.drivers.sql.tasks import SqlTasks
from onceseen.drivers.sql.views import SqlViews
from onceseen.errors import DatabaseAway, OnceseenError, StorageFull
from onceseen.ports import database as ports

PRAGMAS = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA busy_timeout = 10000;
PRAGMA wal_autocheckpoint = 4000;
PRAGMA foreign_keys = ON;
PRAGMA cache_size = -65536;
PRAGMA temp_store = MEMORY;
"""

NO_ROOM = ("SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_SHMOPEN", "SQLITE_IOERR_SHMMAP")
"""What SQLite calls an I/O error where the index of its log finds no room."""


class SqlTransaction:
    """ports.database.Transaction on one connection."""

    def __init__(self, connection: Connection) -> None:
        # The driver's own cursor: SQLAlchemy's would cost 20 us a statement.
        cursor = connection.connection.cursor()
        self.tasks: ports.Tasks = SqlTasks(cursor)
        self.items: ports.Items = SqlItems(cursor)
        self.jobs: ports.Jobs = SqlJobs(cursor)
        self.images: ports.Images = SqlImages(cursor)
        self.events: ports.Events = SqlEvents(cursor)
        self.models: ports.Models = SqlModels(cursor)
        self.servers: ports.Servers = SqlServers(cursor)
        self.files: ports.Files = SqlFiles(cursor)
        self.keys: ports.Keys = SqlKeys(cursor)
        self.fetches: ports.Fetches = SqlFetches(cursor)
        self.views: ports.Views = SqlViews(connection)


class SqliteDatabase:
    """ports.database.Database on SQLite: one file, write-ahead log, one writer (the server that holds the directory's lock)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._engine: Engine = create_engine(
            f"sqlite:///{path}",
            connect_args={"isolation_level": None, "check_same_thread": False},
            pool_size=8,
            max_overflow=8,
        )
        event.listen(self._engine, "connect", _prepare)
        self._writer: Connection | None = None

    @contextmanager
    def begin(self) -> Iterator[SqlTransaction]:
        if self._writer is None:
            with _translated():
                self._writer = self._engine.connect()
        raw = self._writer.connection.driver_connection
        assert raw is not None
        with _translated():
            raw.execute("BEGIN IMMEDIATE")
            try:
                yield SqlTransaction(self._writer)
                raw.execute("COMMIT")
            except BaseException:
                if raw.in_transaction:
                    raw.execute("ROLLBACK")
                raise

    @contextmanager
    def read(self) -> Iterator[SqlTransaction]:
        with _translated(), self._engine.connect() as connection:
            yield SqlTransaction(connection)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._engine.dispose()

    # -- versions of the schema ------------------------------------------------------------------------------------

    def version(self) -> str | None:
        """The revision of the schema in the file; None for an empty database."""
        with _translated(), self._engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    @staticmethod
    def newest() -> str:
        """The revision that this release works with."""
        head = ScriptDirectory.from_config(_alembic()).get_current_head()
        assert head is not None
        return head

    def migrate(self) -> None:
        """Bring the schema to this release's revision, all steps in one transaction."""
        config = _alembic()
        engine = create_engine(f"sqlite:///{self._path}", connect_args={"isolation_level": None})
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        with _translated(), engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        engine.dispose()

    def backup(self, target: Path) -> None:
        """Copy the whole database into a file, also while it is written."""
        with _translated(), self._engine.connect() as connection, sqlite3.connect(target) as copy:
            raw = connection.connection.driver_connection
            assert raw is not None
            raw.backup(copy)
        copy.close()


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    connection.executescript(PRAGMAS)


@contextmanager
def _translated() -> Iterator[None]:
    """The driver's errors in our words."""
    try:
        yield
    except OnceseenError:
        raise
    except (sqlite3.OperationalError, DBAPIError) as error:
        text = str(error)
        name = getattr(error.orig if isinstance(error, DBAPIError) else error, "sqlite_errorname", "")
        if "full" in text or name in NO_ROOM:
            raise StorageFull from error
        raise DatabaseAway(f"The database refused: {text}") from error
