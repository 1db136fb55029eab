"""Submissions, workers, deaths, servers and controls in any order, against a perfect model of the record (RECORD.md 1 to 6)."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from onceseen.testing.record_commit import Commit
from onceseen.testing.record_people import People


class RecordMachine(Commit, People):
    """Two hubs in miniature on the real flow and database; the model says what every row must be."""


def profile(examples, steps):
    """Found by chance, not by the clock: a slow machine fails nothing."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=slow)


@pytest.mark.timeout(900)  # seconds when all is well; a failure takes minutes to be made small
def test_the_record_keeps_its_promises_in_any_order_of_events():
    run_state_machine_as_test(RecordMachine, settings=profile(150, 60))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_record_keeps_its_promises_for_long():
    run_state_machine_as_test(RecordMachine, settings=profile(2000, 120))
