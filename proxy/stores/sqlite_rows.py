"""Rows on their way into the embedded store: many in one statement, what they have in common bound once.

Owns how many rows share a statement. Most of what a row costs here is binding its columns one by one, and rows of
one caller on one route differ in less than half of them: rows alike in the rest go together, in statements of 32,
16, 8, … rows. Knows rows as tuples in the order of ``Row``; the SQL is in ``sql/sqlite``.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import Any, Final

from proxy.core.audit.row import OWN_COLUMNS, Row
from proxy.stores.migrations import statement

_SIZES: Final = (32, 16, 8, 4, 2, 1)
STATEMENTS: Final = len(_SIZES)
"""How many statements a connection should keep for rows."""
_NULL: Final = float("nan")
"""What SQLite stores as NULL; the driver takes ``None`` in five times the time of a number."""

_OWN: Final = Row._fields[:OWN_COLUMNS]
_SHARED: Final = Row._fields[OWN_COLUMNS:]
_BOUND_FIRST: Final = Row._fields.index("cost_usd")
"""From here on a row's own columns are often unknown, or bytes."""

_Values = tuple[Any, ...]


def insert_rows(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Store rows, each once: one that is there already changes only for a later frame of its exchange.

    Raises:
        sqlite3.Error, UnicodeEncodeError, OverflowError: as the driver does; some rows may have been stored.
    """
    bound: defaultdict[int, list[list[Any]]] = defaultdict(list)
    for shared, own in _alike(rows).items():
        start, end = 0, len(own)
        for size in _SIZES:
            step = size * OWN_COLUMNS
            while end - start >= step:
                bound[size].append([*shared, *own[start : start + step]])
                start += step
    for size, values in bound.items():
        connection.executemany(_statement(size), values)


def _alike(rows: Iterable[Row]) -> dict[_Values, list[Any]]:
    """Return shared columns -> the own columns of all rows that have them, one row after the other.

    They are as the driver binds them without asking for adapters first, which takes five times as long.
    """
    alike: dict[_Values, list[Any]] = {}
    known: _Values = ()
    values: list[Any] = []
    for row in rows:
        shared = row[OWN_COLUMNS:]
        if shared != known:
            try:
                values = alike.setdefault(shared, [])
            except TypeError as exc:
                raise sqlite3.InterfaceError("a column of a type that no column has") from exc
            known = shared
        last: _Values = row[_BOUND_FIRST:OWN_COLUMNS]
        cost, first_token, place, seal = last
        values += row[:_BOUND_FIRST]
        values += (
            _NULL if cost is None else cost,
            _NULL if first_token is None else first_token,
            None if place is None else bytearray(place),
            None if seal is None else bytearray(seal),
        )
    return alike


@cache
def _statement(size: int) -> str:
    """Return the statement that stores so many rows."""
    place_of = {name: at for at, name in enumerate(_SHARED, 1)}
    rows = []
    for number in range(size):
        place_of |= {name: at for at, name in enumerate(_OWN, 1 + len(_SHARED) + number * OWN_COLUMNS)}
        rows.append(f"({', '.join(f'?{place_of[name]}' for name in Row._fields)})")
    sql = statement("sqlite", "insert_rows").replace("/*columns*/", ", ".join(Row._fields))
    return sql.replace("/*rows*/", ",\n".join(rows))
