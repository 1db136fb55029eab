"""Which other files an ONNX model keeps its weights in.

A model with "external data" names files by relative path; a model from elsewhere could name any file of this machine.
The few fields needed are read straight from the protobuf, so that serving does not need the `onnx` package.

    ModelProto  7 graph ─► GraphProto  1 node ─► NodeProto  5 attribute ─► AttributeProto  5, 10 tensor   6, 11 graph
               25 function ─► 7 node    5 initializer ─► TensorProto 13 external_data ─► entry 1 key, 2 value
                                       15 sparse_initializer ─► 1 values, 2 indices ─► TensorProto
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from onceseen.errors import InvalidManifest
from onceseen.inference.manifest_rules import is_inside

MAX_DEPTH = 64  # graphs inside graphs
_DESCEND: Final = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}


def files(weights: Path, directory: Path, inside_only: bool = False) -> list[Path]:
    """The external data files of a model, each once, in the order of their names.

    Raises:
        InvalidManifest: one of them lies outside the directory or is missing, or the model cannot be read at all.
    """
    if weights.suffix.lower() != ".onnx":
        return []
    found = []
    for name in sorted(_locations(weights)):
        base = weights.parent
        if not is_inside(base, name, follow=inside_only) or not (base / name).absolute().is_relative_to(
            directory.absolute()
        ):
            raise InvalidManifest(
                f"`file` = {weights.name!r} keeps weights in {name!r}, outside the model's directory; "
                "save the model with its external data beside it."
            )
        if not (base / name).is_file():
            raise InvalidManifest(f"`file` = {weights.name!r} keeps weights in {name!r}, which is missing; add it.")
        found.append(base / name)
    return found


def _locations(weights: Path) -> set[str]:
    try:
        with weights.open("rb") as stream:  # unmapped with its last view: an error's frames may still hold some
            view = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        return set(_walk(view, "model", 0))
    except (ValueError, IndexError, OSError) as error:  # mmap refuses an empty file with ValueError
        raise InvalidManifest(f"`file` = {weights.name!r} is not an ONNX model; export it again.") from error


def _walk(view: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        raise ValueError("graphs nested too deep")
    children = _DESCEND[kind]
    for field, part in _fields(view):
        child = children.get(field)
        if child == "entry":
            entry = {number: bytes(text) for number, text in _fields(part)}
            if entry.get(1) == b"location":
                yield entry.get(2, b"").decode("utf-8", "surrogateescape")
        elif child is not None:
            yield from _walk(part, child, depth + 1)


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The length-delimited fields of one protobuf message; others are skipped."""
    at, end = 0, len(view)
    while at < end:
        tag, at = _varint(view, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(view, at)
        elif kind == 1:
            at += 8
        elif kind == 5:
            at += 4
        elif kind == 2:
            length, at = _varint(view, at)
            if at + length > end:
                raise ValueError("field longer than its message")
            yield tag >> 3, view[at : at + length]
            at += length
        else:
            raise ValueError(f"unknown wire type {kind}")


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("number too long")
