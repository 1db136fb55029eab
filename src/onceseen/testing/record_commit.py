"""The stateful test: one transaction of a server, in earnest and in the model, phase by phase (flow/group.py)."""

from collections import deque
from collections.abc import Iterable, Sequence

from hypothesis import strategies as st
from hypothesis.stateful import rule

from onceseen.domain.machine import INNOCENT
from onceseen.flow.work import Chunk, ClaimWish, DoneItem, GivenBack, Group, LocalAnswer, Outcome, Settled
from onceseen.testing.database_rows import LANE
from onceseen.testing.record_model import CANCELLED, FAILED, QUEUED, RUNNING, Item, Job, Key, Server, Task, Unit
from onceseen.testing.record_workers import Workers
from onceseen.testing.record_world import FEW


class Commit(Workers):
    """One rule."""

    @rule(which=st.sampled_from([(0,), (1,), (0, 1), (1, 0)]), free=st.integers(0, 4), oldest=st.integers(0, 1))
    def commit(self, which: tuple[int, ...], free: int, oldest: int) -> None:
        """Everything that waits at one server, or at both, one after the other."""
        for place in which:
            self.transact(self.servers[place], free, oldest)

    def transact(self, server: Server, free: int = 0, oldest: int = 0) -> None:
        """Afterwards the model says the same as the outcome."""
        server.work.claims = [ClaimWish(LANE, free, min(oldest, free))] if free else []
        work, early = server.work, server.early
        if work.held is not None:
            work.held = server.known
        known, given = server.known, len(work.given_back)
        server.work, server.early = Group(), []
        outcome = server.record.commit(work)
        self._find_lost(server, known, work, work.given_back[given:])
        refused = self._claim_keys(work.chunks)
        assert outcome.refused == refused
        chunks = [chunk for chunk in work.chunks if chunk.job.id not in refused]
        done = deque(outcome.done)

        answered = {image for image, task in self.tasks.items() if task.answered}
        self._upsert(server, chunks, outcome)
        met, local = self._answer_locally(server, work.local, outcome)
        passed = self._settle(work.settled)
        assert outcome.passed == passed

        self._insert(server, chunks, answered | local, done)
        self._insert_local(work.local, done)
        leftovers = self._finish(met, done)
        final = {task.id for task in self.tasks.values() if task.final}
        leftovers += self._finish(passed | (set(work.leftovers) & final), done)
        leftovers += self._finish(self._take_back(server, work.given_back), done)
        assert not done, "items were settled that nobody answered"
        assert sorted(outcome.leftovers) == sorted(leftovers)
        server.work.leftovers = outcome.leftovers
        self._claim(server, work.claims, outcome)
        self._early_rows(server, [unit for unit in early if unit.job not in refused], known, outcome)

    # -- phase 0 and 1: keys and tasks ---------------------------------------------------------------------------------------

    def _claim_keys(self, chunks: Sequence[Chunk]) -> set[bytes]:
        refused = set()
        for chunk in chunks:
            if chunk.job.key is None:
                continue
            job, text = chunk.job, chunk.job.key.text
            if chunk.first:
                key = self.keys.setdefault(text, Key(job.id, job.server, complete=False))
                if key.job != job.id:
                    refused.add(job.id)
                    for server in self.servers:
                        server.sending.pop(job.id, None)
                    continue
            if chunk.last and job.id not in refused and text in self.keys and self.keys[text].job == job.id:
                self.keys[text].complete = True
        return refused

    def _upsert(self, server: Server, chunks: Sequence[Chunk], outcome: Outcome) -> None:
        wanted: dict[int, tuple[int, int]] = {}
        for entry in (entry for chunk in chunks for entry in chunk.entries):
            assert entry.task is not None
            image = entry.task.input[-1]
            early, priority = wanted.get(image, (0, 9))
            wanted[image] = (max(early, entry.task.state), min(priority, entry.task.priority))
        for image, (early, priority) in wanted.items():
            row = outcome.tasks[server.record.key(image)]
            task = self.tasks.setdefault(image, Task(row.id))
            task.priority = min(task.priority, priority)
            free = task.state in (QUEUED, CANCELLED) or (task.state == FAILED and not task.answered)
            if task.state != QUEUED and free:
                task.open()
            if free and early:
                task.run(server.me)

    def _answer_locally(
        self, server: Server, answers: Sequence[LocalAnswer], outcome: Outcome
    ) -> tuple[list[bytes], set[int]]:
        """The tasks that were there, and the images that are answered in this way; of equal files the last one counts."""
        last = {answer.task.input[-1]: answer.task for answer in answers if answer.task}
        met = []
        for image, ended in last.items():
            row = outcome.tasks[server.record.key(image)]
            task = self.tasks.setdefault(image, Task(row.id, priority=ended.priority))
            if not task.answered:
                task.attempt += 1
                task.server = server.me
                task.end(ended.state, ended.error_kind)
            assert (row.id, row.state, row.attempt) == (task.id, task.state, task.attempt)
        for answer in answers:
            if answer.task and (name := self.tasks[answer.task.input[-1]].id) != answer.task.id and name not in met:
                met.append(name)
        return met, {image for image in last if self.tasks[image].answered}

    def _settle(self, settled: Sequence[Settled]) -> set[bytes]:
        passed = set()
        for answer in (settled.settlement for settled in settled):
            for task in self.tasks.values():
                if task.state == RUNNING and answer[:3] == (task.id, task.attempt, task.server):
                    task.end(answer.state, answer.error_kind)
                    passed.add(task.id)
        return passed

    # -- phase 3: items --------------------------------------------------------------------------------------------------------

    def _insert(self, server: Server, chunks: Sequence[Chunk], answered: set[int], done: deque[DoneItem]) -> None:
        for chunk in chunks:
            name = chunk.job.id
            if chunk.first:
                self.jobs[name] = Job(chunk.job.server, receiving=not chunk.last, expect=chunk.expect)
            job = self.jobs[name]
            if chunk.expect:
                job.local, job.files = True, dict(server.record.folders[name][1])
            if chunk.last:
                job.receiving = False
            for entry in chunk.entries:
                assert entry.task is not None
                image = entry.task.input[-1]
                item = job.items[entry.n] = Item(image)
                if image in answered:
                    item.state, item.error = self.tasks[image].state, self.tasks[image].error
                    self._is_next(done, name, entry.n, item)

    def _insert_local(self, answers: Sequence[LocalAnswer], done: deque[DoneItem]) -> None:
        for answer in answers:
            job = self.jobs[answer.job.id]
            if answer.task is None:
                item = Item(None, FAILED, "blob-missing")
            else:
                task = self.tasks[answer.task.input[-1]]
                item = Item(answer.task.input[-1], task.state, task.error)
            job.items[answer.entry.n] = item
            job.expect -= 1
            self._is_next(done, answer.job.id, answer.entry.n, item)

    def _is_next(self, done: deque[DoneItem], job: bytes, n: int, item: Item) -> None:
        end = done.popleft().finished
        assert (end.job, end.n, end.state, end.error_kind) == (job, n, item.state, item.error)

    def _finish(self, tasks: Iterable[bytes], done: deque[DoneItem]) -> list[bytes]:
        """At most FEW items take their answers, whichever come first; the tasks whose items must follow."""
        ids = set(tasks)
        waiting = {
            (name, n): item
            for name, job in self.jobs.items()
            for n, item in job.items.items()
            if item.state == QUEUED and item.image is not None and self.task_of(item).id in ids
        }
        count = min(FEW, len(waiting))
        for _ in range(count):
            end = done.popleft().finished
            item = waiting.pop((end.job, end.n))
            task = self.task_of(item)
            item.state, item.error = task.state, task.error
            assert (end.state, end.error_kind) == (task.state, task.error)
        return sorted({self.task_of(item).id for item in waiting.values()}) if count == FEW else []

    def _find_lost(self, server: Server, known: set[tuple[bytes, int]], work: Group, found: list[GivenBack]) -> None:
        """Rows of this server that run and that no lease names, as they were when the transaction began."""
        if work.held is None:
            assert not found
            return
        running = {(task.id, task.attempt, task.server) for task in self.tasks.values() if task.state == RUNNING}
        lost = {place for place in running if place[2] == server.me and place[:2] not in known}
        assert {tuple(given.fence) for given in found} == lost
        assert lost <= {unit.place for unit in self.dropped}
        self.dropped = [unit for unit in self.dropped if unit.place[2] != server.me]

    def _take_back(self, server: Server, given_back: Sequence[GivenBack]) -> set[bytes]:
        """Queued again, cancelled, or failed for good; the failed ones."""
        failed = set()
        for given in given_back:
            for image, task in self.tasks.items():
                if task.state == RUNNING and given.fence == (task.id, task.attempt, task.server):
                    self._give_back(server, image, task, given)
                    failed |= {task.id} if task.state == FAILED else set()
        return failed

    def _give_back(self, server: Server, image: int, task: Task, given: GivenBack) -> None:
        if given.blame.begun:
            task.deaths += task.suspect
            task.suspect = 1
        task.state = QUEUED if self.is_wanted(image) else CANCELLED
        task.server = None
        if given.blame != INNOCENT and task.deaths == server.record.max_deaths:
            task.state, task.error = FAILED, "worker-died"

    # -- phase 5, and what the hub does then -----------------------------------------------------------------------------------

    def _claim(self, server: Server, wishes: Sequence[ClaimWish], outcome: Outcome) -> None:
        for wish in wishes:
            for oldest, n in ((True, wish.oldest), (False, wish.n - wish.oldest)):
                queued = [task for task in self.tasks.values() if task.state == QUEUED]
                queued.sort(key=lambda task: (0 if oldest else task.priority, task.id))
                for task in queued[:n]:
                    task.run(server.me)
                    claimed = outcome.claimed[LANE].pop(0)
                    assert (claimed.id, claimed.attempt, claimed.priority) == (task.id, task.attempt, task.priority)
                    server.held.append(Unit(claimed.input[-1], claimed, server.me))
        assert not any(outcome.claimed.values())

    def _early_rows(
        self, server: Server, early: Sequence[Unit], known: set[tuple[bytes, int]], outcome: Outcome
    ) -> None:
        """What the hub does when the rows of early starts are written (hub/answers.py)."""
        for unit in early:
            row = outcome.tasks[server.record.key(unit.image)]
            if row.state != RUNNING or row.server != server.me or (row.id, row.attempt) in known:
                continue
            unit.task = row
            server.held.append(unit)
            if unit.answered:
                self.end(server, unit)
                server.work.settled.append(server.record.answer(row, error=unit.answer))
            elif unit.lost:
                self.give_back(server, unit)
