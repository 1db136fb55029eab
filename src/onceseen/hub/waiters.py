"""Who waits for a job's end."""

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from onceseen.domain.job import JobRow
from onceseen.domain.views import ItemView
from onceseen.flow.work import DoneItem, Outcome
from onceseen.hub.units import Facts


class Ended(NamedTuple):
    """A finished job; of a job with one item also this item, so that its sender's answer needs no read."""

    job: JobRow
    item: ItemView | None


class Waiters:
    """Futures by job, resolved when the transaction that ended the job is committed."""

    def __init__(self) -> None:
        self._by_job: dict[bytes, list[asyncio.Future[Ended | None]]] = {}

    def expect(self, job: bytes) -> asyncio.Future[Ended | None]:
        """A future of the job's end, None when the hub ends first; ask for it before the job can end."""
        future: asyncio.Future[Ended | None] = asyncio.get_running_loop().create_future()
        self._by_job.setdefault(job, []).append(future)
        return future

    def forget(self, job: bytes, future: asyncio.Future[Ended | None]) -> None:
        """Nobody waits for this future any more."""
        future.cancel()
        waiting = self._by_job.get(job)
        if waiting and future in waiting:
            waiting.remove(future)
            if not waiting:
                del self._by_job[job]

    def tell(self, outcome: Outcome, facts: dict[bytes, Facts]) -> None:
        """Resolve what a committed transaction ended."""
        if not self._by_job:
            return
        ended = {job: row for job, row in outcome.jobs.items() if row.finished_at is not None and job in self._by_job}
        if not ended:
            return
        single = {done.finished.job: done for done in outcome.done if done.finished.job in ended}
        for job, row in ended.items():
            item = view_of(single[job], facts) if row.total == 1 and job in single else None
            for future in self._by_job.pop(job):
                if not future.done():
                    future.set_result(Ended(row, item))

    def tell_jobs(self, ended: Iterable[JobRow]) -> None:
        """Resolve jobs that a cancel or retry has ended."""
        for row in ended:
            for future in self._by_job.pop(row.id, ()):
                if not future.done():
                    future.set_result(Ended(row, None))

    def close(self) -> None:
        """The hub ends: nobody need wait any longer."""
        for futures in self._by_job.values():
            for future in futures:
                if not future.done():
                    future.set_result(None)
        self._by_job.clear()


def view_of(done: DoneItem, facts: dict[bytes, Facts]) -> ItemView:
    """An item as the record would show it now."""
    item, finished = done.item, done.finished
    view = ItemView(
        job=item.job,
        n=item.n,
        name=item.name,
        digest=item.digest,
        frame=item.frame,
        task=item.task or None,
        state=finished.state,
        label=finished.label,
        score=finished.score,
        risk=finished.risk,
        found=finished.found,
        error_kind=finished.error_kind,
        error=finished.error,
        reused=int(done.reused),
        model=item.model,
        worker=finished.worker,
        finished_at=finished.finished_at,
    )
    known = facts.get(item.task)
    return view._replace(**known._asdict()) if known else view
