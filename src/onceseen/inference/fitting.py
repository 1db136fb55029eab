"""Whether a loaded model and its manifest mean the same thing, and what the manifest left to the model."""

from collections.abc import Sequence
from typing import NamedTuple

from onceseen.errors import InvalidManifest
from onceseen.inference.manifest import Manifest
from onceseen.inference.manifest_rules import cover_fits
from onceseen.ports.runtime import Session, Tensor


class Fitting(NamedTuple):
    """Names of input and output, the input's height and width in pixels, images per run (None: any number)."""

    input: str
    output: str
    height: int
    width: int
    batch: int | None


def fitting(manifest: Manifest, session: Session) -> Fitting:
    """Compare what the manifest says with what the model is.

    Raises:
        InvalidManifest: names the key that does not fit, what the model has, and the cure.
    """
    given = manifest.input
    source = _named("input.name", given.name, session.inputs)
    others = [tensor.name for tensor in session.inputs if tensor.name != source.name]
    if others:
        raise InvalidManifest(
            f"`input.name` = {source.name!r}: the model also needs {_list(others)}; export it without."
        )
    target = _named("output.name", manifest.output.name, session.outputs)
    if source.dtype != given.dtype:
        raise InvalidManifest(f"`input.dtype` = {given.dtype!r}, but the model takes {source.dtype}; write that.")
    batch, height, width = _geometry(manifest, source)
    cover_fits(given, (height, width))
    _check_labels(manifest, target)
    return Fitting(source.name, target.name, height, width, batch)


def _named(key: str, name: str, tensors: Sequence[Tensor]) -> Tensor:
    names = [tensor.name for tensor in tensors]
    if name:
        for tensor in tensors:
            if tensor.name == name:
                return tensor
        raise InvalidManifest(f"`{key}` = {name!r} is not in the model; it has {_list(names)}.")
    if len(tensors) != 1:
        raise InvalidManifest(f"`{key}` is missing: the model has {_list(names) or 'none'}; name one of them.")
    return tensors[0]


def _geometry(manifest: Manifest, source: Tensor) -> tuple[int | None, int, int]:
    """Batch, height and width, from `input.size` and the model's own shape."""
    given, shape, layout = manifest.input, source.shape, manifest.input.layout
    if len(shape) != len(layout):
        raise InvalidManifest(
            f"`input.layout` = {layout!r} has {len(layout)} axes, but the model's input is {_shape(shape)}; "
            "write the layout of the model."
        )
    axes = dict(zip(layout, shape, strict=True))
    if axes["n"] not in (None, 1):
        raise InvalidManifest(
            f"`file`: the model's input {_shape(shape)} takes exactly {axes['n']} images at once; "
            "export it with a free first axis."
        )
    channels = axes.get("c")
    if channels not in (None, given.channels):
        cure = 'write color = "grey"' if channels == 1 else "correct color or layout"
        raise InvalidManifest(
            f"`input.color` = {given.color!r} with layout {layout!r} gives {given.channels} channels, "
            f"but the model's input is {_shape(shape)}; {cure}."
        )
    own = (axes["h"], axes["w"])
    wanted = given.size or own
    for side, side_of_model in zip(wanted, own, strict=True):
        if side is None:
            raise InvalidManifest(
                f"`input.size` is missing: the model takes any ({_shape(shape)}); write [224, 224] say."
            )
        if side_of_model not in (None, side):
            raise InvalidManifest(
                f"`input.size` = {list(wanted)}, but the model's input is {_shape(shape)}; write that."
            )
    height, width = wanted
    assert height is not None  # the loop above
    assert width is not None
    return axes["n"], height, width


def _check_labels(manifest: Manifest, target: Tensor) -> None:
    """One output per label; or one sigmoid output for two labels. A free axis shows itself at the first run."""
    sizes = [size for size in target.shape[1:] if size != 1]
    if None in sizes or len(target.shape) < 1:
        return
    outputs = 1
    for size in sizes:
        outputs *= size or 1
    labels = len(manifest.labels)
    one_for_two = outputs == 1 and labels == 2 and manifest.output.activation != "softmax"
    if outputs != labels and not one_for_two:
        cure = 'write activation = "sigmoid"' if outputs == 1 and labels == 2 else "give one label for each output"
        raise InvalidManifest(
            f"`labels` has {labels} entries, but output {target.name!r} {_shape(target.shape)} has {outputs}; {cure}."
        )


def _shape(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("any" if side is None else str(side) for side in shape) + "]"


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:20]))
