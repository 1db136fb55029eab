"""The stateful test: what people do. Submissions, in parts and under keys; local paths; cancel, delete, retry, dead letters."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from onceseen.domain.job import Control
from onceseen.domain.views import ItemFilter
from onceseen.flow import control, idempotency
from onceseen.flow.work import Chunk, JobHead, JobKey
from onceseen.testing.database_rows import digest
from onceseen.testing.record_model import (
    CANCELLED,
    FAILED,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    UNREADABLE,
    Item,
    Job,
    Server,
    Unit,
)
from onceseen.testing.record_world import FEW, World

IMAGES = st.lists(st.integers(0, 4), min_size=1, max_size=7)
WHICH = st.integers(0, 1)
"""Of two servers."""
FREE = st.sampled_from([None, 0, 1, 4])
"""Whether a transaction follows at once, and how many credits are free then."""


class People(World):
    """Rules."""

    @rule(
        which=WHICH,
        images=IMAGES,
        parts=st.sampled_from([1, 1, 2, 3]),
        priority=st.sampled_from([0, 5, 9]),
        early=st.booleans(),
        key=st.sampled_from([None, None, "k", "l"]),
        free=FREE,
    )
    def submit(
        self, which: int, images: list[int], parts: int, priority: int, early: bool, key: str | None, free: int | None
    ) -> None:
        """A job comes, the first of its parts at once."""
        server = self.servers[which]
        if key is not None and not self._may_take(server, key):
            return
        head = server.record.head(priority=priority)
        head.key = JobKey(key, digest(9)) if key else None
        numbers = list(enumerate(images))
        size = -(-len(numbers) // parts)
        groups = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        chunks = []
        for place, group in enumerate(groups):
            entries = [server.record.entry(head, n, image) for n, image in group]
            chunks.append(Chunk(head, entries, first=place == 0, last=place == len(groups) - 1))
        server.sending[head.id] = chunks
        self._send(server, head.id, early=early)
        if free is not None:
            self.transact(server, free)

    def _may_take(self, server: Server, text: str) -> bool:
        """What hub/idempotency.py does before it begins a job."""
        with self.database.read() as reader:
            held = idempotency.look(reader, 1, text)
        key = self.keys.get(text)
        assert (held is None) == (key is None)
        coming = [*server.work.chunks, *(chunk for chunks in server.sending.values() for chunk in chunks)]
        if any(chunk.job.key and chunk.job.key.text == text for chunk in coming):
            return False  # hub.open_keys
        if held is None or key is None:
            return True
        job = self.jobs.get(key.job)
        is_there = job is not None and job.control != Control.DELETE
        assert held.is_done(server.record.time) == (key.complete and is_there)
        in_flight = held.is_in_flight(server.me, key.job in server.open_jobs)
        if not key.complete:
            alive = key.job in server.open_jobs if key.server == server.me else key.server not in self.dead and is_there
            assert in_flight == alive
        if held.is_done(server.record.time) or in_flight:
            return False
        with self.database.begin() as tx:
            idempotency.take_over(tx, held.key)
        if job is not None and job.receiving:
            job.control, job.control_n = Control.DELETE, 0
        del self.keys[text]
        return True

    def _send(self, server: Server, job: bytes, *, early: bool) -> None:
        chunk = server.sending[job].pop(0)
        for entry in chunk.entries if early else ():
            assert entry.task is not None
            image = entry.task.input[-1]
            known = self.tasks.get(image)
            if any(unit.image == image for unit in server.held + server.early):
                continue  # it is joined
            if known is None or not (known.answered or known.suspect):
                entry.task = entry.task._replace(state=RUNNING, attempt=1, server=server.me)
                server.early.append(Unit(image, None, server.me, job))
        server.work.chunks.append(chunk)
        if not server.sending[job]:
            del server.sending[job]

    @precondition(lambda self: any(server.sending for server in self.servers))
    @rule(data=st.data(), early=st.booleans(), lost=st.sampled_from([False, False, True]))
    def more_of_a_submission(self, data: st.DataObject, early: bool, lost: bool) -> None:
        """The next part, or the sender is lost."""
        found = [(place, job) for place, server in enumerate(self.servers) for job in server.sending]
        place, job = data.draw(st.sampled_from(found))
        server = self.servers[place]
        if lost:
            del server.sending[job]
        else:
            self._send(server, job, early=early)

    @precondition(lambda self: not any(job.files for job in self.jobs.values()))
    @rule(which=WHICH, images=IMAGES, free=FREE)
    def local_paths(self, which: int, images: list[int], free: int | None) -> None:
        """A job over files: named, not yet read."""
        server = self.servers[which]
        head = server.record.head(source="local")
        server.work.chunks.append(Chunk(head, [], expect=len(images)))
        server.record.folders[head.id] = (head, dict(enumerate(images)))
        if free is not None:
            self.transact(server, free)

    @precondition(lambda self: any(job.files for job in self.jobs.values()))
    @rule(data=st.data(), error=st.sampled_from([None, None, "model-failed", UNREADABLE, "unread"]))
    def read_a_file(self, data: st.DataObject, error: str | None) -> None:
        """A worker answers one; or it cannot even be read."""
        job = data.draw(st.sampled_from(sorted(name for name, job in self.jobs.items() if job.files)))
        known = self.jobs[job]
        server = next(server for server in self.servers if server.me == known.server)
        n = data.draw(st.sampled_from(sorted(known.files)))
        head: JobHead = server.record.folders[job][0]
        server.work.local.append(server.record.local_answer(head, n, known.files.pop(n), error))

    # -- cancel, delete, retry ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), what=st.sampled_from([Control.CANCEL, Control.DELETE, Control.RETRY]))
    def ask(self, data: st.DataObject, what: Control) -> None:
        """Of a job that is there as a whole; a local one that runs is ended first (hub/local.py)."""
        jobs = sorted(name for name, job in self.jobs.items() if job.is_whole and job.control != Control.DELETE)
        if jobs:
            job = data.draw(st.sampled_from(jobs))
            self.servers[0].record.ask(job, what)
            self.jobs[job].control, self.jobs[job].control_n = what, 0

    @precondition(lambda self: any(job.control for job in self.jobs.values()))
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """The sweep carries a control further."""
        name = data.draw(st.sampled_from(sorted(name for name, known in self.jobs.items() if known.control)))
        job = self.jobs[name]
        part = [n for n in sorted(job.items) if n >= job.control_n][:FEW]
        done = self.servers[0].record.step(name)
        assert done == (len(part) < FEW)
        follow: dict[Control, Any] = {
            Control.CANCEL: self._cancel,
            Control.DELETE: self._delete,
            Control.RETRY: self._retry,
        }
        follow[Control(job.control)](job, part)
        if part:
            job.control_n = part[-1] + 1
        if done and job.control == Control.DELETE:
            del self.jobs[name]
        elif done:
            job.control = job.control_n = 0

    def _cancel(self, job: Job, part: list[int]) -> None:
        items = [job.items[n] for n in part if job.items[n].state == QUEUED]
        for item in items:
            item.state, item.error = CANCELLED, "cancelled"
        self._release(items)

    def _delete(self, job: Job, part: list[int]) -> None:
        self._release([item for item in (job.items.pop(n) for n in part) if item.state == QUEUED])

    def _release(self, items: list[Item]) -> None:
        for image in {item.image for item in items if item.image is not None}:
            if not self.is_wanted(image) and self.tasks[image].state in (QUEUED, RUNNING):
                self.tasks[image].state = CANCELLED

    def _retry(self, job: Job, part: list[int]) -> None:
        items = [job.items[n] for n in part if job.items[n].state == FAILED and job.items[n].image is not None]
        tasks = [(item, self.task_of(item)) for item in items]
        for item, task in [(item, task) for item, task in tasks if not (task.state == FAILED and task.answered)]:
            item.state, item.error = (SUCCEEDED if task.state == SUCCEEDED else QUEUED), None
            if task.state in (FAILED, CANCELLED):
                task.reopen()

    # -- dead letters ------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self._dead_letters())
    @rule()
    def purge_dead_letters(self) -> None:
        """Off the list; who waits for its failure still gets it first."""
        with self.database.begin() as tx:
            control.purge_dead_letters(tx, tx.views.dead_letters(ItemFilter(1)))
        for image, task in self._dead_letters().items():
            if not self.is_wanted(image):
                task.state = CANCELLED

    @precondition(lambda self: self._dead_letters())
    @rule()
    def retry_dead_letters(self) -> None:
        """The first step; the items of those that have many follow."""
        with self.database.read() as reader:
            tasks = reader.views.dead_letters(ItemFilter(1))
        assert set(tasks) == {task.id for task in self._dead_letters().values()}
        self.retried += self._retry_step(tasks, first=True)

    @precondition(lambda self: self.retried)
    @rule()
    def go_on_with_dead_letters(self) -> None:
        """The next step."""
        self.retried = self._retry_step(sorted(set(self.retried)), first=False)

    def _dead_letters(self) -> dict[int, Any]:
        dead = {image: task for image, task in self.tasks.items() if task.state == FAILED and not task.answered}
        return {image: task for image, task in dead.items() if self.is_wanted(image, FAILED)}

    def _retry_step(self, tasks: list[bytes], *, first: bool) -> list[bytes]:
        found = [self.image_of(task) for task in tasks]
        found = [image for image in found if self.tasks[image].state == FAILED]
        if first:
            found = [image for image in found if not self.is_wanted(image)]
        failed = {
            (name, n): item
            for name, job in self.jobs.items()
            for n, item in job.items.items()
            if item.image in found and item.state == FAILED
        }
        with self.database.begin() as tx:
            step = control.retry_dead_letters(tx, tasks, self.servers[0].record.time, first=first)
            opened = [item for (name, n), item in failed.items() if tx.items.slice(name, n, 1)[0].state == QUEUED]
        assert step.items == len(opened) == min(FEW, len(failed))
        for item in opened:
            item.state, item.error = QUEUED, None
        left = {image for image in found if self.is_wanted(image, FAILED)}
        assert {self.image_of(task) for task in step.left} == left
        for image in {image for image in found if self.is_wanted(image)} - left:
            self.tasks[image].reopen()
        return list(step.left)
