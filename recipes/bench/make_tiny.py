"""The tiny model of `onceseen bench`: what a hit finder costs, with weights that mean nothing.

    python recipes/bench/make_tiny.py src/onceseen/bundled/bench

Four strided 3x3 convolutions (16, 32, 64, 128) over 128x128 grey pixels, a mean, five outputs: 98 thousand parameters. They
are numbered and hashed inside the graph, and ONNX Runtime folds that when it loads the model: the file has 4 kB instead of
390. He's scale keeps activations away from denormals, which would cost more than they should.
"""

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

CHANNELS = (1, 16, 32, 64, 128)
LABELS = ("bright", "faint", "rings", "spots", "empty")
MEANS, DEVIATIONS = (-4.93, -21.08, -0.51, 8.91, -4.50), (1.08, 6.15, 0.18, 2.72, 0.95)
"""Of the outputs over the pictures of `onceseen bench`: taken out, so that every label is some picture's answer."""


class Graph:
    """Collects nodes and constants."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Any) -> str:
        """A named constant."""
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """One node; its output's name."""
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def weights(self, name: str, shape: tuple[int, ...], scale: float, seed: float) -> str:
        """Numbers between -scale and scale that look random: fraction(sin(12.9898 n + seed) * 43758.5453)."""
        n = np.prod(shape)
        bounds = [self.constant(f"{name}_{at}", np.array(value, np.float32)) for at, value in enumerate((0, n, 1))]
        x = self.add("Range", bounds, f"{name}_n")
        for at, (kind, value) in enumerate(
            (
                ("Mul", 12.9898),
                ("Add", seed),
                ("Sin", None),
                ("Mul", 43758.5453),
                ("Mod", 1),
                ("Sub", 0.5),
                ("Mul", 2 * scale),
            )
        ):
            more = [] if value is None else [self.constant(f"{name}_c{at}", np.array(value, np.float32))]
            # fmod keeps the sign of the sine: it is cut to 0..1 by the next line
            x = self.add(kind, [x, *more], f"{name}_s{at}", **({"fmod": 1} if kind == "Mod" else {}))
            if kind == "Mod":
                x = self.add("Abs", [x], f"{name}_abs")
        return self.add("Reshape", [x, self.constant(f"{name}_shape", np.array(shape, np.int64))], name)


def build() -> Any:
    """The model."""
    graph, x = Graph(), "input"
    for at, (before, after) in enumerate(itertools.pairwise(CHANNELS)):
        # uniform numbers in +-scale have the variance scale^2 / 3
        weight = graph.weights(f"w{at}", (after, before, 3, 3), float(np.sqrt(6 / (9 * before))), 1.0 + at)
        bias = graph.weights(f"b{at}", (after,), 0.1, 7.0 + at)
        x = graph.add("Conv", [x, weight, bias], f"conv{at}", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        x = graph.add("Relu", [x], f"relu{at}")
    x = graph.add("Flatten", [graph.add("GlobalAveragePool", [x], "mean")], "flat")
    weight = graph.weights("w", (CHANNELS[-1], len(LABELS)), 2.0, 20.0)
    x = graph.add("MatMul", [x, weight], "raw")
    x = graph.add("Sub", [x, graph.constant("means", np.array(MEANS, np.float32))], "centred")
    graph.add("Div", [x, graph.constant("deviations", np.array(DEVIATIONS, np.float32))], "logits")
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        graph.nodes,
        "tiny",
        [value("input", TensorProto.FLOAT, ["n", 1, 128, 128])],
        [value("logits", TensorProto.FLOAT, ["n", len(LABELS)])],
        graph.constants,
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Write the model and its manifest."""
    place = Path(sys.argv[1])
    (place / "tiny.onnx").write_bytes(build().SerializeToString())
    labels = ", ".join(f'"{label}"' for label in LABELS)
    (place / "model.toml").write_text(
        f'name = "tiny"\nfile = "tiny.onnx"\nlabels = [{labels}]\nlicence = "Apache-2.0"\n\n'
        '[input]\nsize = [128, 128]\ncolor = "grey"\nfit = "stretch"\nmean = [127.5]\nstd = [127.5]\n'
    )


if __name__ == "__main__":
    main()
