"""Processes that belong together: signals, and ending with one's supervisor."""

import os
import resource
import signal
import threading
from collections.abc import Callable


def end_with(fd: int) -> None:
    """End this process at once when the other end of a pipe is gone: its supervisor was killed."""

    def wait() -> None:
        while os.read(fd, 1):
            pass
        os._exit(3)

    threading.Thread(target=wait, daemon=True).start()


def on_signal(number: int, act: Callable[[], None]) -> None:
    """Call a function when a signal comes: in the main thread, between any two of its steps, so it must take no lock."""
    signal.signal(number, lambda _number, _frame: act())


def open_files(most: int = 65_536) -> int:
    """Let this process open as many files and connections as the system lets it, up to `most`; how many those are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return most if soft == resource.RLIM_INFINITY else soft
