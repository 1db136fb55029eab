"""How much work one image may be: files of a few kilobytes can ask a decoder for hours.

A worker counts the processor time of each decode and gives an image up after its limit. That reaches decoders that go through
a file in steps (all of Pillow's own); one long call of native code is only seen when it returns, so what is known to make such
calls long is refused by its header.
"""

import signal
from types import FrameType

from onceseen.errors import TooCostly

MAX_SCANS = 100
"""Progressive JPEGs have about ten. Each scan goes over every block of the picture, and an empty one takes no bytes."""
_FRAME = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # markers that begin a frame
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_UNSUSPICIOUS = 1 << 20
"""Bytes of an ordinary JPEG that is not looked through: its scans cost what its bytes cost."""
_limit = 0.0


class _Limited:
    """Ends a decode that takes too long, in the main thread of a process that has asked for it."""

    def __enter__(self) -> None:
        if _limit:
            signal.setitimer(signal.ITIMER_PROF, _limit)

    def __exit__(self, *_: object) -> None:
        if _limit:
            signal.setitimer(signal.ITIMER_PROF, 0.0)


limited = _Limited


def limit(seconds: float) -> None:
    """From now on a decode in this process may take so much processor time; 0: as much as it wants. Main thread only."""
    global _limit  # noqa: PLW0603  (signals belong to the whole process too)
    _limit = seconds
    signal.signal(signal.SIGPROF, _give_up if seconds else signal.SIG_DFL)


def _give_up(_number: int, _frame: FrameType | None) -> None:
    raise TooCostly(
        f"the image takes more than {_limit:g} s of processor time to decode; save it anew, or raise `decode_seconds`"
    )


def check_scans(data: bytes | memoryview) -> None:
    """Refuse a JPEG that goes over its picture again and again.

    Raises:
        TooCostly: it has more than 100 scans.
    """
    marker = _frame_marker(data)
    if marker in _PROGRESSIVE or len(data) > _UNSUSPICIOUS:
        scans = bytes(data).count(b"\xff\xda")
        if scans > MAX_SCANS:
            raise TooCostly(f"the JPEG has {scans:,} scans, over the limit of {MAX_SCANS}; save it anew")


def _frame_marker(data: bytes | memoryview) -> int:
    """The marker that says how the picture is coded; 0 where there is none."""
    at, end = 2, len(data) - 4
    while at < end and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAME:
            return marker
        if marker in (0xDA, 0xD9):
            break
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0
