"""What a worker process may take from its machine; a foreign file decides about none of it.

Memory is bounded by RLIMIT_DATA, which counts what is really written to: RLIMIT_AS would count the models' mapped weights too.
What goes beyond fails in the decoder's allocation, so the image fails with its reason and the process lives on.
"""

import ctypes
import resource
import sys
from pathlib import Path

PER_PIXEL, PER_BYTE = 10, 3
"""Of the default: a decoder's own copy and ours of the largest picture allowed; its file, and two that wait behind it."""
_PR_SET_NO_NEW_PRIVS = 38


def default_memory(max_pixels: int, max_bytes: int) -> int:
    """Bytes for the largest image that the limits let in."""
    return PER_PIXEL * max_pixels + PER_BYTE * max_bytes


def harden() -> None:
    """No core files, which would hold people's pictures; no new rights by any program that is started from here."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


class Memory:
    """The bound on this process's memory: what it has now and `more` bytes. It does nothing where the kernel cannot tell.

    Models count as what it has: the bound is lifted while one is loaded and set again behind it.
    """

    def __init__(self, more: int) -> None:
        self._more = more
        self._hard = resource.getrlimit(resource.RLIMIT_DATA)[1]

    def lift(self) -> None:
        """Let a model take what it needs."""
        resource.setrlimit(resource.RLIMIT_DATA, (self._hard, self._hard))

    def bound(self) -> None:
        """From now on no more than `more` bytes beyond what there is now."""
        taken = _taken()
        if taken is None or not self._more:
            return
        bound = taken + self._more
        if self._hard != resource.RLIM_INFINITY:
            bound = min(bound, self._hard)
        resource.setrlimit(resource.RLIMIT_DATA, (bound, self._hard))


def _taken() -> int | None:
    """Bytes that count for RLIMIT_DATA now; None where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:")), None)
