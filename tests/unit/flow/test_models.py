"""Models come, are promoted, go; and readers of events are told to begin anew when they were away too long."""

import pytest

from onceseen.domain.events import NewEvent
from onceseen.domain.model import CANDIDATE, LIVE
from onceseen.errors import InvalidRequest, ModelExists, ModelInUse, UnknownModel
from onceseen.flow import models, watch
from onceseen.inference.manifest import from_json
from onceseen.testing.database_rows import LANE, LANE_2, digest
from onceseen.testing.record import manifest_of


@pytest.fixture
def tx(record):
    """A transaction on a record without models."""
    with record.database.begin() as tx:
        for row in tx.models.all():
            tx.models.remove(row.name, row.version)
        yield tx


def kinds(tx):
    return [(event.kind, event.subject) for event in tx.events.after(0, 99)]


def test_the_first_version_is_live_and_later_ones_are_candidates(tx):
    first = models.add(tx, manifest_of("x", ""), digest(1), "x-1", 10)
    second = models.add(tx, manifest_of("x", ""), digest(2), "x-2", 20)
    named = models.add(tx, manifest_of("x", "beta"), digest(3), "x-3", 30)
    assert [(row.version, row.stage) for row in (first, second, named)] == [
        ("1", LIVE),
        ("2", CANDIDATE),
        ("beta", CANDIDATE),
    ]
    assert models.find(tx, "x") == first
    assert models.find(tx, "x:beta") == named
    assert kinds(tx) == [("model.added", "x:1"), ("model.added", "x:2"), ("model.added", "x:beta")]


def test_the_same_content_again_is_the_same_version(tx):
    models.add(tx, manifest_of("x", ""), digest(1), "x-1", 10)
    models.add(tx, manifest_of("x", ""), digest(1), "x-1", 20)
    assert len(kinds(tx)) == 1
    models.add(tx, manifest_of("x", "1", ["dog"]), digest(1), "x-1b", 30)
    (row,) = tx.models.all()
    assert (row.version, row.stage, row.location, from_json(row.manifest).positive) == ("1", LIVE, "x-1b", ("dog",))
    assert len(kinds(tx)) == 2


def test_a_version_never_changes_what_decides_answers(tx):
    models.add(tx, manifest_of("x", "1"), digest(1), "x-1", 10)
    with pytest.raises(ModelExists, match="another version"):
        models.add(tx, manifest_of("x", "1"), digest(2), "x-2", 20)
    assert tx.models.all()[0].content_digest == digest(1)


def test_one_version_is_live_after_a_promotion(tx):
    for number in (1, 2, 3):
        models.add(tx, manifest_of("x", str(number)), digest(number), "x", number)
    models.add(tx, manifest_of("y", "1"), digest(9), "y", 9)
    assert models.promote(tx, "x:3", 50).stage == LIVE
    assert {row.ref: row.stage for row in tx.models.all()} == {
        "x:1": CANDIDATE,
        "x:2": CANDIDATE,
        "x:3": LIVE,
        "y:1": LIVE,
    }
    assert kinds(tx)[-1] == ("model.promoted", "x:3")
    with pytest.raises(UnknownModel):
        models.promote(tx, "x:4", 60)


def test_a_default_names_a_model_and_a_dialect_that_exist(tx):
    models.add(tx, manifest_of("x", "1"), digest(1), "x", 1)
    models.set_default(tx, "scan", "x")
    assert tx.models.defaults() == {"scan": "x"}
    with pytest.raises(UnknownModel):
        models.set_default(tx, "scan", "z")
    with pytest.raises(InvalidRequest, match="v1"):
        models.set_default(tx, "klingon", "x")


@pytest.mark.parametrize("running", [False, True])
def test_a_model_is_removed_only_when_no_task_needs_it(record, running):
    """Unless another version shares its lane."""
    job = record.submit([1], "other:1")
    tasks = record.claim(lane=LANE_2) if running else []
    record.submit([1], "m:1")
    with record.database.begin() as tx:
        with pytest.raises(ModelInUse):
            models.remove(tx, "other:1", 50)
        assert models.remove(tx, "m:1", 50).content_digest == LANE
        with pytest.raises(ModelInUse):
            models.remove(tx, "m:2", 50)
        assert kinds(tx)[-1] == ("model.removed", "m:1")
    record.settle(*(tasks or record.claim(lane=LANE_2)))
    with record.database.begin() as tx:
        models.remove(tx, "other:1", 60)
        with pytest.raises(UnknownModel):
            models.find(tx, "other:1")
    assert record.items(job)[0].label == "dog"


def test_news_come_in_order_and_begin_anew_for_who_was_away_too_long(tx):
    assert watch.news(tx, 0) == ([], 0, False)
    assert watch.news(tx, 5) == ([], 0, True)
    tx.events.append([NewEvent(at, "kind", 1, str(at), "{}") for at in range(1, 1201)])
    first, last = tx.events.bounds()
    news = watch.news(tx, 0)
    assert ([event.at for event in news.events], news.reset) == (list(range(1, 1001)), False)
    rest = watch.news(tx, news.seq)
    assert ([event.at for event in rest.events], rest.seq) == (list(range(1001, 1201)), last)
    assert watch.news(tx, last) == ([], last, False)
    assert watch.news(tx, last + 1) == ([], last, True)
    tx.events.prune(500)
    oldest = tx.events.bounds()[0]
    assert oldest > first
    assert watch.news(tx, oldest - 2) == ([], last, True)
    assert watch.news(tx, first) == ([], last, True)
    assert watch.news(tx, oldest - 1).events[0].seq == oldest
    assert not watch.news(tx, 0).reset
