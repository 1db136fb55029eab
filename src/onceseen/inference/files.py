"""Local files that a worker reads where they lie (RECORD.md 6)."""

import os
import stat
from pathlib import Path

from onceseen.errors import BlobMissing, TooLarge


def opened(path: Path) -> tuple[int, os.stat_result]:
    """A local file's descriptor, to be closed by the caller, and its facts.

    Raises:
        BlobMissing: it is not there, is no file, or cannot be read.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a named pipe must not make us wait
    except FileNotFoundError as error:
        raise BlobMissing(f"{path} is gone; put it back, or submit the image again") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    facts = os.fstat(number)
    if not stat.S_ISREG(facts.st_mode):
        os.close(number)
        raise BlobMissing(f"{path} is not a file; put it back, or submit the image again")
    return number, facts


def read(path: Path, max_bytes: int) -> bytes:
    """The bytes of a local file.

    Raises:
        BlobMissing: as `opened`.
        TooLarge: more than `max_bytes`.
    """
    number, facts = opened(path)
    try:
        check_size(facts.st_size, max_bytes)
        data = os.read(number, facts.st_size + 1)
        if len(data) != facts.st_size:  # it changes while it is read, or is larger than one call gives
            with open(number, "rb", closefd=False) as stream:
                data += stream.read(max_bytes + 1 - len(data))
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(number)
    check_size(len(data), max_bytes)
    return data


def check_size(size: int, max_bytes: int) -> None:
    """Refuse an image by its size.

    Raises:
        TooLarge: over the limit.
    """
    if size > max_bytes:
        raise TooLarge(f"the image has {size:,} bytes, over the limit of {max_bytes:,}; raise `max_image_bytes`")


def _unreadable(path: Path, error: OSError) -> BlobMissing:
    return BlobMissing(f"{path} cannot be read ({error.strerror}); make it readable and retry")
