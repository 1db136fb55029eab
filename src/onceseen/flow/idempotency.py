"""A request that is sent again under its Idempotency-Key -> the job that it made the first time (RECORD.md 2.7)."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from onceseen.domain.job import Control, JobRow, JobState, KeyRow
from onceseen.flow.work import Chunk
from onceseen.ports.database import Reader, Transaction

KEPT = 24 * 3_600_000_000  # microseconds


class Held(NamedTuple):
    """A key that is taken, with its job (if it is still there) and how many of the job's items run now."""

    key: KeyRow
    alive: bool
    job: JobRow | None
    running: int

    def is_done(self, now: int) -> bool:
        """Whether the job was received whole and is still there: a repetition is this job."""
        return self.key.body_hash is not None and self._is_there and self.key.created_at > now - KEPT

    def is_in_flight(self, me: int, is_open: bool) -> bool:
        """Whether a live server is still receiving the job; of our own ones the hub says so."""
        if self.key.body_hash is not None:
            return False
        if self.key.server == me:
            return is_open
        return self.alive and self._is_there

    @property
    def _is_there(self) -> bool:
        return self.job is not None and self.job.control != Control.DELETE


class BodyHash:
    """What two bodies are compared by: model and parameters, then name and digest of each item, never raw bytes."""

    def __init__(self, asked: bytes) -> None:
        self._hash = hashlib.sha256(asked)

    def add(self, name: str, digest: bytes) -> None:
        """The next item; without a digest it was refused unread."""
        text = name.encode(errors="surrogatepass")
        self._hash.update(len(text).to_bytes(8, "big") + text + len(digest).to_bytes(1, "big") + digest)

    def digest(self) -> bytes:
        """Of all items so far."""
        return self._hash.digest()


def look(reader: Reader, project: int, key: str) -> Held | None:
    """What holds a key."""
    found = reader.keys.get(project, key)
    if found is None:
        return None
    row, alive = found
    job, running = reader.views.job(row.job) or (None, 0)
    return Held(row, alive, job, running)


def take_over(tx: Transaction, held: KeyRow) -> None:
    """Free a key whose sender is lost; what has come of its job is swept."""
    job = tx.jobs.get(held.job)
    if job is not None and job.state == JobState.RECEIVING:
        tx.jobs.control(job.id, Control.DELETE, 0)
    tx.keys.forget(held.project, held.key, held.job)


def claim(tx: Transaction, chunks: Sequence[Chunk], now: int) -> set[bytes]:
    """Before all other phases, in key order: first chunks take their key, last ones complete it.

    Returns the jobs whose key another job has taken meanwhile; nothing of them may be written.
    """
    keyed = [(chunk, chunk.job.key) for chunk in chunks if chunk.job.key is not None]
    refused: set[bytes] = set()
    for chunk, key in sorted(keyed, key=lambda pair: (pair[0].job.project, pair[1].text)):
        job = chunk.job
        row = KeyRow(job.project, key.text, job.id, job.server, key.body_hash if chunk.last else None, now)
        if chunk.first and not tx.keys.claim(row):
            refused.add(job.id)
        elif chunk.last and not chunk.first and job.id not in refused:
            tx.keys.complete(row)
    return refused
