"""`POST /v1/jobs`: bare ASGI with the raw or streamed body, because this is the hot path.

An unreadable image is a failed item, never an HTTP error; an error here means that nothing was promised.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from copy import copy
from functools import lru_cache, partial
from urllib.parse import parse_qs, unquote_to_bytes

import structlog

from onceseen.domain.ids import text_of
from onceseen.domain.job import JobRow
from onceseen.domain.names import clean_name, dataset_name
from onceseen.domain.task import BACKGROUND, INTERACTIVE, ORDINARY
from onceseen.domain.views import ItemFilter
from onceseen.errors import InvalidRequest, OnceseenError, PayloadTooLarge
from onceseen.hub import idempotency
from onceseen.hub.hub import Hub
from onceseen.hub.intake import Intake
from onceseen.hub.submission import Request, Submission
from onceseen.hub.waiters import Ended
from onceseen.server import archives, multipart, urls
from onceseen.server.asgi import JSON, Receive, Scope, Send, header, send_bytes, send_problem
from onceseen.server.held import Held
from onceseen.server.items import item_view_out
from onceseen.settings import Settings
from onceseen.wire.http import encode, job_out

log = structlog.get_logger()

MAX_KEY = 255
ITEMS_IN_ANSWER = 1000
KNOWN = frozenset({"model", "name", "wait", "priority", "frames", "dataset", "filename", "fresh"})
EXTENDED_NAME = re.compile(r"(?:^|[;\s])filename\*\s*=\s*(utf-8|iso-8859-1)'[^']*'([^;\s]+)", re.IGNORECASE)
PLAIN_NAME = re.compile(r'(?:^|[;\s])filename\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;"\s]+))', re.IGNORECASE)
ARCHIVES = frozenset({"application/zip", "application/x-zip-compressed", "application/x-tar", "application/gzip"})


class SenderLost(Exception):
    """The client went away in the middle of its request."""


class Asked:
    """The query of one request, checked."""

    def __init__(self, text: bytes, max_wait: float) -> None:
        query = parse_qs(text.decode("latin-1"), keep_blank_values=True)
        unknown = sorted(set(query) - KNOWN)
        if unknown:
            raise InvalidRequest(f"`{unknown[0]}` is no parameter of this call; known are {', '.join(sorted(KNOWN))}.")
        values = {name: found[-1] for name, found in query.items()}
        self.model = values.get("model") or None
        self.name = clean_name(values.get("name", ""), "")
        self.filename = values.get("filename", "")
        self.wait = min(_number(values, "wait", 0.0), max_wait)
        self.priority = _priority(values.get("priority"))
        self.fresh = values.get("fresh", "").lower() in ("1", "true", "yes")
        self.frames = _frames(values.get("frames", "first"))
        self.dataset = dataset_name(values.get("dataset", ""))

    @property
    def of_stacks(self) -> list[bool | str]:
        """What is asked of files with several frames; empty where nothing is."""
        return [self.frames, self.dataset] if self.frames or self.dataset else []

    def with_body(self, model: str | None, name: str | None) -> "Asked":
        """The same with what a JSON body says, which goes before the query."""
        found = copy(self)
        found.model = model or self.model
        found.name = self.name if name is None else clean_name(name, "")
        return found


asked_by = lru_cache(maxsize=256)(Asked)
"""A client that sends one image after another asks the same each time."""


class SubmitRoute:
    """ASGI application of one path and method."""

    def __init__(self, hub: Hub, settings: Settings) -> None:
        self._hub = hub
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Receive, make durable, answer 201."""
        submission: Intake | None = None
        waiting: asyncio.Future[Ended | None] | None = None
        try:
            asked = asked_by(scope["query_string"], self._settings.max_wait)
            kind = header(scope, b"content-type").partition(";")[0].strip().lower()
            body, listed = _body(receive, self._settings.max_submission_bytes), None
            if kind == "application/json":  # it says which model: nothing can begin before it is read
                listed = await urls.read(body, self._settings.max_items)
                asked = asked.with_body(listed.model, listed.name)
            priority = _urgency(asked, kind, listed)
            key = _idempotency_key(scope)
            if key is None:
                submission = Submission(self._hub, self._request(asked, priority))
            else:
                parameters = encode([asked.model, asked.name, asked.priority, asked.fresh, *asked.of_stacks])
                request = partial(self._request, asked, priority)
                submission = await idempotency.begin(self._hub, key, parameters, request)
            if asked.wait:
                waiting = self._hub.waiters.expect(submission.head.id)
            await (urls.receive(submission, listed) if listed else self._fill(submission, scope, body, kind, asked))
            if not submission.count:
                raise InvalidRequest(
                    "Nothing was sent; send an image as the body, or files in the form field `images`."
                )
            row = await submission.finish()
            answer = await self._answer(row, waiting, asked.wait, submission.running)
        except OnceseenError as error:
            _abandon(submission)
            await send_problem(send, error)
        except SenderLost:
            _abandon(submission)
        except Exception:
            log.exception("submit.failed")
            _abandon(submission)
            await send_problem(send, OnceseenError())
        except asyncio.CancelledError:
            _abandon(submission)
            raise
        else:
            location = f"/v1/jobs/{text_of(row.id)}".encode()
            await send_bytes(send, 201, answer, [JSON, (b"location", location)])
        finally:
            if waiting is not None and submission is not None:
                self._hub.waiters.forget(submission.head.id, waiting)

    def _request(self, asked: Asked, priority: int) -> Request:
        model = self._hub.catalog.resolve(asked.model)
        return Request(model, asked.name, priority, "http", "local", asked.fresh, asked.frames, asked.dataset)

    async def _fill(
        self, submission: Intake, scope: Scope, body: AsyncIterator[bytes], kind: str, asked: Asked
    ) -> None:
        if kind == "multipart/form-data":
            with Held(self._hub) as held:
                await multipart.receive_images(
                    submission, body, header(scope, b"content-type"), self._settings, held.now
                )
        elif kind in ARCHIVES:
            await archives.receive_images(submission, body, kind, self._settings)
        elif kind.startswith("image/") or kind in ("application/octet-stream", "application/x-hdf5", ""):
            name = asked.filename or _disposition(header(scope, b"content-disposition"))
            await self._receive_one(submission, body, scope, clean_name(name))
        else:
            raise InvalidRequest(
                f"Content-Type {kind!r} is not one of image/*, application/octet-stream, multipart/form-data, "
                "application/json, application/zip, application/x-tar."
            )

    async def _receive_one(self, submission: Intake, body: AsyncIterator[bytes], scope: Scope, name: str) -> None:
        limit = self._settings.max_image_bytes
        announced = header(scope, b"content-length")
        if announced.isdigit() and int(announced) > limit:
            raise PayloadTooLarge(f"The image has {int(announced):,} bytes, over the limit of {limit:,}.")
        parts: list[bytes] = []
        size = 0
        with Held(self._hub) as held:
            async for part in body:
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise PayloadTooLarge(f"The image has more than {limit:,} bytes, the limit.")
                held.now(size)
        if size:
            await submission.add(name, parts[0] if len(parts) == 1 else b"".join(parts))

    async def _answer(
        self, row: JobRow, waiting: asyncio.Future[Ended | None] | None, wait: float, running: int
    ) -> bytes:
        """The job; after a wait also its first items."""
        if waiting is None:
            return encode(job_out(row, running))
        ended: Ended | None = None
        if row.finished_at is None or waiting.done():
            ended = await _within(waiting, wait)
        if ended is not None and ended.item is not None:
            return encode(job_out(ended.job, items=[item_view_out(self._hub, ended.item)]))
        return await self._hub.read(lambda: self._read_back(row.id, ended.job if ended else row))

    def _read_back(self, job: bytes, fallback: JobRow) -> bytes:
        with self._hub.database.read() as reader:
            found = reader.views.job(job)
            views = reader.views.items(ItemFilter(self._hub.settings.project, job=job), ITEMS_IN_ANSWER)
        row, running = found or (fallback, 0)
        return encode(job_out(row, running, [item_view_out(self._hub, view) for view in views]))


async def _within(waiting: asyncio.Future[Ended | None], seconds: float) -> Ended | None:
    """What the future gives in time; None when it does not, or when the server ends."""
    timer = asyncio.get_running_loop().call_later(seconds, _give_up, waiting)
    try:
        return await waiting
    finally:
        timer.cancel()


def _give_up(waiting: asyncio.Future[Ended | None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _abandon(submission: Intake | None) -> None:
    if submission is not None:
        submission.abandon()


async def _body(receive: Receive, limit: int) -> AsyncIterator[bytes]:
    """The parts of a request's body as they come."""
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise SenderLost
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise PayloadTooLarge(f"The submission has more than {limit:,} bytes, the limit; send it in parts.")
        if part:
            yield part
        if not message.get("more_body"):
            return


def _idempotency_key(scope: Scope) -> str | None:
    """The Idempotency-Key of a request that has one."""
    given: list[bytes] = [value for name, value in scope["headers"] if name == b"idempotency-key"]
    if not given:
        return None
    key = given[0].decode("latin-1")
    if len(given) > 1 or not 0 < len(key) <= MAX_KEY or not (key.isascii() and key.isprintable()):
        raise InvalidRequest(
            f"The header Idempotency-Key, {key[:50]!r}, must come once with 1 to {MAX_KEY} printable ASCII characters; "
            "a random UUID for each new request is a good one."
        )
    return key


def _number(values: dict[str, str], name: str, default: float) -> float:
    text = values.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise InvalidRequest(f"`{name}` = {text[:50]!r} is not a number of 0 or more.")
    return value


def _frames(text: str) -> bool:
    """Whether each frame is an item."""
    if text not in ("first", "all"):
        raise InvalidRequest(f"`frames` = {text[:50]!r}: give `first` or `all`.")
    return text == "all"


def _priority(text: str | None) -> int:
    """0 to 9; -1 when none is given."""
    if text is None:
        return -1
    if not (text.isascii() and text.isdigit() and len(text) < 5 and INTERACTIVE <= int(text) <= BACKGROUND):
        raise InvalidRequest(f"`priority` = {text[:50]!r}: give 0 (interactive) to 9 (background).")
    return int(text)


def _urgency(asked: Asked, kind: str, listed: urls.UrlList | None) -> int:
    """The priority that was asked for; else one image that somebody waits for goes first."""
    if asked.priority >= 0:
        return asked.priority
    is_one = len(listed.urls) == 1 if listed else kind.startswith("image/") or kind == "application/octet-stream"
    return INTERACTIVE if asked.wait > 0 and is_one and not asked.frames else ORDINARY


def _disposition(text: str) -> str:
    """The file name in a Content-Disposition header: `filename*` (RFC 5987) before `filename`."""
    if found := EXTENDED_NAME.search(text):
        charset, value = found.groups()
        return unquote_to_bytes(value).decode("latin-1" if charset.lower() == "iso-8859-1" else "utf-8", "replace")
    if found := PLAIN_NAME.search(text):
        quoted, bare = found.groups()
        name = (bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)).encode("latin-1")
        try:
            return name.decode()
        except UnicodeDecodeError:
            return name.decode("latin-1")
    return ""
