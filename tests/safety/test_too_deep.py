"""What is nested, counted or asked without measure: what chance alone would not find."""

import random

import pytest

from onceseen.errors import InvalidManifest
from onceseen.inference import external, manifest

MANIFEST = b'name = "m"\nfile = "w.onnx"\nlabels = ["a", "b", "c"]\n[input]\nsize = [8, 8]\n'
LISTS = [
    "jobs",
    "predictions",
    "dead-letters",
    "models",
    "workers",
    "stats",
    "images/" + "0" * 64,
    "jobs/x/items",
    "events",
]
WORDS = [
    "state",
    "model",
    "q",
    "cursor",
    "limit",
    "after",
    "before",
    "label",
    "min_score",
    "name",
    "",
    "%00",
    "[]",
    "job",
]
VALUES = [
    "",
    "0",
    "-1",
    "1e400",
    "9" * 400,
    "nan",
    "%ff%fe",
    "%00",
    "'",
    '"',
    "a" * 3000,
    "\u0663",
    "\u202e",
    "9" * 400,
    "{",
    "../",
    "=",
    "a:b:c",
]
NUMBERS = ["[" * 100_000, "9" * 5000, "{a=" * 50_000, "1" + "_1" * 5000, '"""' + "x" * 100_000, "0x" + "f" * 5000]
BODIES = [
    b"[" * 500_000,
    b'{"q":' * 100_000,
    b'{"tasks":' + b"[" * 500_000,
    b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "9" * 5000, "{a=" * 50_000, "1" + "_1" * 5000, '"""' + "x" * 100_000, "0x" + "f" * 5000]
)
def test_a_manifest_that_is_nested_or_counts_too_far_is_refused(tmp_path, text):
    (tmp_path / "model.toml").write_text(f"name = {text}")
    with pytest.raises(InvalidManifest):
        manifest.read(tmp_path, {})
    (tmp_path / "model.toml").write_bytes(MANIFEST)
    with pytest.raises(InvalidManifest):
        manifest.read(tmp_path, {"top": text})


@pytest.mark.parametrize("key", ["file", "labels", "name", "input.name", "runtime", "\0"])
def test_the_character_nul_is_refused_in_a_manifest(tmp_path, key):
    (tmp_path / "model.toml").write_bytes(MANIFEST)
    with pytest.raises(InvalidManifest):
        manifest.read(tmp_path, {key: "a\0b.onnx"})
    answer = 'name = "m"\nfile = "a\\u0000.onnx"\n'
    (tmp_path / "model.toml").write_text(answer)
    with pytest.raises(InvalidManifest, match="NUL"):
        manifest.read(tmp_path, {})


def test_weights_of_nested_graphs_without_end_are_refused(tmp_path):
    body = b""
    for _ in range(5000):
        for field in (11, 5, 1):  # graph in attribute in node in graph
            size, length = len(body), b""
            while size >= 128:
                length += bytes([size & 127 | 128])
                size >>= 7
            body = bytes([field << 3 | 2]) + length + bytes([size]) + body
    (tmp_path / "w.onnx").write_bytes(b"\x3a" + body)
    with pytest.raises(InvalidManifest):
        external.files(tmp_path / "w.onnx", tmp_path)


@pytest.mark.parametrize("body", BODIES)
def test_a_body_of_nested_lists_is_refused(server, body):
    answer = server.http.post("/v1/dead-letters/retry", content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text


def test_random_queries_to_every_list_are_answered_or_refused(server):
    chance = random.Random(4)
    for _ in range(250):
        pairs = "&".join(f"{chance.choice(WORDS)}={chance.choice(VALUES)}" for _ in range(chance.randrange(4)))
        with server.http.stream("GET", f"/v1/{chance.choice(LISTS)}?{pairs}") as answer:
            assert answer.status_code < 500, pairs
