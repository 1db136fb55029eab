"""One running server that the tests of this folder treat badly; it must be the same processes when they are through."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from onceseen.testing.pictures import colour_model
from onceseen.testing.running import RunningServer

READ_TIMEOUT = 1.5


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Two workers, the model `colours`, little patience; no process of it may die."""
    with RunningServer(settings={"ONCESEEN_READ_TIMEOUT": str(READ_TIMEOUT)}) as running:
        running.add_model(colour_model(tmp_path_factory.mktemp("models") / "colours"))
        assert running.http.put("/v1/models/defaults/v1", params={"model": "colours"}).status_code == 200
        before = running.processes()
        yield running
        assert running.processes() == before, running.log()
        running.stop()


@pytest.fixture(autouse=True)
def _outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of whoever runs the tests stay out of them."""
    for name in list(os.environ):
        if name.startswith("ONCESEEN_") and not name.startswith("ONCESEEN_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for files that nobody should have to read."""
    return tmp_path_factory.mktemp("nasty")
