"""Images as a program gives them, and the body of the request that they become.

A body is made anew for each try: files are opened again, file objects are rewound. Nothing is in memory as a whole that was
not there before.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias, cast
from uuid import uuid4

import msgspec

from onceseen.client.paths import expand
from onceseen.domain.fetch import is_url
from onceseen.errors import InvalidRequest

PIECE = 1 << 20
SPOOL_BYTES = 8 << 20

Data: TypeAlias = bytes | bytearray | memoryview | BinaryIO
Image: TypeAlias = str | os.PathLike[str] | Data | tuple[str, Data]
"""A path (of a file or a folder), a URL (text with http:// or https://), bytes, an open binary file, or (name, one of the two)."""

Body: TypeAlias = Callable[[], Iterator[bytes]]


class Source(NamedTuple):
    """One image: its name, and its bytes in pieces, as often as they are asked for; or the URL that the server fetches."""

    name: str
    pieces: Body
    url: str = ""


def gather(images: Any, copies: ExitStack) -> list[Source]:
    """Every image in what was given (one Image or an iterable of them), in its order.

    Streams that cannot be rewound are copied; the copies are there until `copies` ends.

    Raises:
        InvalidRequest: a path does not exist, nothing is left, or something is no image in any of the known forms.
    """
    given = [images] if _is_one(images) or not isinstance(images, Iterable) else list(images)
    found: list[Source] = []
    for number, image in enumerate(given):
        found += _sources(image, "image" if len(given) == 1 else f"image-{number}", copies)
    if not found:
        raise InvalidRequest(
            "No image was given: give paths, folders, URLs, bytes, (name, bytes) or open binary files."
        )
    return found


def body_of(sources: list[Source]) -> tuple[dict[str, str], dict[str, str], Body]:
    """(query, headers, body) of a submission: URLs as a list, one image as it is, else a form."""
    if all(source.url for source in sources):
        listed = msgspec.json.encode({"urls": [source.url for source in sources]})
        return {}, {"content-type": "application/json"}, _kept(listed)
    if len(sources) == 1:
        return {"filename": _text(sources[0].name)}, {"content-type": "application/octet-stream"}, sources[0].pieces
    boundary = uuid4().hex
    return {}, {"content-type": f"multipart/form-data; boundary={boundary}"}, lambda: _form(sources, boundary)


def file_pieces(path: Path) -> Iterator[bytes]:
    """A file's bytes, read as they are sent.

    Raises:
        InvalidRequest: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            while piece := stream.read(PIECE):
                yield piece
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read ({error.strerror}); nothing was submitted.") from error


def _is_one(images: Any) -> bool:
    if isinstance(images, tuple):
        return len(images) == 2 and isinstance(images[0], str) and _is_data(images[1])
    return isinstance(images, str | os.PathLike) or _is_data(images)


def _is_data(value: Any) -> bool:
    return isinstance(value, bytes | bytearray | memoryview) or hasattr(value, "read")


def _sources(image: Any, name: str, copies: ExitStack) -> list[Source]:
    if isinstance(image, str) and is_url(image):
        url = _text(image)
        return [Source(url, _kept(url.encode()), url)]
    if isinstance(image, str | os.PathLike):
        return [Source(text, _opened(path)) for text, path in expand([os.fspath(image)])]
    if isinstance(image, tuple) and _is_one(image):
        name, image = image
    elif hasattr(image, "read"):
        name = image.name if isinstance(getattr(image, "name", None), str) else name
    if not _is_data(image):
        raise InvalidRequest(
            f"{type(image).__name__} is no image that can be sent; give a path, the bytes of an encoded image "
            "(PNG, JPEG, TIFF ...), (name, bytes) or an open binary file."
        )
    return [Source(name, _rewound(image, copies) if hasattr(image, "read") else _kept(bytes(image)))]


def _opened(path: Path) -> Body:
    return lambda: file_pieces(path)


def _kept(data: bytes) -> Body:
    return lambda: iter([data])


def _rewound(stream: BinaryIO, copies: ExitStack) -> Body:
    """From where the stream stands now; one that cannot be rewound is copied, to the disk if it is large."""
    if not (hasattr(stream, "seekable") and stream.seekable()):
        copy = copies.enter_context(tempfile.SpooledTemporaryFile(SPOOL_BYTES))  # noqa: SIM115  (it is one)
        shutil.copyfileobj(stream, copy)
        copy.seek(0)
        stream = cast("BinaryIO", copy)
    start = stream.tell()

    def pieces() -> Iterator[bytes]:
        stream.seek(start)
        while piece := stream.read(PIECE):
            if not isinstance(piece, bytes):
                raise InvalidRequest(f"{stream!r} gives text; open the file in binary mode ('rb').")
            yield piece

    return pieces


def _form(sources: list[Source], boundary: str) -> Iterator[bytes]:
    for source in sources:
        if source.url:
            yield f'--{boundary}\r\nContent-Disposition: form-data; name="urls"\r\n\r\n{source.url}\r\n'.encode()
            continue
        name = _text(source.name).replace("\\", "/").replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        yield f'--{boundary}\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\n'.encode()
        yield b"Content-Type: application/octet-stream\r\n\r\n"
        yield from source.pieces()
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _text(name: str) -> str:
    """A name that can be sent: bytes of a file name that are no UTF-8 are replaced."""
    return name.encode(errors="replace").decode()
