"""Paths as people give them, on the command line and in Python: files, folders and globs."""

import glob
from collections.abc import Iterable
from pathlib import Path

from onceseen.domain.fetch import is_url
from onceseen.domain.names import is_image_name
from onceseen.errors import InvalidRequest


def expand(paths: Iterable[str]) -> list[tuple[str, Path]]:
    """(name, path) of every image, in input order; folders recursive and sorted, image types only; explicit paths always.

    Raises:
        InvalidRequest: a path does not exist, or nothing is left.
    """
    found: list[tuple[str, Path]] = []
    for text in paths:
        path = Path(text)
        if path.is_dir():
            inside = sorted(
                file for file in path.rglob("*") if file.is_file() and is_image_name(str(file.relative_to(path)))
            )
            found += [(str(file), file) for file in inside]
        elif path.exists():
            found.append((text, path))
        elif matches := sorted(glob.glob(text, recursive=True)):  # noqa: PTH207  (absolute patterns too)
            found += expand(matches)
        elif is_url(text):
            raise InvalidRequest(f"{text[:80]!r} is no file; send URLs to a server (`onceseen submit`).")
        else:
            raise InvalidRequest(f"There is no file, folder or match for {text!r}.")
    if not found:
        raise InvalidRequest(
            "There is no image in what was given; folders are searched for .jpg, .png, .tif and the like."
        )
    return found
