"""The README's examples run as they stand, against a server of their own."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onceseen.testing.running import RunningServer, environment

ROOT = Path(__file__).parents[2]
NOT_EXAMPLES = ("make ", "source ")


def _blocks() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def _examples() -> list[str]:
    return [block for block in _blocks() if not block.startswith(NOT_EXAMPLES)]


@pytest.fixture(scope="module")
def server():
    with RunningServer(samples=True) as running:
        yield running


@pytest.mark.parametrize("example", _examples(), ids=lambda example: example.split("\n")[0][:60])
def test_an_example_of_the_readme_runs_as_pasted(server: RunningServer, example: str, tmp_path: Path):
    for name in ("src",):
        (tmp_path / name).symlink_to(ROOT / name)
    example = example.replace("http://127.0.0.1:8000", server.url)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "onceseen").write_text(f'#!/bin/sh\nexec {sys.executable} -m onceseen "$@"\n')
    (tools / "onceseen").chmod(0o755)
    variables = environment(ONCESEEN_DATA=str(server.data))
    variables["PATH"] = f"{tools}:{variables['PATH']}"
    shell = shutil.which("bash")
    assert shell
    done = subprocess.run(
        [shell, "-euo", "pipefail", "-c", example],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "curl" in example:
        assert '"label":"7"' in done.stdout
    if "> answers.csv" in example:
        assert (tmp_path / "answers.csv").read_text().count("succeeded") == 10


def test_the_two_commands_are_the_makefile_s():
    commands = next(block for block in _blocks() if block.startswith("make "))
    targets = re.findall(r"^make ([a-z-]+)", commands, re.MULTILINE)
    assert targets == ["up", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
