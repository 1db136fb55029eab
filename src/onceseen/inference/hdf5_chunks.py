"""Chunks of an HDF5 dataset, looked at before the library unpacks them: it unpacks whatever there is, without any limit."""

import math
import zlib
from itertools import product

import h5py
from h5py import h5z

from onceseen.errors import TooLarge, UnreadableImage

MAX_CHUNKS = 50_000  # of one frame
HARMLESS_BYTES = 32 << 20
BEST_DEFLATE = 1032  # to one: more is not possible
PIECE = 1 << 20


class Chunks:
    """The chunks of one dataset, which has no filter but shuffle, a checksum and one that packs."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset.id
        self._shape, self._chunk = dataset.shape, dataset.chunks
        self._size = math.prod(self._chunk) * dataset.dtype.itemsize
        made = dataset.id.get_create_plist()
        self._filters = [made.get_filter(index)[0] for index in range(made.get_nfilters())]
        self._checked: set[tuple[int, ...]] = set()

    def check(self, number: int) -> None:
        """Look at what one frame lies in.

        Raises:
            TooLarge: it is cut into too many pieces.
            UnreadableImage: a chunk holds more than it says.
        """
        pieces = [range(0, extent, step) for extent, step in zip(self._shape, self._chunk, strict=True)]
        if len(self._shape) > 2:
            first = number - number % self._chunk[0]
            pieces[0] = range(first, first + 1)
        if math.prod(map(len, pieces)) > MAX_CHUNKS:
            raise TooLarge(f"a frame is cut into more than {MAX_CHUNKS:,} chunks; write the dataset with larger ones")
        if not self._filters:
            return
        offsets = set(product(*pieces))
        for offset in offsets - self._checked:
            self._check_one(offset)
        self._checked = offsets  # the next frame may lie in the same

    def _check_one(self, offset: tuple[int, ...]) -> None:
        info = self._dataset.get_chunk_info_by_coord(offset)
        if info.byte_offset is None:
            return
        is_large = info.size > self._size + self._size // 8 + 4096  # what cannot be packed may grow a little
        if is_large or (self._is_deflated(info.filter_mask) and not self._unpacks(info.size, offset)):
            raise UnreadableImage("the HDF5 file is damaged: a chunk holds more than it says")

    def _is_deflated(self, skipped: int) -> bool:
        return any(code == h5z.FILTER_DEFLATE and not skipped >> index & 1 for index, code in enumerate(self._filters))

    def _unpacks(self, size: int, offset: tuple[int, ...]) -> bool:
        """Whether a deflated chunk has no more than its size; unpacked in pieces that are thrown away, where it matters."""
        if size * BEST_DEFLATE <= HARMLESS_BYTES:
            return True
        _, packed = self._dataset.read_direct_chunk(offset)
        unpacker, left = zlib.decompressobj(), self._size
        while packed and not unpacker.eof:
            left -= len(unpacker.decompress(packed, PIECE))
            if left < 0:
                return False
            packed = unpacker.unconsumed_tail
        return True
