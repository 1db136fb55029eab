"""Tasks: one unit of work each; the states, and the rows that go in and come out of the record."""

import hashlib
import json
from enum import IntEnum
from typing import NamedTuple


class TaskState(IntEnum):
    """Where a task is. Legal steps are in `machine`."""

    QUEUED = 0
    RUNNING = 1
    SUCCEEDED = 2
    FAILED = 3
    CANCELLED = 4


INTERACTIVE, ORDINARY, BACKGROUND = 0, 5, 9
"""Priorities: a smaller one goes first."""

CLASSIFICATION = "classification"
NO_PARAMS = "{}"


def task_key(
    project: int, digest: bytes, frame: int | None, lane: bytes, params: str, own: tuple[bytes, int] | None
) -> bytes:
    """The SHA-256 that names a question: equal questions are computed once (RECORD.md 3.5).

    Args:
        project: who asks; projects share nothing.
        digest: SHA-256 of the image's (or stack's) bytes.
        frame: which frame of a stack.
        lane: the model's content digest.
        params: canonical JSON of what else decides the answer.
        own: (job, n) when this submission wants an answer of its own (`cache = false`).
    """
    text = f"{project}\n{digest.hex()}\n{'' if frame is None else frame}\n{lane.hex()}\n{params}"
    if own:
        text += f"\n{own[0].hex()}\n{own[1]}"
    return hashlib.sha256(text.encode()).digest()


def picture_key(
    project: int, digest: bytes, frame: int | None, lane: bytes, params: str, own: tuple[bytes, int] | None
) -> bytes:
    """The key of a question about one picture: a file of which no frame was named is the same question as its first frame."""
    return task_key(project, digest, frame or None, lane, params, own)


def params_of(dataset: str) -> str:
    """The parameters of a question about one dataset of a file, "" where none was named."""
    return json.dumps({"dataset": dataset}, separators=(",", ":")) if dataset else NO_PARAMS


def dataset_of(params: str) -> str:
    """The dataset in a task's parameters."""
    return "" if params == NO_PARAMS else str(json.loads(params).get("dataset", ""))


class NewTask(NamedTuple):
    """A task as a submission states it: QUEUED, or an early start (RUNNING, `attempt` 1, `server`)."""

    key: bytes
    id: bytes
    project: int
    lane: bytes
    kind: str
    input: bytes
    frame: int | None
    params: str
    state: int
    priority: int
    attempt: int
    server: int | None
    queued_at: int
    started_at: int | None


class AnsweredTask(NamedTuple):
    """A task that is written once, in its final state: a local file's (RECORD.md 6)."""

    key: bytes
    id: bytes
    project: int
    lane: bytes
    kind: str
    input: bytes
    frame: int | None
    params: str
    state: int
    priority: int
    attempt: int
    server: int
    worker: bytes | None
    error_kind: str | None
    error: str | None
    label: str | None
    score: float | None
    queued_at: int
    started_at: int | None
    finished_at: int
    run_ms: float | None
    result: bytes | None


class TaskRow(NamedTuple):
    """A task as the record has it."""

    key: bytes
    id: bytes
    lane: bytes
    input: bytes
    frame: int | None
    state: int
    attempt: int
    server: int | None
    suspect: int
    deaths: int
    losses: int
    label: str | None
    score: float | None
    result: bytes | None
    error_kind: str | None
    error: str | None
    worker: bytes | None
    queued_at: int
    started_at: int | None
    finished_at: int | None
    run_ms: float | None


class Claimed(NamedTuple):
    """A task handed to this server by a claim."""

    id: bytes
    key: bytes
    attempt: int
    project: int
    input: bytes
    frame: int | None
    params: str
    suspect: int
    priority: int
    queued_at: int


class Fence(NamedTuple):
    """Who may settle or give back a task: whoever still holds this attempt (RECORD.md 5.4)."""

    id: bytes
    attempt: int
    server: int


class Settlement(NamedTuple):
    """The end of one attempt. `state` is SUCCEEDED or FAILED."""

    id: bytes
    attempt: int
    server: int
    state: int
    label: str | None
    score: float | None
    result: bytes | None
    error_kind: str | None
    error: str | None
    worker: bytes | None
    started_at: int | None
    finished_at: int
    run_ms: float | None


class Head(NamedTuple):
    """The task that a lane would hand out next, and the oldest one it has."""

    priority: int
    oldest: int  # microseconds since 1970, when it was queued
