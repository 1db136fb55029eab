from collections import OrderedDict


class ImageCache:
    """Images of queued tasks in memory, by digest, so that a lease need not read them; the oldest make room."""

    def __init__(self, room: int) -> None:
        self._room = room  # bytes
        self._images: OrderedDict[bytes, bytes] = OrderedDict()
        self._size = 0

    def keep(self, digest: bytes, data: bytes) -> None:
        """Keep an image until it is taken."""
        if digest in self._images:
            return
        self._images[digest] = data
        self._size += len(data)
        while self._size > self._room and self._images:
            _, gone = self._images.popitem(last=False)
            self._size -= len(gone)

    def take(self, digest: bytes) -> bytes | None:
        """Take an image out; None when it is not there."""
        data = self._images.pop(digest, None)
        if data is not None:
            self._size -= len(data)
        return data
