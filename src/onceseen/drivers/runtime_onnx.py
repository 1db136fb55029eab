"""ONNX models on the CPU, by ONNX Runtime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from onceseen.errors import InvalidManifest, ModelFailed
from onceseen.ports.runtime import Tensor

_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(uint16)": "uint16",
    "tensor(int16)": "int16",
    "tensor(uint32)": "uint32",
    "tensor(int32)": "int32",
    "tensor(uint64)": "uint64",
    "tensor(int64)": "int64",
}
_ERRORS_ONLY = 3  # log severity


class OnnxRuntime:
    """Loads `.onnx` files, single-threaded: a worker is one process per core."""

    def load(self, file: Path) -> "OnnxSession":
        """Load weights from a local file.

        Raises:
            InvalidManifest: the file is not an ONNX model, or one of a kind that this release cannot run.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        if not file.is_file():
            raise InvalidManifest(f"`file` = {file.name!r} does not exist in {file.parent}; correct the name.")
        try:
            session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no base class
            raise InvalidManifest(f"`file` = {file.name!r} does not load as an ONNX model: {_short(error)}") from error
        return OnnxSession(session)


class OnnxSession:
    """One loaded model, used by one thread."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs: Sequence[Tensor] = [_tensor(node) for node in session.get_inputs()]
        self.outputs: Sequence[Tensor] = [_tensor(node) for node in session.get_outputs()]

    def run(self, inputs: Mapping[str, NDArray[Any]], output: str) -> NDArray[np.float32]:
        """The output for a batch; axis 0 of every array counts images.

        Raises:
            ModelFailed: the model refused the input or broke on it, or is closed.
        """
        if self._session is None:
            raise ModelFailed("the model is closed")
        try:
            (raw,) = self._session.run([output], dict(inputs))
            return np.asarray(raw, np.float32)
        except Exception as error:  # its errors share no base class
            raise ModelFailed(f"the model failed: {_short(error)}") from error

    def close(self) -> None:
        """Free the model's memory. Idempotent."""
        self._session = None


def _tensor(node: Any) -> Tensor:
    shape = tuple(side if isinstance(side, int) and side > 0 else None for side in node.shape)
    return Tensor(node.name, shape, _TYPES.get(node.type, node.type))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
