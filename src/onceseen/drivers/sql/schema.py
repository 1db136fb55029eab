"""The tables of the record (DESIGN.md section 5). Times are microseconds since 1970, UTC; ids are UUIDv7 in 16 bytes.

A fresh database is made by the migrations; a test asserts that what they make equals this page.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

ID, DIGEST, TIME = LargeBinary(16), LargeBinary(32), BigInteger
LABEL, NAME, REF = String(255), Text, String(255)
AUTO = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up by itself only in an INTEGER PRIMARY KEY

project = Table(
    "project",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
)

image = Table(
    "image",
    metadata,
    Column("project", Integer, nullable=False),
    Column("digest", DIGEST, nullable=False),
    Column("pixel_digest", DIGEST),
    Column("media_type", String(100)),
    Column("width", Integer),
    Column("height", Integer),
    Column("bytes", BigInteger, nullable=False),
    Column("location", Text),
    Column("created_at", TIME, nullable=False),
    Column("deleted_at", TIME),
    PrimaryKeyConstraint("project", "digest"),
    sqlite_with_rowid=False,
)
# match by pixels; which images wait for their bytes to be removed; which locations a row names (daily sweep)
Index("image_pixels", image.c.project, image.c.pixel_digest, sqlite_where=text("pixel_digest IS NOT NULL"))
Index("image_deleted", image.c.deleted_at, sqlite_where=text("deleted_at IS NOT NULL"))

task = Table(
    "task",
    metadata,
    Column("id", ID, primary_key=True),
    Column("key", DIGEST, nullable=False, unique=True),
    Column("project", Integer, nullable=False),
    Column("lane", DIGEST, nullable=False),  # the model's content digest
    Column("kind", String(40), nullable=False),
    Column("input", DIGEST, nullable=False),
    Column("frame", Integer),
    Column("params", Text, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("suspect", SmallInteger, nullable=False, server_default="0"),
    Column("deaths", SmallInteger, nullable=False, server_default="0"),
    Column("losses", SmallInteger, nullable=False, server_default="0"),
    Column("server", Integer),
    Column("worker", ID),
    Column("lease_until", TIME),
    Column("error_kind", String(40)),
    Column("error", Text),
    Column("label", LABEL),
    Column("score", Double),
    Column("queued_at", TIME, nullable=False),
    Column("started_at", TIME),
    Column("finished_at", TIME),
    Column("run_ms", Double),
    Column("result", LargeBinary),  # last: up to 2 kB that most statements need not step over
)
QUEUED, RUNNING = text("state = 0"), text("state = 1")
Index("task_ready", task.c.lane, task.c.priority, task.c.id, sqlite_where=QUEUED)  # claim
Index("task_oldest", task.c.lane, task.c.id, sqlite_where=QUEUED)  # claim of every 8th credit
Index("task_running", task.c.server, sqlite_where=RUNNING)  # put back
Index("task_delayed", task.c.lease_until, sqlite_where=text("state = 1 AND server IS NULL"))  # sweep
Index("task_dead", task.c.id, sqlite_where=text("state = 3 AND error_kind <> 'unreadable-image'"))  # dead letters

job = Table(
    "job",
    metadata,
    Column("id", ID, primary_key=True),
    Column("project", Integer, nullable=False),
    Column("name", NAME, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("control", SmallInteger, nullable=False, server_default="0"),
    Column("control_n", BigInteger, nullable=False, server_default="0"),
    Column("server", Integer, nullable=False),
    Column("model", REF, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("total", BigInteger, nullable=False, server_default="0"),
    Column("pending", BigInteger, nullable=False, server_default="0"),
    Column("succeeded", BigInteger, nullable=False, server_default="0"),
    Column("failed", BigInteger, nullable=False, server_default="0"),
    Column("cancelled", BigInteger, nullable=False, server_default="0"),
    Column("source", String(40), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("created_at", TIME, nullable=False),
    Column("finished_at", TIME),
    sqlite_with_rowid=False,
)
Index("job_receiving", job.c.id, sqlite_where=text("state = 0"))  # sweep of submissions that broke off
Index("job_controlled", job.c.id, sqlite_where=text("control <> 0"))  # sweep of cancel, delete, retry

item = Table(
    "item",
    metadata,
    Column("project", Integer, nullable=False),
    Column("job", ID, nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("name", NAME, nullable=False),
    Column("digest", DIGEST),
    Column("frame", Integer),
    Column("task", ID),
    Column("owner", String(255), nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("label", LABEL),
    Column("score", Double),
    Column("risk", Double),
    Column("found", SmallInteger),
    Column("error_kind", String(40)),
    Column("error", Text),
    Column("reused", SmallInteger, nullable=False, server_default="0"),
    Column("model", REF, nullable=False),
    Column("worker", ID),
    Column("finished_at", TIME),
    PrimaryKeyConstraint("job", "n"),
    sqlite_with_rowid=False,
)
Index("item_pending", item.c.task, sqlite_where=text("state = 0"))  # settle: who waits for this answer
Index("item_digest", item.c.digest, item.c.project)  # an image's history; is an image still named?
Index("item_failed", item.c.task, sqlite_where=text("state = 3"))  # retry of dead letters

event = Table(
    "event",
    metadata,
    Column("seq", AUTO, primary_key=True),
    Column("at", TIME, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("project", Integer, nullable=False),
    Column("subject", String(255), nullable=False),
    Column("data", Text, nullable=False),
    sqlite_autoincrement=True,  # a seq is never used again, also after the newest event was pruned
)

server = Table(
    "server",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", TIME, nullable=False),
    Column("seen_at", TIME, nullable=False),
    Column("dead", SmallInteger, nullable=False, server_default="0"),
    sqlite_autoincrement=True,
)

worker = Table(
    "worker",
    metadata,
    Column("id", ID, primary_key=True),
    Column("server", Integer, nullable=False),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", TIME, nullable=False),
    Column("seen_at", TIME, nullable=False),
    Column("state", String(40), nullable=False),
    sqlite_with_rowid=False,
)

attempt = Table(
    "attempt",
    metadata,
    Column("task", ID, nullable=False),
    Column("n", Integer, nullable=False),
    Column("worker", ID),
    Column("started_at", TIME),
    Column("ended_at", TIME, nullable=False),
    Column("why", Text, nullable=False),
    PrimaryKeyConstraint("task", "n"),
    sqlite_with_rowid=False,
)

model = Table(
    "model",
    metadata,
    Column("name", String(100), nullable=False),
    Column("version", String(100), nullable=False),
    Column("content_digest", DIGEST, nullable=False),
    Column("manifest", LargeBinary, nullable=False),
    Column("location", Text, nullable=False),
    Column("stage", String(40), nullable=False),
    Column("created_at", TIME, nullable=False),
    PrimaryKeyConstraint("name", "version"),
)

model_default = Table(
    "model_default",
    metadata,
    Column("dialect", String(40), primary_key=True),
    Column("model", REF, nullable=False),
)

idempotency_key = Table(
    "idempotency_key",
    metadata,
    Column("project", Integer, nullable=False),
    Column("key", String(255), nullable=False),
    Column("job", ID, nullable=False),
    Column("server", Integer, nullable=False),
    Column("body_hash", DIGEST),  # none until the job's last chunk
    Column("created_at", TIME, nullable=False),
    PrimaryKeyConstraint("project", "key"),
    sqlite_with_rowid=False,
)
Index("idempotency_key_age", idempotency_key.c.created_at)  # sweep after a day

fetch = Table(
    "fetch",
    metadata,
    Column("job", ID, nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("url", Text, nullable=False),
    Column("fresh", SmallInteger, nullable=False),
    Column("server", Integer, nullable=False),
    Column("tries", SmallInteger, nullable=False),
    Column("next_at", TIME, nullable=False),
    PrimaryKeyConstraint("job", "n"),
    sqlite_with_rowid=False,
)
# which jobs wait for fetches, and which of their URLs is the next
Index("fetch_due", fetch.c.server, fetch.c.job, fetch.c.next_at, fetch.c.n)

file = Table(
    "file",
    metadata,
    Column("project", Integer, nullable=False),
    Column("path", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("digest", DIGEST, nullable=False),
    PrimaryKeyConstraint("project", "path"),
    sqlite_with_rowid=False,
)

meta = Table(
    "meta",
    metadata,
    Column("key", String(100), primary_key=True),
    Column("value", Text, nullable=False),
)
