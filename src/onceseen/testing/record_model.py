"""A model of the record in plain Python, as far as the stateful test needs one; and what a hub holds in memory."""

from dataclasses import dataclass, field

from onceseen.domain.task import Claimed, TaskRow
from onceseen.flow.work import Group

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

    def open(self) -> None:
        """It waits again, with a clean slate."""
        self.state, self.server, self.deaths, self.error = QUEUED, None, 0, None

    def retry(self, items: "list[Item]") -> None:
        """A dead letter is tried once more, for all of its items."""
        self.open()
        self.suspect = 0
        for item in items:
            item.state, item.error = QUEUED, None

    def purge(self) -> None:
        """A dead letter is taken off the list."""
        self.state = CANCELLED


@dataclass
class Item:
    """What the model knows of an item."""

    image: int
    state: int = QUEUED
    error: str | None = None


@dataclass
class Job:
    """What the model knows of a job."""

    items: dict[int, Item]
    control: int = 0
    control_n: int = 0


@dataclass(eq=False)
class Unit:
    """One attempt in a worker's hands. An early start has no task until its rows are written."""

    image: int
    task: Claimed | TaskRow | None
    server: int
    begun: bool = False
    answer: str | None = None
    answered: bool = False
    lost: bool = False


@dataclass
class Waiting:
    """What the hub has put aside for the next transaction."""

    work: Group = field(default_factory=Group)
    early: list[Unit] = field(default_factory=list)
