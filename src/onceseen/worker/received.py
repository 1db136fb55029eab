"""What a link brings, as images: bytes, local files, and frames of files that stay here between messages."""

from collections import OrderedDict
from pathlib import Path

from onceseen.inference.run import Image
from onceseen.inference.stacks import File, Frame, LocalFile
from onceseen.wire import link as wire
from onceseen.wire.shelf import FILES, Shelf


class Received:
    """Belongs to the thread that reads the link, for the time of one connection; the images go to the one that works.

    Args:
        max_bytes: of one image.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._shelf: Shelf[File] = Shelf()
        self._local: OrderedDict[str, LocalFile] = OrderedDict()

    def batch(self, batch: wire.Batch, payload: bytes) -> list[Image]:
        """The images of a batch, in order."""
        images: list[Image] = []
        view, place = memoryview(payload), 0
        for image in batch.images:
            data = view[place : place + image.size]
            place += image.size
            whole = image.frame is None and not image.dataset
            if image.path:
                path = Path(image.path)
                images.append(path if whole else Frame(self._at(image.path), image.frame or 0, image.dataset))
            elif image.file:
                images.append(Frame(self._file(image.file, data, payload), image.frame or 0, image.dataset))
            else:
                images.append(data if whole else Frame(File(bytes(data)), image.frame or 0, image.dataset))
        return images

    def looked_at(self, look: wire.Look, payload: bytes) -> bytes | Frame:
        """The image of a look."""
        frame, dataset = look.frame or 0, look.dataset
        if look.path:
            return Frame(self._at(look.path), frame, dataset)
        if look.file:
            return Frame(self._file(look.file, memoryview(payload), payload), frame, dataset)
        return payload if look.frame is None and not dataset else Frame(File(payload), frame, dataset)

    def forget(self) -> None:
        """Nobody has asked for these files for a while."""
        self._shelf.clear()
        self._local.clear()

    def _file(self, digest: bytes, data: memoryview, payload: bytes) -> File:
        if data.nbytes:
            # a copy only where the payload holds more than the file, which would be kept with it
            self._shelf.put(digest, data.nbytes, File(payload if data.nbytes == len(payload) else bytes(data)))
        return self._shelf.take(digest)

    def _at(self, path: str) -> LocalFile:
        file = self._local.pop(path, None) or LocalFile(Path(path), self._max_bytes)
        self._local[path] = file
        while len(self._local) > FILES:
            self._local.popitem(last=False)
        return file
