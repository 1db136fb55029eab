"""Filters and the search grammar (domain/query.py) as conditions of SQL; nothing here is one database's own.

Both sides of a comparison of text go through the database's `lower()`: what is promised is that A to Z are alike and that a text
finds itself. SQLite's folds A to Z alone; a function of our own in its place would take Python's lock for every row.
"""

import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Select, String, and_, false, func, literal, not_, or_, select, text, tuple_

from onceseen.domain.ids import first_id_of, now
from onceseen.domain.query import Query, Term
from onceseen.domain.task import TaskState
from onceseen.domain.views import ItemFilter, JobFilter
from onceseen.drivers.sql.schema import image, item, job, task, worker

Condition = ColumnElement[bool]
Column = ColumnElement[Any]
Compiler = Callable[[Term, int], Condition]

SEPARATORS = (",", "_")
"""Between the words of a label, besides the space."""
# In words, not as parameters, so that the partial indexes serve them.
DEAD = text("task.state = 3 AND task.error_kind <> 'unreadable-image'")
FAILED_ITEM = text("item.state = 3")
RUNNING_ITEM = and_(text("item.state = 0"), item.c.task.in_(select(task.c.id).where(text("state = 1"))))
"""Those that wait for a task that runs: few, whatever waits."""
_STATES = {"succeeded": 2, "failed": 3, "cancelled": 4}


def item_conditions(where: ItemFilter) -> list[Condition]:
    """What an item (with its task, if it has one) must fulfil."""
    found: list[Condition] = [item.c.project == where.project]
    exact = {item.c.job: where.job, item.c.n: where.n, item.c.digest: where.digest, item.c.label: where.label}
    found += [column == value for column, value in exact.items() if value is not None]
    if where.pixels is not None:
        found.append(item.c.digest.in_(copies(where.project, where.pixels)))
    if where.states:
        found.append(or_(*(_item_state(state) for state in where.states)))
    if where.after is not None:
        found.append(item.c.finished_at > where.after)
    if where.before is not None:
        found.append(item.c.finished_at < where.before)
    if where.cursor is not None:
        place = tuple_(item.c.job, item.c.n)
        found.append(item.c.n > where.cursor[1] if where.job is not None else place < tuple_(*where.cursor))
    if where.dead_letters:
        found += [item.c.task.in_(select(task.c.id).where(DEAD)), FAILED_ITEM]  # type: ignore[list-item]
    elif where.job is None:
        hidden = ("state = 0", "control <> 0 AND control = 2")  # being received, being deleted
        found += [item.c.job.not_in(select(job.c.id).where(text(words))) for words in hidden]
    return found + _terms(where.query, _ITEM, where.now)


def copies(project: int, pixels: bytes) -> Select[tuple[bytes]]:
    """Digests of images with these pixels: alone in its index, or SQLite would read the project's images in order."""
    return select(image.c.digest).where(image.c.project == project, image.c.pixel_digest == pixels)


def job_conditions(where: JobFilter) -> list[Condition]:
    """What a job must fulfil."""
    found: list[Condition] = [job.c.state != 0, job.c.control != 2]
    if where.project is not None:
        found.append(job.c.project == where.project)
    if where.states:
        found.append(or_(*(_job_state(state) for state in where.states)))
    if where.cursor is not None:
        found.append(job.c.id < where.cursor)
    return found + _terms(where.query, _JOB, where.now)


def _terms(query: Query, compilers: dict[str, Compiler], at: int | None) -> list[Condition]:
    moment = now() if at is None else at
    return [_signed(term, compilers[term.word](term, moment)) for term in query.terms]


def _signed(term: Term, condition: Condition) -> Condition:
    """Negated, a term takes what has no value too, so it must be false there and not null."""
    return not_(func.coalesce(condition, false())) if term.negated else condition


# -- states, which are read from item and task together -------------------------------------------------------------------


def _item_state(state: str) -> Condition:
    if state in _STATES:
        return item.c.state == _STATES[state]
    if state == "running":
        return RUNNING_ITEM
    if state == "queued":
        return and_(item.c.state == 0, func.coalesce(task.c.state, 0) != int(TaskState.RUNNING))
    return item.c.state == 0


def _job_state(state: str) -> Condition:
    if state in _STATES:
        return job.c.state == _STATES[state]
    if state == "pending":
        return job.c.state == 1
    runs = select(item.c.job).where(RUNNING_ITEM)
    return and_(job.c.state == 1, job.c.id.in_(runs) if state == "running" else job.c.id.not_in(runs))


# -- compilers of one word each ---------------------------------------------------------------------------------------------


def _is(column: Column) -> Compiler:
    return lambda term, _: func.lower(column) == func.lower(str(term.value))


def _begins(column: Column) -> Compiler:
    return lambda term, _: _like(func.lower(column), _escaped(str(term.value)) + "%")


def _holds(*columns: Column) -> Compiler:
    return lambda term, _: or_(*(_like(func.lower(column), f"%{_escaped(str(term.value))}%") for column in columns))


def _model(column: Column) -> Compiler:
    def compiled(term: Term, _: int) -> Condition:
        ref = str(term.value)
        return _is(column)(term, _) if ":" in ref else _like(func.lower(column), _escaped(ref) + ":%")

    return compiled


def _figure(column: Column) -> Compiler:
    def compiled(term: Term, _: int) -> Condition:
        compared: Condition = column.op(term.op, is_comparison=True)(term.value)
        return compared

    return compiled


def _in_hex(column: Column, size: int) -> Compiler:
    def compiled(term: Term, _: int) -> Condition:
        low, high = (bytes.fromhex(str(term.value).ljust(2 * size, end)) for end in "0f")
        return column == low if low == high else column.between(low, high)

    return compiled


def _age(column: Column) -> Compiler:
    """By the time within the job's id: no column, no index, and the same for a job and its items."""

    def compiled(term: Term, moment: int) -> Condition:
        then = moment // 1000 - int(term.value) * 1000
        edge = first_id_of(then + 1 if term.op in ("<", ">=") else then)
        return column >= edge if term.op in ("<", "<=") else column < edge

    return compiled


def _label(term: Term, _: int) -> Condition:
    value, words = str(term.value), func.lower(item.c.label, type_=String)
    for separator in SEPARATORS:
        value = value.replace(separator, " ")
        words = func.replace(words, separator, " ", type_=String)
    if not value.strip():
        return func.lower(item.c.label) == func.lower(str(term.value))
    return _like(literal(" ") + words + " ", f"% {_escaped(value.strip())} %")


def _worker(term: Term, _: int) -> Condition:
    host = func.lower(worker.c.host) == func.lower(str(term.value))
    named: Condition = item.c.worker.in_(select(worker.c.id).where(host))
    digits = str(term.value).replace("-", "").lower()
    if not re.fullmatch("[0-9a-f]{1,32}", digits):
        return named
    return or_(named, _in_hex(item.c.worker, 16)(term._replace(value=digits), _))


def _like(folded: Column, pattern: str) -> Condition:
    return folded.like(func.lower(pattern), escape="/")


def _escaped(words: str) -> str:
    return re.sub(r"([/%_])", r"/\1", words)


_ITEM: dict[str, Compiler] = {
    "state": lambda term, _: _item_state(str(term.value)),
    "model": _model(item.c.model),
    "score": _figure(item.c.score),
    "risk": _figure(item.c.risk),
    "found": lambda term, _: item.c.found == int(term.value),
    "owner": _is(item.c.owner),
    "label": _label,
    "worker": _worker,
    "age": _age(item.c.job),
    "job": _in_hex(item.c.job, 16),
    "digest": _in_hex(item.c.digest, 32),
    "name": _begins(item.c.name),
    "text": _holds(item.c.name, item.c.label, item.c.error, item.c.error_kind),
}
_JOB: dict[str, Compiler] = {
    "state": lambda term, _: _job_state(str(term.value)),
    "model": _model(job.c.model),
    "owner": _is(job.c.owner),
    "age": _age(job.c.id),
    "job": _in_hex(job.c.id, 16),
    "name": _begins(job.c.name),
    "text": _holds(job.c.name),
}
