"""A place where the examples of the pages run as they stand."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onceseen.bundled import samples
from onceseen.testing.running import RunningServer, environment

ROOT = Path(__file__).parents[2]
Run = Callable[[list[str], str], "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """A server with the bundled models and the samples answered."""
    with RunningServer(samples=True) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with `a.jpg`, `photos`, `scans` (0.png to 9.png), `src`, and `onceseen` and `python` in `bin`."""
    (tmp_path / "src").symlink_to(ROOT / "src")
    (tmp_path / "scans").mkdir()
    for file in samples()["digits"]:
        (tmp_path / "scans" / f"{file.name[0]}.png").write_bytes(file.read_bytes())
    (tmp_path / "photos").symlink_to(samples()["imagenet"][0].parent)
    (tmp_path / "a.jpg").write_bytes(next(file for file in samples()["imagenet"] if file.suffix == ".jpg").read_bytes())
    (tmp_path / "bin").mkdir()
    for name, arguments in (("onceseen", "-m onceseen"), ("python", "")):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


@pytest.fixture
def run(server: RunningServer, place: Path) -> Run:
    """Runs a program there, which is given a text; the address of the examples is the server's."""

    def runner(program: list[str], text: str) -> "subprocess.CompletedProcess[str]":
        where = {"ONCESEEN_DATA": str(server.data)} if program[0] == "bash" else {"ONCESEEN_SERVER": server.url}
        variables = environment(**where, COLUMNS="200", NO_COLOR="1")
        variables["PATH"] = f"{place / 'bin'}{os.pathsep}{variables['PATH']}"
        text = text.replace("http://127.0.0.1:8000", server.url)
        return subprocess.run([*program, text], cwd=place, env=variables, capture_output=True, text=True, timeout=90)

    return runner
