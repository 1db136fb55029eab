"""What every database must do (ports/database.py). A driver's test inherits the class and says how to make one."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from onceseen.domain.events import NewEvent
from onceseen.domain.job import Control, Counts, ItemState, JobState, job_state
from onceseen.domain.model import CANDIDATE, LIVE, ModelRow
from onceseen.domain.views import AttemptRow, FileRow, JobFilter, WorkerRow
from onceseen.ports.database import Database, Transaction
from onceseen.testing.database_fetches import FetchCases
from onceseen.testing.database_images import ImageCases
from onceseen.testing.database_keys import KeyCases
from onceseen.testing.database_rows import (
    ME,
    digest,
    finished,
    ident,
    in_state,
    new_image,
    new_item,
    new_job,
    new_task,
)
from onceseen.testing.database_tasks import MANY, TaskCases
from onceseen.testing.database_views import ViewCases

JOB = ident(1)


def _job_with(tx: Transaction, states: list[int]) -> None:
    """Job 1 with an item in each of the states; all wait for task 7."""
    tx.jobs.insert([new_job(1, total=99, pending=99)])
    if states:
        tx.items.insert([new_item(1, n, 7, state) for n, state in enumerate(states)])


class DatabaseSuite(TaskCases, ViewCases, KeyCases, ImageCases, FetchCases):
    """Inherit, override `database`."""

    @pytest.fixture
    def database(self, tmp_path: Path) -> Iterator[Database]:
        """An empty record of today's schema, closed afterwards."""
        raise NotImplementedError

    # -- transactions --------------------------------------------------------------------------------------------------

    def test_an_error_inside_the_block_leaves_nothing(self, database: Database) -> None:
        """Nor does it harm the next transaction."""
        with pytest.raises(ZeroDivisionError), database.begin() as tx:  # noqa: PT012  (the block is the transaction)
            tx.tasks.upsert([new_task(1)])
            _job_with(tx, [0])
            tx.images.upsert([new_image(1)])
            tx.events.append([NewEvent(1, "k", 1, "s", "{}")])
            _ = 1 // 0
        with database.begin() as tx:
            assert tx.tasks.find(digest(1)) is None
            assert tx.jobs.get(JOB) is None
            assert tx.items.slice(JOB, 0, 9) == []
            assert tx.events.bounds() == (0, 0)
            assert tx.views.image(1, digest(1)) is None

    def test_a_reader_never_sees_half_a_transaction(self, database: Database) -> None:
        """Nothing before its end, also what was written before the reader came; all of it afterwards."""
        with database.read() as reader:
            with database.begin() as tx:
                tx.tasks.upsert([new_task(1)])
                assert reader.tasks.find(digest(1)) is None
                tx.jobs.insert([new_job(1)])
                with database.read() as late:
                    assert late.tasks.find(digest(1)) is None
                    assert late.views.jobs(JobFilter(), 9) == []
            assert reader.tasks.find(digest(1)) is not None
            assert [row.id for row, _ in reader.views.jobs(JobFilter(), 9)] == [JOB]

    # -- items -----------------------------------------------------------------------------------------------------------

    def test_pending_items_are_found_by_their_task_and_finished_once(self, database: Database) -> None:
        """A settled item keeps its end, whatever is written later (RECORD.md 3.2)."""
        with database.begin() as tx:
            _job_with(tx, [0, 0, 3])
            tx.items.insert([new_item(2, 0, 8, name="other", frame=4, model="m:2"), new_item(2, 1, None)])
            waiting = tx.items.pending([ident(7), ident(8), ident(9)], 10)
            assert sorted((item.job, item.n, item.task) for item in waiting) == [
                (JOB, 0, ident(7)),
                (JOB, 1, ident(7)),
                (ident(2), 0, ident(8)),
            ]
            other = next(item for item in waiting if item.job == ident(2))
            assert (other.name, other.frame, other.model, other.digest) == ("other", 4, "m:2", digest(8))
            tx.items.finish([finished(1, 0), finished(1, 2, label="never")])
            tx.items.finish([finished(1, 0, ItemState.FAILED, label="never")])
            first, second, failed = tx.items.slice(JOB, 0, 9)
            end = (first.state, first.label, first.score, first.risk, first.found, first.worker, first.finished_at)
            assert end == (ItemState.SUCCEEDED, "cat", 0.75, 0.25, 1, ident(88), 2000)
            assert second == new_item(1, 1, 7)
            assert failed == new_item(1, 2, 7, 3)
            assert [item.n for item in tx.items.pending([ident(7)], 10)] == [1]

    def test_a_task_is_wanted_while_an_item_waits_for_it(self, database: Database) -> None:
        """Settled and cancelled items want nothing."""
        with database.begin() as tx:
            tx.items.insert([new_item(1, 0, 7), new_item(1, 1, 7, 4), new_item(1, 2, 8, 3), new_item(2, 0, 9)])
            assert tx.items.wanted([ident(7), ident(8), ident(9), ident(10)]) == {ident(7), ident(9)}
            assert tx.items.wanted([]) == set()
            assert tx.items.wanted([ident(7), ident(8), ident(9)], ItemState.FAILED) == {ident(8)}

    def test_final_tasks_that_items_wait_for_are_stranded(self, database: Database) -> None:
        """Succeeded or failed; waiting, running and cancelled ones are not, nor those without a pending item."""
        with database.begin() as tx:
            for number, state in enumerate(["queued", "running", "succeeded", "failed", "cancelled", "unreadable"]):
                in_state(tx, number, state)
                tx.items.insert([new_item(1, number, number), new_item(2, number, number)])
            in_state(tx, 9, "succeeded")
            tx.items.insert([new_item(1, 9, 9, ItemState.SUCCEEDED)])
            assert sorted(tx.items.stranded(10)) == [ident(2), ident(3), ident(5)]
            assert len(tx.items.stranded(2)) == 2

    def test_items_are_sliced_reopened_removed_and_found_by_state(self, database: Database) -> None:
        """In order of n; only failed ones are reopened, and then they are as new."""
        with database.begin() as tx:
            _job_with(tx, [0, 0, 2, 3, 4, 3])
            tx.items.insert([new_item(2, 3, 7, ItemState.FAILED)])
            tx.items.finish([finished(1, 1, ItemState.FAILED, error_kind="model-failed", error="it broke")])
            assert [item.n for item in tx.items.slice(JOB, 1, 3)] == [1, 2, 3]
            failed = tx.items.of_tasks([ident(7)], ItemState.FAILED, 9)
            assert sorted((item.job, item.n) for item in failed) == [(JOB, 1), (JOB, 3), (JOB, 5), (ident(2), 3)]
            assert len(tx.items.of_tasks([ident(7)], ItemState.FAILED, 2)) == 2
            assert tx.items.count([ident(7), ident(8)], ItemState.FAILED) == 4
            assert tx.items.count([], ItemState.FAILED) == 0
            tx.items.reopen(JOB, [0, 1, 2, 3, 4])
            assert [item.state for item in tx.items.slice(JOB, 0, 9)] == [0, 0, 2, 0, 4, 3]
            assert tx.items.slice(JOB, 1, 1) == [new_item(1, 1, 7)]
            tx.items.remove(JOB, [0, 3, 77])
            assert [item.n for item in tx.items.slice(JOB, 0, 9)] == [1, 2, 4, 5]
            assert len(tx.items.slice(ident(2), 0, 9)) == 1

    def test_many_items_in_one_call(self, database: Database) -> None:
        """More than one statement holds, of many tasks; limits hold over all statements together."""
        tasks = [ident(number) for number in range(MANY)]
        with database.begin() as tx:
            tx.items.insert([new_item(1, number, number) for number in range(MANY)])
            assert len(tx.items.pending(tasks, 10_000)) == MANY
            assert len(tx.items.pending(tasks, 700)) == 700
            assert tx.items.wanted(tasks) == set(tasks)
            tx.items.finish([finished(1, number, ItemState.FAILED) for number in range(MANY)])
            assert len(tx.items.of_tasks(tasks, ItemState.FAILED, 1200)) == 1200
            assert tx.items.count(tasks, ItemState.FAILED) == MANY
            tx.items.reopen(JOB, range(MANY))
            assert {item.state for item in tx.items.slice(JOB, 0, MANY)} == {0}
            tx.items.remove(JOB, range(1, MANY))
            assert [item.n for item in tx.items.slice(JOB, 0, MANY)] == [0]

    # -- jobs ------------------------------------------------------------------------------------------------------------

    def test_a_jobs_state_follows_from_its_counters(self, database: Database) -> None:
        """SQL derives what domain.job.job_state derives, over all combinations, by count and by recount."""
        cases = list(product([0, 2], [0, 1], [0, 3], [0, 1], list(Control)))
        with database.begin() as tx:
            tx.jobs.insert([new_job(number) for number in range(len(cases))])
            for number, (*_, control) in enumerate(cases):
                if control:
                    tx.jobs.control(ident(number), control, 0)
            counts = [Counts(ident(n), sum(case[:4]), *case[:4]) for n, case in enumerate(cases)]
            rows = {row.id: row for row in tx.jobs.count(counts, 5000)}
            for number, (pending, succeeded, failed, cancelled, control) in enumerate(cases):
                row = rows[ident(number)]
                assert row.state == job_state(pending, failed, cancelled, control), cases[number]
                assert row.finished_at == (None if pending or control else 5000)
                assert row == tx.jobs.get(row.id)
                states = [0] * pending + [2] * succeeded + [3] * failed + [4] * cancelled
                if states:
                    tx.items.insert([new_item(number, n, 7, state) for n, state in enumerate(states)])
                again = tx.jobs.recount(row.id, 6000)
                assert again is not None
                assert again.state == job_state(pending, failed, cancelled, 0)
                assert again[9:15] == (sum(case_ := cases[number][:4]), *case_, "http")
                assert (again.control, again.control_n) == (0, 0)
                assert again.finished_at == (None if pending else 6000 if control else 5000)

    def test_a_job_is_received_until_its_last_chunk(self, database: Database) -> None:
        """RECORD.md 2.4: never final before, whatever its counters say; the moment of its end does not move later."""
        with database.begin() as tx:
            tx.jobs.insert([new_job(1, state=JobState.RECEIVING)])
            (row,) = tx.jobs.count([Counts(JOB, 3, 1, 1, 1, 0)], 2000)
            assert (row.state, row.finished_at, row.total, row.pending) == (JobState.RECEIVING, None, 3, 1)
            assert [job.id for job in tx.jobs.receiving()] == [JOB]
            (row,) = tx.jobs.count([Counts(JOB, 0, -1, 1)], 3000)
            assert (row.state, row.finished_at) == (JobState.RECEIVING, None)
            (row,) = tx.jobs.count([Counts(JOB, 0, 0, 0, 0, 0, complete=True)], 4000)
            assert (row.state, row.finished_at) == (JobState.FAILED, 4000)
            assert tx.jobs.receiving() == []
            (row,) = tx.jobs.count([Counts(JOB)], 5000)
            assert row.finished_at == 4000
            (row,) = tx.jobs.count([Counts(JOB, 0, 1, 0, -1)], 6000)
            assert (row.state, row.finished_at) == (JobState.PENDING, None)

    def test_a_control_is_shown_at_once_and_ends_with_the_count(self, database: Database) -> None:
        """RECORD.md 3.4."""
        with database.begin() as tx:
            _job_with(tx, [2, 3, 4])
            tx.jobs.insert([new_job(2), new_job(3)])
            assert tx.jobs.controlled() == []
            cancelled = tx.jobs.control(JOB, Control.CANCEL, 500)
            assert cancelled == new_job(
                1, total=99, pending=99, control=Control.CANCEL, control_n=500, state=JobState.CANCELLED
            )
            tx.jobs.control(ident(2), Control.RETRY, 0)
            assert {job.id: job.control for job in tx.jobs.controlled()} == {JOB: 1, ident(2): 3}
            assert tx.jobs.control(ident(9), Control.CANCEL, 0) is None
            done = tx.jobs.recount(JOB, 5000)
            assert done is not None
            assert (done.control, done.state, done.finished_at) == (0, JobState.FAILED, 5000)
            assert (done.total, done.pending, done.succeeded, done.failed, done.cancelled) == (3, 0, 1, 1, 1)
            assert tx.jobs.recount(ident(9), 5000) is None
            tx.jobs.remove(JOB)
            assert tx.jobs.get(JOB) is None
            assert tx.jobs.get(ident(3)) == new_job(3)

    def test_a_clock_that_was_set_back_ends_no_job_before_it_began(self, database: Database) -> None:
        """By count and by recount."""
        with database.begin() as tx:
            tx.jobs.insert([new_job(1, pending=1), new_job(2)])
            (row,) = tx.jobs.count([Counts(JOB, 0, -1, 1)], 7)
            assert row.finished_at == row.created_at > 7
            recounted = tx.jobs.recount(ident(2), 7)
            assert recounted is not None
            assert recounted.finished_at == recounted.created_at

    def test_jobs_of_one_source_that_wait_are_found(self, database: Database) -> None:
        """Not those that are received, finished, or from elsewhere."""
        with database.begin() as tx:
            tx.jobs.insert([new_job(number, state=number, source="local") for number in range(5)])
            tx.jobs.insert([new_job(9)])
            assert [job.id for job in tx.jobs.waiting("local")] == [ident(1)]

    def test_many_jobs_count_in_one_call(self, database: Database) -> None:
        """More than one statement holds; jobs that are gone are left out."""
        with database.begin() as tx:
            tx.jobs.insert([new_job(number) for number in range(MANY)])
            rows = tx.jobs.count([Counts(ident(number), number, number) for number in range(MANY + 1)], 5000)
            assert {row.id: row.pending for row in rows} == {ident(number): number for number in range(MANY)}

    # -- events, models, servers, files ------------------------------------------------------------------------------------

    def test_events_have_one_order_and_a_seq_is_never_used_again(self, database: Database) -> None:
        """Pruned from the oldest on; the newest stays, so that a reader knows where it is."""
        with database.begin() as tx:
            assert tx.events.bounds() == (0, 0)
            tx.events.append([NewEvent(at, "kind", 1, str(at), '{"a":1}') for at in range(MANY)])
            first, last = tx.events.bounds()
            assert last - first == MANY - 1
            events = tx.events.after(first + 9, 5)
            assert [(event.seq, event.at) for event in events] == [(first + n, n) for n in range(10, 15)]
            assert events[0][2:] == ("kind", 1, "10", '{"a":1}')
            assert tx.events.after(last, 5) == []
            tx.events.prune(100)
            assert tx.events.bounds() == (first + 99, last)
            tx.events.prune(1_000_000)
            assert tx.events.bounds() == (last, last)
            tx.events.append([NewEvent(1, "kind", 1, "x", "{}")])
            assert tx.events.bounds() == (last, last + 1)

    def test_models_are_kept_by_name_and_version(self, database: Database) -> None:
        """Oldest first; adding one again keeps its stage; defaults by dialect."""
        old, new = (ModelRow("m", str(n), digest(n), b"{}", f"m-{n}", CANDIDATE, n) for n in (1, 2))
        with database.begin() as tx:
            tx.models.add(new)
            tx.models.add(old)
            assert tx.models.all() == [old, new]
            tx.models.stage("m", "1", LIVE)
            tx.models.add(old._replace(manifest=b"{1}", location="elsewhere"))
            assert tx.models.all() == [old._replace(stage=LIVE, manifest=b"{1}", location="elsewhere"), new]
            tx.models.remove("m", "1")
            assert tx.models.all() == [new]
            tx.models.set_default("v1", "m:1")
            tx.models.set_default("v1", "m:2")
            tx.models.set_default("scan", "m")
            assert tx.models.defaults() == {"v1": "m:2", "scan": "m"}

    def test_each_start_of_a_server_has_an_id_of_its_own(self, database: Database) -> None:
        """Growing, never used again; burying the others tells which there were, once."""
        with database.begin() as tx:
            ids = [tx.servers.begin("host", 1, 1000) for _ in range(3)]
            assert sorted(set(ids)) == ids
            assert tx.servers.living() == set(ids)
            assert sorted(tx.servers.bury(ids[1])) == [ids[0], ids[2]]
            assert tx.servers.living() == {ids[1]}
            assert tx.servers.bury(ids[1]) == []
            assert tx.servers.begin("host", 1, 1000) > ids[2]
            assert tx.servers.meta("store") is None
            assert [tx.servers.meta("store", value) for value in ("one", "two")] == ["one", "one"]
            assert tx.servers.meta("store") == "one"

    def test_a_transaction_is_told_by_the_mark_of_its_server(self, database: Database) -> None:
        """One that was rolled back left none (RECORD.md 1.5)."""
        with database.begin() as tx:
            one, other = (tx.servers.begin("host", 1, 1000) for _ in range(2))
            tx.servers.mark(one, 2000)
        with pytest.raises(ZeroDivisionError), database.begin() as tx:  # noqa: PT012  (the block is the transaction)
            tx.servers.mark(one, 3000)
            _ = 1 // 0
        with database.begin() as tx:
            assert (tx.servers.marked(one), tx.servers.marked(other)) == (2000, 1000)

    def test_abnormal_attempts_are_kept_once_each(self, database: Database) -> None:
        """In their order."""
        rows = [AttemptRow(ident(1), n, ident(88), 1000, 2000, "it died") for n in (1, 2)]
        with database.begin() as tx:
            tx.servers.blame(rows[::-1])
            tx.servers.blame([rows[0]._replace(why="again"), AttemptRow(ident(2), 1, None, None, 3, "other")])
            assert tx.views.attempts(ident(1)) == rows
            assert tx.views.attempts(ident(3)) == []

    def test_a_files_last_reading_is_remembered(self, database: Database) -> None:
        """By project and path, many at once."""
        rows = [FileRow(1, f"/a/{number}", number, 2, digest(number)) for number in range(MANY)]
        with database.begin() as tx:
            tx.files.put(rows)
            changed = rows[7]._replace(size=1, mtime_ns=9, digest=digest(1))
            tx.files.put([changed])
            found = tx.files.find(1, [*(row.path for row in rows), "/b"])
            assert found == {row.path: row for row in rows} | {changed.path: changed}
            assert tx.files.find(2, ["/a/1"]) == {}

    def test_a_worker_may_come_again_at_another_server(self, database: Database) -> None:
        """It keeps its id, and leaves only when it is said to."""
        row = WorkerRow(ident(88), ME, "host", 5, 1000, 1000, "ready")
        with database.begin() as tx:
            tx.servers.joined(row)
            assert self.workers(tx) == [row]
            tx.servers.joined(row._replace(server=2, seen_at=3000, state="loading"))
            assert self.workers(tx) == [row._replace(server=2, seen_at=3000, state="loading")]
            tx.servers.left([ident(88), ident(89)], 4000)
            assert self.workers(tx) == [row._replace(server=2, seen_at=4000, state="gone")]

    def workers(self, tx: Transaction) -> list[WorkerRow]:
        """All worker rows; the port does not read them yet, so a driver says how."""
        raise NotImplementedError

    def test_nothing_in_is_nothing_out(self, database: Database) -> None:
        """Empty lists are no error, and change nothing."""
        with database.begin() as tx:
            for rows in (tx.tasks.upsert([]), tx.tasks.answer([]), tx.tasks.get([]), tx.tasks.running()):
                assert rows == []
            assert tx.tasks.settle([]) == tx.tasks.give_back([], 1) == tx.items.wanted([]) == set()
            assert (tx.items.pending([], 5), tx.items.stranded(5), tx.jobs.count([], 1)) == ([], [], [])
            assert (tx.tasks.heads([]), tx.tasks.heads(), tx.images.locate(1, [])) == ({}, {}, {})
            assert tx.files.find(1, []) == {}
            tx.events.append([])
            assert tx.events.bounds() == (0, 0)
