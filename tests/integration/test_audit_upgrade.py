"""From the release before the chain: its tables, its rows and its spool are taken over as they are."""

from __future__ import annotations

import sqlite3
import struct
import zlib
from pathlib import Path

import asyncpg
import pytest

from proxy.core.audit.frames import HEADER_BYTES, decode_header
from proxy.core.audit.query import RowFilter
from proxy.stores.audit_reader import open_reader
from proxy.stores.audit_stores import make_sink
from proxy.stores.migrations import migrations
from proxy.stores.postgres_sink import apply_migrations, missing_migrations
from proxy.stores.sqlite_sink import split_statements
from proxy.terms.errors import SinkUnavailable
from tests.support.audit import TS_MS, typical_exchange
from tests.support.audit_proof import keep, open_spool, run_sql, ship, verified

FIRST_RELEASES = 2
"""Migrations before the chain."""


OLD_ROW = """INSERT INTO audit VALUES (
    '01a20038-0100-7000-8000-00000000abcd', {ts}, '99999999-2222-4333-8444-555555555555', 1, 4, 'shop', 'ana', '', '', 'fast',
    'default', 'abc', 'openai', 'm', 'm', 'POST', '/v1/chat/completions', {no}, 'success', 200, 'ok', '', '', '', 1, '[]',
    10, 20, 1, 2, 0, 0, {no}, 0.5, 1.5, NULL, 1.0, {no}, {no}, '{{}}', '{{}}', '{{}}', 0, '{{}}', '[]', '', NULL, NULL, '{{}}')"""


def old_sqlite(path: Path) -> str:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE readygate_schema (version INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        for step in migrations("sqlite")[:FIRST_RELEASES]:
            for part in split_statements(step.sql):
                connection.execute(part)
            connection.execute("INSERT INTO readygate_schema VALUES (?, ?)", (step.version, step.name))
    return f"sqlite:///{path}"


async def old_postgres(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await apply_migrations(connection, (await missing_migrations(connection))[:FIRST_RELEASES])
    finally:
        await connection.close()
    return url


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_store_of_the_first_release_is_taken_over(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Rows without a hash stay, are counted, and break no chain of the rows that follow."""
    if kind == "sqlite":
        store_url = old_sqlite(tmp_path / "audit.db")
    else:
        store_url = await old_postgres(request.getfixturevalue("database_url"))
    await run_sql(
        store_url,
        OLD_ROW.format(ts=TS_MS, no=0) if kind == "sqlite" else OLD_ROW.format(ts="now()", no="false"),
        "SELECT 1",
    )
    sink = make_sink(store_url)
    spool = open_spool(tmp_path / "spool")
    keep(spool, (typical_exchange(number, TS_MS + number) for number in range(1, 31)))
    await ship(spool, sink)
    spool.close()
    await sink.close()
    report = await verified(store_url)
    applied = await run_sql(store_url, "SELECT max(version) FROM readygate_schema")

    assert ([], 31, 1) == (report.findings, report.rows, report.unchained)
    assert [(migrations("sqlite" if kind == "sqlite" else "postgres")[-1].version,)] == applied


async def test_spool_of_the_first_release_is_sent_without_a_chain(tmp_path: Path) -> None:
    """Its segments have no secret to make salts from: the rows are sent all the same, outside any chain."""
    spool = open_spool(tmp_path / "spool")
    keep(spool, (typical_exchange(number, TS_MS + number) for number in range(1, 21)))
    spool.close()
    for path in (tmp_path / "spool").glob("*.seg"):
        path.write_bytes(with_old_header(path))
    store_url = f"sqlite:///{tmp_path}/audit.db"
    sink = make_sink(store_url)
    after = open_spool(tmp_path / "spool")
    keep(after, (typical_exchange(number, TS_MS + number) for number in range(21, 31)))
    await ship(after, sink)
    after.close()
    await sink.close()
    report = await verified(store_url)

    assert ([], 30, 20) == (report.findings, report.rows, report.unchained)


def with_old_header(path: Path) -> bytes:
    """Return a segment as the first release wrote it."""
    data = path.read_bytes()
    header = decode_header(data)
    assert header is not None
    body = struct.pack("<8sBB16sQQ", b"RGSPOOL\n", 1, 1, header.spool, header.epoch, header.first_seq)
    return body + struct.pack("<I", zlib.crc32(body)) + data[HEADER_BYTES:]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_reading_tables_of_an_earlier_release_says_what_to_do(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Where a platform team owns the schema, a newer command line meets an older table."""
    if kind == "sqlite":
        store_url = old_sqlite(tmp_path / "audit.db")
    else:
        store_url = await old_postgres(request.getfixturevalue("database_url"))
    reader = open_reader(store_url)
    try:
        with pytest.raises(SinkUnavailable, match="readygate audit migrate"):
            await reader.rows(RowFilter(), 1)
    finally:
        await reader.close()
