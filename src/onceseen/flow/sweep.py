"""What nobody else will do: tasks of dead servers, submissions that broke off, half-done controls, bytes nobody names."""

from collections.abc import Collection

from onceseen.domain.ids import now as clock
from onceseen.domain.job import Control
from onceseen.domain.machine import INNOCENT
from onceseen.domain.task import Fence
from onceseen.flow.work import GivenBack
from onceseen.ports.database import Transaction

HOUR = 3_600_000_000  # microseconds
STEP = 500


def lost(tx: Transaction, me: int, known: Collection[tuple[bytes, int]]) -> list[GivenBack]:
    """This server's running rows that no lease of its hub names: (id, attempt) pairs (RECORD.md 1.5).

    Runs inside the writer's own transaction: between two of them, rows are claimed whose leases the hub does not know yet.
    """
    return [
        GivenBack(Fence(row.id, row.attempt, me), row.lane, INNOCENT)
        for row in tx.tasks.running(me)
        if (row.id, row.attempt) not in known
    ]


def of_dead_servers(tx: Transaction) -> list[GivenBack]:
    """Running tasks of servers that were judged dead go back at once, without a death (RECORD.md 5.3)."""
    living = tx.servers.living()
    return [
        GivenBack(Fence(row.id, row.attempt, row.server), row.lane, INNOCENT)
        for row in tx.tasks.running()
        if row.server is not None and row.server not in living
    ]


def broken_off(tx: Transaction, me: int, open_jobs: Collection[bytes]) -> int:
    """Detach submissions that will get no further chunk: of dead servers, or of this one with nobody sending (RECORD.md 2.4).

    They are deleted by the ordinary steps of control; the number of jobs that are.
    """
    swept, living = 0, tx.servers.living()
    for job in tx.jobs.receiving():
        nobody_sends = job.id not in open_jobs if job.server == me else job.server not in living
        if nobody_sends and not job.control:
            tx.jobs.control(job.id, Control.DELETE, 0)
            swept += 1
    return swept


def unfinished_local(tx: Transaction) -> None:
    """Jobs over local paths whose server died: what is there is their result; a new run begins the rest anew (RECORD.md 6)."""
    living = tx.servers.living()
    for row in tx.jobs.waiting("local"):
        if row.server not in living and not row.control:
            tx.jobs.recount(row.id, clock())


def forgotten_images(tx: Transaction, now: int) -> dict[bytes, str | None]:
    """Forget images deleted for an hour, under the row lock: digest -> where the bytes lie that may go after the commit."""
    rows = tx.images.deleted(now - HOUR, STEP)
    tx.images.remove([(project, digest) for project, digest, _ in rows])
    return {digest: None if (place or "").startswith("path:") else place for _, digest, place in rows}
