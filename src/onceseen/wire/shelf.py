"""Files that stay at the worker's end of a link, so that a stack travels once and not with each of its frames.

Both ends keep a shelf. The server puts and takes in the order in which it sends, the worker in the order in which it receives,
so that both always know the same files.
"""

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")

FILES = 2
BYTES = 64 << 20
"""Of all files but the one used last: a single large one always has room."""


class Shelf(Generic[T]):
    """The files used last, by digest: at the server their sizes are enough, at the worker there is what is kept of them."""

    def __init__(self) -> None:
        self._files: OrderedDict[bytes, tuple[int, T]] = OrderedDict()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._files

    def __len__(self) -> int:
        return len(self._files)

    def put(self, digest: bytes, size: int, kept: T) -> None:
        """A file has come, of so many bytes; those used longest ago make room."""
        self._files[digest] = size, kept
        self._files.move_to_end(digest)
        while len(self._files) > 1 and (len(self._files) > FILES or self._bytes() > BYTES):
            self._files.popitem(last=False)

    def take(self, digest: bytes) -> T:
        """A file that is here; it counts as used. Raises KeyError: it is not."""
        self._files.move_to_end(digest)
        return self._files[digest][1]

    def clear(self) -> None:
        """Forget all."""
        self._files.clear()

    def _bytes(self) -> int:
        """Of all but the one used last."""
        *others, _ = self._files.values()
        return sum(size for size, _ in others)
