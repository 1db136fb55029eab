"""worker -> record: answers of tasks, and of every item that waited for them, exactly once."""

from collections.abc import Sequence
from typing import Any

from onceseen.domain.job import FinishedItem, ItemRow, PendingItem
from onceseen.domain.machine import Verdict
from onceseen.domain.task import Settlement, TaskRow, TaskState
from onceseen.flow.work import DoneItem, Group, Outcome, Tally
from onceseen.inference.registry import Catalog
from onceseen.ports.database import Transaction

ITEMS_AT_ONCE = 500
"""Items a transaction settles at most; what is left is done by the ones that follow (RECORD.md 1.1)."""


def settle_tasks(tx: Transaction, group: Group, outcome: Outcome) -> None:
    """Phase 1: write answers whose fence holds; a late twin changes no row."""
    answers: dict[bytes, Settlement] = {}
    twins: dict[bytes, list[Settlement]] = {}
    for settled in group.settled:
        ended = settled.settlement
        if answers.setdefault(ended.id, ended) is not ended:
            twins.setdefault(ended.id, [answers[ended.id]]).append(ended)
    if twins:  # two attempts of a task in one group: only the one that holds the task may speak for it
        held = {row.id: (row.attempt, row.server) for row in tx.tasks.get(sorted(twins))}
        for task, several in twins.items():
            good = (ended for ended in several if (ended.attempt, ended.server) == held.get(task))
            answers[task] = next(good, several[0])
    if answers:
        outcome.passed = tx.tasks.settle([answers[task] for task in sorted(answers)])
        outcome.answers = {task: answers[task] for task in outcome.passed}


def describe_images(tx: Transaction, group: Group, outcome: Outcome) -> None:
    """Phase 2: width, height and type, as the runs saw them."""
    facts = [settled.facts for settled in group.settled if settled.facts and settled.settlement.id in outcome.passed]
    if facts:
        tx.images.describe(sorted(facts, key=lambda fact: fact.digest))


def settle_items(tx: Transaction, group: Group, outcome: Outcome, tally: Tally, catalog: Catalog) -> None:
    """Phase 3: the items that wait for answers written in this transaction, or left over from one before."""
    answers: dict[bytes, Settlement | TaskRow] = {**outcome.answers}
    if group.leftovers:
        final = (TaskState.SUCCEEDED, TaskState.FAILED)
        answers |= {row.id: row for row in tx.tasks.get(group.leftovers) if row.state in final}
    finish_items(tx, answers, outcome, tally, catalog)


def finish_items(tx: Transaction, answers: dict[bytes, Any], outcome: Outcome, tally: Tally, catalog: Catalog) -> None:
    """Give at most 500 pending items the answers of their tasks (Settlements or TaskRows)."""
    if not answers:
        return
    waiting = tx.items.pending(list(answers), ITEMS_AT_ONCE)
    rows = []
    for item in waiting:
        end = finished(item, answers[item.task], catalog)
        rows.append(end)
        tally.move(item.job, end.state, new=False)
        outcome.done.append(DoneItem(item, end, reused=bool(item.reused)))
    if rows:
        tx.items.finish(rows)
    if len(rows) == ITEMS_AT_ONCE:
        wanted = tx.items.wanted(list(answers))
        outcome.leftovers += [task for task in answers if task in wanted]


def fail_items(
    tx: Transaction, failed: Sequence[tuple[bytes, Verdict]], outcome: Outcome, tally: Tally, catalog: Catalog, now: int
) -> None:
    """Phase 3: the items of tasks that died for good."""
    answers = {
        task: Settlement(
            task, 0, 0, TaskState.FAILED, None, None, None, "worker-died", verdict.error, None, None, now, None
        )
        for task, verdict in failed
    }
    finish_items(tx, answers, outcome, tally, catalog)


def finished(item: PendingItem | ItemRow, answer: Any, catalog: Catalog) -> FinishedItem:
    """The end that a task's answer (a Settlement or TaskRow) gives to an item."""
    risk, found = catalog.judge(item.model, answer.result)
    return FinishedItem(
        state=answer.state,
        label=answer.label,
        score=answer.score,
        risk=risk,
        found=found,
        error_kind=answer.error_kind,
        error=answer.error,
        worker=answer.worker,
        finished_at=answer.finished_at,
        job=item.job,
        n=item.n,
    )
