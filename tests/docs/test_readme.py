"""The README's examples run as they stand, against a server of their own."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_EXAMPLES = ("make ", "source ")


def _blocks() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def _examples() -> list[str]:
    return [block for block in _blocks() if not block.startswith(NOT_EXAMPLES)]


@pytest.mark.parametrize("example", _examples(), ids=lambda example: example.split("\n")[0][:60])
def test_an_example_of_the_readme_runs_as_pasted(run, place: Path, example: str):
    done = run(["bash", "-euo", "pipefail", "-c"], example)
    assert done.returncode == 0, done.stdout + done.stderr
    if "curl" in example:
        assert '"label":"7"' in done.stdout
    if "> stack.csv" in example:
        labels = [line.split(",")[3] for line in (place / "stack.csv").read_text().splitlines()[1:]]
        assert labels == list("0123456789")
    if "> answers.csv" in example:
        assert (place / "answers.csv").read_text().count("succeeded") == 10


def test_the_python_example_runs_as_pasted(run):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    done = run([sys.executable, "-c"], code)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 11
    assert "7-dark-on-light-280x280.png 7 " in done.stdout


def test_the_two_commands_are_the_makefile_s():
    commands = next(block for block in _blocks() if block.startswith("make "))
    targets = re.findall(r"^make ([a-z-]+)", commands, re.MULTILINE)
    assert targets == ["up", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
