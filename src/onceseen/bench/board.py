"""What the processes of one figure share while they run: a state that the bench sets, and counters that it reads.

A counter has one writer; a number of 8 bytes is written and read in one piece.
"""

import mmap
import time
from pathlib import Path

LOADED, WARM, PAUSED, MEASURED, OVER = range(5)
"""States: models load and wait; work that does not count; none; work that counts; end."""
STATE = 0
DONE, WRONG, FAILED, IDLE = range(1, 5)
"""Counters of the load generator: images answered rightly, wrongly, not at all; 1 while it has nothing to do."""
SLOTS = 512


class Board:
    """Numbers in a file that several processes map.

    Args:
        file: where they lie; made when it is not there yet.
    """

    def __init__(self, file: Path) -> None:
        if not file.exists():
            file.write_bytes(bytes(8 * SLOTS))
        with file.open("r+b") as stream:
            self._map = mmap.mmap(stream.fileno(), 8 * SLOTS)
        self.numbers = memoryview(self._map).cast("q")

    def set(self, state: int) -> None:
        """Tell everybody."""
        self.numbers[STATE] = state

    def wait(self, state: int) -> None:
        """Sleep until the bench has set this state or a later one."""
        while self.numbers[STATE] < state:
            time.sleep(0.001)

    def close(self) -> None:
        """Let go of the file."""
        self.numbers.release()
        self._map.close()
