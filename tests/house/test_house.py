"""The house rules that no linter checks."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_FILE, MAX_FUNCTION = 400, 60
GENERATED = re.compile(r"migrations/versions/")


def _sources() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:  # an unpacked source distribution
        return sorted((ROOT / "src").rglob("*.py"))
    return [ROOT / name for name in listed.stdout.split() if (ROOT / name).exists()]


def _text_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout")
    names = [name for name in listed.stdout.split("\0") if name]
    return [ROOT / name for name in names if Path(name).suffix not in (".onnx", ".png", ".jpg")]


def test_no_file_is_longer_than_400_lines_and_no_function_than_60():
    too_long = []
    for file in _sources():
        if GENERATED.search(str(file)):
            continue
        text = file.read_text()
        lines = text.count("\n")
        if lines > MAX_FILE:
            too_long.append(f"{file.relative_to(ROOT)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > MAX_FUNCTION:
                    too_long.append(f"{file.relative_to(ROOT)}: {node.name} has {length} lines")
    assert not too_long, "\n".join(too_long)


def test_the_map_names_files_that_exist():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("| ") and "`" in line]
    assert len(table) >= 20
    missing = [name for line in table for name in re.findall(r"`([^`]+)`", line) if not (ROOT / name).is_file()]
    assert not missing


def test_the_map_is_one_page():
    assert (ROOT / "ARCHITECTURE.md").read_text().count("\n") < 90


def test_links_of_the_pages_lead_somewhere():
    broken = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        broken += [f"{page.relative_to(ROOT)}: {target}" for target in targets if not (page.parent / target).exists()]
    assert not broken


def test_no_machine_path_stands_in_the_project():
    pattern = re.compile(r"/(?:root|home|work|opt|srv)/\w+/")
    found = [str(file.relative_to(ROOT)) for file in _text_files() if pattern.search(file.read_text(errors="replace"))]
    assert not found


@pytest.mark.parametrize("page", ["record.md", "reliability.md", "security.md"])
def test_every_recorded_test_of_a_page_exists(page):
    text = (ROOT / "docs" / page).read_text()
    missing = []
    for name in re.findall(r"`(tests/[^`]+)`", text):
        file, _, test = name.partition("::")
        if not (ROOT / file).exists() or (test and f"def {test}(" not in (ROOT / file).read_text()):
            missing.append(name)
    assert not missing
