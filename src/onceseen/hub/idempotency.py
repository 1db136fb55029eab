"""Submissions under an Idempotency-Key: the first makes the job, a repetition is read through and gets the same one."""

import hashlib
from collections.abc import Callable

from onceseen.domain.fetch import name_of
from onceseen.domain.ids import now
from onceseen.domain.job import JobRow, NewImage
from onceseen.errors import KeyInFlight, KeyReused, TooLarge
from onceseen.flow import idempotency as flow
from onceseen.flow.work import JobHead, JobKey
from onceseen.hub.intake import Intake
from onceseen.hub.state import HubState
from onceseen.hub.submission import Request, Submission

RESTORED_AT_ONCE = 8 << 20  # bytes


async def begin(hub: HubState, key: str, asked: bytes, request: Callable[[], Request]) -> Intake:
    """What to read the body into.

    Args:
        hub: the hub.
        key: the Idempotency-Key.
        asked: model and parameters as the client gave them, in one form.
        request: checks them for a new job; a repetition does not need the model any more.

    Raises:
        KeyInFlight: another connection is sending under this key now.
    """
    project = hub.settings.project
    while (held := await _look(hub, project, key)) is not None:
        if held.is_done(now()):
            return Repetition(hub, held, flow.BodyHash(asked))
        if held.is_in_flight(hub.me, held.key.job in hub.open_jobs):
            raise KeyInFlight
        row = held.key
        await hub.writer.call(lambda tx: flow.take_over(tx, row))  # noqa: B023  (awaited here)
        hub.controlled.set()
    # No await from here on, so of two that come at once one is the first. (On two servers the record decides.)
    if hub.open_keys.get((project, key)) in hub.open_jobs:
        raise KeyInFlight
    submission = KeyedSubmission(hub, request(), key, flow.BodyHash(asked))
    hub.open_keys[project, key] = submission.head.id
    return submission


async def _look(hub: HubState, project: int, key: str) -> flow.Held | None:
    def read() -> flow.Held | None:
        with hub.database.read() as reader:
            return flow.look(reader, project, key)

    return await hub.read(read)


def _compare_url(body: flow.BodyHash, url: str, name: str) -> None:
    body.add(name or name_of(url), hashlib.sha256(b"url:" + url.encode(errors="replace")).digest())


class KeyedSubmission(Submission):
    """A submission that writes its key with its first chunk, and its body's hash with its last."""

    def __init__(self, hub: HubState, request: Request, key: str, body: flow.BodyHash) -> None:
        super().__init__(hub, request)
        self._key = self.head.key = JobKey(key)
        self._body = body

    async def add(self, name: str, data: bytes) -> None:
        """Take one image."""
        if len(data) <= self.hub.settings.max_image_bytes:  # else `refuse` is called
            self._body.add(name, hashlib.sha256(data).digest())
        await super().add(name, data)

    async def add_url(self, url: str, name: str = "") -> None:
        """Take one image by its URL."""
        _compare_url(self._body, url, name)
        await super().add_url(url, name)

    def refuse(self, name: str, kind: str, message: str) -> None:
        """Take an item that has failed already."""
        self._body.add(name, b"")
        super().refuse(name, kind, message)

    async def finish(self) -> JobRow:
        """Send what is left, wait until all of it is durable.

        Raises:
            KeyInFlight: another server has taken the key meanwhile.
        """
        self._key.body_hash = self._body.digest()
        return await super().finish()


class Repetition:
    """A body that is read again: compared with the first one, and mined for bytes that the store has lost.

    Raises:
        KeyReused: it is another body; from `finish`.
    """

    def __init__(self, hub: HubState, held: flow.Held, body: flow.BodyHash) -> None:
        assert held.job is not None
        job = held.job
        self.head = JobHead(
            job.id, job.project, job.name, job.server, job.model, job.priority, job.source, job.owner, job.created_at
        )
        self.running = 0
        self._hub = hub
        self._held = held
        self._body = body
        self._n = 0
        self._lost: dict[bytes, bytes] = {}

    @property
    def count(self) -> int:
        """Items so far."""
        return self._n

    async def add(self, name: str, data: bytes) -> None:
        """Compare one image."""
        if len(data) > self._hub.settings.max_image_bytes:
            self.refuse(name, TooLarge.code, "")
            return
        digest = hashlib.sha256(data).digest()
        self._body.add(name, digest)
        self._n += 1
        if await self._hub.read(lambda: self._is_lost(digest)):
            self._lost[digest] = data
            if sum(map(len, self._lost.values())) > RESTORED_AT_ONCE:
                await self._restore()

    async def add_url(self, url: str, name: str = "") -> None:
        """Compare one URL; what it leads to now does not matter."""
        _compare_url(self._body, url, name)
        self._n += 1

    def refuse(self, name: str, _kind: str, _message: str) -> None:
        """Compare an item that failed unread."""
        self._body.add(name, b"")
        self._n += 1

    async def finish(self) -> JobRow:
        """The first request's job as it is now."""
        if self._body.digest() != self._held.key.body_hash:
            raise KeyReused
        await self._restore()
        held = await _look(self._hub, self.head.project, self._held.key.key)
        if held is None or held.key.job != self.head.id or held.job is None:
            raise KeyInFlight("The job of this Idempotency-Key was deleted just now; send the request again.")
        self.running = held.running
        return held.job

    def abandon(self) -> None:
        """Nothing was begun."""

    def _is_lost(self, digest: bytes) -> bool:
        """Whether the record knows the image but not where its bytes are (RECORD.md 3.6)."""
        project = self.head.project
        with self._hub.database.read() as reader:
            if digest in reader.images.locate(project, [digest], paths=True):
                return False
            image = reader.views.image(project, digest)
        return image is not None and image.digest == digest

    async def _restore(self) -> None:
        """Bytes first, then their places in the rows."""
        if not self._lost:
            return
        project, lost = self.head.project, self._lost
        self._lost = {}
        places = await self._hub.pack.place(project, lost)
        rows = [
            NewImage(project, digest, None, None, None, len(lost[digest]), places[digest], now())
            for digest in sorted(lost)
        ]
        await self._hub.writer.call(lambda tx: tx.images.upsert(rows))
