"""What server, worker and supervisor say to each other; each message is the header of one frame (msgpack).

worker                                   server
  Hello ─────────────────────────────────►        who I am
  ◄───────────────────────────────── Load          this model, from this directory
  Ready / LoadFailed ────────────────────►        warm, and what an image costs
  ◄───────────────────────────────── Batch         lease number, images (payload: their bytes)
  Begin ─────────────────────────────────►        I start this lease now: if I die, it is suspect
  Done ──────────────────────────────────►        one answer per image, in order
  ◄───────────────────────────────── Look          thumbnail, size, frames ... of one image (payload: its bytes)
  Looked ────────────────────────────────►        (payload: the thumbnail)
  Beat ──────────────────────────────────►        each second: alive
  Bye ───────────────────────────────────►        my end is no death

supervisor: Hello(kind="supervisor"), Started, Died; takes Kill.
another process of this user, with local paths: Hello(kind="client"), Ask; takes Told for each, then Over, or Refused.
"""

import msgspec

LINK_VERSION = 1
"""Raised when a message changes its meaning; the server accepts this one and the one before it."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Base of all messages."""


class Hello(Message, frozen=True):
    """First message of every link. `id`: UUIDv7 of the worker or supervisor, new for each connection."""

    link_version: int
    release: str
    id: bytes
    host: str
    pid: int
    kind: str = "worker"  # or "supervisor", "client"
    supervisor: bytes = b""  # id of the supervisor that started this worker, if one did
    restarts: int = 0  # how often it had to start this worker again


class Ready(Message, frozen=True):
    """The model is loaded and warm. `ms`: prepare + run + finish of one image of its own size."""

    lane: bytes
    ms: float


class LoadFailed(Message, frozen=True):
    """The model cannot be loaded: the sentence says why."""

    lane: bytes
    error: str


class Begin(Message, frozen=True):
    """The worker starts this lease now."""

    lease: int


class Answer(Message, frozen=True):
    """What became of one image. Exactly one of `scores` and `error_kind` is set.

    `index`: of the best label; `score`: its score; `scores`: see inference/finish.py; times in milliseconds;
    `digest`: SHA-256 of the bytes where the worker read a local path itself, else empty.
    """

    index: int = -1
    score: float = 0.0
    scores: bytes = b""
    error_kind: str = ""
    error: str = ""
    width: int = 0
    height: int = 0
    media_type: str = ""
    run_ms: float = 0.0
    digest: bytes = b""
    size: int = 0  # bytes of a local path's file


class Done(Message, frozen=True):
    """The lease is finished; answers in the order of its images. `begun`: the lease that is started now, 0 for none."""

    lease: int
    answers: list[Answer]
    begun: int = 0


class Looked(Message, frozen=True):
    """Answer to Look. `error_kind` empty when it could be done; the payload is the thumbnail, if one was wanted.

    `frames`: how many the file has, where that was asked.
    """

    look: int
    width: int = 0
    height: int = 0
    media_type: str = ""
    pixel_digest: bytes = b""
    error_kind: str = ""
    error: str = ""
    frames: int = 0


class Beat(Message, frozen=True):
    """Alive, from a thread of its own. `memory_mb`: resident memory; `cpu_s`: user + system time so far."""

    memory_mb: float
    cpu_s: float


class Bye(Message, frozen=True):
    """The end of this link is intended."""


class Started(Message, frozen=True):
    """Supervisor: a worker process was started."""

    pid: int


class Died(Message, frozen=True):
    """Supervisor: one of its worker processes ended; `reason` is one short sentence."""

    pid: int
    reason: str


class Ask(Message, frozen=True):
    """Client: answer these local paths (RECORD.md 6). The payload: their names, relative to `folder` (msgpack list).

    `model`: a name, or with `model_path` a directory or weights file, whose manifest `sets` adds to; empty: the default.
    `top`: predictions of each, 0 for the manifest's. `frames`: each frame of a stack is an item of its own.
    """

    folder: str
    model: str = ""
    model_path: bool = False
    sets: dict[str, str] = {}
    fresh: bool = False
    top: int = 0
    frames: bool = False
    dataset: str = ""


FromWorker = Hello | Ready | LoadFailed | Begin | Done | Looked | Beat | Bye | Started | Died | Ask


class Welcome(Message, frozen=True):
    """Answer to Hello. `server`: its id in this life."""

    server: int


class Load(Message, frozen=True):
    """Load a model before the batches that follow. `manifest`: as JSON (inference/manifest.py)."""

    lane: bytes
    directory: str
    manifest: bytes


class Unload(Message, frozen=True):
    """Forget a model; nothing of it follows."""

    lane: bytes


class ImageRef(Message, frozen=True):
    """One image of a batch: `size` bytes of the payload, or a local file that the worker reads itself.

    `frame`: which of its frames; `dataset`: of an HDF5 file, "" for the only one. `file`: digest of the file, where its frames
    come one by one: with size 0 its bytes are on the link's shelf (wire/shelf.py) already.
    """

    size: int = 0
    path: str = ""
    file: bytes = b""
    frame: int | None = None
    dataset: str = ""


class Batch(Message, frozen=True):
    """Images to answer, under one lease number of this link."""

    lease: int
    lane: bytes
    images: list[ImageRef]


class Look(Message, frozen=True):
    """Decode an image without a model: it is the payload, or lies on the shelf (`file`), or at `path`.

    `thumbnail`: longer side in pixels, 0 for none. `count`: only say how many frames it has, and refuse more than so many.
    """

    look: int
    thumbnail: int = 0
    pixel_digest: bool = False
    max_pixels: int = 100_000_000
    file: bytes = b""
    path: str = ""
    frame: int | None = None
    dataset: str = ""
    count: int = 0


class Forget(Message, frozen=True):
    """Empty the shelf: nobody has asked for its files for a while."""


class Kill(Message, frozen=True):
    """To a supervisor: kill this worker process of yours; it is frozen or over its deadline."""

    pid: int


class Told(Message, frozen=True):
    """To a client: item `n` is answered, and that is durable. The payload: wire.http.Result as JSON."""

    n: int


class Over(Message, frozen=True):
    """To a client: every item of the job was told; nothing follows."""

    job: str


class Refused(Message, frozen=True):
    """To a client: nothing was begun, and why."""

    code: str
    message: str


FromServer = Welcome | Load | Unload | Batch | Look | Forget | Kill | Told | Over | Refused

encode = msgspec.msgpack.Encoder().encode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
decode_from_server = msgspec.msgpack.Decoder(FromServer).decode
