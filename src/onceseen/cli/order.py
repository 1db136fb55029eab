"""What `classify` was asked, for whoever carries it out."""

from pathlib import Path
from typing import NamedTuple

from onceseen.errors import InvalidRequest


class Order(NamedTuple):
    """(name, path) of each image; a model's name, directory or weights file with keys of its manifest; ...

    `frames`: each frame of a file is answered; `dataset`: of HDF5 files.
    """

    files: list[tuple[str, Path]]
    model: str | None
    sets: dict[str, str]
    fresh: bool
    top: int | None
    frames: bool = False
    dataset: str = ""

    @property
    def model_is_path(self) -> bool:
        """Whether the model is given as a directory or weights file.

        Raises:
            InvalidRequest: it looks like one and is not there, or `--set` goes with a name.
        """
        path = Path(self.model) if self.model else None
        if path is not None and (path.suffix or path.is_dir()) and path.exists():
            return True
        if self.sets:
            raise InvalidRequest(
                "--set goes with a model's directory or weights file; a model that was added has its manifest."
            )
        if path is not None and (path.suffix in (".onnx", ".toml") or "/" in str(path)):
            raise InvalidRequest(f"There is no model at {path}.")
        return False
