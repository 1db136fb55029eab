"""A model of the record in plain Python, as far as the stateful test needs one; and what each server holds in memory."""

from dataclasses import dataclass, field

from onceseen.domain.task import Claimed, TaskRow
from onceseen.flow.work import Chunk, Group
from onceseen.testing.record import Record

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = range(5)
"""States of tasks and items alike: an item that waits is QUEUED."""

UNREADABLE = "unreadable-image"


@dataclass
class Task:
    """What the model knows of a task."""

    id: bytes
    state: int = QUEUED
    attempt: int = 0
    server: int | None = None
    priority: int = 9
    suspect: int = 0
    deaths: int = 0
    error: str | None = None
    successes: int = 0

    @property
    def answered(self) -> bool:
        """Whether the next submission takes the answer."""
        return self.state == SUCCEEDED or (self.state == FAILED and self.error == UNREADABLE)

    @property
    def final(self) -> bool:
        """Whether items may take its end."""
        return self.state in (SUCCEEDED, FAILED)

    def open(self) -> None:
        """It waits again, with no death behind it."""
        self.state, self.server, self.deaths, self.error = QUEUED, None, 0, None

    def reopen(self) -> None:
        """Somebody asked for a retry: it is not even a suspect any more."""
        self.open()
        self.suspect = 0

    def run(self, server: int) -> None:
        """A claim, or an early start."""
        self.state, self.server, self.attempt = RUNNING, server, self.attempt + 1

    def end(self, state: int, error: str | None) -> None:
        """An answer that counts."""
        self.state, self.error = state, error
        self.successes += state == SUCCEEDED


@dataclass
class Item:
    """What the model knows of an item. `image`: None when it has no task."""

    image: int | None
    state: int = QUEUED
    error: str | None = None


@dataclass
class Job:
    """What the model knows of a job. `files`: of a local job, what nobody has read yet; `expect`: what has no item yet."""

    server: int
    items: dict[int, Item] = field(default_factory=dict)
    control: int = 0
    control_n: int = 0
    receiving: bool = False
    local: bool = False
    files: dict[int, int] = field(default_factory=dict)
    expect: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether all that it will have is there: only then people may ask something of it."""
        return not self.receiving and not self.expect

    def count(self, state: int) -> int:
        """Items in a state; those that are expected wait."""
        return sum(item.state == state for item in self.items.values()) + (self.expect if state == QUEUED else 0)


@dataclass
class Key:
    """What the model knows of an idempotency key."""

    job: bytes
    server: int
    complete: bool


@dataclass(eq=False)
class Unit:
    """One attempt in a worker's hands. An early start has no task until its rows are written."""

    image: int
    task: Claimed | TaskRow | None
    server: int
    job: bytes = b""
    begun: bool = False
    answer: str | None = None
    answered: bool = False
    lost: bool = False

    @property
    def place(self) -> tuple[bytes, int, int]:
        """(task, attempt, server), once its rows are written."""
        assert self.task is not None
        return self.task.id, self.task.attempt, self.server


@dataclass
class Server:
    """A hub in miniature.

    Attributes:
        work: what waits for its next transaction; `early`: units whose rows are in it.
        held: attempts in the hands of its workers.
        sending: chunks that are still to come, by job.
    """

    record: Record
    work: Group = field(default_factory=Group)
    early: list[Unit] = field(default_factory=list)
    held: list[Unit] = field(default_factory=list)
    sending: dict[bytes, list[Chunk]] = field(default_factory=dict)

    @property
    def me(self) -> int:
        """Its id in this life."""
        return self.record.me

    @property
    def open_jobs(self) -> set[bytes]:
        """Jobs that somebody sends, or of which a chunk is on its way."""
        return set(self.sending) | {chunk.job.id for chunk in self.work.chunks}

    @property
    def known(self) -> set[tuple[bytes, int]]:
        """Attempts that it knows of, until what ended them is committed."""
        known = {unit.place[:2] for unit in self.held}
        known |= {settled.settlement[:2] for settled in self.work.settled}
        return known | {given.fence[:2] for given in self.work.given_back}
