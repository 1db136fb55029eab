"""What SQL finds is what a plain filter in Python finds; the common lists sort nothing."""

from contextlib import contextmanager, suppress
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from onceseen.domain.ids import first_id_of
from onceseen.domain.job import ItemRow, JobRow, JobState
from onceseen.domain.query import JOB_WORDS, STATES, Query, Term, parse
from onceseen.domain.views import ItemFilter, JobFilter, WorkerRow
from onceseen.drivers.sql import images
from onceseen.testing.database_memory import database_in_memory
from onceseen.testing.database_rows import digest, ident, in_state, new_item, new_job

NOW = 1_800_000_000_000_000  # microseconds
HOSTS = {ident(0xAB << 120): "Box-1", ident(0xCAFE << 112): "cafe"}
TEXTS = st.text("aAb%_\\/\"',é É", max_size=6).map(lambda text: text.strip() or "a")
FIGURES = st.sampled_from([None, 0.0, 0.25, 0.5, 0.75, 1.0, -3.5])
AGES = st.sampled_from([0, 1, 59, 60, 3600, 7200, 86_400])  # seconds
TASKS = ("queued", "running", "succeeded", "failed", "unreadable", "cancelled")
ITEM_STATES = {"queued": 0, "running": 0, "succeeded": 2, "failed": 3, "unreadable": 3, "cancelled": 4}


class Known(NamedTuple):
    """One item, its job's row, and how its task stands (None: it has none)."""

    item: ItemRow
    job: JobRow
    task: str | None


@pytest.fixture(scope="module")
def database():
    with database_in_memory() as found:
        yield found


# -- the plain filter -------------------------------------------------------------------------------------------------------


def fold(text):
    return "".join(chr(ord(letter) + 32) if "A" <= letter <= "Z" else letter for letter in text)


def parted(label):
    return fold(label).replace(",", " ").replace("_", " ")


def compared(left, op, right):
    if left is None:
        return False
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right, "=": left == right}[op]


def state_of(known):
    if known.item.state:
        return {2: "succeeded", 3: "failed", 4: "cancelled"}[known.item.state]
    return "running" if known.task == "running" else "queued"


def is_model(ref, value):
    return fold(ref) == fold(value) if ":" in value else fold(ref).partition(":")[0] == fold(value)


def is_label(label, value):
    wanted = parted(value).strip()
    return label is not None and (fold(label) == fold(value) if not wanted else f" {wanted} " in f" {parted(label)} ")


def is_worker(worker, value):
    if worker is None:
        return False
    digits = fold(value).replace("-", "")
    return fold(HOSTS[worker]) == fold(value) or (digits != "" and worker.hex().startswith(digits))


def age_ms(job):
    return NOW // 1000 - int.from_bytes(job[:6], "big")


def holds(term, known):
    item, value = known.item, term.value
    texts = (item.name, item.label, item.error, item.error_kind)
    checks = {
        "state": lambda: state_of(known) == value or (value == "pending" and item.state == 0),
        "model": lambda: is_model(item.model, value),
        "score": lambda: compared(item.score, term.op, value),
        "risk": lambda: compared(item.risk, term.op, value),
        "found": lambda: item.found is not None and bool(item.found) == value,
        "owner": lambda: fold(item.owner) == fold(value),
        "label": lambda: is_label(item.label, value),
        "worker": lambda: is_worker(item.worker, value),
        "age": lambda: compared(age_ms(item.job), term.op, value * 1000),
        "job": lambda: item.job.hex().startswith(value),
        "digest": lambda: item.digest is not None and item.digest.hex().startswith(value),
        "name": lambda: fold(item.name).startswith(fold(value)),
        "text": lambda: any(fold(value) in fold(text) for text in texts if text is not None),
    }
    return checks[term.word]()


def matches(query, known):
    """Whether an item fulfils a query."""
    return all(holds(term, known) != term.negated for term in query.terms)


def visible(job):
    return job.state != JobState.RECEIVING and job.control != 2


# -- random stores and queries -----------------------------------------------------------------------------------------------


@st.composite
def stores(draw):
    """Jobs with items in all states."""
    found: list[Known] = []
    for number in range(draw(st.integers(1, 3))):
        made = NOW // 1000 - draw(AGES) * 1000 - draw(st.sampled_from([-1, 0, 1]))
        job = new_job(
            0,
            id=first_id_of(made)[:6] + bytes([number] * 10),
            name=draw(TEXTS),
            owner=draw(TEXTS),
            model=draw(st.sampled_from(["m:1", "M_x:1", "mxx:2"])),
            state=draw(st.sampled_from([1, 1, 1, 2, 3, 0])),
            control=draw(st.sampled_from([0, 0, 0, 1, 2])),
        )
        for n in range(draw(st.integers(0, 5))):
            found.append(draw(items(job, n, len(found))))
        found.append(Known(new_item(0, 99, owner=job.owner)._replace(job=job.id), job, None))
    return found


@st.composite
def items(draw, job, n, number):
    task = draw(st.sampled_from([None, *TASKS]))
    state = 0 if task is None else ITEM_STATES[task]
    maybe = st.none() | TEXTS
    item = new_item(
        0, n, None if task is None else number, state,
        name=draw(TEXTS), owner=job.owner, label=draw(maybe), score=draw(FIGURES), risk=draw(FIGURES),
        found=draw(st.sampled_from([None, 0, 1])), error=draw(maybe), error_kind=draw(st.sampled_from([None, "model-failed"])),
        model=job.model, worker=draw(st.sampled_from([None, *HOSTS])), finished_at=draw(st.sampled_from([None, 5, 6, 7])),
    )  # fmt: skip
    return Known(item._replace(job=job.id), job, task)


@st.composite
def queries(draw, words=None):
    equals, compare = st.just("="), st.sampled_from(["<", "<=", ">", ">="])
    kinds = {
        "state": (st.sampled_from(STATES), equals),
        "model": (st.sampled_from(["m", "M:1", "m_x", "mxx:2", "m:2"]), equals),
        "score": (FIGURES.filter(lambda value: value is not None), compare | equals),
        "risk": (FIGURES.filter(lambda value: value is not None), compare | equals),
        "found": (st.booleans(), equals),
        "owner": (TEXTS, equals),
        "label": (TEXTS, equals),
        "worker": (st.sampled_from(["box-1", "CAFE", "ab", "-", "cafe0", "x_"]), equals),
        "age": (AGES, compare),
        "job": (st.sampled_from(["01", "019", "ff", "0" * 32]), equals),
        "digest": (st.sampled_from(["0", "00", digest(1).hex(), digest(2).hex(), "f"]), equals),
        "name": (TEXTS, equals),
        "text": (TEXTS | st.sampled_from(["model-failed", "MODEL"]), equals),
    }
    terms = []
    for word in draw(st.lists(st.sampled_from(words or sorted(kinds)), max_size=3)):
        values, ops = kinds[word]
        terms.append(Term(word, draw(values), draw(ops), draw(st.booleans())))
    return Query(tuple(terms))


class Undo(Exception):
    """Leaves nothing behind."""


@contextmanager
def filled(database, store):
    """A transaction over a store that is gone afterwards."""
    with suppress(Undo), database.begin() as tx:
        _fill(tx, store)
        yield tx
        raise Undo


def _fill(tx, store):
    for worker, host in HOSTS.items():
        tx.servers.joined(WorkerRow(worker, 1, host, 1, 1, 1, "ready"))
    tx.jobs.insert(list({known.job.id: known.job for known in store}.values()))
    for number, known in enumerate(store):
        if known.task:
            in_state(tx, number, known.task)
    tx.items.insert([known.item for known in store])


def numbered(store):
    """Tasks have the numbers of their places in the store."""
    return [
        known._replace(item=known.item._replace(task=ident(n), digest=digest(n))) if known.task else known
        for n, known in enumerate(store)
    ]


PROFILE = settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@PROFILE
@given(stores().map(numbered), queries(), st.lists(st.sampled_from(STATES), max_size=2), st.sampled_from([None, 5, 6]))
def test_items_are_those_that_a_plain_filter_finds(database, store, query, states, edge):
    expected = [
        (known.item.job, known.item.n)
        for known in store
        if matches(query, known) and visible(known.job)
        and (not states or any(holds(Term("state", state), known) for state in states))
        and (edge is None or (known.item.finished_at is not None and known.item.finished_at > edge))
    ]  # fmt: skip
    where = ItemFilter(1, states=tuple(states), query=query, after=edge, now=NOW)
    with filled(database, store) as tx:
        found = [(view.job, view.n) for view in tx.views.items(where, 99)]
        pages = []
        while page := tx.views.items(where, 2):
            pages += [(view.job, view.n) for view in page]
            where = where._replace(cursor=pages[-1])
    assert found == sorted(expected, reverse=True)
    assert pages == found


@PROFILE
@given(stores().map(numbered), queries())
def test_dead_letters_are_those_that_a_plain_filter_finds(database, store, query):
    dead = [known for known in store if known.task == "failed" and matches(query, known)]
    with filled(database, store) as tx:
        tasks = tx.views.dead_letters(ItemFilter(1, query=query, now=NOW))
        listed = tx.views.items(ItemFilter(1, query=query, now=NOW, dead_letters=True), 99)
    assert tasks == sorted(known.item.task or b"" for known in dead)
    assert [(view.job, view.n) for view in listed] == sorted(((k.item.job, k.item.n) for k in dead), reverse=True)


@PROFILE
@given(stores().map(numbered), queries(JOB_WORDS), st.lists(st.sampled_from(STATES), max_size=2))
def test_jobs_are_those_that_a_plain_filter_finds(database, store, query, states):
    expected = set()
    for job in {known.job for known in store if visible(known.job)}:
        running = any(known.task == "running" for known in store if known.job == job)
        shown = {1: "running" if running else "queued", 2: "succeeded", 3: "failed"}[job.state]

        def fits(term, job=job, shown=shown):
            if term.word == "state":
                return term.value == shown or (term.value == "pending" and job.state == 1)
            as_item = new_item(0, 0, name=job.name, owner=job.owner, model=job.model)._replace(job=job.id)
            return holds(term, Known(as_item, job, None))

        asked = all(fits(term) != term.negated for term in query.terms)
        if asked and (not states or any(fits(Term("state", state)) for state in states)):
            expected.add(job.id)
    with filled(database, store) as tx:
        found = [row.id for row, _ in tx.views.jobs(JobFilter(1, tuple(states), query, now=NOW), 99)]
    assert found == sorted(expected, reverse=True)


# -- the plans ---------------------------------------------------------------------------------------------------------------


def plan(database, ask):
    """What SQLite says it will do for each statement of a read."""
    asked = []

    def note(_connection, _cursor, statement, parameters, _context, _many):
        asked.append((statement, parameters))

    event.listen(database._engine, "before_cursor_execute", note)
    try:
        with database.read() as reader:
            ask(reader.views)
    finally:
        event.remove(database._engine, "before_cursor_execute", note)
    with database._engine.connect() as connection:
        lines = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values) for sql, values in asked]
        return "\n".join(row[3] for found in lines for row in found)


PLACE = (ident(9), 4)


@pytest.mark.parametrize(
    ("where", "way"),
    [
        (ItemFilter(1), "SCAN item\n"),
        (ItemFilter(1, cursor=PLACE), "SEARCH item USING PRIMARY KEY ((job,n)<(?,?))"),
        (ItemFilter(1, job=ident(9)), "SEARCH item USING PRIMARY KEY (job=?)"),
        (ItemFilter(1, job=ident(9), cursor=PLACE), "SEARCH item USING PRIMARY KEY (job=? AND n>?)"),
        (ItemFilter(1, digest=digest(9)), "SEARCH item USING INDEX item_digest (digest=? AND project=?)"),
        (ItemFilter(1, query=parse("age:<1h")), "SEARCH item USING PRIMARY KEY (job>?)"),
        (ItemFilter(1, query=parse("job:0123")), "SEARCH item USING PRIMARY KEY (job>? AND job<?)"),
    ],
)  # fmt: skip
def test_a_page_of_the_common_lists_sorts_nothing(database, where, way):
    """SCAN: in the order of the primary key, ended by the limit."""
    found = plan(database, lambda views: views.items(where, 100))
    assert way in found
    assert "TEMP B-TREE" not in found


@pytest.mark.parametrize(
    ("where", "way"),
    [
        (ItemFilter(1, dead_letters=True), "SEARCH item USING INDEX item_failed (task=?)"),
        (ItemFilter(1, pixels=digest(9)), "SEARCH item USING INDEX item_digest (digest=? AND project=?)"),
        (ItemFilter(1, pixels=digest(9)), "SEARCH image USING COVERING INDEX image_pixels (project=? AND pixel_digest=?)"),
        (ItemFilter(1, query=parse("state:running")), "SEARCH item USING INDEX item_pending (task=?)"),
        (ItemFilter(1, query=parse("digest:ab12")), "SEARCH item USING INDEX item_digest (digest>? AND digest<?)"),
    ],
)  # fmt: skip
def test_what_is_few_is_found_by_its_index_and_then_sorted(database, where, way):
    found = plan(database, lambda views: views.items(where, 100))
    assert way in found
    assert "SCAN item" not in found


def test_copies_are_found_by_the_index_of_pixels(database):
    names = plan(database, lambda views: views.names(ItemFilter(1, pixels=digest(9)), 100))
    assert "SEARCH item USING INDEX item_digest" in names
    assert "image_pixels" in plan(database, lambda views: views.image(1, digest(9)))
    with database._engine.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {images.ALIKE}", (1, 1, digest(9), 9))
        found = "\n".join(row[3] for row in rows)
    assert "image_pixels (project=? AND pixel_digest=?)" in found
    assert "SEARCH image USING PRIMARY KEY (project=? AND digest=?)" in found


def test_jobs_and_counts_read_no_more_than_they_show(database):
    jobs = plan(database, lambda views: views.jobs(JobFilter(1, cursor=ident(9)), 100))
    assert jobs.startswith("SEARCH job USING PRIMARY KEY (id<?)")
    running = plan(database, lambda views: views.jobs(JobFilter(1, ("running",)), 100))
    assert "SCAN task USING INDEX task_running" in running
    assert "SCAN item" not in running
    waiting = plan(database, lambda views: views.waiting())
    assert waiting == "SCAN task USING INDEX task_ready\nSCAN task USING INDEX task_running"


@pytest.mark.parametrize(
    ("asked", "found"),
    [("name:scan_", True), ("name:SCAN_", True), ("name:scanx", False), ("name:scan_%", False), ("name:Ä", False),
     ('text', False), ('É', True), ('é', False), ('50%', True), ('0%x', False), ('back\\slash', True), ('"a \\"quote\\""', True)],
)  # fmt: skip
def test_wildcards_are_letters_and_only_a_to_z_have_no_case(database, asked, found):
    item = new_item(1, 0, name='Scan_É 50% a "quote" back\\slash ä')
    with filled(database, [Known(item, new_job(1), None)]) as tx:
        views = tx.views.items(ItemFilter(1, query=parse(asked)), 9)
    assert bool(views) is found


@pytest.mark.parametrize(
    ("asked", "found"),
    [("cat", True), ('"Egyptian cat"', True), ('"n02124075 egyptian CAT, tabby"', True),
     ("tabby", True), ("Egypt", False),
     ("tiger", True), ('"tiger striped"', True), ("tiger_striped", True), ('"cat tabby"', False),
     ('"cat, tabby"', True), ('","', False)],
)  # fmt: skip
def test_a_label_is_found_by_itself_and_by_its_words(database, asked, found):
    item = new_item(1, 0, label="n02124075 Egyptian cat, tabby, tiger_striped")
    with filled(database, [Known(item, new_job(1), None)]) as tx:
        views = tx.views.items(ItemFilter(1, query=parse(f"label:{asked}")), 9)
    assert bool(views) is found


WILD = st.text("aA_%/\\ ", min_size=1, max_size=4)


@settings(PROFILE, max_examples=400)
@given(WILD, WILD, st.sampled_from(["name", "label", "text"]))
def test_no_letter_of_a_value_stands_for_another(database, text, value, word):
    known = Known(new_item(1, 0, name=text, label=text), new_job(1), None)
    query = Query((Term(word, value),))
    with filled(database, [known]) as tx:
        views = tx.views.items(ItemFilter(1, query=query), 9)
    assert bool(views) == matches(query, known)


@pytest.mark.parametrize("op", ["<", "<=", ">", ">="])
@pytest.mark.parametrize("late", [-1, 0, 1])
def test_an_age_is_exact_to_the_millisecond(database, op, late):
    job = new_job(1)._replace(id=first_id_of(NOW // 1000 - 3600_000 + late)[:6] + bytes(10))
    known = Known(new_item(1, 0)._replace(job=job.id), job, None)
    query = Query((Term("age", 3600, op),))
    with filled(database, [known]) as tx:
        views = tx.views.items(ItemFilter(1, query=query, now=NOW), 9)
        jobs = tx.views.jobs(JobFilter(1, query=query, now=NOW), 9)
    assert bool(views) == bool(jobs) == {"<": late > 0, "<=": late >= 0, ">": late < 0, ">=": late <= 0}[op]
