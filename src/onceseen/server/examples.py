"""Answers as `/docs` shows them: the very structs that are sent, so that they cannot grow old."""

from datetime import UTC, datetime, timedelta

import msgspec

from onceseen.domain.events import MODEL_PROMOTED
from onceseen.wire.http import (
    CountOut,
    DefaultOut,
    ErrorOut,
    EventOut,
    HealthOut,
    ImageOut,
    ItemOut,
    JobOut,
    LaneOut,
    MatchOut,
    ModelOut,
    Page,
    Prediction,
    ScanOut,
    StatsOut,
    WorkerOut,
    encode_text,
)

JOB_ID = "0199c0de-7b1a-7c3e-9f00-3c1d5a2b4e6f"
TASK_ID = "0199c0de-7b1b-7000-8a11-90fe12ab34cd"
WORKER_ID = "0199c0da-0c00-7000-b2aa-5566778899aa"
DIGEST = "1b2c85ea87e6d0c43e8b2f1a6a9d4d1f6f6a8d4c2b7f3e5a9c0d1e2f3a4b5c6d"
LANE = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
AT = datetime(2026, 5, 4, 9, 30, 15, 250_000, UTC)
MODEL = "imagenet:1"

JOB = JobOut(
    id=JOB_ID,
    name="holiday",
    state="succeeded",
    model=MODEL,
    priority=5,
    owner="local",
    total=2,
    queued=0,
    running=0,
    succeeded=2,
    failed=0,
    cancelled=0,
    created_at=AT,
    finished_at=AT + timedelta(milliseconds=61),
)
ITEM = ItemOut(
    job=JOB_ID,
    n=0,
    name="cat.jpg",
    digest=DIGEST,
    task=TASK_ID,
    state="succeeded",
    label="n02124075 Egyptian cat",
    score=0.83,
    risk=None,
    found=None,
    predictions=[
        Prediction(285, "n02124075 Egyptian cat", 0.83),
        Prediction(281, "n02123045 tabby", 0.09),
    ],
    error=None,
    attempt=1,
    model=MODEL,
    worker=WORKER_ID,
    frame=None,
    queued_at=AT,
    started_at=AT + timedelta(milliseconds=2),
    finished_at=AT + timedelta(milliseconds=22),
    run_ms=18.7,
    reused=False,
)
DEAD = ItemOut(
    job=JOB_ID,
    n=1,
    name="odd.png",
    digest=DIGEST,
    task=TASK_ID,
    state="failed",
    label=None,
    score=None,
    risk=None,
    found=None,
    predictions=[],
    error=ErrorOut("worker-died", "The process that ran this image died 3 times, each time with this image alone."),
    attempt=4,
    model=MODEL,
    worker=None,
    frame=None,
    queued_at=AT,
    started_at=None,
    finished_at=AT + timedelta(seconds=9),
    run_ms=None,
    reused=False,
    deaths=3,
    losses=0,
)
SUBMITTED = JobOut(
    id=JOB_ID,
    name="holiday",
    state="succeeded",
    model=MODEL,
    priority=0,
    owner="local",
    total=1,
    queued=0,
    running=0,
    succeeded=1,
    failed=0,
    cancelled=0,
    created_at=AT,
    finished_at=AT + timedelta(milliseconds=22),
    items=[ITEM],
)
IMAGE = ImageOut(
    digest=DIGEST,
    pixel_digest=None,
    names=["cat.jpg", "pets/cat.jpg"],
    media_type="image/jpeg",
    width=640,
    height=480,
    bytes=83_211,
    created_at=AT,
)
A_MODEL = ModelOut(
    name="imagenet",
    version="1",
    stage="live",
    task="classification",
    runtime="onnx",
    labels=1000,
    positive=[],
    content_digest=LANE,
    default_for=["v1"],
    created_at=AT,
    images=4211,
    ms_per_image=18.6,
)
WORKER = WorkerOut(
    id=WORKER_ID,
    host="node7",
    pid=4242,
    server=3,
    state="busy",
    lanes=[MODEL],
    images_per_s=52.4,
    memory_mb=181.5,
    restarts=0,
    started_at=AT,
    seen_at=AT + timedelta(seconds=42),
)
STATS = StatsOut(
    queued=120,
    running=8,
    succeeded=90_412,
    failed=31,
    failed_24h=2,
    workers=2,
    images_per_s=104.2,
    p95_ms=31.25,
    by_lane=[LaneOut(LANE, MODEL, 120, 1.25)],
)
JOBS, ITEMS, MODELS, WORKERS = Page([JOB], None), Page([ITEM], None), Page([A_MODEL], None), Page([WORKER], None)
DEAD_LETTERS = Page([DEAD], None)
SCAN, MATCH = ScanOut(DIGEST, "good.png"), MatchOut(["good.png", "http://127.0.0.1/best.png"], [ITEM])
COUNT, DEFAULT, ALIVE, READY = CountOut(1), DefaultOut("v1", MODEL), HealthOut("ok"), HealthOut("ok", 2, 81_920)
EVENT = EventOut(812, AT, MODEL_PROMOTED, MODEL, msgspec.Raw(b'{"name":"imagenet","version":"1","stage":"live"}'))
EVENTS = f"retry: 1000\n\nid: 812\ndata: {encode_text(EVENT)}\n\n"
METRICS = """# HELP onceseen_images_inferred_total Images that went through a model.
# TYPE onceseen_images_inferred_total counter
onceseen_images_inferred_total{model="imagenet",version="1"} 4211.0
"""
