"""Rows sharing statements: whatever they have in common, each must come back as it went in."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.audit.payload import encode_end
from proxy.core.audit.row import CLAIMS, JSON_COLUMNS, Row, Stamp, merge
from proxy.stores.migrations import migrations
from proxy.stores.sqlite_rows import insert_rows
from proxy.stores.sqlite_sink import split_statements
from tests.support.audit import typical_exchange

_COLUMNS = ", ".join(Row._fields)
_TIMES = ("cost_usd", "latency_ms", "first_token_ms", "upstream_ms")
_COUNTS = ("response_bytes", "tokens_in", "tokens_out", "tokens_cached", "tokens_reasoning")


def store() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for step in migrations("sqlite"):
        for part in split_statements(step.sql):
            connection.execute(part)
    return connection


def stored(connection: sqlite3.Connection) -> dict[str, Row]:
    rows = [Row(*values) for values in connection.execute(f"SELECT {_COLUMNS} FROM audit")]
    return {row.id: row for row in rows}


def row(number: int, **changes: Any) -> Row:
    return merge(None, encode_end(typical_exchange(number)), Stamp("w", 1, number))._replace(**changes)


def values_of(name: str) -> st.SearchStrategy[Any]:
    """Few values of each column, so that some rows are alike and some are not."""
    if name in _TIMES:
        return st.sampled_from((None, 0.0, 1.5, 1e-9))
    if name in _COUNTS:
        return st.sampled_from((None, 0, 7, 2**62))
    if name in CLAIMS:
        return st.sampled_from((0, 1))
    if name in {"hash", "seal"}:
        return st.sampled_from((None, b"", b"\x00\xff" * 16))
    if name == "subject":
        return st.sampled_from((None, "s"))
    if name in JSON_COLUMNS:
        return st.sampled_from(("{}", '{"a":1}'))
    typical = getattr(row(1), name)
    return st.sampled_from((typical, 3 if isinstance(typical, int) else 'á"\t 🙂'))


@given(st.lists(st.fixed_dictionaries({}, optional={n: values_of(n) for n in Row._fields[3:]}), max_size=70))
def test_rows_come_back_as_they_went_in(changes: list[dict[str, Any]]) -> None:
    """A column of one row bound for another would be a lie that no chain finds before the store has it."""
    rows = [row(number, **some) for number, some in enumerate(changes, 1)]
    connection = store()
    insert_rows(connection, rows)

    assert {one.id: one for one in rows} == stored(connection)


def test_rows_alike_share_statements() -> None:
    """That is what makes them cheap: 50 rows of one kind take three statements, not fifty."""
    connection = store()
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    insert_rows(connection, [row(number, user_id=f"user-{number}") for number in range(1, 51)])

    assert 3 == len(seen)
    assert 50 == len(stored(connection))


def test_later_frame_wins_within_its_block_too() -> None:
    """What was stored as interrupted becomes whole, and the other rows of the statement stay new."""
    connection = store()
    rows = [row(number) for number in range(1, 9)]
    insert_rows(connection, [rows[3]._replace(seq=1, status="interrupted"), rows[4]._replace(seq=99)])
    insert_rows(connection, rows)

    assert [rows[0], rows[3], rows[4]._replace(seq=99)] == [stored(connection)[rows[number].id] for number in (0, 3, 4)]


def test_type_that_no_column_has_is_refused() -> None:
    """An export that somebody wrote by hand must end as a refusal, not as our failure."""
    with pytest.raises(sqlite3.Error):
        insert_rows(store(), [row(1, app=["a"])])
