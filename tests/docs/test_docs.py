"""The pages say what the program does."""

import inspect
import re
import tomllib
from pathlib import Path

import onceseen.errors as errors
from onceseen.domain.query import WORDS, parse
from onceseen.inference.manifest import Input, Manifest, Output

ROOT = Path(__file__).parents[2]


def _codes() -> set[str]:
    classes = [found for _, found in inspect.getmembers(errors, inspect.isclass)]
    return {found.code for found in classes if issubclass(found, errors.OnceseenError)} | {"cancelled"}


def test_every_error_code_is_explained_and_none_that_is_not():
    page = (ROOT / "docs" / "errors.md").read_text()
    explained = set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE))
    assert _codes() - {"internal-error"} <= explained | {"internal-error"}
    assert explained <= _codes()


def test_the_manifest_of_the_page_has_every_key_and_no_other():
    page = (ROOT / "docs" / "models.md").read_text()
    found = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert found is not None
    table = tomllib.loads(found[1])
    assert set(table.pop("input")) == set(Input.__struct_fields__)
    assert set(table.pop("output")) == set(Output.__struct_fields__)
    assert set(table) == set(Manifest.__struct_fields__) - {"input", "output", "unsure"}


def test_every_example_of_the_query_page_is_read_and_every_word_is_there():
    page = (ROOT / "docs" / "query.md").read_text()
    rows = re.findall(r"^\|(?: `(\w+)`)? \|.*\| ([^|]+) \|$", page, re.MULTILINE)
    assert sorted(word or "text" for word, _ in rows) == sorted(WORDS)
    for word, examples in rows:
        for example in re.findall(r"`([^`]+)`", examples):
            assert {term.word for term in parse(example).terms} == {word or "text"}
    block = re.search(r"```\n(.*?)```", page, re.DOTALL)
    assert block is not None
    lines = block[1].splitlines()
    assert len(lines) == 4
    for line in lines:
        assert str(parse(line)) == line


def test_every_rule_of_the_record_names_a_test_that_exists():
    page = (ROOT / "docs" / "record.md").read_text()
    rows = re.findall(r"^\| (\d(?:\.\d)?) \| .+ \| `([^`:]+)::(\w+)` \|$", page, re.MULTILINE)
    assert len(rows) == len(re.findall(r"^\| \d", page, re.MULTILINE))
    for rule, file, name in rows:
        assert re.search(rf"^ *def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{rule}: {file}::{name}"
    rules = [rule for rule, _, _ in rows]
    assert rules == sorted(rules)
    assert {rule[0] for rule in rules} == set("1234567")
