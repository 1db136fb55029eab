"""What a server's answers are read into: frozen, typed, and lenient (fields that a newer server adds are left out)."""

from datetime import datetime
from typing import Any

import msgspec


class Prediction(msgspec.Struct, frozen=True):
    """One label with its score; `index` is the model's output."""

    index: int
    label: str
    score: float


class ItemError(msgspec.Struct, frozen=True):
    """Why an item failed: a stable kind (docs/errors.md) and one sentence."""

    kind: str
    message: str


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One image of a job with its answer. `state`: queued, running, succeeded, failed or cancelled; times are UTC."""

    job: str
    n: int
    name: str
    state: str
    model: str
    digest: str | None = None
    label: str | None = None
    score: float | None = None
    risk: float | None = None
    found: bool | None = None
    predictions: tuple[Prediction, ...] = ()
    error: ItemError | None = None
    task: str | None = None
    attempt: int | None = None
    worker: str | None = None
    frame: int | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    run_ms: float | None = None
    reused: bool = False
    deaths: int | None = None
    losses: int | None = None


class JobFacts(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A job as the server last showed it. `state`: pending, running, succeeded, failed or cancelled."""

    id: str
    name: str
    state: str
    model: str
    priority: int
    owner: str
    total: int
    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    created_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def answered(self) -> int:
        """Items that have come to their end, in whatever state."""
        return self.succeeded + self.failed + self.cancelled

    @property
    def done(self) -> bool:
        """Whether nothing is left to run."""
        return self.finished_at is not None


class JobAnswer(JobFacts, frozen=True, kw_only=True):
    """The answer to a submission; with `wait` the first items of the job too."""

    items: list[Item] = []


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An image that the record knows, with all its names; `digest` is the SHA-256 of its bytes."""

    digest: str
    pixel_digest: str | None = None
    names: tuple[str, ...] = ()
    media_type: str | None = None
    width: int | None = None
    height: int | None = None
    bytes: int = 0
    created_at: datetime | None = None


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model. `images`: that went through it since the server started; `ms_per_image`: what one costs."""

    name: str
    version: str
    stage: str
    task: str
    runtime: str
    labels: int
    positive: tuple[str, ...] = ()
    content_digest: str = ""
    default_for: tuple[str, ...] = ()
    created_at: datetime | None = None
    images: int = 0
    ms_per_image: float | None = None

    @property
    def ref(self) -> str:
        """NAME:VERSION."""
        return f"{self.name}:{self.version}"


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker process that is connected now; `state`: idle, busy or loading."""

    id: str
    host: str
    pid: int
    state: str
    server: int | str | None = None
    lanes: tuple[str, ...] = ()
    images_per_s: float = 0.0
    memory_mb: float = 0.0
    restarts: int = 0
    started_at: datetime | None = None
    seen_at: datetime | None = None


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """What waits for one model: how many tasks, and for how many seconds the oldest of them."""

    lane: str
    model: str | None
    queued: int
    oldest_s: float


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts over the whole record, and the rate of the last seconds."""

    queued: int
    running: int
    succeeded: int
    failed: int
    workers: int
    images_per_s: float
    p95_ms: float | None = None
    failed_24h: int = 0
    by_lane: tuple[Lane, ...] = ()


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened; `data` is the job, model or worker as it was then.

    `kind` "reset" says that events were missed: the server keeps none so old.
    """

    seq: int
    kind: str
    subject: str = ""
    at: datetime | None = None
    data: dict[str, Any] = {}


class Page(msgspec.Struct, frozen=True):
    """One page of a list."""

    items: msgspec.Raw
    next: str | None = None
