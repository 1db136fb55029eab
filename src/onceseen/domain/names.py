"""Names that people give to images: what is kept of them, and which files of a folder are images."""

from pathlib import PurePath

MAX_NAME = 1000
IMAGE_SUFFIXES = frozenset(
    [
        *(".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".j2k", ".jpe", ".jpeg", ".jpg"),
        *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
        *(".apng", ".h5", ".hdf5", ".nxs"),
    ]
)
HIDDEN_FOLDERS = frozenset({"__MACOSX"})


def clean_name(name: str, fallback: str = "image") -> str:
    """A name as the record keeps it: one line of text without control characters, at most 1,000 characters, its end kept."""
    if name.isprintable() and len(name) <= MAX_NAME:
        return name.strip() or fallback
    text = "".join(
        character if character.isprintable() else "\ufffd" for character in name.encode(errors="replace").decode()
    )
    text = text.strip()
    if len(text) > MAX_NAME:
        text = "\u2026" + text[-(MAX_NAME - 1) :]
    return text or fallback


def dataset_name(path: str) -> str:
    """The path of a dataset in one form: `entry/data/` is `/entry/data`; empty for none."""
    parts = [part for part in path[:MAX_NAME].split("/") if part not in ("", ".")]
    return "".join(f"/{part}" for part in parts)


def is_image_name(name: str) -> bool:
    """Whether a file of a folder or archive is taken: by its suffix; hidden files are not."""
    path = PurePath(name)
    hidden = any(part.startswith(".") or part in HIDDEN_FOLDERS for part in path.parts)
    return not hidden and path.suffix.lower() in IMAGE_SUFFIXES
