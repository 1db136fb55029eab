"""Items as rows of CSV: the columns that the command line and the server share, and cells that are safe in a spreadsheet."""

import csv
import io
from collections.abc import Iterable, Sequence

CSV_COLUMNS = ("name", "digest", "state", "label", "score", "model", "risk", "found", "error_kind", "error")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

Value = str | float | bool | None


def csv_row(
    name: str,
    digest: str | None,
    state: str,
    answer: tuple[str | None, float | None],
    model: str,
    find: tuple[float | None, bool | None],
    error: tuple[str | None, str | None],
) -> list[Value]:
    """The cells of one item: `answer` is (label, score), `find` (risk, found), `error` (kind, message)."""
    risk, found = find
    shown = None if found is None else str(found).lower()
    return [cell(value) for value in (name, digest, state, *answer, model, risk, shown, *error)]


def csv_text(rows: Iterable[Sequence[Value]]) -> str:
    """Lines of CSV (RFC 4180)."""
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


def cell(value: Value) -> Value:
    """A cell that no spreadsheet takes for a formula: names come from strangers. An apostrophe before it makes it text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
