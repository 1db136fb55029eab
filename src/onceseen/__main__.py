"""`onceseen`, and the same as `python -m onceseen`."""

import signal
import sys

RUNS = ("up", "server", "worker")
"""Verbs that run until they are told to end: however early that is, it is no failure."""


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] and sys.argv[1] in RUNS:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: sys.exit(0))
    from onceseen.cli.main import main as run  # half a second in which a signal may come

    run()


if __name__ == "__main__":
    main()
