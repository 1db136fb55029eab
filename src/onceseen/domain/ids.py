"""UUIDv7 (RFC 9562): ids that sort by the time they were made. In the standard library from Python 3.14 on."""

import random
import threading
import time
from uuid import UUID

_lock = threading.Lock()
_last = 0
DAY_MS = 86_400_000


def new_id() -> bytes:
    """A new UUIDv7 as 16 bytes, greater than every one this process made before: queues are first in, first out."""
    global _last  # noqa: PLW0603  (the one counter that makes ids of one process monotonic)
    with _lock:
        # 48 bits of milliseconds, then 12 bits that count on within the millisecond (4096 before it borrows the next).
        _last = max(_last + 1, (time.time_ns() // 1_000_000) << 12)
        stamp = _last
    milliseconds, count = stamp >> 12, stamp & 0xFFF
    head = (milliseconds << 16 | 0x7000 | count).to_bytes(8, "big")
    tail = (
        random.getrandbits(62) | 0x8000_0000_0000_0000
    )  # to be unique, not secret; a system call would cost more than all else
    return head + tail.to_bytes(8, "big")


def go_on_after(identifier: bytes) -> None:
    """Make every later id of this process greater than one of an earlier process, though the clock was set back since.

    An id more than a day ahead was made by a clock that was wrong: it does not count, or all times in ids were wrong for good.
    """
    global _last  # noqa: PLW0603  (see new_id)
    head = int.from_bytes(identifier[:8], "big")
    stamp = (head >> 16) << 12 | head & 0xFFF
    with _lock:
        if stamp < (time.time_ns() // 1_000_000 + DAY_MS) << 12:
            _last = max(_last, stamp)


def first_id_of(milliseconds: int) -> bytes:
    """The smallest id of a millisecond since 1970: ids sort by the time they were made."""
    return min(max(milliseconds, 0), (1 << 48) - 1).to_bytes(6, "big") + bytes(10)


def text_of(identifier: bytes) -> str:
    """The id as people see it: `0199...-....-7...-....-............`."""
    digits = identifier.hex()  # four times as fast as str(UUID(...)), and every answer holds several
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def parse_id(text: str) -> bytes | None:
    """The 16 bytes of an id in text, with or without hyphens; None when it is not one."""
    try:
        return UUID(text).bytes
    except ValueError:
        return None


def now() -> int:
    """Microseconds since 1970, UTC: the time of every row (RECORD.md 1.7)."""
    return time.time_ns() // 1000
