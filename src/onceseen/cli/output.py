"""How results are printed: a table for people, one JSON object a line, or CSV; always in the order in which they are added."""

import sys
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

from onceseen.wire.http import Result, encode_text
from onceseen.wire.table import CSV_COLUMNS, csv_row, csv_text

if TYPE_CHECKING:
    from rich.progress import Progress

WIDE = 250
"""Columns of a table that no terminal limits: into a file or a pipe, names and reasons are whole."""


class Form(Enum):
    """What the user asked for."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def progress() -> "Progress":
    """A bar on stderr; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

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
    """Prints items one by one (anything with the fields of wire.http.Result); a table at the end.

    Args:
        form: how.
        top: how many predictions of each.
        whole: with all their fields and the place in the record, for lists over many jobs.
        frames: CSV has a last column for the frame of a file.
    """

    def __init__(self, form: Form, top: int | None = None, *, whole: bool = False, frames: bool = False) -> None:
        self._form = form
        self._top = top
        self._whole = whole
        self._frames = frames
        self._rows: list[Sequence[Any]] = []
        self._early: dict[int, Any] = {}
        self.printed = 0
        self.succeeded = 0
        self.failed = 0
        if form is Form.CSV:
            sys.stdout.write(csv_text([(*CSV_COLUMNS, "frame") if frames else CSV_COLUMNS]))

    def add(self, item: Any) -> None:
        """Print, or keep for the table."""
        if item.state == "succeeded":
            self.succeeded += 1
        else:
            self.failed += 1
        if self._form is Form.JSON:
            print_json(item) if self._whole else sys.stdout.write(encode_text(self._result(item)) + "\n")
        elif self._form is Form.CSV:
            row = _row(item)
            sys.stdout.write(csv_text([[*row, _frame(item)] if self._frames else row]))
        else:
            score = "" if item.score is None else f"{item.score:.3f}"
            reason = item.error.message if item.error else ""
            place = (f"{item.job}/{item.n}", item.model) if self._whole else ()
            name = item.name if _frame(item) is None else f"{item.name} [{item.frame}]"
            self._rows.append((name, item.label or item.state, score, *place, reason))
        if self._form is not Form.TABLE:
            sys.stdout.flush()  # as they come, also into a pipe

    def add_at(self, n: int, item: Any) -> None:
        """The same, but in the order of n: kept until all before it are there."""
        self._early[n] = item
        while self.printed in self._early:
            self.add(self._early.pop(self.printed))
            self.printed += 1

    def close(self) -> None:
        """Nothing more comes; what still waited for those before it is left out."""
        if self._form is Form.TABLE:
            place = ("item", "model") if self._whole else ()
            print_table(("name", "answer", "score", *place, "reason"), self._rows)
            note(f"{self.succeeded} answered" + (f", {self.failed} failed" if self.failed else ""))
        sys.stdout.flush()

    def _result(self, item: Any) -> Result:
        if isinstance(item, Result):
            result = item
        else:
            kept = {name: getattr(item, name) for name in Result.__struct_fields__ if name != "frame"}
            result = msgspec.convert(kept, Result, from_attributes=True)
            result.frame = msgspec.UNSET if item.frame is None else item.frame
        result.predictions = result.predictions[: self._top]
        return result


def print_json(record: Any) -> None:
    """One object on one line; `deaths` and `losses` only where there are some."""
    found = msgspec.to_builtins(record)
    for name in ("deaths", "losses"):
        if name in found and found[name] is None:
            del found[name]
    sys.stdout.write(encode_text(found) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on stdout: as wide as the terminal, or as its contents; without a head where all its names are empty."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    right = {"score", "done", "failed", "img/s", "MB", "labels", "ms", "pid"}
    heads = [
        Column(name, justify="right" if name in right else "left", overflow="fold", style="red" * (name == "reason"))
        for name in columns
    ]
    table: Table = Table(*heads, box=None, pad_edge=False, show_header=any(columns))
    for row in rows:
        table.add_row(*(Text("" if value is None else str(value)) for value in row))
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def note(text: str) -> None:
    """A remark for people, on stderr."""
    sys.stderr.write(text + "\n")


def _frame(item: Any) -> int | None:
    """Which frame of a file it is; None where none was asked for."""
    return None if item.frame is msgspec.UNSET else item.frame


def _row(item: Any) -> list[str | float | bool | None]:
    error = (item.error.kind, item.error.message) if item.error else (None, None)
    return csv_row(
        item.name, item.digest, item.state, (item.label, item.score), item.model, (item.risk, item.found), error
    )
