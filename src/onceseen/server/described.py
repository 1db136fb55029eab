"""What `/docs` says of each route: the table of the HTTP interface. `openapi` lays it over what FastAPI knows by itself.

A route without a row here, or a row without a route, fails a test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onceseen.domain.events import KINDS
from onceseen.server import examples
from onceseen.server.predictions import Chosen
from onceseen.wire.http import (
    CountOut,
    DefaultOut,
    HealthOut,
    ImageOut,
    ItemOut,
    JobOut,
    MatchOut,
    ModelOut,
    Page,
    ScanOut,
    StatsOut,
    UrlIn,
    WorkerOut,
)

BASE = "http://127.0.0.1:8000"
INTRODUCTION = """Every image gets an answer, exactly once, in a durable record.

Send images with `POST /v1/jobs`; the `201` means that they are safe on disk. Then follow the job, read its items, or wait for
both in the same request with `?wait=20`. An image that cannot be read is a failed item, never an HTTP error.

* Lists are `{"items": [...], "next": ...}`: hand `next` back as `cursor` for the page after it.
* Times are RFC 3339 in UTC, digests lower-case hex of SHA-256, ids UUIDs that sort by time.
* Errors are `application/problem+json` (RFC 9457) with a stable `code`; `Retry-After` says when it is worth another try.
"""
TAGS = {
    "jobs": ("Jobs", "What somebody submitted: one image or a million, each an item with its answer."),
    "predictions": ("Predictions", "Items over all jobs, and those that were given up."),
    "images": ("Images", "Bytes, named by their SHA-256, with all the names and answers that they got."),
    "models": ("Models", "What looks at images: versions, the live one of a name, and defaults."),
    "workers": ("Workers and load", "Who works now, how much waits."),
    "scan": ("Scan", "A dialect: pictures known by the hash of their pixels (docs/dialects.md)."),
    "events": ("Events", "What happens, as it happens."),
    "health": ("Health", "For supervisors and monitoring."),
}
PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "job": {"description": "The job's id.", "example": examples.JOB_ID},
    "n": {"description": "The item's place in its job, from 0.", "example": 0},
    "digest": {"description": "SHA-256 of the image's bytes, or of its pixels.", "example": examples.DIGEST},
    "ref": {"description": "`NAME` (the live version) or `NAME:VERSION`.", "example": examples.MODEL},
    "dialect": {"description": "The way in: `v1` is this one.", "example": "v1"},
    "cursor": {"description": "`next` of the page before."},
    "limit": {"description": "Items of a page, at most 1000."},
    "state": {"description": "One or several of the states, separated by commas."},
    "label": {"description": "The whole label or a word of it, in any case."},
    "model": {"description": "`NAME` or `NAME:VERSION`."},
    "name": {"description": "A name."},
    "version": {"description": "A version; without one it is counted up."},
    "set": {"description": "`KEY=VALUE` over `model.toml`, as often as wanted: `input.size=[224,224]`."},
    "frame": {"description": "Which frame of a stack or animation, from 0; without it the first."},
    "dataset": {"description": "Path of the dataset in an HDF5 file that holds several."},
    "size": {"description": "Pixels of the longer side, 16 to 1280; rounded up to the next size that is kept."},
    "q": {"description": "The search of docs/query.md: `state:failed score:<0.6 -label:cat`."},
    "min_score": {"description": "A score of at least this."},
    "max_score": {"description": "A score of at most this."},
    "after": {"description": "Finished after this moment, RFC 3339 with its zone."},
    "before": {"description": "Finished before this moment, RFC 3339 with its zone."},
    "scan.name": {"description": "The name that the picture gets.", "example": "good.png"},
    "scan.model": {"description": "`NAME` or `NAME:VERSION`; without it the default of `scan`."},
    "scan.digest": {"description": "The `hash` that a scan answered.", "example": examples.DIGEST},
    "predictions.name": {"description": "The beginning of the item's name."},
    "events.after": {"description": "Only events with a greater `seq`; without it from now on."},
    "last-event-id": {"description": "The same, as browsers send it when they connect again."},
}


def parameter(name: str, text: str, kind: str = "string", place: str = "query", **schema: Any) -> dict[str, Any]:
    """One that FastAPI does not see."""
    return {"name": name, "in": place, "required": False, "schema": {"type": kind, **schema}, "description": text}


@dataclass(frozen=True)
class Operation:
    """One row.

    Attributes:
        tag: its group.
        summary: one line.
        curl: a request that can be pasted.
        type: of the answer, a struct or a media type.
        example: of the answer; None for bytes.
        problems: codes of `errors.py` besides those that every route may answer.
        forms: other media types of the same answer, by `Accept`; they stream the whole.
        more: answers that are no problem documents, by status.
        id, text: where there is no function to take them from; a text here also takes the place of its docstring.
    """

    tag: str
    summary: str
    curl: str
    type: Any
    example: Any = None
    problems: Sequence[str] = ()
    status: int = 200
    answer: str = ""
    parameters: Sequence[Mapping[str, Any]] = ()
    body: Mapping[str, Any] | None = None
    body_type: Any = None
    headers: Mapping[str, Any] | None = None
    forms: Sequence[str] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    text: str = ""


def get(tag: str, summary: str, path: str, type: Any, example: Any = None, *problems: str, **more: Any) -> Operation:  # noqa: A002
    """A row of a GET."""
    return Operation(tag, summary, f"curl '{BASE}{path}'", type, example, problems, **more)


def post(tag: str, summary: str, path: str, type: Any, example: Any = None, *problems: str, **more: Any) -> Operation:  # noqa: A002
    """A row of a POST without a body."""
    return Operation(tag, summary, f"curl -X POST '{BASE}{path}'", type, example, problems, **more)


LISTING = ("text/csv", "application/x-ndjson")
BYTES = {"schema": {"type": "string", "format": "binary"}}
URL_LIST = {
    "schema": {
        "type": "object",
        "required": ["urls"],
        "additionalProperties": False,
        "properties": {
            "urls": {"type": "array", "items": {"type": "string", "format": "uri"}, "minItems": 1},
            "model": {"type": ["string", "null"]},
            "name": {"type": ["string", "null"]},
        },
    },
    "example": {"model": "imagenet", "urls": ["https://pictures.example/cat.jpg"], "name": "holiday"},
}
SUBMIT = Operation(
    tag="jobs",
    summary="Submit images",
    curl=f"curl -F images=@cat.jpg -F images=@dog.png '{BASE}/v1/jobs?model=imagenet&name=holiday&wait=20'\n"
    f"curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg' '{BASE}/v1/jobs?model=imagenet&filename=cat.jpg&wait=20'",
    type=JobOut,
    example=examples.SUBMITTED,
    problems=(
        "invalid-request",
        "unknown-model",
        "key-in-flight",
        "key-reused",
        "too-large",
        "too-busy",
        "storage-full",
    ),
    status=201,
    answer="The job is durable: it will be answered, whatever is killed now.",
    id="submit",
    text="""Take images and answer when they are durable; with `wait` when the job has ended, or after that many seconds, with
its first 1,000 `items`.

The body is one image, a form with any number of files in the field `images`, a zip or tar archive (also gzip, bzip2, xz) of
image files, or a list of URLs: `{"model": "imagenet", "urls": ["https://..."], "name": "holiday"}` as `application/json` (in a form
the field `urls`). An image that cannot be read, and a URL that gives none, is a failed item. With `frames=all` the answer waits
until a worker has counted the frames of files that may hold several.

Send an `Idempotency-Key` to be able to repeat a request whose answer was lost: the same request is the same job for 24 hours.""",
    headers={"Location": {"description": "The job's path.", "schema": {"type": "string"}}},
    parameters=(
        parameter("model", "`NAME` or `NAME:VERSION`; without it the default of `v1`."),
        parameter("name", "A name for the job."),
        parameter("wait", "Seconds to wait for the job's end, at most the server's `max_wait`.", "number", minimum=0),
        parameter(
            "priority", "0 (interactive) to 9 (background); smaller goes first.", "integer", minimum=0, maximum=9
        ),
        parameter(
            "frames",
            "Of multi-page TIFF, animations and HDF5 stacks the `first` frame, or `all`, each an item of its own.",
            enum=["first", "all"],
        ),
        parameter("dataset", "Path of the dataset in HDF5 files that hold several."),
        parameter("filename", "The name of an image that is the whole body; else that of `Content-Disposition`."),
        parameter("fresh", "Answer anew, whatever is remembered.", "boolean"),
        parameter("Idempotency-Key", "1 to 255 printable characters, best a UUID.", place="header", maxLength=255),
        parameter("Content-Disposition", 'For the name: `attachment; filename="cat.jpg"`.', place="header"),
    ),
    body={
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "images": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "urls": {"type": "array", "items": {"type": "string"}},
                    },
                }
            },
            "application/json": URL_LIST,
            "image/*": BYTES,
            "application/octet-stream": BYTES,
            "application/zip": BYTES,
            "application/x-tar": BYTES,
        },
    },
)
UPLOAD = Operation(
    tag="models",
    summary="Add a version",
    curl=f"curl --data-binary @mymodel.zip '{BASE}/v1/models'",
    type=ModelOut,
    example=examples.A_MODEL,
    problems=("invalid-request", "invalid-manifest", "model-exists", "too-large", "storage-full"),
    status=201,
    body={"required": True, "content": {"application/zip": BYTES, "application/octet-stream": BYTES}},
)


def letters(summary: str, path: str) -> Operation:
    """What is done to dead letters."""
    body = {"schema": {"$ref": "#/components/schemas/Chosen"}, "example": {"tasks": [examples.TASK_ID]}}
    return Operation(
        tag="predictions",
        summary=summary,
        curl=f"""curl -X POST -d '{{"tasks": ["{examples.TASK_ID}"]}}' '{BASE}/v1/dead-letters/{path}'""",
        type=CountOut,
        example=examples.COUNT,
        problems=("invalid-request",),
        body_type=Chosen,
        body={"content": {"application/json": body}},
    )


DRAINING = {
    "503": {
        "description": "The server is ending.",
        "content": {"application/json": {"example": {"status": "draining"}}},
    }
}
A_JOB, AN_IMAGE = f"/v1/jobs/{examples.JOB_ID}", f"/v1/images/{examples.DIGEST}"
COUNTS = "How far a job has come; it is `failed` if any item has failed and nothing is left to run."
ANSWER = "One image of a job with its answer: the label, all scores worth telling, and the times of its way."
SCANNED = """The raw bytes of a picture, of any content type. The answer comes when a worker has decoded it and it is on the
disk, with `Location` of its item; its prediction comes later. One that cannot be decoded is a failed item, and a problem here."""
A_URL = {"schema": {"$ref": "#/components/schemas/UrlIn"}, "example": {"url": "https://example.org/good.png"}}
WRONG, GONE, NO_MODEL = "invalid-request", "not-found", "unknown-model"

OPERATIONS: Mapping[str, Operation] = {
    "POST /v1/jobs": SUBMIT,
    "GET /v1/jobs": get("jobs", "List jobs", "/v1/jobs?limit=20", Page[JobOut], examples.JOBS, WRONG),
    "GET /v1/jobs/{job}": get("jobs", "One job", A_JOB, JobOut, examples.JOB, GONE, text=COUNTS),
    "GET /v1/jobs/{job}/items": get(
        "jobs",
        "Items of a job",
        f"{A_JOB}/items?state=succeeded&limit=100",
        Page[ItemOut],
        examples.ITEMS,
        WRONG,
        GONE,
        forms=LISTING,
    ),
    "GET /v1/jobs/{job}/items/{n}": get(
        "jobs", "One item", f"{A_JOB}/items/0", ItemOut, examples.ITEM, WRONG, GONE, text=ANSWER
    ),
    "POST /v1/jobs/{job}/cancel": post("jobs", "Cancel a job", f"{A_JOB}/cancel", JobOut, examples.JOB, GONE),
    "POST /v1/jobs/{job}/retry": post("jobs", "Retry a job", f"{A_JOB}/retry", JobOut, examples.JOB, GONE),
    "DELETE /v1/jobs/{job}": Operation(
        "jobs", "Delete a job", f"curl -X DELETE '{BASE}{A_JOB}'", "", problems=(GONE,), status=204
    ),
    "GET /v1/predictions": get(
        "predictions",
        "Search answers",
        "/v1/predictions?label=cat&q=score:%3E0.6&limit=50",
        Page[ItemOut],
        examples.ITEMS,
        WRONG,
        forms=LISTING,
    ),
    "GET /v1/dead-letters": get(
        "predictions",
        "List dead letters",
        "/v1/dead-letters?limit=50",
        Page[ItemOut],
        examples.DEAD_LETTERS,
        WRONG,
        forms=LISTING,
    ),
    "POST /v1/dead-letters/retry": letters("Run dead letters again", "retry"),
    "POST /v1/dead-letters/purge": letters("Take dead letters off the list", "purge"),
    "GET /v1/images/{digest}": get("images", "One image", AN_IMAGE, ImageOut, examples.IMAGE, GONE),
    "GET /v1/images/{digest}/content": get(
        "images",
        "An image's bytes",
        f"{AN_IMAGE}/content",
        "image/*",
        None,
        GONE,
        answer="The bytes as they were sent.",
    ),
    "GET /v1/images/{digest}/thumbnail": get(
        "images",
        "A small picture of it",
        f"{AN_IMAGE}/thumbnail?size=160&frame=0",
        "image/jpeg",
        None,
        WRONG,
        GONE,
        "unreadable-image",
        "too-many-pixels",
        "unsupported-format",
        "too-busy",
    ),
    "GET /v1/images/{digest}/predictions": get(
        "images",
        "An image's history",
        f"{AN_IMAGE}/predictions?limit=50",
        Page[ItemOut],
        examples.ITEMS,
        WRONG,
        GONE,
        forms=LISTING,
    ),
    "GET /v1/models": get("models", "List models", "/v1/models", Page[ModelOut], examples.MODELS),
    "GET /v1/models/{ref}": get(
        "models", "One model", f"/v1/models/{examples.MODEL}", ModelOut, examples.A_MODEL, NO_MODEL
    ),
    "POST /v1/models": UPLOAD,
    "POST /v1/models/{ref}/promote": post(
        "models",
        "Make a version the live one",
        f"/v1/models/{examples.MODEL}/promote",
        ModelOut,
        examples.A_MODEL,
        NO_MODEL,
    ),
    "DELETE /v1/models/{ref}": Operation(
        "models",
        "Remove a version",
        f"curl -X DELETE '{BASE}/v1/models/{examples.MODEL}'",
        "",
        problems=(NO_MODEL, "model-in-use"),
        status=204,
    ),
    "GET /v1/models/defaults": get(
        "models", "Default models", "/v1/models/defaults", dict[str, str | None], {"v1": "imagenet", "scan": None}
    ),
    "PUT /v1/models/defaults/{dialect}": Operation(
        "models",
        "Choose a default model",
        f"curl -X PUT '{BASE}/v1/models/defaults/v1?model=imagenet'",
        DefaultOut,
        examples.DEFAULT,
        problems=(WRONG, NO_MODEL),
    ),
    "GET /v1/workers": get("workers", "List workers", "/v1/workers", Page[WorkerOut], examples.WORKERS),
    "GET /v1/stats": get("workers", "Counts and rates", "/v1/stats", StatsOut, examples.STATS),
    "POST /scan/image/{name}": Operation(
        "scan",
        "Scan a picture",
        f"curl --data-binary @good.png '{BASE}/scan/image/good.png'",
        ScanOut,
        examples.SCAN,
        problems=(WRONG, NO_MODEL, "unreadable-image", "too-many-pixels", "too-large", "too-busy", "storage-full"),
        body={"required": True, "content": {"*/*": BYTES}},
        text=SCANNED,
    ),
    "POST /scan/url": Operation(
        "scan",
        "Scan a picture at a URL",
        f"""curl -d '{{"url": "https://example.org/good.png"}}' '{BASE}/scan/url'""",
        ScanOut,
        examples.SCAN,
        problems=(WRONG, NO_MODEL, "unreadable-image", "fetch-refused", "fetch-failed", "too-large", "too-busy"),
        body={"required": True, "content": {"application/json": A_URL}},
        body_type=UrlIn,
    ),
    "GET /match/{digest}": get("scan", "Find a picture", f"/match/{examples.DIGEST}", MatchOut, examples.MATCH, WRONG),
    "GET /v1/events": get(
        "events",
        "Follow events",
        "/v1/events?after=0",
        "text/event-stream",
        examples.EVENTS,
        WRONG,
        answer=f"Server-sent events: {', '.join(KINDS)}; `reset` first when `after` is older than what is kept.",
    ),
    "GET /healthz/live": get("health", "Is the process alive?", "/healthz/live", HealthOut, examples.ALIVE),
    "GET /healthz/ready": get(
        "health", "Can it take work?", "/healthz/ready", HealthOut, examples.READY, more=DRAINING
    ),
    "GET /metrics": get("health", "Figures for Prometheus", "/metrics", "text/plain", examples.METRICS),
}
