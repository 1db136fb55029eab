"""Submit, claim and settle are text on the driver's own cursor: SQLAlchemy Core would double their price.

A group's rows travel in statements with many VALUES, because sqlite3's `executemany` drops RETURNING rows. Each has a power of
two of them: so there are few different statements, and they stay prepared. To prepare one costs more than to run it.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

Row = tuple[Any, ...]
STEP = 512  # rows a statement, a power of two: 512 x 19 columns stays below SQLite's 32,766 parameters


Cursor = Any
"""A DB-API cursor (PEP 249): sqlite3's, later psycopg's and PyMySQL's; SQLAlchemy's protocol types fit none of them."""


@lru_cache(maxsize=2048)
def _with_values(sql: str, rows: int, columns: int) -> str:
    return sql.replace(":values", ",".join(["(" + ",".join("?" * columns) + ")"] * rows))


@lru_cache(maxsize=2048)
def _with_list(sql: str, count: int) -> str:
    return sql.replace(":list", ",".join("?" * count))


def each_step(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The rows in groups of powers of two, large ones first."""
    start = 0
    while left := len(rows) - start:
        size = min(STEP, 1 << (left.bit_length() - 1))
        yield rows[start : start + size]
        start += size


class Statements:
    """What the nouns share: a cursor and two ways to hand it many rows."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor

    def _all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        self._cursor.execute(sql, parameters)
        return list(self._cursor.fetchall())

    def _one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        self._cursor.execute(sql, parameters)
        row: Row | None = self._cursor.fetchone()
        return row

    def _values(self, sql: str, rows: Sequence[Sequence[Any]], *, returns: bool = False) -> list[Row]:
        """Run a statement whose `:values` stands for the rows; with `returns`, what it returned."""
        found: list[Row] = []
        for group in each_step(rows):
            self._cursor.execute(
                _with_values(sql, len(group), len(group[0])), [value for row in group for value in row]
            )
            if returns:
                found += self._cursor.fetchall()
        return found

    def _among(
        self, sql: str, values: Sequence[Any], before: Sequence[Any] = (), after: Sequence[Any] = ()
    ) -> list[Row]:
        """Run a statement whose `:list` stands for the values, with parameters before and after them; what it returned."""
        found: list[Row] = []
        for start in range(0, len(values), STEP):
            group = list(values[start : start + STEP])
            group += group[-1:] * ((1 << (len(group) - 1).bit_length()) - len(group))  # what stands twice is found once
            self._cursor.execute(_with_list(sql, len(group)), [*before, *group, *after])
            found += self._cursor.fetchall()
        return found
