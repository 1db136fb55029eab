"""The stateful test's world: two servers on one record, the model beside it, and what must hold between any two events."""

from typing import Any, cast

from hypothesis.stateful import RuleBasedStateMachine, invariant

from onceseen.domain.job import Control, job_state
from onceseen.domain.views import JobFilter
from onceseen.flow import control, settle
from onceseen.testing.database_memory import database_in_memory
from onceseen.testing.record import Record
from onceseen.testing.record_model import (
    CANCELLED,
    FAILED,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    Item,
    Job,
    Key,
    Server,
    Task,
    Unit,
)

FEW = 3
"""Items that a transaction settles, and a control's step follows, at most: 500 in earnest."""


class World(RuleBasedStateMachine):
    """Rules are in the classes that inherit: `record_people`, `record_workers`, `record_commit`.

    Attributes:
        servers: two, each with transactions of its own.
        dead: ids of servers that were judged dead.
        tasks, jobs, keys: the model.
        past: attempts that are over, whose answers may still come.
        dropped: attempts that their own server has lost sight of.
        retried: dead letters of which some items are still to follow.
    """

    def __init__(self) -> None:
        super().__init__()
        self._limits = settle.ITEMS_AT_ONCE, control.ITEMS_AT_ONCE
        settle.ITEMS_AT_ONCE = control.ITEMS_AT_ONCE = FEW
        self._memory = database_in_memory()
        self.database = self._memory.__enter__()
        self.servers = [Server(Record(self.database, first)) for first in (0, 100_000)]
        for server in self.servers:
            server.record.max_deaths = 1  # so that chance finds dead letters
        self.dead: set[int] = set()
        self.tasks: dict[int, Task] = {}  # by image
        self.jobs: dict[bytes, Job] = {}
        self.keys: dict[str, Key] = {}
        self.past: list[Unit] = []
        self.dropped: list[Unit] = []
        self.retried: list[bytes] = []
        self._changes = -1

    def teardown(self) -> None:
        """After each example."""
        settle.ITEMS_AT_ONCE, control.ITEMS_AT_ONCE = self._limits
        self._memory.__exit__(None, None, None)

    def transact(self, server: Server, free: int = 0, oldest: int = 0) -> None:
        """Everything that waits at a server, and claims for its free credits: see record_commit."""
        raise NotImplementedError

    def _written(self) -> int:
        """Rows that were written so far, by anybody."""
        with self.database.begin() as tx:
            return int(cast("Any", tx).tasks._cursor.connection.total_changes)  # noqa: SLF001  (no port says so)

    # -- what the model is asked ------------------------------------------------------------------------------------------

    def items_of(self, image: int) -> list[Item]:
        """Items that name an image's question."""
        return [item for job in self.jobs.values() for item in job.items.values() if item.image == image]

    def is_wanted(self, image: int, state: int = QUEUED) -> bool:
        """Whether an item waits for its answer, or is in another state."""
        return any(item.state == state for item in self.items_of(image))

    def task_of(self, item: Item) -> Task:
        """The task of an item that has one."""
        assert item.image is not None
        return self.tasks[item.image]

    def image_of(self, task: bytes) -> int:
        """The image of a task."""
        return next(image for image, known in self.tasks.items() if known.id == task)

    def stranded(self) -> set[bytes]:
        """Final tasks that items wait for."""
        return {task.id for image, task in self.tasks.items() if task.final and self.is_wanted(image)}

    # -- what must hold ---------------------------------------------------------------------------------------------------

    @invariant()
    def the_record_is_what_the_model_says(self) -> None:
        """Looked at whenever somebody has written something."""
        if self._written() != self._changes:
            self._check_tasks()
            self._check_jobs()
            self._check_keys()
            self._changes = self._written()

    def _check_tasks(self) -> None:
        with self.database.read() as reader:
            rows = {row.id: row for row in reader.tasks.get(sorted(task.id for task in self.tasks.values()))}
        for image, task in self.tasks.items():
            row = rows[task.id]
            assert row.key == self.servers[0].record.key(image)
            assert (row.id, row.state, row.attempt, row.error_kind) == (task.id, task.state, task.attempt, task.error)
            assert (row.suspect, row.deaths, row.losses) == (task.suspect, task.deaths, 0)
            if task.state == RUNNING:
                assert row.server == task.server

    def _check_jobs(self) -> None:
        with self.database.begin() as tx:
            shown = {row.id for row, _ in tx.views.jobs(JobFilter(), 999)}
            hidden = {name for name, job in self.jobs.items() if job.receiving or job.control == Control.DELETE}
            assert shown == set(self.jobs) - hidden
            assert {row.id for row in tx.jobs.controlled()} == {name for name, job in self.jobs.items() if job.control}
            assert {row.id for row in tx.jobs.receiving()} == {name for name, job in self.jobs.items() if job.receiving}
            for name, job in self.jobs.items():
                items = {item.n: (item.state, item.error_kind) for item in tx.items.slice(name, 0, 999)}
                assert items == {n: (item.state, item.error) for n, item in job.items.items()}
                row = tx.jobs.get(name)
                assert row is not None
                assert (row.control, row.control_n) == (job.control, job.control_n)
                if job.control:  # its items run ahead of the counters
                    continue
                counted = [job.count(state) for state in (QUEUED, SUCCEEDED, FAILED, CANCELLED)]
                assert [row.pending, row.succeeded, row.failed, row.cancelled] == counted
                assert row.total == sum(counted)
                final = not job.receiving and not counted[0]
                assert (row.finished_at is not None) == final
                expected = 0 if job.receiving else job_state(row.pending, row.failed, row.cancelled, 0)
                assert row.state == expected
                if job.is_whole:
                    assert tx.jobs.recount(name, 1) == row, "a recount finds nothing to correct"

    def _check_keys(self) -> None:
        with self.database.read() as reader:
            for text, key in self.keys.items():
                found = reader.keys.get(1, text)
                assert found is not None
                row, alive = found
                assert (row.job, row.server, row.body_hash is not None) == (key.job, key.server, key.complete)
                assert alive == (key.server not in self.dead)

    @invariant()
    def a_task_succeeds_at_most_once(self) -> None:
        """Whatever happens: RECORD.md's word "once"."""
        assert all(task.successes <= 1 for task in self.tasks.values())

    @invariant()
    def nothing_that_is_wanted_is_lost(self) -> None:
        """Each pending item has a task that waits or runs, or an answer that a next transaction gives it."""
        followed = {task for server in self.servers for task in server.work.leftovers} | set(self.retried)
        for image, task in self.tasks.items():
            if self.is_wanted(image) and task.state not in (QUEUED, RUNNING):
                assert task.id in followed

    @invariant()
    def what_runs_is_in_somebodys_hands(self) -> None:
        """In a worker's, or on its way back; or its own server will find that no lease names it."""
        coming: set[object] = {unit.place for unit in self.dropped}
        for server in self.servers:
            coming |= {answer.settlement[:3] for answer in server.work.settled}
            coming |= {tuple(given.fence) for given in server.work.given_back}
            coming |= {unit.place for unit in server.held}
        for task in self.tasks.values():
            if task.state == RUNNING:
                assert (task.id, task.attempt, task.server) in coming
