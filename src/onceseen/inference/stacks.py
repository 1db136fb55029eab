"""Files that hold several pictures: how many, and each of them alone.

    TIFF, GIF, WebP, PNG, AVIF ─► their pages or frames (Pillow)
    HDF5 ─► the frames of one dataset (hdf5.py)
    all others ─► one

A file stays open between its frames, so that the next one is read from where the last one ended.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from PIL import Image

from onceseen.errors import ImageError, TooLarge, TooManyPixels, UnreadableImage
from onceseen.inference import files
from onceseen.inference.decode import Decoded, damaged, decode, loaded, open_picture, quiet, short
from onceseen.inference.sniff import HEAD, is_hdf5, may_hold_frames

PIXELS_PER_BYTE = 4000
FREE_PIXELS = 1 << 30
"""A file may promise so many pixels in all its frames, and PIXELS_PER_BYTE for each of its bytes; no compression reaches that."""
LEAST_FRAME = 8  # bytes; no format has a smaller one


class Stack(Protocol):
    """An opened file."""

    count: int
    width: int
    height: int

    def frame(self, number: int, max_pixels: int) -> Decoded:
        """One frame, upright. Raises ImageError."""


class Pages:
    """Pages of a TIFF, frames of an animation, as Pillow composes them."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        with quiet():
            self._name, self._image = open_picture(stream)
            try:
                self.count = int(getattr(self._image, "n_frames", 1))
                if self._name == "PNG" and self.count > 1:  # it is only what the file says of itself
                    place = stream.tell()
                    stream.seek(0)
                    drawn = stream.read().count(b"fcTL") + bool(self._image.info.get("default_image"))
                    stream.seek(place)
                    self.count = min(self.count, drawn)
            except Exception as error:
                raise damaged(self._name, error) from error
        self.width, self.height = self._image.size
        if self.count > 1 + size // LEAST_FRAME:
            raise UnreadableImage(
                f"the {self._name} is damaged: it says that it has {self.count:,} frames in {size:,} bytes"
            )

    def frame(self, number: int, max_pixels: int) -> Decoded:
        """One frame. The one after the last costs least: animations are drawn frame upon frame."""
        with quiet():
            try:
                if number < self._image.tell() and self._name != "TIFF":
                    self._stream.seek(0)  # begun anew: not every reader finds back to its beginning
                    self._image = open_picture(self._stream)[1]
                self._image.seek(number)
            except EOFError as error:
                raise UnreadableImage(f"there is no frame {number}: the {self._name} has {self.count:,}") from error
            except Image.DecompressionBombError as error:
                raise TooManyPixels from error
            except MemoryError:
                raise
            except Exception as error:
                raise damaged(self._name, error) from error
            return loaded(self._image, self._name, max_pixels)


class File:
    """A file whose frames are asked for one by one. Not for threads.

    Attributes:
        digest: SHA-256 of its bytes, where it was read here.
        size: bytes.
    """

    def __init__(self, data: bytes) -> None:
        self.digest = b""
        self.size = len(data)
        self._data = data
        self._open: tuple[str, Stack, BinaryIO] | None = None  # dataset, what was opened, and from where

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Release what is open; the next frame opens it anew. Idempotent."""
        if self._open is not None:
            stream, self._open = self._open[2], None
            stream.close()

    def count(self, dataset: str, limit: int) -> tuple[int, int, int]:
        """(frames, width, height); of pages of several sizes that of the first.

        Raises:
            ImageError: it is damaged, or cannot be read here.
            TooLarge: more frames than `limit`.
            TooManyPixels: it promises more than its bytes can hold.
        """
        with _reading():
            stack = self._stack(dataset)
        if stack.count > limit:
            raise TooLarge(f"the file has {stack.count:,} frames, over the limit of {limit:,}; send it in parts")
        pixels = stack.count * stack.width * stack.height
        if pixels > FREE_PIXELS + PIXELS_PER_BYTE * self.size:
            raise TooManyPixels(
                f"the file promises {stack.count:,} frames of {stack.width} x {stack.height} pixels in {self.size:,} bytes; "
                "frames that were never written are not read"
            )
        return stack.count, stack.width, stack.height

    def frame(self, number: int, dataset: str, max_pixels: int) -> Decoded:
        """One frame.

        Raises:
            ImageError: it is damaged, too large, or not there.
        """
        try:
            with _reading():
                if not self._holds_frames():
                    return self._single(number, max_pixels)
                return self._stack(dataset).frame(number, max_pixels)
        except ImageError:
            self.close()  # the next frame begins anew
            raise

    def _head(self) -> bytes:
        return self._data

    def _stream(self) -> BinaryIO:
        return io.BytesIO(self._data)

    def _holds_frames(self) -> bool:
        return self._open is not None or may_hold_frames(self._head())

    def _single(self, number: int, max_pixels: int) -> Decoded:
        if number:
            raise UnreadableImage(f"there is no frame {number}: the file has one picture")
        with self._stream() as stream:
            return decode(stream.read(), max_pixels)

    def _stack(self, dataset: str) -> Stack:
        if self._open is None or self._open[0] != dataset:
            self.close()
            stream = self._stream()
            try:
                self._open = dataset, _opened(stream, self.size, dataset, is_hdf5(self._head())), stream
            except BaseException:
                stream.close()
                raise
        return self._open[1]


class LocalFile(File):
    """A file of this machine, read where it must be: a dataset may be larger than memory.

    `count` and `frame` raise BlobMissing where it is gone, and TooLarge over `max_bytes` if it is no HDF5. A file that
    changes is opened and digested anew.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        super().__init__(b"")
        self._path = path
        self._max_bytes = max_bytes
        self._facts: tuple[int, ...] = ()
        self._first = b""

    def count(self, dataset: str, limit: int) -> tuple[int, int, int]:
        """See File."""
        self._look_again()
        return super().count(dataset, limit)

    def frame(self, number: int, dataset: str, max_pixels: int) -> Decoded:
        """See File."""
        self._look_again()
        return super().frame(number, dataset, max_pixels)

    def _look_again(self) -> None:
        number, found = files.opened(self._path)
        with os.fdopen(number, "rb") as stream:
            facts = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
            if facts == self._facts:
                return
            self.close()
            self._facts, self.digest = (), b""
            self._first, self.size = stream.read(HEAD), found.st_size
            if not is_hdf5(self._first):
                files.check_size(self.size, self._max_bytes)
            stream.seek(0)
            self.digest, self._facts = hashlib.file_digest(stream, "sha256").digest(), facts

    def _head(self) -> bytes:
        return self._first

    def _stream(self) -> BinaryIO:
        return os.fdopen(files.opened(self._path)[0], "rb")


class Frame(NamedTuple):
    """One frame of a file, or the whole of one that holds a single picture."""

    file: File
    number: int = 0
    dataset: str = ""

    def decoded(self, max_pixels: int) -> Decoded:
        """Its pixels. Raises ImageError."""
        return self.file.frame(self.number, self.dataset, max_pixels)


def first(data: bytes | memoryview, max_pixels: int) -> Decoded:
    """The picture that stands for a file: its only one, or its first frame. Raises ImageError as `decode` does."""
    if is_hdf5(data):
        return File(bytes(data)).frame(0, "", max_pixels)
    return decode(data, max_pixels)


def _opened(stream: BinaryIO, size: int, dataset: str, hdf5: bool) -> Stack:
    if not hdf5:
        return Pages(stream, size)
    from onceseen.inference.hdf5 import Hdf5Stack  # a worker that sees no HDF5 does not load its library

    return Hdf5Stack(stream, dataset)


@contextmanager
def _reading() -> Iterator[None]:
    """What is raised while a file is read, as the error of an image."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise TooManyPixels("the file needs more memory than there is to read it") from error
    except Exception as error:
        raise UnreadableImage(f"the file is damaged: {short(error)}") from error
