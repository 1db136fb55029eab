"""Rows as people read them, and the small rows of servers, workers and files."""

from typing import NamedTuple

from onceseen.domain.query import Query


class ItemView(NamedTuple):
    """An item with its task's part (None where the task has run again since the item was settled, RECORD.md 3.2)."""

    job: bytes
    n: int
    name: str
    digest: bytes | None
    frame: int | None
    task: bytes | None
    state: int
    label: str | None
    score: float | None
    risk: float | None
    found: int | None
    error_kind: str | None
    error: str | None
    reused: int
    model: str
    worker: bytes | None
    finished_at: int | None
    task_state: int | None = None
    lane: bytes | None = None
    attempt: int | None = None
    result: bytes | None = None
    queued_at: int | None = None
    started_at: int | None = None
    run_ms: float | None = None
    deaths: int | None = None
    losses: int | None = None


class ItemFilter(NamedTuple):
    """Which items, and in which order: one job's by n, or newest first ((job, n) descending) over all jobs.

    Over all jobs, items of a job that is still received or being deleted are left out, but not from the dead letters.

    Attributes:
        pixels: digest of the pixels, of any image that has them.
        label: the whole label, case and all.
        dead_letters: only items of tasks that failed for another reason than their image.
        query: the search grammar.
        after, before: of `finished_at`, microseconds, both themselves left out; items that are not finished fall out.
        cursor: (job, n) of the last item of the page before.
        now: what `age` in the query counts from, microseconds; the present without it.
    """

    project: int
    job: bytes | None = None
    n: int | None = None
    digest: bytes | None = None
    pixels: bytes | None = None
    states: tuple[str, ...] = ()
    label: str | None = None
    dead_letters: bool = False
    query: Query = Query()
    after: int | None = None
    before: int | None = None
    cursor: tuple[bytes, int] | None = None
    now: int | None = None


class JobFilter(NamedTuple):
    """Which jobs, newest first; without those that are still received or deleted.

    Attributes:
        project: of all projects without it.
        states: those of STATES in domain/query.py; `running` while one of its items runs.
        query: the search grammar, with JOB_WORDS.
        cursor: the last job of the page before.
        now: as in ItemFilter.
    """

    project: int | None = None
    states: tuple[str, ...] = ()
    query: Query = Query()
    cursor: bytes | None = None
    now: int | None = None


class ImageView(NamedTuple):
    """An image's row and its names."""

    project: int
    digest: bytes
    pixel_digest: bytes | None
    media_type: str | None
    width: int | None
    height: int | None
    bytes: int
    location: str | None
    created_at: int
    names: tuple[str, ...] = ()


class Totals(NamedTuple):
    """Counts over the whole record."""

    queued: int
    running: int
    succeeded: int
    failed: int
    failed_24h: int


class LaneTotals(NamedTuple):
    """What waits for one model: how many tasks, and since when the oldest of them."""

    lane: bytes
    queued: int
    oldest: int


class WorkerRow(NamedTuple):
    """A worker as one server knows it."""

    id: bytes
    server: int
    host: str
    pid: int
    started_at: int
    seen_at: int
    state: str


class AttemptRow(NamedTuple):
    """An attempt that ended without an answer."""

    task: bytes
    n: int
    worker: bytes | None
    started_at: int | None
    ended_at: int
    why: str


class FileRow(NamedTuple):
    """A local file that was read."""

    project: int
    path: str
    size: int
    mtime_ns: int
    digest: bytes
