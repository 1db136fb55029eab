"""The part of the database suite that is about reading: what people see."""

import pytest

from onceseen.domain.ids import now
from onceseen.domain.job import Control, ItemState, JobState
from onceseen.domain.task import TaskState
from onceseen.domain.views import ItemFilter, ItemView, JobFilter, Totals
from onceseen.ports.database import Database, Transaction
from onceseen.testing.database_rows import (
    LANE,
    ME,
    digest,
    finished,
    ident,
    in_state,
    new_image,
    new_item,
    new_job,
    settlement,
)

PLACES = {"queued": 0, "running": 1, "succeeded": 2, "failed": 3, "cancelled": 4, "unreadable": 5}


def _board(tx: Transaction) -> None:
    """Job 1: one item for each state of a task (n = its place, task 10 + n), and one without a task; job 2: one more."""
    ended = {"succeeded": 2, "failed": 3, "cancelled": 4, "unreadable": 3}
    tx.jobs.insert([new_job(1, pending=3), new_job(2, pending=1)])
    for state, n in PLACES.items():
        in_state(tx, 10 + n, state)
        tx.items.insert([new_item(1, n, 10 + n, finished_at=2000 if state in ended else None)])
        if state in ended:
            label = "cat" if state == "succeeded" else None
            tx.items.finish([finished(1, n, ended[state], label=label, finished_at=2000)])
    tx.items.insert([new_item(1, 6), new_item(2, 0, 11), new_item(3, 0, 12, ItemState.SUCCEEDED, project=2)])


def _places(views: list[ItemView]) -> list[tuple[int, int]]:
    return [(int.from_bytes(view.job, "big"), view.n) for view in views]


class ViewCases:
    """Inherited by DatabaseSuite."""

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            (ItemFilter(1), [(2, 0), *((1, n) for n in range(6, -1, -1))]),
            (ItemFilter(2), [(3, 0)]),
            (ItemFilter(1, job=ident(1)), [(1, n) for n in range(7)]),
            (ItemFilter(1, job=ident(1), n=4), [(1, 4)]),
            (ItemFilter(1, job=ident(1), cursor=(ident(1), 4)), [(1, 5), (1, 6)]),
            (ItemFilter(1, cursor=(ident(1), 2)), [(1, 1), (1, 0)]),
            (ItemFilter(1, cursor=(ident(2), 0)), [(1, n) for n in range(6, -1, -1)]),
            (ItemFilter(1, digest=digest(11)), [(2, 0), (1, 1)]),
            (ItemFilter(1, label="cat"), [(1, 2)]),
            (ItemFilter(1, states=("queued",)), [(1, 6), (1, 0)]),
            (ItemFilter(1, states=("running",)), [(2, 0), (1, 1)]),
            (ItemFilter(1, states=("pending",)), [(2, 0), (1, 6), (1, 1), (1, 0)]),
            (ItemFilter(1, states=("succeeded",)), [(1, 2)]),
            (ItemFilter(1, states=("failed",)), [(1, 5), (1, 3)]),
            (ItemFilter(1, states=("cancelled", "running"), job=ident(1)), [(1, 1), (1, 4)]),
            (ItemFilter(1, dead_letters=True), [(1, 3)]),
        ],
    )
    def test_items_by_every_filter(
        self, database: Database, where: ItemFilter, expected: list[tuple[int, int]]
    ) -> None:
        """One job's by n, else newest first; a limit cuts the end off."""
        with database.begin() as tx:
            _board(tx)
        with database.read() as reader:
            assert _places(reader.views.items(where, 99)) == expected
            assert _places(reader.views.items(where, 1)) == expected[:1]

    def test_an_item_shows_what_its_task_knows(self, database: Database) -> None:
        """All columns of both; an item without a task shows its own."""
        with database.begin() as tx:
            _board(tx)
            good, alone = tx.views.items(ItemFilter(1, job=ident(1), n=2), 1) + tx.views.items(
                ItemFilter(1, job=ident(1), n=6), 1
            )
        item = new_item(1, 2, 12, ItemState.SUCCEEDED, label="cat", score=0.75, risk=0.25, found=1, worker=ident(88))
        shared = {name: getattr(item, name) for name in ItemView._fields[:17]}
        assert good == ItemView(
            **shared,
            task_state=TaskState.SUCCEEDED,
            lane=LANE,
            attempt=1,
            result=b"\x01cat",
            queued_at=1012,
            started_at=1900,
            run_ms=2.5,
            deaths=0,
            losses=0,
        )
        assert alone[17:] == (None,) * 9

    @pytest.mark.parametrize("again", ["queued", "running", "succeeded", "failed"])
    def test_a_failed_item_shows_nothing_of_a_run_that_came_later(self, database: Database, again: str) -> None:
        """RECORD.md 3.2: its own error and end stay; what is the task's is null once that has run again."""
        place = ItemFilter(1, job=ident(1), n=3)
        with database.begin() as tx:
            _board(tx)
            (before,) = tx.views.items(place, 1)
            assert (before.attempt, before.started_at) == (1, 1900)
            tx.tasks.reopen([ident(13)])
            if again != "queued":
                tx.tasks.claim(LANE, ME, 9)
            if again in ("succeeded", "failed"):
                row = next(row for row in tx.tasks.running(ME) if row.id == ident(13))
                tx.tasks.settle([settlement(row, TaskState[again.upper()], finished_at=7000, started_at=6000)])
            (view,) = tx.views.items(place, 1)
        assert (view.attempt, view.run_ms, view.started_at, view.result) == (None,) * 4
        assert view[:17] == before[:17]

    def test_jobs_are_listed_newest_first_with_what_runs(self, database: Database) -> None:
        """Without those that are received or deleted; page after page."""
        with database.begin() as tx:
            _board(tx)
            tx.jobs.insert([new_job(3, state=JobState.RECEIVING), new_job(4), new_job(5)])
            tx.jobs.control(ident(4), Control.DELETE, 0)
        with database.read() as reader:
            assert [(row.id, running) for row, running in reader.views.jobs(JobFilter(), 9)] == [
                (ident(5), 0),
                (ident(2), 1),
                (ident(1), 1),
            ]
            assert [row.id for row, _ in reader.views.jobs(JobFilter(), 2)] == [ident(5), ident(2)]
            assert [row.id for row, _ in reader.views.jobs(JobFilter(cursor=ident(2)), 9)] == [ident(1)]
            assert reader.views.job(ident(1)) == (new_job(1, pending=3), 1)
            assert reader.views.job(ident(9)) is None

    def test_an_image_is_found_with_its_names(self, database: Database) -> None:
        """Each name once, in order; other projects' images are not there."""
        with database.begin() as tx:
            tx.images.upsert([new_image(1, "pack:1")])
            names = [(1, "b"), (2, "a"), (3, "b")]
            tx.items.insert([new_item(job, 0, 1, name=name) for job, name in names])
            tx.items.insert([new_item(4, 0, 1, name="theirs", project=2)])
        with database.read() as reader:
            image = reader.views.image(1, digest(1))
            assert image is not None
            assert image[:-1] == (1, digest(1), None, None, None, None, 100, "pack:1", 1000)
            assert image.names == ("a", "b")
            assert reader.views.image(2, digest(1)) is None
            assert reader.views.image(1, digest(2)) is None

    def test_copies_of_a_picture_are_found_by_their_pixels(self, database: Database) -> None:
        """Oldest first; what is known of the pixels stays; of deleted copies and other projects' nothing is shown."""
        pixels = digest(99)
        with database.begin() as tx:
            tx.images.upsert([new_image(1, "pack:1"), new_image(2, "pack:2", pixel_digest=pixels, created_at=900)])
            tx.images.upsert([new_image(1, pixel_digest=pixels), new_image(2), new_image(3, pixel_digest=digest(98))])
            tx.images.upsert([new_image(2, pixel_digest=digest(97)), new_image(5, pixel_digest=pixels, project=2)])
            assert tx.images.alike(1, pixels, 9) == [digest(2), digest(1)]
            assert tx.images.alike(1, pixels, 1) == [digest(2)]
            assert tx.images.locate(1, [digest(1)]) == {digest(1): "pack:1"}
            places = [(1, 1, "b"), (2, 2, "a"), (3, 2, "b"), (4, 3, "c"), (6, 1, "being received")]
            tx.items.insert([new_item(job, 0, number, name=name) for job, number, name in places])
            tx.items.insert([new_item(5, 0, 5, name="theirs", project=2)])
            tx.jobs.insert([new_job(number, state=JobState.PENDING) for number in range(1, 6)])
            tx.jobs.insert([new_job(6, state=JobState.RECEIVING)])
        where = ItemFilter(1, pixels=pixels)
        with database.read() as reader:
            assert _places(reader.views.items(where, 9)) == [(3, 0), (2, 0), (1, 0)]
            assert reader.views.names(where, 9) == ["a", "b"]
            assert reader.views.names(where, 1) == ["a"]
            image = reader.views.image(1, pixels)
            assert image is not None
            assert (image.digest, image.pixel_digest, image.names) == (digest(2), pixels, ("a", "b"))
        with database.begin() as tx:
            tx.items.remove(ident(2), [0])
            tx.items.remove(ident(3), [0])
            tx.images.orphan(1, [digest(2)], 5000)
        with database.read() as reader:
            image = reader.views.image(1, pixels)
            assert image is not None
            assert image.digest == digest(1)

    def test_totals_count_the_whole_record(self, database: Database) -> None:
        """Of an empty one too; failures of the last day apart."""
        with database.read() as reader:
            assert reader.views.totals() == Totals(0, 0, 0, 0, 0)
        with database.begin() as tx:
            _board(tx)
            tx.jobs.insert([new_job(3, succeeded=5, failed=2, finished_at=now())])
            tx.jobs.insert([new_job(4, succeeded=1, failed=4, finished_at=1)])
        with database.read() as reader:
            assert reader.views.totals() == Totals(queued=1, running=1, succeeded=6, failed=6, failed_24h=2)
