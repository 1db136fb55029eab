import pytest

from onceseen.testing.database_memory import database_in_memory
from onceseen.testing.record import Record


@pytest.fixture
def record():
    """An empty record in memory, with one server."""
    with database_in_memory() as database:
        yield Record(database)
