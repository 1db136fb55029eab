"""What a death or a loss does to a task (RECORD.md 5.1), and what the steps of a task are."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onceseen.domain.machine import (
    LEGAL,
    MAX_DEATHS,
    MAX_LOSSES,
    Blame,
    Standing,
    after_give_back,
    is_answered,
)
from onceseen.domain.task import TaskState

CLEAN = Standing(0, 0, 0)
blames = st.builds(Blame, begun=st.booleans(), death=st.booleans(), why=st.just("killed"))


def life(history, max_deaths=MAX_DEATHS):
    """The verdicts over a task's attempts, until it fails."""
    standing, verdicts = CLEAN, []
    for blame in history:
        verdict = after_give_back(standing, blame, max_deaths)
        verdicts.append(verdict)
        standing = verdict.standing
        if verdict.state == TaskState.FAILED:
            break
    return verdicts


@given(st.lists(blames, max_size=60))
def test_a_task_that_was_not_begun_is_innocent(history):
    standing = CLEAN
    for blame, verdict in zip(history, life(history), strict=False):
        if not blame.begun:
            assert (verdict.state, verdict.standing, verdict.error) == (TaskState.QUEUED, standing, None)
        standing = verdict.standing


@given(st.lists(blames, max_size=60), st.integers(1, 5))
def test_a_task_fails_only_after_enough_deaths_alone_or_losses(history, max_deaths):
    verdicts = life(history, max_deaths)
    seen = history[: len(verdicts)]
    deaths = sum(blame.begun and blame.death for blame in seen)
    losses = sum(blame.begun and not blame.death for blame in seen)
    alone = max(0, deaths - 1)  # the first made it a suspect
    failed = bool(verdicts) and verdicts[-1].state == TaskState.FAILED
    assert failed == (alone >= max_deaths or losses >= MAX_LOSSES)
    if verdicts:
        assert verdicts[-1].standing == (int(deaths > 0), alone, losses)
        assert (verdicts[-1].error is not None) == failed


@given(st.builds(Standing, st.just(0), st.integers(0, 100), st.integers(0, 100)), st.integers(1, 5))
def test_a_death_in_a_batch_alone_never_fails_anything(standing, max_deaths):
    """Not even one that has deaths behind it: it is no suspect, so it did not run alone."""
    verdict = after_give_back(standing, Blame(begun=True, death=True, why="killed"), max_deaths)
    assert (verdict.state, verdict.standing) == (TaskState.QUEUED, standing._replace(suspect=1))


@given(st.lists(blames, max_size=60))
def test_nothing_that_happened_is_forgotten(history):
    for before, after in pairwise(verdict.standing for verdict in life(history)):
        assert all(old <= new for old, new in zip(before, after, strict=True))


def test_the_error_says_how_often_and_why():
    died = life([Blame(begun=True, death=True, why="signal 11")] * 9)
    assert len(died) == 4
    assert died[-1].error == "its worker died 3 times while running it alone: signal 11"
    lost = life([Blame(begun=True, death=False, why="cut off")] * 99)
    assert len(lost) == 20
    assert lost[-1].error == "the link to its worker was lost 20 times while it ran: cut off"


def test_an_answer_is_never_taken_back():
    assert not {step for step in LEGAL if step[0] == TaskState.SUCCEEDED}
    assert not {step for step in LEGAL if step[0] == step[1]}
    assert {to for _, to in LEGAL} == set(TaskState)


@pytest.mark.parametrize("state", list(TaskState))
@pytest.mark.parametrize("kind", [None, "unreadable-image", "model-failed", "too-large", "worker-died"])
def test_only_answers_and_unreadable_images_are_remembered(state, kind):
    expected = state == TaskState.SUCCEEDED or (state == TaskState.FAILED and kind == "unreadable-image")
    assert is_answered(state, kind) == expected
