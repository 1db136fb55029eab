"""One running server that most tests of whole programs share; it knows the models `colours` and `slow`."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onceseen.testing.pictures import colour_model, slow_model
from onceseen.testing.running import RunningServer, command, environment


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two models' directories: `colours` and `slow`."""
    place = tmp_path_factory.mktemp("models")
    colour_model(place / "colours", more='positive = ["red"]\nthreshold = 0.5')
    slow_model(place / "slow")
    return place


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator[RunningServer]:
    """Read it and submit to it, but kill nothing of it; its default model is `colours`."""
    with RunningServer() as running:
        for directory in ("colours", "slow"):
            running.add_model(models / directory)
        assert running.http.put("/v1/models/defaults/v1", params={"model": "colours"}).status_code == 200
        yield running
        running.stop()


Onceseen = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def onceseen(tmp_path: Path) -> Onceseen:
    """Runs one verb in `tmp_path` to its end: (*arguments, **environment) -> exit code, stdout, stderr."""

    def run(*arguments: object, **more: str) -> "subprocess.CompletedProcess[str]":
        more = {"XDG_DATA_HOME": str(tmp_path / "home"), "NO_COLOR": "1", "COLUMNS": "200", **more}
        process = subprocess.Popen(
            command(*map(str, arguments)),
            env=environment(**more),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=30)
            return subprocess.CompletedProcess(arguments, process.returncode, out, err)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            return subprocess.CompletedProcess(arguments, -1, out, err)

    return run


@pytest.fixture(autouse=True)
def _outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of whoever runs the tests stay out of them."""
    for name in list(os.environ):
        if name.startswith("ONCESEEN_") and not name.startswith("ONCESEEN_TEST_"):
            monkeypatch.delenv(name)
