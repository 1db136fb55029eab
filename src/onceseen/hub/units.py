"""Images on their way through workers: what the hub keeps in memory about each, from its lease to its settlement."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from onceseen.domain.machine import Blame
from onceseen.domain.task import NO_PARAMS, Claimed
from onceseen.flow.work import LocalFile
from onceseen.wire.link import Answer, Looked

BATCH_BYTES = 16 << 20
"""Bytes of images in one batch at most."""


@dataclass(slots=True, eq=False)
class Unit:
    """One image in one attempt.

    It is either a claimed task (`task` set), an early start (`task` unknown until its rows are committed), or a local file.
    """

    lane: bytes
    project: int
    digest: bytes = b""
    frame: int | None = None  # of a stack, whose bytes come when the worker does not have them (hub/stacks.py)
    params: str = NO_PARAMS
    place: str = ""  # where the stack's bytes lie
    key: bytes = b""
    task: bytes = b""
    attempt: int = 0
    queued_at: int = 0
    suspect: bool = False
    deaths: int = 0  # of a local file; a task's are in the record
    data: bytes | None = None
    path: str = ""
    local: LocalFile | None = None
    answer: Answer | None = None  # of an early start, waiting for its rows
    answered_by: bytes | None = None
    started_at: int | None = None  # microseconds since 1970: when `begin` arrived
    finished_at: int = 0
    dropped: bool = False  # an early start whose insert met an answered or running row, or failed
    lost: Blame | None = None  # its worker died before its rows were written

    @property
    def of_stack(self) -> bool:
        """Whether it is one frame of a file whose bytes travel by themselves, once for all frames."""
        return self.frame is not None and not self.path

    @property
    def size(self) -> int:
        """Bytes that travel with the lease."""
        return len(self.data) if self.data else 0


def claimed_unit(lane: bytes, task: Claimed) -> Unit:
    """The unit of a claimed task, without its bytes."""
    return Unit(
        lane=lane,
        project=task.project,
        digest=task.input,
        frame=task.frame,
        params=task.params,
        key=task.key,
        task=task.id,
        attempt=task.attempt,
        queued_at=task.queued_at,
        suspect=bool(task.suspect),
    )


@dataclass(slots=True, eq=False)
class Lease:
    """A batch that one worker holds, or will hold: until it is sent it may grow."""

    number: int
    lane: bytes
    units: list[Unit]
    cost_ms: float
    begun_at: int | None = None  # microseconds since 1970
    deadline: float | None = None  # the loop's clock, seconds
    is_sent: bool = False
    is_waiting: bool = False  # its stacks are being read from the store

    def has_room(self, units: Sequence[Unit], at_most: int) -> bool:
        """Whether these may come along: not too many, not too large, and a suspect runs alone."""
        everyone = [*self.units, *units]
        size = sum(unit.size for unit in everyone)
        return len(everyone) <= at_most and size <= BATCH_BYTES and not any(unit.suspect for unit in everyone)


@dataclass(slots=True)
class LaneState:
    """What the hub knows of one lane.

    Attributes:
        ms: what an image costs a worker, smoothed; None until one is ready.
        uncommitted: priorities of tasks submitted as queued whose rows are not written yet.
        credits: handed out so far; every 8th goes to the oldest task.
        load_deaths: workers in a row that died while loading it.
        broken: why it cannot run, until it is added or promoted again.
    """

    lane: bytes
    ms: float | None = None
    slowest_ms: float = 0.0
    timeout: float | None = None
    uncommitted: list[int] = field(default_factory=list)
    credits: int = 0
    load_deaths: int = 0
    broken: str | None = None

    @property
    def cost_ms(self) -> float:
        """Milliseconds to plan with; before anything is known, so much that a worker gets one image."""
        return self.ms if self.ms is not None else 60.0

    def observed(self, ms: float) -> None:
        """Learn from one answer's run time."""
        self.ms = ms if self.ms is None else self.ms + 0.05 * (ms - self.ms)
        self.slowest_ms = max(ms, self.slowest_ms * 0.999)  # stands for the p99: it forgets slowly

    def batch_seconds(self, images: int) -> float:
        """How long a begun batch may take (RECORD.md 5.2)."""
        return self.timeout if self.timeout is not None else max(60.0, 20 * self.slowest_ms * images / 1e3)


class Facts(NamedTuple):
    """What a task adds to the view of its items."""

    task_state: int
    lane: bytes
    attempt: int
    result: bytes | None
    queued_at: int
    started_at: int | None
    run_ms: float | None


class Looks:
    """Looks that workers have in hand, by number. An answer of None: the worker is gone."""

    def __init__(self) -> None:
        self.open: dict[int, asyncio.Future[tuple[Looked, bytes] | None]] = {}
        self.numbers = 0
