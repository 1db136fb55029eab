"""Tiny ONNX models for tests, built with the `onnx` package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def channel_means(
    file: Path, shape: Sequence[int | str] = ("n", 3, "h", "w"), dtype: str = "float32", output: str = "logits"
) -> Path:
    """Write a model whose output n is the mean of channel n: `input` (n, c, h, w) to `output` (n, c), float32."""
    from onnx import helper

    nodes = [
        helper.make_node("Cast", ["input"], ["cast"], to=_type("float32")),
        helper.make_node("GlobalAveragePool", ["cast"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], [output], axis=1),
    ]
    return _save(file, nodes, _value("input", dtype, shape), _value(output, "float32", [shape[0], shape[1]]))


def weighted_sum(file: Path, weights: np.ndarray[Any, Any], bias: np.ndarray[Any, Any], external: str = "") -> Path:
    """Write a linear model of flattened pixels: `input` (n, c, h, w) float32 to `logits` (n, outputs).

    Args:
        file: where to.
        weights: (outputs, c, h, w).
        bias: (outputs,).
        external: name of a file to keep the weights in, as the model will state it; it is not written.
    """
    from onnx import TensorProto, helper, numpy_helper

    outputs = weights.shape[0]
    matrix = numpy_helper.from_array(weights.reshape(outputs, -1).astype(np.float32), "weights")
    if external:
        matrix.ClearField("raw_data")
        matrix.data_location = TensorProto.EXTERNAL
        for key, value in (("location", external), ("offset", "0"), ("length", str(4 * weights.size))):
            entry = matrix.external_data.add()
            entry.key, entry.value = key, value
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"], transB=1),
    ]
    initializers = [matrix, numpy_helper.from_array(bias.astype(np.float32), "bias")]
    source = _value("input", "float32", ["n", *weights.shape[1:]])
    return _save(file, nodes, source, _value("logits", "float32", ["n", outputs]), initializers)


def logarithm(file: Path, size: int = 4) -> Path:
    """Write a model that gives NaN for pixels below zero: `input` (n, 3, size, size) to `logits` (n, 3)."""
    from onnx import helper

    nodes = [
        helper.make_node("Log", ["input"], ["log"]),
        helper.make_node("GlobalAveragePool", ["log"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"], axis=1),
    ]
    return _save(file, nodes, _value("input", "float32", ["n", 3, size, size]), _value("logits", "float32", ["n", 3]))


def picky(file: Path, most: int) -> Path:
    """Write `channel_means` of a model that gives NaN for images whose red is over `most`; pixels with mean 0, std 25.5."""
    from onnx import helper, numpy_helper

    constants: dict[str, np.ndarray[Any, Any]] = {
        "most": np.array([(most + 0.5) / 25.5], np.float32),
        "first": np.array([0], np.int64),
        "zero": np.array([0.0], np.float32),
    }
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"], axis=1),
        helper.make_node("Gather", ["means", "first"], ["red"], axis=1),
        helper.make_node("Sub", ["most", "red"], ["left"]),
        helper.make_node("Log", ["left"], ["logarithm"]),
        helper.make_node("Mul", ["logarithm", "zero"], ["doubt"]),  # 0, or NaN
        helper.make_node("Add", ["means", "doubt"], ["logits"]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    source, target = _value("input", "float32", ["n", 3, "h", "w"]), _value("logits", "float32", ["n", 3])
    return _save(file, nodes, source, target, initializers)


def looping(file: Path, start: int, rounds: int) -> Path:
    """Write `channel_means` of a model that takes `rounds` rounds of a loop more for each unit of red above `start`.

    The pixels come as the manifest normalises them: mean 0, std 25.5. A very red image keeps it busy for as long as wanted.
    """
    from onnx import TensorProto, helper, numpy_helper

    constants: dict[str, np.ndarray[Any, Any]] = {
        "scale": np.array([25.5 * rounds], np.float32),
        "offset": np.array([-(start + 0.5) * rounds], np.float32),
        "first": np.array([0], np.int64),
        "zero": np.array([0.0], np.float32),
        "yes": np.array(True),
        "matrix": np.eye(96, dtype=np.float32),
    }
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["on_out"]),
            helper.make_node("MatMul", ["state", "matrix"], ["state_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            _value("state", "float32", [96, 96]),
        ],
        [helper.make_tensor_value_info("on_out", TensorProto.BOOL, []), _value("state_out", "float32", [96, 96])],
    )
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"], axis=1),
        helper.make_node("Gather", ["means", "first"], ["red"], axis=1),
        helper.make_node("ReduceMax", ["red"], ["reddest"], keepdims=0),
        helper.make_node("Mul", ["reddest", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["shifted"]),
        helper.make_node("Max", ["shifted", "zero"], ["positive"]),
        helper.make_node("Cast", ["positive"], ["trips"], to=TensorProto.INT64),
        helper.make_node("Loop", ["trips", "yes", "matrix"], ["ended"], body=body),
        helper.make_node("ReduceMin", ["ended"], ["least"], keepdims=0),  # 0: the loop changes no answer
        helper.make_node("Add", ["means", "least"], ["logits"]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    source, target = _value("input", "float32", ["n", 3, "h", "w"]), _value("logits", "float32", ["n", 3])
    return _save(file, nodes, source, target, initializers)


def _type(dtype: str) -> int:
    from onnx import helper

    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def _value(name: str, dtype: str, shape: Sequence[int | str]) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, _type(dtype), list(shape))


def _save(file: Path, nodes: list[Any], source: Any, target: Any, initializers: Sequence[Any] = ()) -> Path:
    from onnx import helper

    graph = helper.make_graph(nodes, "tiny", [source], [target], list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    file.write_bytes(model.SerializeToString())
    return file
