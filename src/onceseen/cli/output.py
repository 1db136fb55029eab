"""How results are printed: a table for people, one JSON object a line, or CSV; always in input order."""

import csv
import sys
from collections.abc import Iterable
from enum import Enum
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from onceseen.wire.http import Prediction, encode_text

WIDE = 250
"""Columns of a table that no terminal limits: into a file or a pipe, names and reasons are whole."""
CSV_COLUMNS = ("name", "digest", "state", "label", "score", "model", "risk", "found", "error_kind", "error")


class Form(Enum):
    """What the user asked for."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class Result(msgspec.Struct):
    """One item as scripts read it."""

    name: str
    digest: str | None
    state: str
    label: str | None
    score: float | None
    model: str
    predictions: list[Prediction]
    risk: float | None
    found: bool | None
    error: dict[str, str] | None


def progress() -> Progress:
    """A bar on stderr; nothing where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


class Printer:
    """Prints results one by one; a table at the end."""

    def __init__(self, form: Form) -> None:
        self._form = form
        names = Column("name", overflow="fold")
        self._table = Table(names, "answer", Column("score", justify="right"), "reason", box=None, pad_edge=False)
        self._csv = csv.writer(sys.stdout)
        self.succeeded = 0
        self.failed = 0
        if form is Form.CSV:
            self._csv.writerow(CSV_COLUMNS)

    def add(self, result: Result) -> None:
        """Print, or keep for the table."""
        if result.state == "succeeded":
            self.succeeded += 1
        else:
            self.failed += 1
        if self._form is Form.JSON:
            sys.stdout.write(encode_text(result) + "\n")
        elif self._form is Form.CSV:
            self._csv.writerow([cell(value) for value in _row(result)])
        if self._form is not Form.TABLE:
            sys.stdout.flush()  # as they come, also into a pipe
        else:
            score = "" if result.score is None else f"{result.score:.3f}"
            reason = result.error["message"] if result.error else ""
            self._table.add_row(
                Text(result.name), Text(result.label or result.state), Text(score), Text(reason, style="red")
            )

    def close(self) -> None:
        """Everything was added."""
        if self._form is Form.TABLE:
            console = Console(width=None if sys.stdout.isatty() else WIDE)
            console.print(self._table)
            Console(stderr=True).print(
                f"{self.succeeded} answered" + (f", {self.failed} failed" if self.failed else "")
            )
        sys.stdout.flush()


def _row(result: Result) -> Iterable[Any]:
    error = result.error or {}
    found = None if result.found is None else str(result.found).lower()
    return (
        result.name, result.digest, result.state, result.label, result.score, result.model, result.risk, found,
        error.get("kind"), error.get("message"),
    )  # fmt: skip


def cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
