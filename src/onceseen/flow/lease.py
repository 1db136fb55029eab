"""record -> worker and back: which tasks are handed out next, and what becomes of those that come back unanswered."""

from collections.abc import Sequence

from onceseen.domain.machine import MAX_DEATHS, Standing, Verdict, after_give_back
from onceseen.domain.task import TaskRow, TaskState
from onceseen.domain.views import AttemptRow
from onceseen.flow.work import ClaimWish, GivenBack, Group, Outcome
from onceseen.ports.database import Transaction


def lock_given_back(tx: Transaction, group: Group) -> dict[bytes, TaskRow]:
    """Phase 1: the rows of what comes back, locked; they are decided when the items are known."""
    return {row.id: row for row in tx.tasks.get(sorted(given.fence.id for given in group.given_back))}


def give_back(
    tx: Transaction,
    given_back: Sequence[GivenBack],
    held: dict[bytes, TaskRow],
    outcome: Outcome,
    now: int,
    max_deaths: int = MAX_DEATHS,
) -> list[tuple[bytes, Verdict]]:
    """Phase 3: queued again, cancelled when nobody waits for it any more, or failed for good; returns the failed ones."""
    if not given_back:
        return []
    wanted = tx.items.wanted([given.fence.id for given in given_back])
    verdicts = []
    blamed: list[AttemptRow] = []
    for given in given_back:
        row = held.get(given.fence.id)
        if row is None or row.state != TaskState.RUNNING or given.fence != (row.id, row.attempt, row.server):
            continue  # a late twin: its verdict must not stand in for that of the attempt that holds the task
        del held[row.id]
        verdict = after_give_back(Standing(row.suspect, row.deaths, row.losses), given.blame, max_deaths)
        if verdict.state == TaskState.QUEUED and row.id not in wanted:
            verdict = verdict._replace(state=TaskState.CANCELLED)
        verdicts.append((given.fence, verdict))
        if given.blame.begun:
            blamed.append(AttemptRow(row.id, given.fence.attempt, given.worker, given.started_at, now, given.blame.why))
    held_on = tx.tasks.give_back(verdicts, now)
    if blamed:
        tx.servers.blame([attempt for attempt in blamed if attempt.task in held_on])
    outcome.verdicts = {fence.id: verdict for fence, verdict in verdicts if fence.id in held_on}
    return [(task, verdict) for task, verdict in outcome.verdicts.items() if verdict.state == TaskState.FAILED]


def claim(tx: Transaction, wishes: Sequence[ClaimWish], server: int, outcome: Outcome) -> None:
    """Phase 5: tasks for free credits, and where their bytes lie."""
    for wish in wishes:
        tasks = tx.tasks.claim(wish.lane, server, wish.oldest, oldest=True) if wish.oldest else []
        if wish.n > wish.oldest:
            tasks += tx.tasks.claim(wish.lane, server, wish.n - len(tasks))
        if not tasks:
            continue
        outcome.claimed.setdefault(wish.lane, []).extend(tasks)
        for project in {task.project for task in tasks}:
            digests = sorted({task.input for task in tasks if task.project == project})
            outcome.places |= tx.images.locate(project, digests, paths=True)
