"""Logs: one named event per state change, ids as fields; on stderr, so that stdout carries results only."""

import logging
import os
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog


class _Stderr:
    """stderr, where nobody reads it any more: a log line that is lost must not stop what was about to happen."""

    def write(self, text: str) -> int:
        try:
            sys.stderr.write(text)
        except (OSError, ValueError):
            silence(sys.stderr)
        return len(text)

    def flush(self) -> None:
        try:
            sys.stderr.flush()
        except (OSError, ValueError):
            silence(sys.stderr)


def silence(stream: TextIO) -> None:
    """Nobody reads a stream any more: what it still holds must not be an error again at the end of the process."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def configure(*, quiet: bool = False, process: str = "") -> None:
    """Set structlog up for this process: readable lines on a terminal, JSON lines elsewhere."""
    terminal = sys.stderr.isatty()
    level = logging.WARNING if quiet else logging.INFO
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr())),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    if process:
        structlog.contextvars.bind_contextvars(process=process)
