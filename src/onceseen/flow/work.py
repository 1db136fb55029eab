"""What waits for the next transaction, and what came of it."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from onceseen.domain.events import NewEvent
from onceseen.domain.fetch import FetchRow
from onceseen.domain.job import Counts, FinishedItem, ImageFacts, JobRow, NewImage, PendingItem
from onceseen.domain.machine import Blame, Verdict
from onceseen.domain.task import AnsweredTask, Claimed, Fence, Head, NewTask, Settlement, TaskRow
from onceseen.domain.views import FileRow


class Failure(NamedTuple):
    """Why an item ended before it had a task."""

    kind: str
    message: str


CANCELLED = Failure("cancelled", "")
"""Nobody wants it any more."""


@dataclass(slots=True)
class Entry:
    """One item of a submission: the key of its task, and its image; or the reason why there is none."""

    n: int
    name: str
    key: bytes | None = None
    task: NewTask | None = None
    image: NewImage | None = None
    failure: Failure | None = None
    digest: bytes | None = None
    frame: int | None = None
    fetch: FetchRow | None = None  # its bytes are still to be fetched


@dataclass(slots=True)
class JobKey:
    """The Idempotency-Key of a job that is being received; the body's hash is known when its last chunk is sent."""

    text: str
    body_hash: bytes | None = None


@dataclass(slots=True)
class JobHead:
    """What a job is from its first chunk on."""

    id: bytes
    project: int
    name: str
    server: int
    model: str  # NAME:VERSION
    priority: int
    source: str
    owner: str
    created_at: int
    key: JobKey | None = None


@dataclass(slots=True)
class Chunk:
    """At most 500 items or 8 MB of one job. `first` makes the job, `last` ends its receiving.

    `expect`: items that come later, one by one, with their answers (local paths).
    `fetched`: its items are in the record, and wait for what is said of them here.
    """

    job: JobHead
    entries: list[Entry]
    first: bool = True
    last: bool = True
    expect: int = 0
    fetched: bool = False


class Settled(NamedTuple):
    """One answer of a worker."""

    settlement: Settlement
    facts: ImageFacts | None


class GivenBack(NamedTuple):
    """A task whose attempt ended without an answer."""

    fence: Fence
    lane: bytes
    blame: Blame
    worker: bytes | None = None
    started_at: int | None = None


class ClaimWish(NamedTuple):
    """Free credits for one lane; `oldest` of the n go to the longest waiting tasks."""

    lane: bytes
    n: int
    oldest: int = 0


@dataclass(slots=True, eq=False)
class LocalFile:
    """A file of a local job: named, not yet read. Its fence is (job, n) and the lease (RECORD.md 6)."""

    job: JobHead
    n: int
    name: str
    path: str
    size: int
    mtime_ns: int
    params: str
    settled: Callable[["DoneItem", bytes | None], None]  # the item and its packed scores, after the commit
    own: bool = False  # wants an answer of its own, whatever is remembered (RECORD.md 3.5)


class LocalAnswer(NamedTuple):
    """A local file that a worker read: written once, in its final state (RECORD.md 6). Without a task it failed unread."""

    job: JobHead
    entry: Entry
    task: AnsweredTask | None
    row: FileRow | None
    file: LocalFile


@dataclass(slots=True)
class Group:
    """Everything that waits together, for one transaction."""

    chunks: list[Chunk] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)
    given_back: list[GivenBack] = field(default_factory=list)
    leftovers: list[bytes] = field(default_factory=list)  # final tasks that more than 500 items waited for
    claims: list[ClaimWish] = field(default_factory=list)
    lanes: set[bytes] = field(default_factory=set)  # whose heads the hub wants to know afterwards
    local: list[LocalAnswer] = field(default_factory=list)
    held: set[tuple[bytes, int]] | None = None  # given: put back this server's running rows that are not among these

    def __bool__(self) -> bool:
        return self.writes or bool(self.claims) or self.held is not None

    @property
    def writes(self) -> bool:
        """Whether it is certain to write something; claims may find nothing, and all rows may be held."""
        return bool(self.chunks or self.settled or self.given_back or self.leftovers or self.local)


class DoneItem(NamedTuple):
    """An item that found its end in this transaction."""

    item: PendingItem
    finished: FinishedItem
    reused: bool


@dataclass(slots=True)
class Outcome:
    """What a committed group changed."""

    tasks: dict[bytes, TaskRow] = field(default_factory=dict)  # by key: what submissions met
    passed: set[bytes] = field(default_factory=set)  # settled ids whose fence held
    answers: dict[bytes, Settlement] = field(default_factory=dict)  # by task id: what was written of them
    verdicts: dict[bytes, Verdict] = field(default_factory=dict)  # by task id: what was given back
    done: list[DoneItem] = field(default_factory=list)
    leftovers: list[bytes] = field(default_factory=list)
    claimed: dict[bytes, list[Claimed]] = field(default_factory=dict)  # by lane
    places: dict[bytes, str] = field(default_factory=dict)  # digest -> location of claimed images
    heads: dict[bytes, Head] = field(default_factory=dict)
    jobs: dict[bytes, JobRow] = field(default_factory=dict)  # that changed
    refused: set[bytes] = field(default_factory=set)  # jobs whose idempotency key another job holds
    events: list[NewEvent] = field(default_factory=list)


class Tally:
    """Adds up what a transaction changes in each job's counters."""

    def __init__(self) -> None:
        self._added: dict[bytes, list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0])
        self._complete: set[bytes] = set()

    def add(self, job: bytes, total: int, pending: int, succeeded: int, failed: int, cancelled: int) -> None:
        """Add to one job's counters."""
        counts = self._added[job]
        for place, value in enumerate((total, pending, succeeded, failed, cancelled)):
            counts[place] += value

    def move(self, job: bytes, state: int, *, new: bool) -> None:
        """Count an item that reached `state`: a new one, or one that was pending."""
        self.add(job, int(new), 0 if new else -1, int(state == 2), int(state == 3), int(state == 4))

    def complete(self, job: bytes) -> None:
        """The job's last chunk has come."""
        self._added[job]
        self._complete.add(job)

    def counts(self) -> dict[bytes, Counts]:
        """By job, in the order of their ids, which is the order of the locks."""
        counts = {}
        for job in sorted(self._added):
            total, pending, succeeded, failed, cancelled = self._added[job]
            counts[job] = Counts(job, total, pending, succeeded, failed, cancelled, job in self._complete)
        return counts


def unique_tasks(chunks: Sequence[Chunk]) -> list[NewTask]:
    """Each key once, in key order; of equal ones the early start wins, then the smallest priority."""
    found: dict[bytes, NewTask] = {}
    for chunk in chunks:
        for entry in chunk.entries:
            task = entry.task
            if task is None:
                continue
            known = found.get(task.key)
            if known is None:
                found[task.key] = task
            else:
                kept = known if known.state >= task.state else task
                found[task.key] = kept._replace(priority=min(known.priority, task.priority))
    return [found[key] for key in sorted(found)]
