"""The part of the database suite that is about tasks: the row is the lock, the fence and the queue."""

import random
from typing import Any

import pytest

from onceseen.domain.machine import LEGAL, Standing, Verdict
from onceseen.domain.task import Fence, Head, NewTask, TaskRow, TaskState
from onceseen.ports.database import Database
from onceseen.testing.database_rows import (
    LANE,
    LANE_2,
    ME,
    OTHER,
    WatchedTasks,
    answered_task,
    by_id,
    digest,
    ident,
    in_state,
    new_task,
    settlement,
)

MANY = 1500
"""Rows of one call: more than one statement holds."""

STATES = ("queued", "running", "succeeded", "failed", "unreadable", "cancelled")
CLEAN = Standing(0, 0, 0)


class TaskCases:
    """Inherited by DatabaseSuite."""

    def test_a_new_task_comes_back_as_it_was_given(self, database: Database) -> None:
        """Waiting and begun ones, then read by id and by key."""
        tasks = [new_task(1, frame=3, priority=2), new_task(2, early=ME)]
        with database.begin() as tx:
            rows = by_id(tx.tasks.upsert(tasks))
        assert rows[ident(1)].state == TaskState.QUEUED
        assert (rows[ident(2)].state, rows[ident(2)].attempt, rows[ident(2)].server) == (TaskState.RUNNING, 1, ME)
        assert (rows[ident(1)].frame, rows[ident(1)].queued_at) == (3, 1001)
        with database.read() as reader:
            assert by_id(reader.tasks.get([ident(2), ident(1), ident(9)])) == rows
            assert reader.tasks.find(digest(1)) == rows[ident(1)]
            assert reader.tasks.find(digest(9)) is None

    @pytest.mark.parametrize("early", [None, ME], ids=["waits", "begins"])
    @pytest.mark.parametrize("state", STATES)
    def test_an_equal_question_meets_the_row_that_is_there(
        self, database: Database, state: str, early: int | None
    ) -> None:
        """RECORD.md 1.3, 2.3: answers and runs elsewhere stay; what is free takes the newcomer's state and a new attempt."""
        with database.begin() as tx:
            before = in_state(tx, 1, state)
            (row,) = tx.tasks.upsert([new_task(2, key=1, early=early, queued_at=5000)])
            assert tx.tasks.get([ident(1)]) == [row]
            assert tx.tasks.get([ident(2)]) == []
            assert tx.tasks.newest() == ident(1)
        if state in ("running", "succeeded", "unreadable"):
            assert row == before
            return
        assert row.id == ident(1)
        assert row.state == (TaskState.QUEUED if early is None else TaskState.RUNNING)
        assert (row.attempt, row.server) == (before.attempt + (early is not None), early)
        assert (row.error_kind, row.error, row.finished_at) == (None, None, None)
        assert row.queued_at == (before.queued_at if state == "queued" else 5000)

    def test_a_task_that_is_opened_again_has_no_deaths_behind_it(self, database: Database) -> None:
        """Else one death would be its third."""
        with database.begin() as tx:
            tx.tasks.upsert([new_task(1, early=ME)])
            verdict = Verdict(TaskState.FAILED, Standing(1, 3, 7), "it died")
            assert tx.tasks.give_back([(Fence(ident(1), 1, ME), verdict)], 4000) == {ident(1)}
            (failed,) = tx.tasks.get([ident(1)])
            assert (failed.state, failed.error_kind, failed.error) == (TaskState.FAILED, "worker-died", "it died")
            assert (failed.suspect, failed.deaths, failed.losses, failed.finished_at) == (1, 3, 7, 4000)
            (row,) = tx.tasks.upsert([new_task(2, key=1)])
        assert (row.state, row.deaths, row.losses) == (TaskState.QUEUED, 0, 0)

    @pytest.mark.parametrize(("old", "new"), [(5, 0), (0, 5), (9, 5)])
    def test_the_smaller_priority_wins(self, database: Database, old: int, new: int) -> None:
        """A person who waits pulls the question forward, also one that a job asked long before."""
        with database.begin() as tx:
            tx.tasks.upsert([new_task(1, priority=old)])
            tx.tasks.upsert([new_task(2, key=1, priority=new)])
            (claimed,) = tx.tasks.claim(LANE, ME, 5)
        assert (claimed.id, claimed.priority) == (ident(1), min(old, new))

    def test_answers_are_written_where_the_fence_holds(self, database: Database) -> None:
        """Another attempt, server or state changes no row."""
        with database.begin() as tx:
            (row,) = tx.tasks.upsert([new_task(1, early=ME)])
            waiting = in_state(tx, 2, "queued")
            for wrong in (
                row._replace(attempt=2),
                row._replace(attempt=0),
                row._replace(server=OTHER),
                row._replace(id=ident(5)),
                waiting._replace(server=ME),
            ):
                assert tx.tasks.settle([settlement(wrong)]) == set()
            assert by_id(tx.tasks.get([ident(1), ident(2)])) == {row.id: row, waiting.id: waiting}
            assert tx.tasks.settle([settlement(row)]) == {row.id}
            (settled,) = tx.tasks.get([row.id])
        assert settled == row._replace(
            state=TaskState.SUCCEEDED,
            label="cat",
            score=0.75,
            result=b"\x01cat",
            worker=ident(88),
            started_at=1900,
            finished_at=2000,
            run_ms=2.5,
        )

    def test_a_late_twin_changes_nothing(self, database: Database) -> None:
        """The same answer twice, and one of an attempt that was given back and taken by somebody else."""
        with database.begin() as tx:
            (first,) = tx.tasks.upsert([new_task(1, early=ME)])
            tx.tasks.give_back([(Fence(first.id, 1, ME), Verdict(TaskState.QUEUED, CLEAN))], 1500)
            (again,) = tx.tasks.claim(LANE, OTHER, 1)
            assert again.attempt == 2
            assert tx.tasks.settle([settlement(first, label="late")]) == set()
            (running,) = tx.tasks.running(OTHER)
            assert tx.tasks.settle([settlement(running)]) == {first.id}
            for twin in (first, running):
                assert tx.tasks.settle([settlement(twin, TaskState.FAILED)]) == set()
            assert tx.tasks.get([first.id])[0].label == "cat"

    def test_a_cancelled_attempt_may_not_settle_the_next_one(self, database: Database) -> None:
        """Cancelled while it ran, asked for again: the old run is fenced out."""
        with database.begin() as tx:
            (old,) = tx.tasks.upsert([new_task(1, early=ME)])
            tx.tasks.cancel([old.id])
            assert tx.tasks.settle([settlement(old)]) == set()
            (new,) = tx.tasks.upsert([new_task(2, key=1, early=ME)])
            assert tx.tasks.settle([settlement(old)]) == set()
            assert tx.tasks.settle([settlement(new)]) == {old.id}

    def test_claims_go_by_priority_then_age(self, database: Database) -> None:
        """At most n, nothing twice, other lanes apart; each under a new attempt of this server."""
        with database.begin() as tx:
            wanted = [(4, 0), (2, 5), (3, 5), (1, 9)]
            tx.tasks.upsert([new_task(number, priority=priority) for number, priority in sorted(wanted)])
            tx.tasks.upsert([new_task(5, lane=LANE_2, priority=0, frame=7)])
            first = tx.tasks.claim(LANE, ME, 3)
            assert [(task.id, task.attempt) for task in first] == [(ident(n), 1) for n, _ in wanted[:3]]
            assert [task.id for task in tx.tasks.claim(LANE, ME, 3)] == [ident(1)]
            assert tx.tasks.claim(LANE, ME, 3) == []
            (other,) = tx.tasks.claim(LANE_2, OTHER, 1)
            assert (other.id, other.key, other.input, other.frame) == (ident(5), digest(5), digest(5), 7)
            assert {row.server for row in tx.tasks.running()} == {ME, OTHER}
            assert len(tx.tasks.running(ME)) == 4

    def test_the_oldest_are_claimed_whatever_their_priority(self, database: Database) -> None:
        """So that no priority starves; in the order of their age."""
        with database.begin() as tx:
            tx.tasks.upsert([new_task(number, priority=9 - number) for number in range(1, 6)])
            assert [task.id for task in tx.tasks.claim(LANE, ME, 3, oldest=True)] == [ident(1), ident(2), ident(3)]

    def test_what_is_given_back_is_decided_where_the_fence_holds(self, database: Database) -> None:
        """Queued with its standing and claimed again under a new attempt; a wrong fence changes nothing."""
        with database.begin() as tx:
            (row,) = tx.tasks.upsert([new_task(1, early=ME)])
            back = Verdict(TaskState.QUEUED, Standing(1, 2, 3))
            for fence in (Fence(row.id, 2, ME), Fence(row.id, 1, OTHER), Fence(ident(9), 1, ME)):
                assert tx.tasks.give_back([(fence, back)], 1500) == set()
            assert tx.tasks.get([row.id]) == [row]
            assert tx.tasks.give_back([(Fence(row.id, 1, ME), back)], 1500) == {row.id}
            assert tx.tasks.give_back([(Fence(row.id, 1, ME), back)], 1500) == set()
            (given,) = tx.tasks.get([row.id])
            assert given == row._replace(state=TaskState.QUEUED, server=None, suspect=1, deaths=2, losses=3)
            (claimed,) = tx.tasks.claim(LANE, ME, 1)
            assert (claimed.attempt, claimed.suspect) == (2, 1)
            cancelled = Verdict(TaskState.CANCELLED, CLEAN)
            tx.tasks.give_back([(Fence(row.id, 2, ME), cancelled)], 1600)
            assert tx.tasks.get([row.id])[0].state == TaskState.CANCELLED

    @pytest.mark.parametrize("state", STATES)
    def test_reopen_and_cancel_touch_only_what_they_may(self, database: Database, state: str) -> None:
        """Reopened: failed and cancelled ones. Cancelled: those that wait or run."""
        with database.begin() as tx:
            row = in_state(tx, 1, state)
            tx.tasks.reopen([row.id])
            (opened,) = tx.tasks.get([row.id])
            if state in ("failed", "unreadable", "cancelled"):
                assert (opened.state, opened.server, opened.error, opened.error_kind) == (0, None, None, None)
                assert (opened.attempt, opened.finished_at) == (row.attempt, None)
            else:
                assert opened == row
            tx.tasks.cancel([row.id])
            (cancelled,) = tx.tasks.get([row.id])
            assert cancelled.state == (TaskState.SUCCEEDED if state == "succeeded" else TaskState.CANCELLED)

    @pytest.mark.parametrize("state", ["new", *STATES])
    def test_a_local_answer_is_written_unless_there_is_one(self, database: Database, state: str) -> None:
        """RECORD.md 6: whoever runs the question meanwhile is fenced out."""
        with database.begin() as tx:
            before = None if state == "new" else in_state(tx, 1, state)
            (row,) = tx.tasks.answer([answered_task(2, key=1)])
            if state in ("succeeded", "unreadable"):
                assert row == before
                return
            assert (row.state, row.label, row.worker, row.run_ms) == (TaskState.SUCCEEDED, "local", ident(77), 1.5)
            assert (row.error_kind, row.error, row.finished_at) == (None, None, 3000)
            assert (row.id, row.attempt) == (ident(2), 1) if before is None else (before.id, before.attempt + 1)
            if before is not None:
                assert tx.tasks.settle([settlement(before)]) == set()

    def test_heads_tell_the_next_and_the_oldest_of_each_lane(self, database: Database) -> None:
        """Only lanes with waiting tasks; all of them, or those asked for."""
        with database.begin() as tx:
            tx.tasks.upsert([new_task(1, priority=9), new_task(2, priority=0)])
            tx.tasks.upsert([new_task(3, lane=LANE_2), new_task(4, lane=digest(0xC), early=ME)])
            assert tx.tasks.heads() == {LANE: Head(0, 1001), LANE_2: Head(5, 1003)}
            assert tx.tasks.heads([LANE_2, digest(0xC)]) == {LANE_2: Head(5, 1003)}
            tx.tasks.claim(LANE_2, ME, 1)
            assert tx.tasks.heads([LANE_2]) == {}

    def test_many_rows_in_one_call_are_all_there(self, database: Database) -> None:
        """More than one statement holds: inserted, met, claimed, settled, given back, reopened, cancelled."""
        ids = [ident(number) for number in range(MANY)]
        with database.begin() as tx:
            assert len(tx.tasks.upsert([new_task(number) for number in range(MANY)])) == MANY
            met = tx.tasks.upsert([new_task(MANY + number, key=number, priority=1) for number in range(MANY)])
            assert {row.id for row in met} == set(ids)
            claimed = tx.tasks.claim(LANE, ME, MANY)
            assert [task.id for task in claimed] == ids
            half = [settlement(Fence(task.id, task.attempt, ME), TaskState.FAILED) for task in claimed[::2]]
            assert tx.tasks.settle(half) == set(ids[::2])
            rest = [(Fence(task.id, 1, ME), Verdict(TaskState.QUEUED, CLEAN)) for task in claimed[1::2]]
            assert tx.tasks.give_back(rest, 1) == set(ids[1::2])
            tx.tasks.reopen(ids)
            assert {row.state for row in tx.tasks.get(ids)} == {TaskState.QUEUED}
            answered = tx.tasks.answer([answered_task(2 * MANY + number, key=number) for number in range(0, MANY, 2)])
            assert {row.id for row in answered} == set(ids[::2])
            tx.tasks.cancel(ids)
            assert [row.state for row in sorted(tx.tasks.get(ids))] == [2, 4] * (MANY // 2)

    def test_only_a_failure_that_is_not_remembered_is_purged(self, database: Database) -> None:
        """It is cancelled, and all else of it stays; the next newcomer opens it."""
        with database.begin() as tx:
            before = {state: in_state(tx, number, state) for number, state in enumerate(STATES)}
            failed = before["failed"]
            ids = [row.id for row in before.values()]
            assert tx.tasks.purge([*ids, ident(99)]) == {failed.id}
            assert tx.tasks.purge(ids) == set()
            purged = failed._replace(state=TaskState.CANCELLED)
            assert by_id(tx.tasks.get(ids)) == {row.id: row for row in before.values()} | {failed.id: purged}
            (again,) = tx.tasks.upsert([new_task(99, key=STATES.index("failed"))])
            assert (again.id, again.state, again.error_kind) == (failed.id, TaskState.QUEUED, None)

    @pytest.mark.parametrize("seed", range(4))
    def test_every_step_of_a_task_is_legal(self, database: Database, seed: int) -> None:
        """Statements in any order, over a few tasks, with fences that hold and fences that do not."""
        chance = random.Random(seed)
        with database.begin() as tx:
            watched = WatchedTasks(tx.tasks)
            for number in range(400):
                _any_statement(watched, chance, 100 + number)
            assert watched.steps <= LEGAL
            assert len(watched.steps) >= 9, "the walk saw too few steps to prove anything"


def _any_statement(tasks: Any, chance: random.Random, number: int) -> None:
    """One statement, chosen at random, over eight keys."""
    key, server = chance.randrange(8), chance.choice([ME, OTHER])
    running: list[TaskRow] = tasks.running()
    row = chance.choice(running) if running else None
    failed: dict[str, Any] = {"state": TaskState.FAILED, "error": "broken"}
    kinds = ["model-failed", "unreadable-image"] if chance.random() < 0.3 else ["model-failed"]
    what = chance.randrange(9)
    if what == 0:
        task: NewTask = new_task(number, key=key, early=chance.choice([None, ME]), priority=chance.randrange(9))
        tasks.upsert([task])
    elif what == 1:
        tasks.claim(LANE, server, 2, oldest=chance.random() < 0.5)
    elif what == 2 and row:
        late = row if chance.random() < 0.7 else row._replace(attempt=row.attempt - 1)
        good = chance.random() < 0.2
        tasks.settle([settlement(late) if good else settlement(late, **failed, error_kind=chance.choice(kinds))])
    elif what == 3 and row:
        state = chance.choice([TaskState.QUEUED, TaskState.CANCELLED, TaskState.FAILED])
        verdict = Verdict(state, CLEAN, "died" if state == TaskState.FAILED else None)
        tasks.give_back([(Fence(row.id, row.attempt, row.server or 0), verdict)], 1)
    elif what == 4 and chance.random() < 0.3:
        good = chance.random() < 0.3
        tasks.answer(
            [answered_task(number, key=key, **({} if good else {**failed, "error_kind": chance.choice(kinds)}))]
        )
    elif what in (5, 6) and (known := tasks.find(digest(key))):
        (tasks.reopen if what == 5 else tasks.cancel)([known.id])
    elif what == 7:
        tasks.purge([ident(number) for number in range(100, 500)])
