"""What is told to whoever watches: one event per batch and job (RECORD.md 1.6)."""

from typing import NamedTuple

JOB_CREATED, JOB_PROGRESS, JOB_FINISHED, JOB_DELETED = "job.created", "job.progress", "job.finished", "job.deleted"
WORKER_JOINED, WORKER_LEFT = "worker.joined", "worker.left"
MODEL_ADDED, MODEL_PROMOTED, MODEL_REMOVED = "model.added", "model.promoted", "model.removed"
KINDS = (
    *(JOB_CREATED, JOB_PROGRESS, JOB_FINISHED, JOB_DELETED),
    *(WORKER_JOINED, WORKER_LEFT, MODEL_ADDED, MODEL_PROMOTED, MODEL_REMOVED),
)

TOPIC = "events"
"""The signal's topic that wakes readers of events."""


class NewEvent(NamedTuple):
    """`data` is JSON text; `subject` an id in text or a model's name."""

    at: int
    kind: str
    project: int
    subject: str
    data: str


class Event(NamedTuple):
    """An event with its place in the order of all."""

    seq: int
    at: int
    kind: str
    project: int
    subject: str
    data: str
