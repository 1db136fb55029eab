"""The examples of the pages of the client and the command line run as they stand."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("example", blocks("client.md", "python"), ids=lambda text: re.sub(r"\W+", "-", text[-60:]))
def test_an_example_of_the_client_runs_as_pasted(run, example):
    done = run([sys.executable, "-W", "error", "-c"], example)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    if "gather" in example:
        assert "7 " in done.stdout.splitlines()[-1]
    if "nobody" in example:
        assert done.stdout.startswith("There is no model 'nobody'; there are digits,")
        assert "There is no model 'nobody'; there are digits," in example


@pytest.mark.parametrize("kind", ["sh", "python"])
def test_the_examples_of_the_page_of_inputs_run_as_pasted_one_after_the_other(run, place, kind):
    for example in blocks("inputs.md", kind):
        program = ["bash", "-euo", "pipefail", "-c"] if kind == "sh" else [sys.executable, "-W", "error", "-c"]
        done = run(program, example)
        assert done.returncode == 0, done.stdout + done.stderr
        if "create_dataset" in example:
            assert done.stdout.count("run-17.h5 [") == 10
            assert '"total":10,' in done.stdout
        elif kind == "sh":
            assert '"frame":9}' in done.stdout
        else:
            assert done.stdout == f"{sorted(range(12))}\n"


@pytest.mark.parametrize("example", blocks("cli.md", "sh"), ids=lambda text: re.sub(r"\W+", "-", text[:40]))
def test_an_example_of_the_command_line_runs_as_pasted(run, example):
    done = run(["bash", "-euo", "pipefail", "-c"], example)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout


def test_every_verb_stands_on_the_page_and_no_other():

    from onceseen.cli.main import VERBS

    page = (ROOT / "docs" / "cli.md").read_text()
    table = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    named = set(re.findall(r"`([a-z-]+)`", " ".join(table)))
    assert named == set(VERBS)


def test_every_method_of_a_job_and_every_argument_of_retrying_is_on_the_page():
    from onceseen.client import Client, Job

    page = (ROOT / "docs" / "client.md").read_text()
    for name in ("results", "wait", "refresh", "items", "item", "cancel", "retry", "delete"):
        assert hasattr(Job, name)
        assert f"job.{name}(" in page
    for name in [name for name in vars(Client) if not name.startswith("_") and name != "close"]:
        assert re.search(rf"\b{name}\b", page), name
