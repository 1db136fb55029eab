"""Where a manifest's keys come from: `model.toml`, the name of a weights file, and `--set KEY=VALUE`."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onceseen.errors import InvalidManifest

MANIFEST_FILE = "model.toml"
WEIGHTS = {".onnx": "onnx"}
"""File name endings of weights, and the runtime that they are for."""

UNREADABLE = (ValueError, RecursionError)
"""What tomllib raises: its own error is the first, as are text that is not UTF-8 and a number of over 4,300 digits."""
TEXT_KEYS = frozenset({"name", "version", "task", "file", "runtime", "licence", "input.name", "output.name"})
"""Keys whose value is text even where it looks like a number: `--set version=2`."""


def gather(path: Path, overrides: Mapping[str, str]) -> tuple[dict[str, Any], Path]:
    """All keys as given, unchecked, and the directory that files are relative to.

    Raises:
        InvalidManifest: there is no manifest here, or it is not TOML.
    """
    if path.is_dir():
        table, directory = _toml(path / MANIFEST_FILE), path
    elif not path.exists():
        raise InvalidManifest(f"{path} does not exist; give a model directory or one weights file.")
    elif path.suffix.lower() in WEIGHTS:
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem).strip("_") or "model"
        table, directory = {"name": name, "file": path.name}, path.parent
    else:
        known = ", ".join(WEIGHTS)
        raise InvalidManifest(f"{path.name} is neither a directory with {MANIFEST_FILE} nor a weights file ({known}).")
    for key, text in overrides.items():
        _put(table, key, text)
    for key, value in table.items():
        _check(value, f"`{key}`")
    if isinstance(table.get("file"), str) and "runtime" not in table:
        runtime = WEIGHTS.get(Path(table["file"]).suffix.lower())
        if runtime is not None:
            table["runtime"] = runtime
    return table, directory


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidManifest(f"{file.parent} holds no {MANIFEST_FILE}; write one or give the weights file.") from error
    except OSError as error:
        raise InvalidManifest(f"{file} cannot be read: {error.strerror}.") from error
    except UNREADABLE as error:
        raise InvalidManifest(f"{file} is not valid TOML: {str(error)[:200]}.") from error


def _put(table: dict[str, Any], key: str, text: str) -> None:
    """Set one dotted key; unknown ones are refused later, together with those of the file."""
    head, dot, tail = key.partition(".")
    if not dot:
        table[head] = _value(key, text)
        return
    inner = table.setdefault(head, {})
    if not isinstance(inner, dict):
        raise InvalidManifest(f"`{key}` = {text!r} cannot be set: `{head}` is not a table.")
    inner[tail] = _value(key, text)


def _value(key: str, text: str) -> Any:
    try:
        parsed = tomllib.loads(f"v = {text}")
    except UNREADABLE:
        return text
    value = parsed["v"] if len(parsed) == 1 else text  # a line break in the text could smuggle in a second key
    return text if key in TEXT_KEYS and not isinstance(value, str) else value


def _check(value: Any, where: str) -> None:
    """Refuse what no path can hold, and what cannot even be shown: TOML's numbers have 64 bits, Python's any number."""
    if isinstance(value, int) and value.bit_length() > 63:
        raise InvalidManifest(f"{where} holds a number of {value.bit_length()} bits; at most 63 make sense.")
    if isinstance(value, str) and "\0" in value:
        raise InvalidManifest(f"{where} = {value[:100]!r} holds the character NUL; leave it out.")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check(inner, where)
