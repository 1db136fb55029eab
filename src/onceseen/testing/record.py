"""A record with the flow on top and nobody else: no threads, no workers, a clock that a test moves."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from onceseen.domain.job import Control, ItemRow, JobRow, NewImage
from onceseen.domain.machine import INNOCENT, MAX_DEATHS, Blame
from onceseen.domain.model import CANDIDATE, LIVE, ModelRow
from onceseen.domain.task import (
    CLASSIFICATION,
    ORDINARY,
    AnsweredTask,
    Claimed,
    Fence,
    NewTask,
    Settlement,
    TaskRow,
    TaskState,
    task_key,
)
from onceseen.domain.views import FileRow
from onceseen.flow import control, group
from onceseen.flow.work import (
    Chunk,
    ClaimWish,
    Entry,
    Failure,
    GivenBack,
    Group,
    JobHead,
    LocalAnswer,
    LocalFile,
    Outcome,
    Settled,
)
from onceseen.inference.finish import pack
from onceseen.inference.manifest import Manifest, to_json
from onceseen.inference.registry import Catalog
from onceseen.ports.database import Database
from onceseen.testing.database_rows import LANE, LANE_2, digest, ident

SCORES = pack(np.array([0.25, 0.75], np.float32))
"""An answer: cat 0.25, dog 0.75."""

DIED = Blame(begun=True, death=True, why="killed by a test")


def manifest_of(name: str, version: str, positive: Sequence[str] = (), threshold: float | None = None) -> Manifest:
    """A model of two labels."""
    return Manifest(
        name=name,
        version=version,
        file="m.onnx",
        labels=("cat", "dog"),
        positive=tuple(positive),
        threshold=threshold,
    )


def tiny_catalog() -> Catalog:
    """m:1 finds dogs; m:2 shares its lane and finds cats; other:1 has a lane of its own and finds nothing."""
    manifests = [
        (manifest_of("m", "1", ["dog"], 0.7), LANE, LIVE),
        (manifest_of("m", "2", ["cat"]), LANE, CANDIDATE),
        (manifest_of("other", "1"), LANE_2, LIVE),
    ]
    return Catalog(
        ModelRow(manifest.name, manifest.version, lane, to_json(manifest), f"{manifest.name}-1", stage, 1)
        for manifest, lane, stage in manifests
    )


class Record:
    """One server's writer, by hand.

    Attributes:
        me: the server's id; `restart` makes a new one.
        time: the clock, microseconds; every transaction moves it.
        max_deaths: alone, after which a task is failed.
        folders: local jobs: what they are, and n -> image of their files.

    `numbers`: where ids begin; two servers of one record must not make the same ones.
    """

    def __init__(self, database: Database, numbers: int = 0) -> None:
        self.database = database
        self.catalog = tiny_catalog()
        self.time = 1_000_000
        self.max_deaths = MAX_DEATHS
        self.folders: dict[bytes, tuple[JobHead, dict[int, int]]] = {}
        self._numbers = numbers
        with database.begin() as tx:
            self.me = tx.servers.begin("host", 1, self.time)
            for model in self.catalog.models:
                tx.models.add(model.row)

    def number(self) -> int:
        """A number that was not used before."""
        self._numbers += 1
        return self._numbers

    # -- what is submitted ---------------------------------------------------------------------------------------------

    def head(self, model: str = "m:1", priority: int = ORDINARY, source: str = "http") -> JobHead:
        """A new job."""
        return JobHead(ident(self.number()), 1, "job", self.me, model, priority, source, "local", self.time)

    def key(self, image: int, model: str = "m:1") -> bytes:
        """The key of the question what an image shows."""
        return task_key(1, digest(image), None, self.catalog.resolve(model).lane, "{}", None)

    def entry(
        self, head: JobHead, n: int, image: int, *, early: bool = False, location: str | None = "pack:1"
    ) -> Entry:
        """One item of a job."""
        key = self.key(image, head.model)
        task = NewTask(
            key=key,
            id=ident(self.number()),
            project=1,
            lane=self.catalog.resolve(head.model).lane,
            kind=CLASSIFICATION,
            input=digest(image),
            frame=None,
            params="{}",
            state=TaskState.RUNNING if early else TaskState.QUEUED,
            priority=head.priority,
            attempt=1 if early else 0,
            server=self.me if early else None,
            queued_at=self.time,
            started_at=None,
        )
        new_image = NewImage(1, digest(image), None, None, None, 10, location, self.time)
        return Entry(n, f"image {image}", key=key, task=task, image=new_image, digest=digest(image))

    def chunk(
        self, images: Sequence[int], model: str = "m:1", *, early: bool = False, priority: int = ORDINARY
    ) -> Chunk:
        """A whole job over these images."""
        head = self.head(model, priority)
        return Chunk(head, [self.entry(head, n, image, early=early) for n, image in enumerate(images)])

    def local_answer(self, head: JobHead, n: int, image: int, error: str | None = None) -> LocalAnswer:
        """A worker has read file n of a local job, which is this image; "unread": it could not."""
        path = f"/folder/{n}"
        file = LocalFile(head, n, f"{n}.png", path, 10, 20, "{}", lambda _done, _scores: None)
        if error == "unread":
            return LocalAnswer(
                head, Entry(n, f"{n}.png", failure=Failure("blob-missing", "It is gone.")), None, None, file
            )
        entry, good = self.entry(head, n, image), error is None
        assert entry.task is not None
        changes = {"state": TaskState.SUCCEEDED if good else TaskState.FAILED, "attempt": 1, "server": self.me}
        task = AnsweredTask(
            **{**entry.task._asdict(), **changes},
            worker=ident(88),
            error_kind=error,
            error=None if good else f"it is {error}",
            label="dog" if good else None,
            score=0.75 if good else None,
            finished_at=self.time + 5,
            run_ms=1.5 if good else None,
            result=SCORES if good else None,
        )
        image_row = NewImage(1, digest(image), "image/png", 3, 4, 10, f"path:{path}", self.time)
        local = Entry(n, f"{n}.png", key=entry.key, image=image_row, digest=digest(image))
        return LocalAnswer(head, local, task, FileRow(1, path, 10, 20, digest(image)), file)

    # -- what happens --------------------------------------------------------------------------------------------------

    def commit(self, work: Group) -> Outcome:
        """One transaction of the writer."""
        self.time += 1000
        with self.database.begin() as tx:
            return group.commit(tx, work, self.me, self.catalog, self.time, self.max_deaths)

    def submit(
        self, images: Sequence[int], model: str = "m:1", *, early: bool = False, priority: int = ORDINARY
    ) -> bytes:
        """A job over these images, in a transaction of its own; its id."""
        chunk = self.chunk(images, model, early=early, priority=priority)
        self.commit(Group(chunks=[chunk]))
        return chunk.job.id

    def claim(self, n: int = 1, lane: bytes = LANE, oldest: int = 0) -> list[Claimed]:
        """Tasks for free credits."""
        return self.commit(Group(claims=[ClaimWish(lane, n, oldest)])).claimed.get(lane, [])

    def answer(self, task: Claimed | TaskRow, *, error: str | None = None, server: int | None = None) -> Settled:
        """A worker's answer: the scores above, or a failure of this kind."""
        good = error is None
        return Settled(
            Settlement(
                id=task.id,
                attempt=task.attempt,
                server=server or self.me,
                state=TaskState.SUCCEEDED if good else TaskState.FAILED,
                label="dog" if good else None,
                score=0.75 if good else None,
                result=SCORES if good else None,
                error_kind=error,
                error=None if good else f"it is {error}",
                worker=ident(88),
                started_at=self.time + 1,
                finished_at=self.time + 2,
                run_ms=3.5 if good else None,
            ),
            None,
        )

    def settle(self, *tasks: Claimed | TaskRow, error: str | None = None) -> Outcome:
        """Answers in a transaction of their own, and those that follow until no item waits for one of these."""
        outcome = self.commit(Group(settled=[self.answer(task, error=error) for task in tasks]))
        self.follow(outcome)
        return outcome

    def follow(self, outcome: Outcome) -> int:
        """Settle what a transaction left over; how many more transactions that took."""
        count = 0
        while outcome.leftovers:
            outcome = self.commit(Group(leftovers=outcome.leftovers))
            count += 1
        return count

    def give_back(self, task: Claimed | TaskRow, blame: Blame = INNOCENT, server: int | None = None) -> Outcome:
        """An attempt ends without an answer."""
        outcome = self.commit(Group(given_back=[self.given(task, blame, server)]))
        self.follow(outcome)
        return outcome

    def given(self, task: Claimed | TaskRow, blame: Blame = INNOCENT, server: int | None = None) -> GivenBack:
        """What a lost attempt hands to the writer."""
        return GivenBack(Fence(task.id, task.attempt, server or self.me), LANE, blame, ident(88), self.time)

    def ask(self, job: bytes, what: Control) -> JobRow:
        """Somebody asks for a cancel, delete or retry."""
        self.time += 1000
        with self.database.begin() as tx:
            return control.ask(tx, job, what, self.time)

    def step(self, job: bytes) -> bool:
        """One step of a job's control; True when it is done (or there is none)."""
        self.time += 1000
        with self.database.begin() as tx:
            row = tx.jobs.get(job)
            return row is None or not row.control or control.step(tx, row, self.time)

    def carry_out(self, job: bytes, what: Control) -> int:
        """Ask, and step until it is done; the number of steps."""
        self.ask(job, what)
        steps = 1
        while not self.step(job):
            steps += 1
        return steps

    def sweep_stranded(self) -> None:
        """Settle items whose tasks are final, as a start does."""
        with self.database.begin() as tx:
            stranded = tx.items.stranded(500)
        if stranded:
            self.follow(self.commit(Group(leftovers=stranded)))

    # -- what is there -------------------------------------------------------------------------------------------------

    def job(self, job: bytes) -> JobRow:
        """A job that exists."""
        with self.database.read() as reader:
            row = reader.jobs.get(job)
        assert row is not None
        return row

    def items(self, job: bytes) -> list[ItemRow]:
        """All items of a job."""
        with self.database.begin() as tx:
            return tx.items.slice(job, 0, 1_000_000)

    def task(self, image: int, model: str = "m:1") -> TaskRow:
        """The task of an image that was submitted."""
        with self.database.read() as reader:
            row = reader.tasks.find(self.key(image, model))
        assert row is not None
        return row

    @contextmanager
    def broken_after(self, statement: int) -> Iterator[None]:
        """Inside, the n-th statement of each transaction raises instead of running, as a kill at that moment would end it."""
        with _broken_cursors(statement):
            yield


class Killed(BaseException):
    """What `broken_after` raises."""


@contextmanager
def _broken_cursors(statement: int) -> Iterator[None]:
    from onceseen.drivers.sql import cursor

    left = [statement]

    class Counting:
        """A driver's cursor that dies at a chosen statement."""

        def __init__(self, real: cursor.Cursor) -> None:
            self._real = real

        def __getattr__(self, name: str) -> object:
            if name in ("execute", "executemany"):
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
            return getattr(self._real, name)

    init = cursor.Statements.__init__

    def counting(self: cursor.Statements, real: cursor.Cursor) -> None:
        init(self, real if isinstance(real, Counting) else Counting(real))

    cursor.Statements.__init__ = counting  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        cursor.Statements.__init__ = init  # type: ignore[method-assign]
