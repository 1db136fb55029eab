"""A job at a server: the facts that were last seen, and what can be done with it."""

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Self

import msgspec

from onceseen.client.calls import Calls
from onceseen.client.pipes import blocking, itself, streaming
from onceseen.client.records import Item, JobFacts
from onceseen.errors import NotFinished

FIRST_POLL, LAST_POLL = 0.02, 1.0
"""Seconds between two looks at a job, soon after something came and when nothing comes."""
ENDED = "succeeded,failed,cancelled"


class JobBase(JobFacts, frozen=True, kw_only=True, dict=True):
    """What both kinds of jobs are made of. The coroutines of `AsyncJob` use nothing else of `self`: they serve both."""

    if TYPE_CHECKING:
        _calls: Calls

    @classmethod
    def of(cls, calls: Calls, facts: JobFacts) -> Self:
        """A job that can act."""
        job = cls(**{name: getattr(facts, name) for name in JobFacts.__struct_fields__})
        msgspec.structs.force_setattr(job, "_calls", calls)
        return job

    async def _look(self) -> None:
        self._take(await self._calls.read(JobFacts, "GET", f"/v1/jobs/{self.id}"))

    async def _wait(self, timeout: float | None) -> Self:
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = FIRST_POLL
        await self._look()
        while not self.done:
            left = LAST_POLL if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise NotFinished(f"The job {self.id} is not finished after {timeout} s; it goes on, wait again.")
            await self._calls.pipe.sleep(min(pause, left))
            pause = min(LAST_POLL, 1.5 * pause)
            await self._look()
        return self

    def _take(self, facts: JobFacts) -> Self:
        for name in JobFacts.__struct_fields__:
            msgspec.structs.force_setattr(self, name, getattr(facts, name))
        return self


class AsyncJob(JobBase, frozen=True, kw_only=True, dict=True):
    """`Job`, awaited."""

    async def refresh(self) -> Self:
        """Look at the job again; returns itself."""
        await self._look()
        return self

    async def wait(self, timeout: float | None = None) -> Self:
        """Wait until nothing is left to run; returns itself.

        Raises:
            NotFinished: after `timeout` seconds; the job goes on.
        """
        return await self._wait(timeout)

    async def results(self) -> AsyncIterator[Item]:
        """Every item once, as soon as it is answered (or failed, or cancelled); ends when the job is finished.

        Survives restarts of the server: each look is a request of its own.
        """
        looks = _Looks()
        pause = FIRST_POLL
        while True:
            await self._look()
            finished = self.done
            before = looks.count
            if self.answered > before or finished:
                async for item in looks.new(self._calls, self.id, self.answered):
                    yield item
            if finished:
                return
            pause = FIRST_POLL if looks.count > before else min(LAST_POLL, 1.5 * pause)
            await self._calls.pipe.sleep(pause)

    async def items(self, state: str | None = None, label: str | None = None) -> AsyncIterator[Item]:
        """The items as they are now, by n; of some states ("failed,cancelled") or one label only."""
        async for item in self._calls.pages(Item, f"/v1/jobs/{self.id}/items", state=state, label=label):
            yield item

    async def item(self, n: int) -> Item:
        """One item as it is now."""
        return await self._calls.read(Item, "GET", f"/v1/jobs/{self.id}/items/{n}")

    async def cancel(self) -> Self:
        """Cancel what is not answered yet; returns itself."""
        return self._take(await self._calls.read(JobFacts, "POST", f"/v1/jobs/{self.id}/cancel"))

    async def retry(self) -> Self:
        """Run failed items again, but not those whose image is unreadable; returns itself."""
        return self._take(await self._calls.read(JobFacts, "POST", f"/v1/jobs/{self.id}/retry"))

    async def delete(self) -> None:
        """Take the job with its items and names away."""
        await self._calls.remove(f"/v1/jobs/{self.id}")


class _Looks:
    """Which items of a job were handed out: all below `first`, and `ahead`."""

    def __init__(self) -> None:
        self.first = 0
        self.ahead: set[int] = set()
        self.cursor: str | None = None  # a place in the list before which nothing is new

    @property
    def count(self) -> int:
        return self.first + len(self.ahead)

    async def new(self, calls: Calls, job: str, answered: int) -> AsyncIterator[Item]:
        """Items that have come to their end since the last look."""
        cursor = self.cursor
        limit = 1000 if answered - self.count > 200 else 200
        while True:
            items, following = await calls.page(Item, f"/v1/jobs/{job}/items", state=ENDED, cursor=cursor, limit=limit)
            for item in items:
                if item.n >= self.first and item.n not in self.ahead:
                    self.ahead.add(item.n)
                    yield item
            while self.first in self.ahead:
                self.ahead.remove(self.first)
                self.first += 1
            if following is None:
                return
            cursor = following
            if items[-1].n < self.first:
                self.cursor = cursor


class Job(JobBase, frozen=True, kw_only=True, dict=True):
    """A job; its fields are read-only, and `refresh`, `wait`, `results`, `cancel` and `retry` bring them up to date.

    Each of them may raise NotFound: somebody has deleted the job.
    """

    refresh = itself(AsyncJob.refresh)
    wait = itself(AsyncJob.wait)
    results = streaming(AsyncJob.results)
    items = streaming(AsyncJob.items)
    item = blocking(AsyncJob.item)
    cancel = itself(AsyncJob.cancel)
    retry = itself(AsyncJob.retry)
    delete = blocking(AsyncJob.delete)
