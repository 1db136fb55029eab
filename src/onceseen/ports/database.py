"""The record: jobs, items, tasks, images, events, models, servers. One small protocol per noun.

Only servers speak to it. `begin()` gives a transaction that is durable when its block ends and void when an error leaves
the block; `read()` gives views on what is committed. Everything blocks; the writer thread owns all transactions of a server.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from onceseen.domain.events import Event, NewEvent
from onceseen.domain.fetch import FetchRow, Postponed
from onceseen.domain.job import (
    AssignedItem,
    Counts,
    FinishedItem,
    ImageFacts,
    ItemRow,
    ItemState,
    JobRow,
    KeyRow,
    NewImage,
    PendingItem,
)
from onceseen.domain.machine import Verdict
from onceseen.domain.model import ModelRow
from onceseen.domain.task import AnsweredTask, Claimed, Fence, Head, NewTask, Settlement, TaskRow
from onceseen.domain.views import (
    AttemptRow,
    FileRow,
    ImageView,
    ItemFilter,
    ItemView,
    JobFilter,
    LaneTotals,
    Totals,
    WorkerRow,
)


class Tasks(Protocol):
    """The task row is the lock: whatever concerns a task touches its row first, in key order."""

    def upsert(self, tasks: Sequence[NewTask]) -> list[TaskRow]:
        """Insert, or meet the row that has the key, and return each row as it is now, in any order.

        A row that is queued, cancelled, or failed and not remembered takes the state, server and a new attempt of the
        newcomer (which is QUEUED or an early start); a smaller priority wins. Keys are distinct and sorted.
        """

    def answer(self, tasks: Sequence[AnsweredTask]) -> list[TaskRow]:
        """Insert tasks in their final state, or bring the answer to the row that has the key; each row as it is now.

        An answered row stays as it is. Any other takes the answer under a new attempt, so that whoever runs it is fenced out.
        """

    def settle(self, settlements: Sequence[Settlement]) -> set[bytes]:
        """Write answers where the fence (id, attempt, server, still running) holds; the ids for which it did."""

    def claim(self, lane: bytes, server: int, n: int, *, oldest: bool = False) -> list[Claimed]:
        """Hand at most n queued tasks of a lane to the server, smallest priority first, or oldest first."""

    def give_back(self, verdicts: Sequence[tuple[Fence, Verdict]], now: int) -> set[bytes]:
        """End attempts without an answer, where the fence holds; the ids for which it did."""

    def reopen(self, tasks: Sequence[bytes]) -> None:
        """Queue failed and cancelled tasks again, with a clean slate of deaths and losses; leave others alone."""

    def cancel(self, tasks: Sequence[bytes]) -> None:
        """Cancel those of the tasks that wait or run."""

    def purge(self, tasks: Sequence[bytes]) -> set[bytes]:
        """Cancel those of the tasks that failed and are not remembered, and leave all else of them; their ids."""

    def get(self, tasks: Sequence[bytes]) -> list[TaskRow]:
        """Rows by id, in any order."""

    def running(self, server: int | None = None) -> list[TaskRow]:
        """Running tasks of one server, or of all."""

    def find(self, key: bytes) -> TaskRow | None:
        """The row of a key."""

    def newest(self) -> bytes | None:
        """The greatest id."""

    def heads(self, lanes: Sequence[bytes] | None = None) -> dict[bytes, Head]:
        """For each lane with waiting tasks (all lanes, or those asked for): what it would hand out next."""


class Items(Protocol):
    """What ties jobs to tasks under names."""

    def insert(self, items: Sequence[ItemRow]) -> None:
        """Insert items of open jobs."""

    def assign(self, items: Sequence[AssignedItem]) -> None:
        """Give pending items that had none their image and their task."""

    def pending(self, tasks: Sequence[bytes], limit: int) -> list[PendingItem]:
        """At most `limit` items that wait for one of the tasks."""

    def finish(self, items: Sequence[FinishedItem]) -> None:
        """Write the end of items that `pending` returned in this transaction."""

    def wanted(self, tasks: Sequence[bytes], state: int = ItemState.PENDING) -> set[bytes]:
        """Those of the tasks that have at least one item in a state: one that waits, or one that failed. Never counts them."""

    def stranded(self, limit: int) -> list[bytes]:
        """Final tasks that items still wait for: a server died between two groups of items (a scan; at start only)."""

    def slice(self, job: bytes, first: int, limit: int) -> list[ItemRow]:
        """Items of a job from n = first on, in order."""

    def reopen(self, job: bytes, numbers: Sequence[int]) -> None:
        """Make failed items wait again."""

    def remove(self, job: bytes, numbers: Sequence[int]) -> None:
        """Delete items."""

    def of_tasks(self, tasks: Sequence[bytes], state: int, limit: int) -> list[ItemRow]:
        """At most `limit` items of the tasks in one state."""

    def count(self, tasks: Sequence[bytes], state: int) -> int:
        """How many items of the tasks are in one state."""


class Jobs(Protocol):
    """Jobs and their counters."""

    def insert(self, jobs: Sequence[JobRow]) -> None:
        """Insert jobs with the counters and the state that their first chunk gives them."""

    def count(self, counts: Sequence[Counts], now: int) -> list[JobRow]:
        """Add to counters, derive states (domain/job.py) and return the jobs as they are then."""

    def get(self, job: bytes) -> JobRow | None:
        """One job."""

    def control(self, job: bytes, control: int, control_n: int) -> JobRow | None:
        """Set what somebody asked of the job, or how far it has come."""

    def recount(self, job: bytes, now: int) -> JobRow | None:
        """Clear the control and set the counters and state to what the items say."""

    def remove(self, job: bytes) -> None:
        """Delete the job's own row; its items are gone already."""

    def controlled(self) -> list[JobRow]:
        """Jobs whose control is not done."""

    def receiving(self) -> list[JobRow]:
        """Jobs whose last chunk has not come."""

    def waiting(self, source: str) -> list[JobRow]:
        """Jobs from one source that are received and not finished (a scan; at start only)."""


class Keys(Protocol):
    """Idempotency keys: which job a request was, so that its repetition makes no second one (RECORD.md 2.7)."""

    def get(self, project: int, key: str) -> tuple[KeyRow, bool] | None:
        """A key, and whether its server lives."""

    def claim(self, row: KeyRow) -> bool:
        """Insert a key unless it is there; whether it is this job's now."""

    def complete(self, row: KeyRow) -> None:
        """Write the body's hash to the key that this job holds."""

    def forget(self, project: int, key: str, job: bytes) -> None:
        """Delete a key if this job holds it."""

    def prune(self, before: int) -> None:
        """Delete keys older than a time."""


class Fetches(Protocol):
    """URLs of items that wait for their bytes; each row belongs to one server (RECORD.md 2.6)."""

    def insert(self, rows: Sequence[FetchRow]) -> None:
        """Insert the URLs of items that are inserted with them."""

    def jobs(self, server: int | None, after: bytes, limit: int) -> list[bytes]:
        """The next jobs after one, by id, that have URLs of this server (None: of any)."""

    def due(self, server: int, job: bytes, now: int, limit: int) -> list[FetchRow]:
        """URLs of a job whose time has come, those that wait longest first."""

    def take(self, items: Sequence[tuple[bytes, int]], server: int) -> set[tuple[bytes, int]]:
        """Delete the rows of items (job, n) that are this server's; those that were. Only who took a row may end its item."""

    def postpone(self, rows: Sequence[Postponed]) -> None:
        """Write tries that failed, where the rows are still this server's."""

    def adopt(self, server: int, limit: int) -> int:
        """Make rows of dead servers this one's; how many."""

    def forget(self, job: bytes, first: int, limit: int) -> None:
        """Delete the next rows of a job from n = first on: nobody wants these items any more."""


class Images(Protocol):
    """Images by digest; a blob's place is written with the rows that need it."""

    def upsert(self, images: Sequence[NewImage]) -> None:
        """Insert images; one that is there takes a location if it had none, and is no longer deleted."""

    def describe(self, facts: Sequence[ImageFacts]) -> None:
        """Write what runs saw of images."""

    def locate(self, project: int, digests: Sequence[bytes], *, paths: bool = False) -> dict[bytes, str]:
        """Locations of images whose bytes are in the store to stay; with `paths` of all that have one, also a user's own file.

        What is marked as deleted may go at any moment: nobody may rely on its bytes, only a claim may try them.
        """

    def alike(self, project: int, pixel_digest: bytes, limit: int) -> list[bytes]:
        """Digests of images with these pixels, as far as somebody has looked; oldest first."""

    def lose(self, project: int, digest: bytes, location: str) -> None:
        """The bytes at this location are damaged or gone: forget it, unless it was replaced."""

    def orphan(self, project: int, digests: Sequence[bytes], now: int) -> None:
        """Mark those of the images as deleted that no item names."""

    def deleted(self, before: int, limit: int) -> list[tuple[int, bytes, str | None]]:
        """(project, digest, location) of images marked as deleted before a time and still named by no item."""

    def remove(self, images: Sequence[tuple[int, bytes]]) -> None:
        """Delete the rows of images."""

    def unnamed(self, locations: Sequence[str]) -> list[str]:
        """Those of the locations that no image row names."""


class Events(Protocol):
    """What happened, in one order."""

    def append(self, events: Sequence[NewEvent]) -> None:
        """Write events; the last phase of a transaction."""

    def after(self, seq: int, limit: int) -> list[Event]:
        """Events with a greater seq, in order."""

    def bounds(self) -> tuple[int, int]:
        """Smallest and greatest seq that are kept; (0, 0) when there is none."""

    def prune(self, before: int) -> None:
        """Forget events older than a time, but never the newest one."""


class Models(Protocol):
    """Models and defaults."""

    def all(self) -> list[ModelRow]:
        """Every version of every model, oldest first."""

    def add(self, model: ModelRow) -> None:
        """Write one version; the same (name, version) is replaced, its stage kept."""

    def stage(self, name: str, version: str, stage: str) -> None:
        """Set one version's stage."""

    def remove(self, name: str, version: str) -> None:
        """Delete one version."""

    def defaults(self) -> dict[str, str]:
        """Dialect -> model reference."""

    def set_default(self, dialect: str, ref: str) -> None:
        """Set a dialect's default model."""


class Servers(Protocol):
    """Servers, their workers, and what went wrong with attempts."""

    def begin(self, host: str, pid: int, now: int) -> int:
        """A new server's id."""

    def bury(self, me: int) -> list[int]:
        """Mark all other servers dead; their ids."""

    def living(self) -> set[int]:
        """Servers that nobody has judged dead."""

    def mark(self, me: int, seen_at: int) -> None:
        """Write when this server was seen: a number that no transaction of it wrote before, so that one can be told by it."""

    def marked(self, me: int) -> int:
        """What this server marked last; waits for a transaction of it that may still be under way."""

    def joined(self, worker: WorkerRow) -> None:
        """Insert or replace a worker's row."""

    def left(self, workers: Sequence[bytes], now: int) -> None:
        """Mark workers as gone."""

    def blame(self, attempts: Sequence[AttemptRow]) -> None:
        """Keep abnormal attempts."""

    def meta(self, key: str, value: str | None = None) -> str | None:
        """A fact about the whole store (its blob store's id, ...); given a value, sets it if there was none."""


class Files(Protocol):
    """Local paths that were answered: what a second run of the same folder need not read again."""

    def put(self, files: Sequence[FileRow]) -> None:
        """Remember files."""

    def find(self, project: int, paths: Sequence[str]) -> Mapping[str, FileRow]:
        """What is remembered of paths."""


class Views(Protocol):
    """Reads for people: what is committed now, outside any transaction."""

    def items(self, where: ItemFilter, limit: int) -> list[ItemView]:
        """Items with what is read from their tasks; the order and the filters are ItemFilter's."""

    def names(self, where: ItemFilter, limit: int) -> list[str]:
        """The different names of the items that a filter finds, sorted."""

    def job(self, job: bytes) -> tuple[JobRow, int] | None:
        """A job and how many of its pending items run now."""

    def jobs(self, where: JobFilter, limit: int) -> list[tuple[JobRow, int]]:
        """Jobs and how many of their pending items run now; the order and the filters are JobFilter's."""

    def dead_letters(self, where: ItemFilter) -> list[bytes]:
        """Tasks of all dead letters that a filter finds, sorted."""

    def image(self, project: int, digest: bytes) -> ImageView | None:
        """An image by the digest of its bytes or of its pixels."""

    def totals(self) -> Totals:
        """Counts over the whole record; adds up all jobs."""

    def waiting(self) -> tuple[int, int]:
        """How many tasks are queued, and how many run."""

    def lanes(self) -> list[LaneTotals]:
        """What waits, by lane."""

    def attempts(self, task: bytes) -> list[AttemptRow]:
        """A task's abnormal attempts."""


class Reader(Protocol):
    """Read access."""

    tasks: Tasks
    images: Images
    jobs: Jobs
    files: Files
    keys: Keys
    fetches: Fetches
    events: Events
    models: Models
    views: Views


class Transaction(Reader, Protocol):
    """Write access; see the module's docstring."""

    items: Items
    servers: Servers


class Database(Protocol):
    """One record."""

    def begin(self) -> AbstractContextManager[Transaction]:
        """A write transaction, durable when the block ends without an error.

        Raises:
            StorageFull: no room; nothing was written.
            DatabaseAway: the database does not answer; whether it was written is unknown, repeat the whole (RECORD.md 1.5).
        """

    def read(self) -> AbstractContextManager[Reader]:
        """Views on what is committed; many at once."""

    def close(self) -> None:
        """Release all connections."""
