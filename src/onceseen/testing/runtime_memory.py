"""A runtime whose models do what a test tells them."""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceseen.errors import InvalidManifest, ModelFailed
from onceseen.ports.runtime import Tensor

Script = Callable[[NDArray[Any]], NDArray[np.float32]]
"""A batch (n, ...) to raw outputs (n, labels); may raise, sleep, or end the process."""

INPUT = Tensor("input", (None, 3, None, None), "float32")
OUTPUT = Tensor("logits", (None, 3), "float32")
NOT_A_MODEL = b"not a model"
"""A file that begins so is refused."""


def channel_means(batch: NDArray[Any]) -> NDArray[np.float32]:
    """The script unless told otherwise: output n is the mean of channel n."""
    return np.asarray(batch.mean(axis=(2, 3)), np.float32)


def fixed(*scores: float) -> Script:
    """The same raw outputs for every image."""
    return lambda batch: np.tile(np.array(scores, np.float32), (len(batch), 1))


def raising(error: Exception) -> Script:
    """Raise on every run."""

    def script(batch: NDArray[Any]) -> NDArray[np.float32]:
        raise error

    return script


def sleeping(seconds: float, then: Script = channel_means) -> Script:
    """Take at least so long for every run."""

    def script(batch: NDArray[Any]) -> NDArray[np.float32]:
        time.sleep(seconds)
        return then(batch)

    return script


def killing(batch: NDArray[Any]) -> NDArray[np.float32]:
    """End this process as a native crash would: at once, without a word."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


class ScriptedRuntime:
    """Loads any file; its model runs `script`, which may be replaced at any time.

    `batches`: sizes of all runs so far; `closed`: sessions closed so far.
    """

    def __init__(self, script: Script = channel_means, source: Tensor = INPUT, target: Tensor = OUTPUT) -> None:
        self.script, self.source, self.target = script, source, target
        self.batches: list[int] = []
        self.closed = 0

    def load(self, file: Path) -> "ScriptedSession":
        """A session of the script.

        Raises:
            InvalidManifest: there is no such file, or it begins with `NOT_A_MODEL`.
        """
        if not file.is_file() or file.read_bytes().startswith(NOT_A_MODEL):
            raise InvalidManifest(f"`file` = {file.name!r} is not a model; correct the name.")
        return ScriptedSession(self)


class ScriptedSession:
    """One loaded script."""

    def __init__(self, runtime: ScriptedRuntime) -> None:
        self._runtime = runtime
        self._closed = False
        self.inputs: Sequence[Tensor] = [runtime.source]
        self.outputs: Sequence[Tensor] = [runtime.target]

    def run(self, inputs: Mapping[str, NDArray[Any]], output: str) -> NDArray[np.float32]:
        """What the script gives; errors of inputs as a real runtime has them."""
        source = self._runtime.source
        if self._closed or set(inputs) != {source.name} or output != self._runtime.target.name:
            raise ModelFailed("closed, or no such input or output")
        batch = inputs[source.name]
        fits = all(own in (side, None) for side, own in zip(batch.shape, source.shape, strict=False))
        if not fits or batch.ndim != len(source.shape) or batch.dtype.name != source.dtype:
            raise ModelFailed(f"the input {batch.dtype} {batch.shape} is not {source.dtype} {source.shape}")
        self._runtime.batches.append(len(batch))
        return self._runtime.script(batch)

    def close(self) -> None:
        """Idempotent."""
        self._runtime.closed += not self._closed
        self._closed = True
