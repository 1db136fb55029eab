"""The rules of a manifest; each refusal is an InvalidManifest that names the key, the value and the cure."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onceseen.errors import InvalidManifest

if TYPE_CHECKING:
    from onceseen.inference.manifest import Input, Manifest

EXAMPLES: Mapping[str, str] = {
    "name": '"mobilenet_v2"',
    "version": '"1"',
    "task": '"classification"',
    "file": '"weights.onnx"',
    "runtime": '"onnx"',
    "timeout": "60",
    "labels": '"labels.txt" or ["cat", "dog"]',
    "positive": '["cat"]',
    "threshold": "0.5",
    "unsure": "[0.4, 0.6]",
    "top": "5",
    "licence": '"Apache-2.0"',
    "cache": "true",
    "input.name": '"input"',
    "input.size": "[224, 224]",
    "input.color": '"rgb"',
    "input.layout": '"nchw"',
    "input.dtype": '"float32"',
    "input.fit": '"cover"',
    "input.resize": "256",
    "input.interpolation": '"bilinear"',
    "input.mean": "[127.5, 127.5, 127.5]",
    "input.range": '"type" or [0, 4095]',
    "input.std": "[127.5, 127.5, 127.5]",
    "input.polarity": '"as-is"',
    "output.name": '"logits"',
    "output.activation": '"softmax"',
    "output.temperature": "1.0",
}
"""Every key there is, with a value that would be right: the cure in a refusal."""

WORDS: Mapping[str, tuple[str, ...]] = {
    "input.color": ("rgb", "bgr", "grey"),
    "input.layout": ("nchw", "nhwc", "nhw"),
    "input.dtype": ("float32", "float16", "float64", "uint8", "int8", "uint16", "int16", "int32", "int64"),
    "input.fit": ("cover", "stretch", "contain", "content"),
    "input.interpolation": ("bilinear", "bicubic", "nearest"),
    "input.polarity": ("as-is", "inverted", "auto"),
    "output.activation": ("softmax", "sigmoid", "none"),
    "runtime": ("onnx",),
    "task": ("classification",),
}
LATER: Mapping[str, tuple[str, ...]] = {
    "runtime": ("kserve-v2", "tensorflow-serving", "python", "ilastik", "keras", "torch", "sklearn"),
    "task": ("pixel-classification", "detection", "segmentation"),
}
"""Words that will come to mean something: refused by name."""

MAX_LABEL = 255  # characters
MAX_LABELS_FILE = 64 * 1024 * 1024  # bytes
MAX_SIDE = 16_384  # pixels of a model's input


def known_keys(table: Mapping[str, Any]) -> None:
    """Refuse keys that do not exist, with the nearest that does, and those without which there is no model."""
    if "remote" in table:
        raise InvalidManifest("`[remote]` belongs to runtimes that are not built yet; leave it out and give `file`.")
    for key in _flat(table):
        if key not in EXAMPLES:
            near = difflib.get_close_matches(key, EXAMPLES, n=1, cutoff=0.6) or _same_tail(key)
            cure = f"did you mean `{near[0]}`?" if near else f"the keys are {', '.join(EXAMPLES)}."
            raise InvalidManifest(f"unknown key `{key}`: {cure}")
    for key in ("name", "file", "labels"):
        if key not in table:
            raise InvalidManifest(f"`{key}` is missing; write for example {key} = {EXAMPLES[key]}.")


def known_words(table: Mapping[str, Any]) -> None:
    """Refuse words outside the list of their key."""
    flat = _flat(table)
    for key, words in WORDS.items():
        value = flat.get(key, words[0])
        if isinstance(value, str) and value in LATER.get(key, ()):
            raise InvalidManifest(f"`{key}`: {value} is not built yet; there is {', '.join(words)}.")
        if isinstance(value, str) and value not in words:
            raise InvalidManifest(f"`{key}` = {value!r} is not known; write one of {', '.join(words)}.")
    if isinstance(given := flat.get("input.range"), str) and given not in ("type", "data"):
        raise InvalidManifest(f'`input.range` = {given!r} is not known; write "type", "data" or [low, high].')


def labels(given: object, directory: Path, inside_only: bool) -> tuple[str, ...]:
    """The labels themselves, from a list or from the lines of a UTF-8 file: line n (from 0) names output n."""
    if isinstance(given, str):
        lines, place = _label_lines(inside(directory, given, "labels", inside_only)), f"{given}, line "
    elif isinstance(given, list | tuple):
        lines, place = list(given), "labels, entry "
    else:
        raise InvalidManifest(f"`labels` = {given!r} is neither a file nor a list; write {EXAMPLES['labels']}.")
    if not lines:
        raise InvalidManifest("`labels` is empty; give one label for each output of the model.")
    for number, label in enumerate(lines, 1):
        if not isinstance(label, str) or not label.strip() or "\0" in label or "\n" in label:
            raise InvalidManifest(f"`labels`: {place}{number} is {label!r}; every output needs one line of text.")
        if len(label) > MAX_LABEL:
            raise InvalidManifest(f"`labels`: {place}{number} has {len(label)} characters; at most {MAX_LABEL} fit.")
    return tuple(lines)


def inside(directory: Path, name: str, key: str, inside_only: bool) -> Path:
    """The file that a key names. With `inside_only` it must lie in the directory once links are followed."""
    file = directory / name
    if inside_only and not is_inside(directory, name):
        raise InvalidManifest(f"`{key}` = {name!r} leaves the model's directory; put the file beside model.toml.")
    return file


def is_inside(directory: Path, name: str, follow: bool = True) -> bool:
    """Whether a relative path stays in the directory; `follow`: also after its symbolic links."""
    relative = Path(name)
    if not name or "\0" in name or "\\" in name or relative.is_absolute() or ".." in relative.parts:
        return False
    try:
        return not follow or (directory / relative).resolve().is_relative_to(directory.resolve())
    except (OSError, RuntimeError):  # a link that points at itself
        return False


def values(manifest: "Manifest") -> None:
    """Refuse values of the right type that make no sense."""
    for key in ("name", "version"):
        text = getattr(manifest, key)
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", text) and not (key == "version" and not text):
            raise InvalidManifest(f"`{key}` = {text!r}: up to 128 letters, digits, dots, dashes and underscores only.")
    for label in manifest.positive:
        if label not in manifest.labels:
            near = difflib.get_close_matches(label, manifest.labels, n=1, cutoff=0.5)
            cure = f"did you mean {near[0]!r}?" if near else "write a label exactly as in `labels`."
            raise InvalidManifest(f"`positive`: {label!r} is not among the {len(manifest.labels)} labels; {cure}")
    _between("threshold", manifest.threshold, 0, math.inf)
    _between("top", manifest.top, 1, 1000)
    _between("timeout", manifest.timeout, 0.001, 86_400)
    _between("output.temperature", manifest.output.temperature, 1e-6, 1e6)
    if manifest.unsure and not (len(manifest.unsure) == 2 and manifest.unsure[0] <= manifest.unsure[1]):
        raise InvalidManifest(f"`unsure` = {list(manifest.unsure)} is not [low, high]; write {EXAMPLES['unsure']}.")
    _input_values(manifest.input)


def cover_fits(given: "Input", size: tuple[int, int]) -> None:
    """Refuse a `resize` too small for the crop: the shorter side must reach over the whole input."""
    if given.resize is not None and given.resize < max(size):
        raise InvalidManifest(f"`input.resize` = {given.resize} is smaller than the input {list(size)}; raise it.")


def wrong_type(message: str, table: Mapping[str, Any]) -> InvalidManifest:
    """Turn the converter's "Expected `int`, got `str` - at `$.input.size[0]`" into a sentence with value and cure."""
    what, _, place = message.partition(" - at `$.")
    key = re.sub(r"\[.*", "", place.rstrip("`"))
    value = _flat(table).get(key, table.get(key))
    shown = repr(list(value) if isinstance(value, tuple) else value)[:80]
    what = what[0].lower() + what[1:]
    cure = f"write for example {EXAMPLES[key]}" if key in EXAMPLES else "make it a table"
    return InvalidManifest(f"`{key}` = {shown}: {what}; {cure}.")


def _input_values(given: "Input") -> None:
    for side in given.size or ():
        _between("input.size", side, 1, MAX_SIDE)
    many = f"{given.channels} finite number{'s' * (given.channels > 1)}"
    for key in ("mean", "std"):
        numbers = getattr(given, key)
        if len(numbers) != given.channels or not all(map(math.isfinite, numbers)) or (key == "std" and 0 in numbers):
            raise InvalidManifest(
                f"`input.{key}` = {list(numbers)} does not fit `input.color` = {given.color!r}; "
                f"write {many}{', none of them 0' * (key == 'std')}."
            )
    if isinstance(given.range, tuple) and not given.range[0] < given.range[1]:
        raise InvalidManifest(f"`input.range` = {list(given.range)}: low must be smaller than high.")
    if given.layout == "nhw" and given.channels != 1:
        raise InvalidManifest(
            f"`input.layout` = 'nhw' has no room for `input.color` = {given.color!r}; write \"grey\"."
        )
    if given.resize is None:
        return
    if given.fit != "cover":
        raise InvalidManifest(f'`input.resize` is only for fit = "cover", not {given.fit!r}; leave it out.')
    _between("input.resize", given.resize, 1, MAX_SIDE)
    if given.size is not None:
        cover_fits(given, given.size)


def _between(key: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise InvalidManifest(
            f"`{key}` = {value} is out of range ({low} to {high}); write for example {EXAMPLES[key]}."
        )


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys of a table of tables, two levels deep as manifests are."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": inner_value for inner, inner_value in value.items()})
        else:
            flat[key] = value
    return {key: value for key, value in flat.items() if key not in ("input", "output")} | _not_tables(table)


def _not_tables(table: Mapping[str, Any]) -> dict[str, Any]:
    for key in ("input", "output"):
        if not isinstance(table.get(key, {}), dict):
            raise InvalidManifest(f"`{key}` = {table[key]!r} is not a table; write its keys under [{key}].")
    return {}


def _same_tail(key: str) -> list[str]:
    """`size` at the top level, or `output.size`, most likely means `input.size`."""
    tail = key.rpartition(".")[2]
    candidates: Iterable[str] = (known for known in EXAMPLES if known.rpartition(".")[2] == tail)
    return list(candidates)


def _label_lines(file: Path) -> list[str]:
    try:
        if file.stat().st_size > MAX_LABELS_FILE:
            raise InvalidManifest(
                f"`labels` = {file.name!r} has more than {MAX_LABELS_FILE} bytes; is it the right file?"
            )
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidManifest(
            f"`labels` = {file.name!r} is not UTF-8 text ({error.reason}); save it as UTF-8."
        ) from error
    except OSError as error:
        cure = "give a file beside model.toml, or a list"
        raise InvalidManifest(f"`labels` = {file.name!r} cannot be read ({error.strerror}); {cure}.") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines
