from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Tensor(NamedTuple):
    """One input or output of a model. `shape`: None where the model takes any size."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str  # numpy's name: "float32", "uint8", ...


class Session(Protocol):
    """One loaded model, used by one thread."""

    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]

    def run(self, inputs: Mapping[str, NDArray[Any]], output: str) -> NDArray[np.float32]:
        """The output for a batch; axis 0 of every array counts images.

        Raises:
            ModelFailed: the model refused the input or broke on it.
        """

    def close(self) -> None:
        """Free the model's memory. Idempotent."""


class Runtime(Protocol):
    """A library that runs models of one kind."""

    def load(self, file: Path) -> Session:
        """Load weights from a local file, single-threaded: a worker is one process per core.

        Raises:
            InvalidManifest: the file is not a model of this runtime.
        """
