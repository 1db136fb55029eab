"""The life of a task: which steps are legal, and what a death or a loss does to it. Pure: no clock, no I/O.

             claim                    settle
QUEUED ───────────────► RUNNING ───────────────► SUCCEEDED
  ▲ ▲    begin(early)      │ │                   FAILED ──┐ retry, or the next submission
  │ └──────────────────────┘ │                            │ unless the failure is remembered
  │   put back               │ third death alone          │
  └──────────────────────────┼────────────────────────────┘
  ▲                          ▼
  └── next submission ── CANCELLED (nobody wants it any more, or it was a dead letter that somebody purged)
"""

from typing import NamedTuple

from onceseen.domain.task import TaskState
from onceseen.errors import REMEMBERED

LEGAL = frozenset(
    {
        (TaskState.QUEUED, TaskState.RUNNING),
        (TaskState.QUEUED, TaskState.CANCELLED),
        (TaskState.QUEUED, TaskState.SUCCEEDED),  # a local file brought the answer (RECORD.md 6),
        (TaskState.QUEUED, TaskState.FAILED),  # or the reason why there is none
        (TaskState.RUNNING, TaskState.QUEUED),
        (TaskState.RUNNING, TaskState.SUCCEEDED),
        (TaskState.RUNNING, TaskState.FAILED),
        (TaskState.RUNNING, TaskState.CANCELLED),
        (TaskState.FAILED, TaskState.QUEUED),
        (TaskState.FAILED, TaskState.RUNNING),
        (TaskState.FAILED, TaskState.SUCCEEDED),
        (TaskState.FAILED, TaskState.CANCELLED),
        (TaskState.CANCELLED, TaskState.QUEUED),
        (TaskState.CANCELLED, TaskState.RUNNING),
        (TaskState.CANCELLED, TaskState.SUCCEEDED),
        (TaskState.CANCELLED, TaskState.FAILED),
    }
)
"""Every step a task's state may take; a contract test checks that no statement takes another."""

MAX_DEATHS = 3
MAX_LOSSES = 20


class Blame(NamedTuple):
    """How an attempt ended without an answer.

    Attributes:
        begun: the worker had started the batch that holds this task.
        death: the worker's process died (or was frozen, or over its deadline); False: a remote link was lost.
        why: one short sentence for the record.
    """

    begun: bool
    death: bool
    why: str


INNOCENT = Blame(begun=False, death=False, why="given back")


class Standing(NamedTuple):
    """What earlier attempts left on a task."""

    suspect: int
    deaths: int
    losses: int


class Verdict(NamedTuple):
    """What becomes of a task that was given back."""

    state: TaskState
    standing: Standing
    error: str | None = None


def after_give_back(standing: Standing, blame: Blame, max_deaths: int = MAX_DEATHS) -> Verdict:
    """RECORD.md 5.1: a task of a begun batch becomes suspect and runs alone from then on; deaths count only alone.

    So a batch that killed its worker harms none of its mates: each gets a run of its own before it is blamed.
    """
    suspect, deaths, losses = standing
    if not blame.begun:
        return Verdict(TaskState.QUEUED, standing)
    if not blame.death:
        losses += 1
        if losses >= MAX_LOSSES:
            error = f"the link to its worker was lost {losses} times while it ran: {blame.why}"
            return Verdict(TaskState.FAILED, Standing(suspect, deaths, losses), error)
        return Verdict(TaskState.QUEUED, Standing(suspect, deaths, losses))
    if suspect:
        deaths += 1
        if deaths >= max_deaths:
            error = f"its worker died {deaths} times while running it alone: {blame.why}"
            return Verdict(TaskState.FAILED, Standing(1, deaths, losses), error)
    return Verdict(TaskState.QUEUED, Standing(1, deaths, losses))


def is_answered(state: int, error_kind: str | None) -> bool:
    """Whether a new submission takes the task's answer as it is (RECORD.md 3.3)."""
    return state == TaskState.SUCCEEDED or (state == TaskState.FAILED and error_kind in REMEMBERED)
