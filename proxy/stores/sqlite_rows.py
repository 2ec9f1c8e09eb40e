"""Rows on their way into the embedded store: many in one statement, what they have in common bound once.

Owns which columns rows have in common and how many rows share a statement. Most of what a row costs here is
binding its columns one by one, and rows of one caller on one route differ in less than half of them: rows alike
in the rest go together, in statements of 32, 16, 8, … rows. Knows rows as tuples in the order of ``Row``; the SQL
is in ``sql/sqlite``.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from itertools import chain
from typing import Any, Final

from proxy.core.audit.row import Row
from proxy.stores.migrations import statement

_SIZES: Final = (32, 16, 8, 4, 2, 1)
STATEMENTS: Final = len(_SIZES)
"""How many statements a connection should keep for rows."""
_NULL: Final = float("nan")
"""What SQLite stores as NULL; the driver takes ``None`` in five times the time of a number."""

_OWN: Final = (
    "id", "ts", "seq", "user_id", "conversation", "attempts", "request_bytes", "response_bytes", "tokens_in",
    "tokens_out", "tokens_cached", "tokens_reasoning", "cost_usd", "latency_ms", "first_token_ms", "upstream_ms",
    "budget", "hash", "seal",
)  # fmt: skip
"""What is bound for every row, in the order of ``_split``; all the other columns are shared."""
_SHARED: Final = tuple(name for name in Row._fields if name not in _OWN)

_Values = tuple[Any, ...]


def insert_rows(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Store rows, each once: one that is there already changes only for a later frame of its exchange.

    Raises:
        sqlite3.Error, UnicodeEncodeError, OverflowError: as the driver does; some rows may have been stored.
    """
    alike: defaultdict[_Values, list[_Values]] = defaultdict(list)
    for row in rows:
        shared, own = _split(row)
        try:
            alike[shared].append(own)
        except TypeError as exc:
            raise sqlite3.InterfaceError("a column of a type that no column has") from exc
    bound: dict[int, list[_Values]] = {}
    for shared, owns in alike.items():
        start = 0
        for size in _SIZES:
            while len(owns) - start >= size:
                values = (*shared, *chain.from_iterable(owns[start : start + size]))
                bound.setdefault(size, []).append(values)
                start += size
    for size, values_of in bound.items():
        connection.executemany(_statement(size), values_of)


def _split(row: Row) -> tuple[_Values, _Values]:
    """Return the columns of ``_SHARED`` and those of ``_OWN``, these as the driver binds them without asking adapters.

    The numbers are places in ``Row``: a name each would take twice the time of all that is done here.
    """
    cost, first_token, bound, seal = row.cost_usd, row.first_token_ms, row.hash, row.seal
    return (
        (*row[2:4], row[5], *row[8:25], row[32], *row[37:43], *row[44:48], row[49]),
        (
            *row[:2], row[4], *row[6:8], *row[25:32], _NULL if cost is None else cost, row.latency_ms,
            _NULL if first_token is None else first_token, row.upstream_ms, row.budget,
            None if bound is None else bytearray(bound), None if seal is None else bytearray(seal),
        ),
    )  # fmt: skip


@cache
def _statement(size: int) -> str:
    """Return the statement that stores so many rows."""
    rows = []
    for number in range(size):
        place_of = {name: at for at, name in enumerate(_SHARED, 1)}
        place_of |= {name: at for at, name in enumerate(_OWN, 1 + len(_SHARED) + number * len(_OWN))}
        rows.append(f"({', '.join(f'?{place_of[name]}' for name in Row._fields)})")
    return statement("sqlite", "insert_rows").replace("/*rows*/", ",\n".join(rows))
