"""A model's manifest: what `model.toml` (or `--set KEY=VALUE`) says, checked, with a cure in every refusal."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from onceseen.errors import InvalidManifest
from onceseen.inference import external, manifest_rules
from onceseen.inference.manifest_source import gather

Range = Literal["type", "data"] | tuple[float, float]


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a picture becomes the model's tensor. `size`: height, width; None: the model's own static shape.

    `mean` and `std` hold one number per channel of `color`; pixels are on the scale 0..255.
    """

    name: str = ""  # "": the only one
    size: tuple[int, int] | None = None
    color: str = "rgb"
    layout: str = "nchw"
    dtype: str = "float32"
    fit: str = "cover"
    resize: int | None = None  # None: no more than the crop needs
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = ()
    range: Range = "type"
    std: tuple[float, ...] = ()
    polarity: str = "as-is"

    @property
    def channels(self) -> int:
        """Planes of the tensor: 1 for grey, else 3."""
        return 1 if self.color == "grey" else 3


class Output(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which output counts, and what has to be applied to it still."""

    name: str = ""  # "": the only one
    activation: str = "softmax"
    temperature: float = 1.0


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One version of one model. `labels[n]` names output n; `version` "" means: to be counted up by the registry."""

    name: str
    version: str = ""
    task: str = "classification"
    file: str
    runtime: str = "onnx"
    timeout: float | None = None  # seconds for one batch; None: the measured deadline
    labels: tuple[str, ...]
    positive: tuple[str, ...] = ()
    threshold: float | None = None
    unsure: tuple[float, ...] = ()
    top: int = 5
    licence: str = ""
    cache: bool = True
    input: Input = Input()
    output: Output = Output()

    @property
    def positive_indices(self) -> tuple[int, ...]:
        """Outputs whose label counts as a find; a label that stands twice counts twice."""
        wanted = frozenset(self.positive)
        return tuple(index for index, label in enumerate(self.labels) if label in wanted)


def read(
    path: Path, overrides: Mapping[str, str] | None = None, trust: bool = False, *, inside_only: bool = False
) -> tuple[Manifest, Path]:
    """The manifest of a model directory, or of one weights file whose keys are given as overrides.

    Args:
        path: a directory with `model.toml`, or one `.onnx` file.
        overrides: dotted key to text, as after `--set`; a TOML value where it parses as one, else a plain string.
        trust: allow a runtime that executes code of the model; the runtimes of today never do.
        inside_only: for uploads: `file` and `labels` may not leave the directory, not even by a symbolic link.

    Returns:
        The manifest, and the directory that `file` is relative to.

    Raises:
        InvalidManifest: names the key, the wrong value and the cure.
    """
    table, directory = gather(path, overrides or {})
    manifest_rules.known_keys(table)
    manifest_rules.known_words(table)
    if "threshold" in table and "positive" not in table:
        raise InvalidManifest("`threshold` needs `positive`: name the labels that count as a find.")
    table["labels"] = manifest_rules.labels(table.get("labels"), directory, inside_only)
    manifest = _complete(_convert(table))
    manifest_rules.values(manifest)
    if not manifest.positive:
        manifest = msgspec.structs.replace(manifest, threshold=None)  # of nothing; `positive = []` says so
    weights = manifest_rules.inside(directory, manifest.file, "file", inside_only)
    if not weights.is_file():
        raise InvalidManifest(
            f"`file` = {manifest.file!r} does not exist in {directory}; give the name of the weights."
        )
    external.files(weights, directory, inside_only)
    return manifest, directory


def to_json(manifest: Manifest) -> bytes:
    """The manifest as it travels to a worker and lies in the record: labels inside."""
    return msgspec.json.encode(manifest)


def to_toml(manifest: Manifest) -> str:
    """The manifest as a `model.toml` that needs no file beside the weights: labels inside, defaults left out."""
    table = {key: value for key, value in msgspec.to_builtins(manifest).items() if value not in (None, [], (), "")}
    inner = {key: table.pop(key) for key in ("input", "output")}
    lines = [f"{key} = {_toml_value(value)}" for key, value in table.items()]
    for section, keys in inner.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {_toml_value(value)}" for key, value in keys.items() if value not in (None, [], (), "")]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    """Strings, numbers, booleans and lists of them are written alike in JSON and TOML."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def from_json(data: bytes) -> Manifest:
    """The inverse of `to_json`.

    Raises:
        InvalidManifest: these bytes are no manifest.
    """
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidManifest(f"This is no recorded manifest ({error}); add the model again.") from error


def content_digest(manifest: Manifest, directory: Path) -> bytes:
    """SHA-256 (32 bytes) over what decides answers: weights, runtime, input, output and labels.

    Defaults are part of the manifest, so a value left out and the same value written down give one digest.

    Raises:
        InvalidManifest: the weights are gone or name files outside the directory.
    """
    weights = directory / manifest.file
    total = hashlib.sha256(b"onceseen model 1\n")
    for part in (manifest.runtime, manifest.input, manifest.output, manifest.labels):
        total.update(_framed(msgspec.json.encode(part)))
    for file in (weights, *external.files(weights, directory)):
        try:
            with file.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise InvalidManifest(f"`file`: {file} cannot be read ({error.strerror}); check it.") from error
    return total.digest()


def _framed(part: bytes) -> bytes:
    """Length first, so that no two lists of parts give the same bytes."""
    return len(part).to_bytes(8, "big") + part


def _convert(table: dict[str, Any]) -> Manifest:
    try:
        return msgspec.convert(table, Manifest)
    except msgspec.ValidationError as error:
        raise manifest_rules.wrong_type(str(error), table) from error


def _complete(manifest: Manifest) -> Manifest:
    """Write out the defaults that hang on other keys, so that equal meaning is equal content."""
    given, replace = manifest.input, msgspec.structs.replace
    mean, std = given.mean or (0.0,), given.std or (1.0,)
    resize = given.resize
    if resize is None and given.fit == "cover" and given.size is not None and given.size[0] == given.size[1]:
        resize = given.size[0]
    completed = replace(
        given,
        mean=mean * given.channels if len(mean) == 1 else mean,
        std=std * given.channels if len(std) == 1 else std,
        resize=resize,
    )
    return replace(manifest, input=completed)
