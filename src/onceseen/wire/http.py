"""The JSON forms of `/v1` (INTERFACES of jobs, items, images, models); times are RFC 3339, UTC, digests lower-case hex."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import msgspec

from onceseen.domain.events import Event
from onceseen.domain.ids import text_of
from onceseen.domain.job import JobRow
from onceseen.domain.task import TaskState
from onceseen.domain.views import ImageView, ItemView

T = TypeVar("T")
_encoder = msgspec.json.Encoder()
encode = _encoder.encode

JOB_STATES = ("receiving", "pending", "succeeded", "failed", "cancelled")
ITEM_STATES = {0: "pending", 2: "succeeded", 3: "failed", 4: "cancelled"}


def encode_text(value: Any) -> str:
    """JSON as text."""
    return encode(value).decode()


def moment(microseconds: int | None) -> datetime | None:
    """A row's time as a datetime, UTC."""
    return None if microseconds is None else datetime.fromtimestamp(microseconds / 1e6, UTC)


class Prediction(msgspec.Struct, gc=False):
    """One label with its score; `index` is the model's output."""

    index: int
    label: str
    score: float


class ErrorOut(msgspec.Struct, gc=False):
    """Why an item failed: a stable kind and one sentence."""

    kind: str
    message: str


class ItemOut(msgspec.Struct):
    """One item of a job with its answer."""

    job: str
    n: int
    name: str
    digest: str | None
    task: str | None
    state: str
    label: str | None
    score: float | None
    risk: float | None
    found: bool | None
    predictions: list[Prediction]
    error: ErrorOut | None
    attempt: int | None
    model: str
    worker: str | None
    frame: int | None
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    run_ms: float | None
    reused: bool
    deaths: int | msgspec.UnsetType = msgspec.UNSET  # dead letters only
    losses: int | msgspec.UnsetType = msgspec.UNSET


class Result(msgspec.Struct):
    """One item as scripts read it: a line of `classify --json`. `frame`: only where a frame of a file was asked for."""

    name: str
    digest: str | None
    state: str
    label: str | None
    score: float | None
    model: str
    predictions: list[Prediction]
    risk: float | None
    found: bool | None
    error: ErrorOut | None
    frame: int | msgspec.UnsetType = msgspec.UNSET


class JobOut(msgspec.Struct):
    """One job. In events `queued` counts all that is not answered yet, and `items` names the n that were settled."""

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
    created_at: datetime | None
    finished_at: datetime | None
    items: list[ItemOut | int] | msgspec.UnsetType = msgspec.UNSET


class Page(msgspec.Struct, Generic[T]):
    """A list; `next` is the cursor of the page after it, while there may be one."""

    items: Sequence[T]
    next: str | None


class ImageOut(msgspec.Struct):
    """An image and all its names."""

    digest: str
    pixel_digest: str | None
    names: list[str]
    media_type: str | None
    width: int | None
    height: int | None
    bytes: int
    created_at: datetime | None


class UrlIn(msgspec.Struct):
    """Where a picture is to be fetched."""

    url: str


class ScanOut(msgspec.Struct):
    """A picture that was taken: the hash of its mode, size and pixels, and the name under which it is known."""

    hash: str
    filename: str


class MatchOut(msgspec.Struct):
    """What is known of a picture: its names, sorted (at most 10,000), and its newest items with their answers (at most 100)."""

    matched_names: list[str]
    matches: list[ItemOut]


class ModelOut(msgspec.Struct):
    """One version of a model. `images`: that went through it since the server started."""

    name: str
    version: str
    stage: str
    task: str
    runtime: str
    labels: int
    positive: list[str]
    content_digest: str
    default_for: list[str]
    created_at: datetime | None
    images: int
    ms_per_image: float | None


class EventOut(msgspec.Struct):
    """One event."""

    seq: int
    at: datetime | None
    kind: str
    subject: str
    data: msgspec.Raw


class WorkerOut(msgspec.Struct):
    """A worker that is connected now; `lanes` are the models that it has loaded."""

    id: str
    host: str
    pid: int
    server: int
    state: str
    lanes: list[str]
    images_per_s: float
    memory_mb: float
    restarts: int
    started_at: datetime | None
    seen_at: datetime | None


class LaneOut(msgspec.Struct):
    """What waits for one model; its lane is the digest of what decides its answers."""

    lane: str
    model: str | None
    queued: int
    oldest_s: float


class StatsOut(msgspec.Struct):
    """Counts over the whole record, and what is going on now."""

    queued: int
    running: int
    succeeded: int
    failed: int
    failed_24h: int
    workers: int
    images_per_s: float
    p95_ms: float | None
    by_lane: list[LaneOut]


class CountOut(msgspec.Struct):
    """How many items were concerned."""

    count: int


class DefaultOut(msgspec.Struct):
    """The model of clients that name none, by the dialect they speak."""

    dialect: str
    model: str


class HealthOut(msgspec.Struct):
    """`ok`, `draining`, or `low-space`: work is taken, but soon the disk will be full. `free_mb`: room on that disk."""

    status: str
    workers: int | msgspec.UnsetType = msgspec.UNSET
    free_mb: int | msgspec.UnsetType = msgspec.UNSET


class ProblemOut(msgspec.Struct):
    """A problem document (RFC 9457): a stable `code`, and in `detail` what is wrong, which value, and the cure."""

    type: str
    title: str
    status: int
    detail: str
    code: str


def job_out(row: JobRow, running: int = 0, items: list[Any] | None = None) -> JobOut:
    """A job as others read it; `running` of its pending items run now."""
    state = JOB_STATES[row.state]
    return JobOut(
        id=text_of(row.id),
        name=row.name,
        state="running" if state == "pending" and running else state,
        model=row.model,
        priority=row.priority,
        owner=row.owner,
        total=row.total,
        queued=max(0, row.pending - running),
        running=running,
        succeeded=row.succeeded,
        failed=row.failed,
        cancelled=row.cancelled,
        created_at=moment(row.created_at),
        finished_at=moment(row.finished_at),
        items=msgspec.UNSET if items is None else items,
    )


def item_out(view: ItemView, predictions: list[Prediction]) -> ItemOut:
    """An item as others read it. Running and queued are read from the task."""
    state = ITEM_STATES[view.state]
    if state == "pending":
        state = "running" if view.task_state == TaskState.RUNNING else "queued"
    return ItemOut(
        job=text_of(view.job),
        n=view.n,
        name=view.name,
        digest=view.digest.hex() if view.digest else None,
        task=text_of(view.task) if view.task else None,
        state=state,
        label=view.label,
        score=view.score,
        risk=view.risk,
        found=None if view.found is None else bool(view.found),
        predictions=predictions,
        error=ErrorOut(view.error_kind, view.error or "") if view.error_kind else None,
        attempt=view.attempt,
        model=view.model,
        worker=text_of(view.worker) if view.worker else None,
        frame=view.frame,
        queued_at=moment(view.queued_at),
        started_at=moment(view.started_at),
        finished_at=moment(view.finished_at),
        run_ms=view.run_ms,
        reused=bool(view.reused),
    )


def image_out(view: ImageView) -> ImageOut:
    """An image as others read it."""
    return ImageOut(
        digest=view.digest.hex(),
        pixel_digest=view.pixel_digest.hex() if view.pixel_digest else None,
        names=list(view.names),
        media_type=view.media_type,
        width=view.width,
        height=view.height,
        bytes=view.bytes,
        created_at=moment(view.created_at),
    )


def event_out(event: Event) -> EventOut:
    """An event as others read it."""
    return EventOut(event.seq, moment(event.at), event.kind, event.subject, msgspec.Raw(event.data.encode()))
