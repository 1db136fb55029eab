"""Rows for tests of the record: small numbers in, whole rows out; and a watcher of the steps that tasks take."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from onceseen.domain.job import FinishedItem, ItemRow, ItemState, JobRow, JobState, NewImage
from onceseen.domain.machine import LEGAL
from onceseen.domain.task import (
    CLASSIFICATION,
    ORDINARY,
    AnsweredTask,
    Fence,
    NewTask,
    Settlement,
    TaskRow,
    TaskState,
)
from onceseen.ports.database import Tasks, Transaction

ME, OTHER = 1, 2
"""Two servers."""


def ident(number: int) -> bytes:
    """The id that a number stands for; ids sort like their numbers."""
    return number.to_bytes(16, "big")


def digest(number: int) -> bytes:
    """The key or digest that a number stands for."""
    return number.to_bytes(32, "big")


LANE, LANE_2 = digest(0xA), digest(0xB)


def new_task(number: int, *, key: int | None = None, early: int | None = None, **changes: Any) -> NewTask:
    """A submitted task with id `number` and, unless said otherwise, the same key. `early`: the server that starts it."""
    task = NewTask(
        key=digest(number if key is None else key),
        id=ident(number),
        project=1,
        lane=LANE,
        kind=CLASSIFICATION,
        input=digest(number if key is None else key),
        frame=None,
        params="{}",
        state=TaskState.QUEUED if early is None else TaskState.RUNNING,
        priority=ORDINARY,
        attempt=0 if early is None else 1,
        server=early,
        queued_at=1000 + number,
        started_at=None,
    )
    return task._replace(**changes)


def answered_task(number: int, *, key: int | None = None, **changes: Any) -> AnsweredTask:
    """A task of a local file, succeeded."""
    task = new_task(number, key=key)
    answered = AnsweredTask(
        **{**task._asdict(), "state": TaskState.SUCCEEDED, "attempt": 1, "server": ME},
        worker=ident(77),
        error_kind=None,
        error=None,
        label="local",
        score=0.5,
        finished_at=3000,
        run_ms=1.5,
        result=b"\x01local",
    )
    return answered._replace(**changes)


def settlement(row: TaskRow | Fence, state: TaskState = TaskState.SUCCEEDED, **changes: Any) -> Settlement:
    """The end of the attempt that a row (or fence) names."""
    good = state == TaskState.SUCCEEDED
    ended = Settlement(
        id=row.id,
        attempt=row.attempt,
        server=row.server or 0,
        state=state,
        label="cat" if good else None,
        score=0.75 if good else None,
        result=b"\x01cat" if good else None,
        error_kind=None if good else "model-failed",
        error=None if good else "it broke",
        worker=ident(88),
        started_at=1900,
        finished_at=2000,
        run_ms=2.5 if good else None,
    )
    return ended._replace(**changes)


def new_job(number: int, **changes: Any) -> JobRow:
    """A job that waits, without items."""
    job = JobRow(
        id=ident(number),
        project=1,
        name=f"job {number}",
        state=JobState.PENDING,
        control=0,
        control_n=0,
        server=ME,
        model="m:1",
        priority=ORDINARY,
        total=0,
        pending=0,
        succeeded=0,
        failed=0,
        cancelled=0,
        source="http",
        owner="local",
        created_at=1000,
        finished_at=None,
    )
    return job._replace(**changes)


def new_item(job: int, n: int, task: int | None = None, state: int = ItemState.PENDING, **changes: Any) -> ItemRow:
    """An item of a job that waits for a task, or is in another state."""
    item = ItemRow(
        project=1,
        job=ident(job),
        n=n,
        name=f"image {n}",
        digest=None if task is None else digest(task),
        frame=None,
        task=None if task is None else ident(task),
        owner="local",
        state=state,
        label=None,
        score=None,
        risk=None,
        found=None,
        error_kind=None,
        error=None,
        reused=0,
        model="m:1",
        worker=None,
        finished_at=None if state == ItemState.PENDING else 2000,
    )
    return item._replace(**changes)


def finished(job: int, n: int, state: int = ItemState.SUCCEEDED, **changes: Any) -> FinishedItem:
    """The end of an item."""
    end = FinishedItem(state, "cat", 0.75, 0.25, 1, None, None, ident(88), 2000, ident(job), n)
    return end._replace(**changes)


def new_image(number: int, location: str | None = None, **changes: Any) -> NewImage:
    """An image of project 1."""
    return NewImage(1, digest(number), None, None, None, 100, location, 1000)._replace(**changes)


def in_state(tx: Transaction, number: int, state: str, **changes: Any) -> TaskRow:
    """Bring a task into a state, by the statements that do it in earnest.

    Args:
        tx: the transaction.
        number: of the new task.
        state: "queued", "running" (on OTHER), "succeeded", "failed", "unreadable" or "cancelled".
        changes: columns of the NewTask.
    """
    early = OTHER if state in ("running", "succeeded", "failed", "unreadable") else None
    (row,) = tx.tasks.upsert([new_task(number, early=early, **changes)])
    if state == "succeeded":
        tx.tasks.settle([settlement(row)])
    elif state == "failed":
        tx.tasks.settle([settlement(row, TaskState.FAILED)])
    elif state == "unreadable":
        tx.tasks.settle([settlement(row, TaskState.FAILED, error_kind="unreadable-image")])
    elif state == "cancelled":
        tx.tasks.cancel([row.id])
    (row,) = tx.tasks.get([row.id])
    return row


class WatchedTasks:
    """Tasks whose states are compared before and after each statement; a step that is not LEGAL is an AssertionError.

    Attributes:
        steps: every (from, to) that was seen.
    """

    def __init__(self, tasks: Tasks, known: Iterable[bytes] = ()) -> None:
        self._tasks = tasks
        self._known = set(known)
        self.steps: set[tuple[TaskState, TaskState]] = set()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A method of the port, watched."""
        method = getattr(self._tasks, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            before = self._states()
            result = method(*arguments, **options)
            if name in ("upsert", "answer"):
                self._known.update(row.id for row in result)
            after = self._states()
            for task, state in after.items():
                step = (before.get(task, state), state)
                if step[0] != step[1]:
                    self.steps.add(step)
                    assert step in LEGAL, f"{name} took a task from {step[0].name} to {step[1].name}"
            assert after.keys() >= before.keys(), f"{name} lost a task"
            return result

        return watched

    def _states(self) -> dict[bytes, TaskState]:
        return {row.id: TaskState(row.state) for row in self._tasks.get(sorted(self._known))}


def by_id(rows: Sequence[TaskRow]) -> dict[bytes, TaskRow]:
    """Rows by their ids."""
    return {row.id: row for row in rows}
