"""Jobs and items: what somebody submitted."""

from enum import IntEnum
from typing import NamedTuple

Digest = bytes
"""A SHA-256, 32 bytes; for rows whose `bytes` are a number."""


class JobState(IntEnum):
    """RECEIVING: hidden until its last chunk. The final ones follow from the counters."""

    RECEIVING = 0
    PENDING = 1
    SUCCEEDED = 2
    FAILED = 3
    CANCELLED = 4


class ItemState(IntEnum):
    """Running and queued are shown, not stored: they are read from the task."""

    PENDING = 0
    SUCCEEDED = 2
    FAILED = 3
    CANCELLED = 4


class Control(IntEnum):
    """What somebody asked of a whole job; its items follow 500 at a time (RECORD.md 3.4)."""

    NONE = 0
    CANCEL = 1
    DELETE = 2
    RETRY = 3


def job_state(pending: int, failed: int, cancelled: int, control: int) -> JobState:
    """A job's state from its counters, once its last chunk has come."""
    if control == Control.CANCEL:
        return JobState.CANCELLED  # shown at once; final when the items have followed
    if pending or control:
        return JobState.PENDING
    if failed:
        return JobState.FAILED
    return JobState.CANCELLED if cancelled else JobState.SUCCEEDED


class JobRow(NamedTuple):
    """A job as the record has it."""

    id: bytes
    project: int
    name: str
    state: int
    control: int
    control_n: int
    server: int
    model: str
    priority: int
    total: int
    pending: int
    succeeded: int
    failed: int
    cancelled: int
    source: str
    owner: str
    created_at: int
    finished_at: int | None


class Counts(NamedTuple):
    """What a transaction adds to one job's counters. `complete`: its last chunk came with it."""

    job: bytes
    total: int = 0
    pending: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    complete: bool = False


class ItemRow(NamedTuple):
    """One item, also as it is inserted. `model`: the NAME:VERSION that was asked for."""

    project: int
    job: bytes
    n: int
    name: str
    digest: bytes | None
    frame: int | None
    task: bytes | None
    owner: str
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


class KeyRow(NamedTuple):
    """The Idempotency-Key that a job was sent under; `body_hash` is there once the job's last chunk is (RECORD.md 2.7)."""

    project: int
    key: str
    job: bytes
    server: int
    body_hash: bytes | None
    created_at: int


class PendingItem(NamedTuple):
    """An item that waits for a task's answer."""

    task: bytes
    job: bytes
    n: int
    name: str
    digest: bytes | None
    frame: int | None
    model: str
    reused: int


class AssignedItem(NamedTuple):
    """An item whose image has come after it, in the order of the statement that writes it."""

    digest: bytes | None
    task: bytes | None
    reused: int
    job: bytes
    n: int


class FinishedItem(NamedTuple):
    """The end of one item, in the order of the statement that writes it."""

    state: int
    label: str | None
    score: float | None
    risk: float | None
    found: int | None
    error_kind: str | None
    error: str | None
    worker: bytes | None
    finished_at: int
    job: bytes
    n: int


class NewImage(NamedTuple):
    """An image as a submission brings it. `location`: where its bytes lie, None when they were stored before.

    `pixel_digest`: SHA-256 of mode, size and pixels, where a worker has looked at it.
    """

    project: int
    digest: bytes
    media_type: str | None
    width: int | None
    height: int | None
    bytes: int
    location: str | None
    created_at: int
    pixel_digest: Digest | None = None


class ImageFacts(NamedTuple):
    """What a run saw of an image, in the order of the statement that writes it."""

    media_type: str
    width: int
    height: int
    project: int
    digest: bytes
