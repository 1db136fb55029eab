"""HDF5: the frames of one dataset, each read alone, and nothing outside the file.

    2-D (h, w) ─► one grey frame      3-D (n, h, w) ─► n grey frames      4-D (n, h, w, 3 or 4) ─► n in colour

What a file keeps elsewhere (external links, external storage, virtual datasets) is never opened: a file that somebody sent
could name any file of this machine. Soft links are followed inside the file, and only to the dataset that was asked for.
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, BinaryIO, Final, NamedTuple

import h5py
import numpy as np
from h5py import h5d, h5g, h5l, h5o, h5z
from numpy.typing import NDArray

from onceseen.domain.names import clean_name
from onceseen.errors import ImageError, TooLarge, UnreadableImage, UnsupportedFormat
from onceseen.inference.decode import Decoded, check_pixels, short
from onceseen.inference.hdf5_chunks import Chunks

MEDIA_TYPE = "application/x-hdf5"
SMALLEST = 4
"""Pixels of a side; smaller tables of numbers are no pictures, unless they are asked for by name."""
CACHE_BYTES = 32 << 20
"""Unpacked chunks that are kept, for chunks that hold several frames."""
MAX_CHUNK_BYTES = 512 << 20
MAX_PACKED_BYTES = 8 << 20
"""The same for compression other than gzip, of which nobody can say what it unpacks to before it is unpacked."""
MAX_LINKS, MAX_HOPS, NAMES = 20_000, 32, 10
FILTERS: Final = {
    307: "bzip2",
    32001: "Blosc",
    32004: "LZ4",
    32008: "bitshuffle",
    32013: "ZFP",
    32015: "Zstandard",
    32017: "SZ",
    32018: "FCIDECOMP",
    32019: "JPEG",
    32026: "Blosc2",
    32028: "JPEG 2000",
}
"""Filters of others, by the HDF Group's registry."""


class _Seen(NamedTuple):
    """What the links of a file lead to."""

    pictures: list[str]  # paths of datasets that can be read as pictures
    elsewhere: list[str]  # what lies in other files, each with its reason


class Hdf5Stack:
    """One dataset of an HDF5 file.

    Args:
        stream: the file; it is read where it must be, never as a whole.
        dataset: path of the dataset; without it there must be one that can be read as pictures.

    Attributes:
        count: frames.
        width, height: of each.

    Raises:
        UnreadableImage: the file is damaged, or holds no such dataset.
        UnsupportedFormat: what it holds cannot be read here; several datasets and none chosen.
    """

    def __init__(self, stream: BinaryIO, dataset: str = "") -> None:
        try:
            self._file = h5py.File(stream, "r", rdcc_nbytes=CACHE_BYTES)
            root = self._file.id
            self._dataset = _asked(root, dataset) if dataset else _only(root)
        except (ImageError, MemoryError):
            raise
        except Exception as error:
            raise _damaged(error) from error
        self._chunks = Chunks(self._dataset) if self._dataset.chunks else None
        shape = self._dataset.shape
        self.count = 1 if len(shape) == 2 else shape[0]
        self.height, self.width = shape[:2] if len(shape) == 2 else shape[1:3]

    def frame(self, number: int, max_pixels: int) -> Decoded:
        """One frame.

        Raises:
            TooManyPixels: nothing was read.
            UnreadableImage: it is damaged, or there is none of this number.
        """
        if number >= self.count:
            raise UnreadableImage(f"there is no frame {number}: the dataset has {self.count:,}")
        check_pixels(self.width, self.height, max_pixels)
        try:
            if self._chunks:
                self._chunks.check(number)
            values = self._dataset[()] if len(self._dataset.shape) == 2 else self._dataset[number]
        except (ImageError, MemoryError):
            raise
        except Exception as error:
            raise _damaged(error) from error
        return Decoded(_pixels(values), MEDIA_TYPE, self.width, self.height)


def _pixels(values: NDArray[Any]) -> NDArray[Any]:
    """Values of a dataset in one of the forms of Decoded."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "f":
        floats: NDArray[np.float32] = np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)
        return floats
    if values.ndim == 3 and values.dtype.itemsize == 2:
        values = values >> 8  # as Pillow does it with 16-bit colour
        return values.astype(np.uint8)
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))


def _only(root: h5g.GroupID) -> h5py.Dataset:
    """The one dataset that can be read as pictures."""
    seen = _look_around(root)
    if seen.elsewhere:
        own = f"; or choose one of its own datasets with `dataset`: {_listed(seen.pictures)}" if seen.pictures else ""
        raise UnsupportedFormat(
            f"this HDF5 file keeps data in other files, which are not opened: {_listed(seen.elsewhere)}; "
            f"send those files themselves{own}"
        )
    if not seen.pictures:
        raise UnsupportedFormat(
            "this HDF5 file holds no dataset of pictures: numbers of shape (h, w), (n, h, w) or (n, h, w, 3 or 4), "
            f"with sides of {SMALLEST} pixels at least"
        )
    if len(seen.pictures) > 1:
        raise UnsupportedFormat(
            f"this HDF5 file holds {len(seen.pictures)} datasets of pictures; choose one with `dataset`: "
            f"{_listed(seen.pictures)}"
        )
    return _opened(h5o.open(root, seen.pictures[0].encode()), seen.pictures[0])


def _look_around(root: h5g.GroupID) -> _Seen:
    """All that hard links lead to; other links are noted, not followed. A link that leads back is met once."""
    seen, links = _Seen([], []), 0

    def visit(name: bytes, info: Any) -> bool | None:
        nonlocal links
        links += 1
        if links > MAX_LINKS:
            return True
        path = "/" + name.decode(errors="replace")
        if info.type == h5l.TYPE_EXTERNAL:
            file, _ = root.links.get_val(name)
            seen.elsewhere.append(f"{path} (in {file.decode(errors='replace')})")
        elif info.type == h5l.TYPE_HARD:
            found = h5o.open(root, name)
            if isinstance(found, h5d.DatasetID):
                if where := _outside(found):
                    seen.elsewhere.append(f"{path} ({where})")
                elif _is_picture(found, SMALLEST):
                    seen.pictures.append(path)
        return None

    if root.links.visit(visit, info=True):
        raise UnsupportedFormat(f"this HDF5 file holds more than {MAX_LINKS:,} objects; choose one with `dataset`")
    return seen


def _asked(root: h5g.GroupID, path: str) -> h5py.Dataset:
    """The dataset at a path, link by link, so that none leads out of the file."""
    group, parts, hops = root, deque(part for part in path.split("/") if part), 0
    while parts:
        name = parts.popleft().encode()
        if b"\0" in name or not group.links.exists(name):
            break
        kind = group.links.get_info(name).type
        if kind == h5l.TYPE_SOFT:
            target = group.links.get_val(name).decode(errors="replace")
            hops += 1
            if hops > MAX_HOPS:
                raise UnreadableImage(f"the link {_shown(path)} in the HDF5 file leads round in a circle")
            group = root if target.startswith("/") else group
            parts.extendleft(reversed([part for part in target.split("/") if part not in ("", ".")]))
            continue
        if kind == h5l.TYPE_EXTERNAL:
            file, _ = group.links.get_val(name)
            raise UnsupportedFormat(
                f"{_shown(path)} lies in another file ({_shown(file.decode(errors='replace'))}), which is not opened; "
                "send that file itself"
            )
        found = h5o.open(group, name) if kind == h5l.TYPE_HARD else None
        if isinstance(found, h5d.DatasetID) and not parts:
            return _opened(found, path)
        if not isinstance(found, h5g.GroupID):
            break
        group = found
    around = _look_around(root).pictures
    raise UnreadableImage(
        f"there is no dataset {_shown(path)} in the HDF5 file; of pictures it holds {_listed(around)}"
    )


def _opened(found: h5d.DatasetID, path: str) -> h5py.Dataset:
    """A dataset that can be read.

    Raises:
        UnsupportedFormat: why it cannot.
        TooLarge: a chunk of it would take too much memory.
    """
    if where := _outside(found):
        raise UnsupportedFormat(f"the dataset {_shown(path)} is {where}, which is not opened")
    if not _is_picture(found, 1):
        raise UnsupportedFormat(
            f"the dataset {_shown(path)} is no picture or stack: pictures are numbers of shape (h, w), (n, h, w) or, with "
            f"colours of 8 or 16 bits, (n, h, w, 3 or 4); it is {_kind(found)}"
        )
    made = found.get_create_plist()
    packers = []
    for index in range(made.get_nfilters()):
        code, _, _, name = made.get_filter(index)
        if not h5z.filter_avail(code):
            shown = FILTERS.get(code) or clean_name(name.decode(errors="replace"), "unknown")
            raise UnsupportedFormat(
                f"the dataset {_shown(path)} is compressed with {shown} (HDF5 filter {code}), which cannot be read here; "
                "write it with gzip, or without compression"
            )
        packers += [code] if code not in (h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32) else []
    if len(packers) > 1:
        raise UnsupportedFormat(f"the dataset {_shown(path)} is compressed twice; write it with gzip alone")
    if made.get_layout() == h5d.CHUNKED:
        size = math.prod(made.get_chunk()) * found.dtype.itemsize
        limit = MAX_CHUNK_BYTES if packers in ([], [h5z.FILTER_DEFLATE]) else MAX_PACKED_BYTES
        if size > limit:
            raise TooLarge(
                f"the dataset {_shown(path)} has chunks of {size:,} bytes, over the limit of {limit:,} for its compression; "
                "write it with smaller ones"
            )
    return h5py.Dataset(found)


def _outside(found: h5d.DatasetID) -> str:
    """Where else a dataset keeps its values; empty for one that lies in the file. Asked before its shape is."""
    made = found.get_create_plist()
    if made.get_layout() == h5d.VIRTUAL:
        return "a virtual dataset made of others"
    if made.get_external_count():
        return f"kept in {made.get_external(0)[0].decode(errors='replace')}"
    return ""


def _is_picture(found: h5d.DatasetID, smallest: int) -> bool:
    """Whether values and shape are those of pictures with sides of so many pixels at least."""
    try:
        shape, dtype = found.shape, found.dtype
    except TypeError:  # a type that numpy does not know
        return False
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or 0 in shape:
        return False
    if len(shape) == 4:
        return shape[3] in (3, 4) and dtype.kind == "u" and dtype.itemsize <= 2 and min(shape[1:3]) >= smallest
    return len(shape) in (2, 3) and min(shape[-2:]) >= smallest


def _kind(found: h5d.DatasetID) -> str:
    try:
        return f"{found.dtype} of shape {found.shape}"
    except TypeError:
        return "of another type"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(_shown(name) for name in names[:NAMES])
    return shown + (f" and {len(names) - NAMES} more" if len(names) > NAMES else "") if names else "none"


def _shown(name: str) -> str:
    """A name from a file, fit for a sentence."""
    return clean_name(name)[-200:]


def _damaged(error: Exception) -> UnreadableImage:
    text = short(error)
    if "truncated" in text:
        return UnreadableImage("the HDF5 file ends early: it is cut off")
    if "(" in text:  # "Unable to synchronously open file (bad superblock version number)"
        text = text[text.index("(") + 1 :].rstrip(")")
    return UnreadableImage(f"the HDF5 file is damaged: {text}")
