"""How a frame looks on a stream of bytes.

frame = header length (u32, little-endian) | payload length (u32) | header | payload
"""

import struct
from collections.abc import Iterator, Sequence

from onceseen.ports.link import Frame

PREFIX = struct.Struct("<II")
MAX_HEADER = 64 << 20  # bytes
MAX_PAYLOAD = 1 << 30  # bytes


class AbsurdFrameError(ValueError):
    """A peer announced a frame that no program of ours sends."""


class Decoder:
    """Cuts a stream of bytes into frames. A payload is copied once, however many pieces it came in."""

    def __init__(self) -> None:
        self._head = bytearray()  # of the current frame: prefix and header so far
        self._header: bytes | None = None  # set while the payload is collected
        self._parts: list[memoryview] = []  # of the payload
        self._missing = 0  # bytes of the payload

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes, in order.

        Raises:
            AbsurdFrameError: an announced size is over the limits; the stream cannot be read on.
        """
        place = 0
        if self._header is None and not self._head:
            # The common case: whole small frames, answers of workers.
            while (end := frame_end(data, place)) is not None:
                header_end = place + PREFIX.size + sizes(data, place)[0]
                yield Frame(data[place + PREFIX.size : header_end], data[header_end:end])
                place = end
        rest = memoryview(data)[place:]
        while rest:
            if self._header is None:
                rest = self._take_head(rest)
            else:
                taken = rest[: self._missing]
                rest = rest[len(taken) :]
                self._missing -= len(taken)
                self._parts.append(taken)
            if self._complete():
                assert self._header is not None
                frame = Frame(self._header, b"".join(self._parts))
                self._header, self._parts = None, []
                yield frame

    def _complete(self) -> bool:
        return self._header is not None and self._missing == 0

    def _take_head(self, rest: memoryview) -> memoryview:
        """Collect prefix and header; what follows them is left in the returned view."""
        wanted = PREFIX.size
        if len(self._head) >= wanted:
            wanted += sizes(self._head)[0]
        taken = rest[: wanted - len(self._head)]
        self._head += taken
        if len(self._head) == wanted and wanted >= PREFIX.size:
            header_size, payload_size = sizes(self._head)
            if len(self._head) == PREFIX.size + header_size:
                self._header, self._missing = bytes(self._head[PREFIX.size :]), payload_size
                self._head.clear()
        return rest[len(taken) :]


def sizes(prefix: bytes | bytearray, place: int = 0) -> tuple[int, int]:
    """Header and payload length in bytes, checked against the limits."""
    header_size, payload_size = PREFIX.unpack_from(prefix, place)
    if header_size > MAX_HEADER or payload_size > MAX_PAYLOAD:
        raise AbsurdFrameError(f"a frame of {header_size} + {payload_size} bytes")
    return header_size, payload_size


def frame_end(data: bytes, place: int) -> int | None:
    """Where the frame that begins at `place` ends; None when `data` does not hold all of it."""
    if len(data) - place < PREFIX.size:
        return None
    end = place + PREFIX.size + sum(sizes(data, place))
    return end if end <= len(data) else None


def buffers_of(header: bytes, payload: Sequence[bytes]) -> list[bytes]:
    """What goes over the wire for one frame; large parts are not copied."""
    size = sum(map(len, payload))
    if len(header) > MAX_HEADER or size > MAX_PAYLOAD:
        raise ValueError(f"A frame of {len(header)} + {size} bytes is over the link's limit; send it in parts.")
    return [PREFIX.pack(len(header), size) + header, *payload]
