"""All dead letters at once, in transactions that are not long."""

import asyncio
from typing import Any

import pytest

from onceseen.flow import control
from onceseen.server.predictions import TASKS_AT_ONCE, Chosen, _each_step
from onceseen.testing.database_memory import database_in_memory
from onceseen.testing.record import Record

MANY = 2 * TASKS_AT_ONCE + 300


class Hub:
    """As much of a hub as the step takes: each call of the writer is a transaction."""

    def __init__(self, record):
        self.database, self.settings, self.writer = record.database, self, self
        self.project = 1
        self.transactions = 0

    async def read(self, function):
        return function()

    async def call(self, function):
        self.transactions += 1
        with self.database.begin() as tx:
            return function(tx)


@pytest.fixture
def record():
    with database_in_memory() as database:
        yield Record(database)


@pytest.mark.parametrize("purge", [False, True])
def test_more_than_one_transaction_holds_are_all_taken(record, purge):
    job = record.submit(range(MANY))
    while tasks := record.claim(500):
        record.settle(*tasks, error="model-failed")
    hub: Any = Hub(record)

    def work(tx, tasks, first):
        assert len(tasks) <= TASKS_AT_ONCE
        if purge:
            return control.purge_dead_letters(tx, tasks)
        return control.retry_dead_letters(tx, tasks, record.time, first=first)

    assert asyncio.run(_each_step(hub, Chosen(q="state:failed"), work)) == MANY
    assert hub.transactions == 3
    row = record.job(job)
    assert (row.pending, row.failed) == ((0, MANY) if purge else (MANY, 0))
    assert asyncio.run(_each_step(hub, Chosen(), work)) == 0
