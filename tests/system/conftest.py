"""One running server that most tests of whole programs share; it knows the models `colours` and `slow`."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from onceseen.testing.pictures import colour_model, flat, picture, slow_model
from onceseen.testing.running import RunningServer
from onceseen.testing.verbs import Done, Verbs


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


@pytest.fixture(scope="session")
def verbs() -> Iterator[Verbs]:
    """Forks verbs of the command line."""
    with Verbs() as running:
        yield running


@pytest.fixture
def onceseen(tmp_path: Path, verbs: Verbs) -> Callable[..., Done]:
    """Runs one verb in `tmp_path` to its end: (*arguments, **environment) -> exit code, stdout, stderr."""

    def run(*arguments: object, **more: str) -> Done:
        own = {"XDG_DATA_HOME": str(tmp_path / "home"), "NO_COLOR": "1", "COLUMNS": "200", "ONCESEEN_WORKERS": "1"}
        more = {**own, **more}
        return verbs.run([str(argument) for argument in arguments], tmp_path, more)

    return run


@pytest.fixture(scope="module")
def job(server: RunningServer) -> Any:
    """A finished job of 60 items: every tenth broken."""
    files = [(f"{n:02}.png", b"broken %d" % n if n % 10 == 3 else picture(50_000 + n)) for n in range(60)]
    return server.wait_job(server.submit(files, name="the sixty")["id"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images in folders, and what is no image."""
    files = {"b.png": flat((150, 0, 0)), "a/x.png": flat((0, 150, 0)), "a/b/deep.JPG": flat((0, 0, 150), form="JPEG")}
    files |= {
        "c.bmp": flat((99, 0, 0), form="BMP"),
        "notes.txt": b"no image",
        ".hidden.png": b"no",
        "a/.dir/y.png": b"no",
    }
    for name, data in files.items():
        file = tmp_path / "folder" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return tmp_path / "folder"


@pytest.fixture(autouse=True)
def _outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of whoever runs the tests stay out of them."""
    for name in list(os.environ):
        if name.startswith("ONCESEEN_") and not name.startswith("ONCESEEN_TEST_"):
            monkeypatch.delenv(name)
