"""What nobody else will do: tasks of dead servers, submissions that broke off, half-done controls, bytes nobody names."""

from collections.abc import Collection

from onceseen.domain.ids import now as clock
from onceseen.domain.job import Control, JobState
from onceseen.domain.machine import INNOCENT
from onceseen.domain.task import Fence
from onceseen.domain.views import JobFilter
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


def of_dead_servers(tx: Transaction, me: int) -> list[GivenBack]:
    """Running tasks of servers that are dead go back at once, without a death (RECORD.md 5.3)."""
    tx.servers.bury(me)
    return [
        GivenBack(Fence(row.id, row.attempt, row.server), row.lane, INNOCENT)
        for row in tx.tasks.running()
        if row.server is not None and row.server != me
    ]


def broken_off(tx: Transaction, me: int, open_jobs: Collection[bytes]) -> int:
    """Detach submissions that will get no further chunk: of dead servers, or of this one with nobody sending (RECORD.md 2.4).

    They are deleted by the ordinary steps of control; the number of jobs that are.
    """
    swept = 0
    for job in tx.jobs.receiving():
        if job.server != me or job.id not in open_jobs:
            tx.jobs.control(job.id, Control.DELETE, 0)
            swept += 1
    return swept


def unfinished_local(tx: Transaction, me: int) -> None:
    """Jobs over local paths whose server died: what is there is their result; a new run begins the rest anew (RECORD.md 6)."""
    for row, _running in tx.views.jobs(JobFilter(), 1000):
        if row.source == "local" and row.server != me and row.state == JobState.PENDING and not row.control:
            tx.jobs.recount(row.id, clock())


def forgotten_images(tx: Transaction, now: int) -> list[str]:
    """Forget images deleted for an hour, under the row lock; the locations of their bytes, to be deleted after the commit."""
    rows = tx.images.deleted(now - HOUR, STEP)
    tx.images.remove([(project, digest) for project, digest, _ in rows])
    return [location for _, _, location in rows if location and not location.startswith("path:")]
