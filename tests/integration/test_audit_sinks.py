"""Every audit store keeps the same promises: memory, SQLite, PostgreSQL, PostgreSQL behind a pooler."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from proxy.core.audit.payload import encode_end
from proxy.core.audit.row import Gap, Row, Stamp, merge
from proxy.flow.audit_ports import Sink
from proxy.stores.memory import MemorySink
from proxy.stores.migrations import migrations
from proxy.stores.postgres_sink import PostgresSink, apply_migrations, missing_migrations
from proxy.stores.sqlite_sink import SqliteSink
from proxy.terms.errors import RowRefused, SinkUnavailable
from proxy.terms.outcomes import Status
from tests.support.audit import typical_exchange

WRITER = "11111111-2222-4333-8444-555555555555"
Store = tuple[Sink, Callable[[], Awaitable[dict[str, dict[str, Any]]]]]


def row_of(number: int, seq: int = 0, **changes: Any) -> Row:
    return merge(None, encode_end(typical_exchange(number, **changes)), Stamp(WRITER, 1, seq or number))


@pytest.fixture(params=["memory", "sqlite", "postgres", "pgbouncer"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    sink: Sink
    if request.param == "memory":
        memory = MemorySink()
        sink, read = memory, lambda: _done({key: row._asdict() for key, row in memory.rows.items()})
    elif request.param == "sqlite":
        path = tmp_path / "audit.db"
        sink, read = SqliteSink(path), lambda: _done(read_sqlite(path))
    else:
        url: str = request.getfixturevalue("database_url")
        sink = PostgresSink(url + ("?pgbouncer=true" if request.param == "pgbouncer" else ""))
        read = lambda: read_postgres(url)  # noqa: E731 - one reader a store, side by side
    await sink.open()
    yield sink, read
    await sink.close()


async def _done(value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return value


def read_sqlite(path: Path) -> dict[str, dict[str, Any]]:
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        return {row["id"]: dict(row) for row in connection.execute("SELECT * FROM audit")}


async def read_postgres(url: str) -> dict[str, dict[str, Any]]:
    connection = await asyncpg.connect(url)
    try:
        return {str(row["id"]): dict(row) for row in await connection.fetch("SELECT * FROM audit")}
    finally:
        await connection.close()


async def test_inserted_rows_can_be_read_column_by_column(store: Store) -> None:
    """A store that mixes up two columns would lie to every auditor."""
    sink, read = store
    row = row_of(7, findings={"EMAIL": 2, "CPF": 1}, notes=["duplicate_risk"])
    row = row._replace(hash=bytes(range(32)), seal=bytes(range(25)))
    await sink.insert([row])
    stored = (await read())[row.id]

    assert set(Row._fields) == set(stored)
    for name in set(Row._fields) - {"subject"}:  # the store's own pseudonym
        assert comparable(name, getattr(row, name)) == comparable(name, stored[name]), name


async def test_repeated_insert_changes_nothing(store: Store) -> None:
    """An unknown commit outcome is answered by sending again; that must be harmless (AU-08, AU-09)."""
    sink, read = store
    rows = [row_of(number) for number in range(1, 51)]
    await sink.insert(rows)
    before = await read()
    await sink.insert(rows)

    assert before == await read()
    assert 50 == len(before)


async def test_later_frame_replaces_interrupted_row_and_earlier_does_not(store: Store) -> None:
    """A BEGIN replayed after its END has been stored must not turn a success into an interruption."""
    sink, read = store
    finished = row_of(1, seq=20)
    interrupted = finished._replace(seq=10, status=Status.INTERRUPTED.value)
    await sink.insert([interrupted])
    await sink.insert([finished])
    await sink.insert([interrupted])

    assert "success" == (await read())[finished.id]["status"]


async def test_gaps_are_kept_once(store: Store) -> None:
    """A gap record is evidence; sending it again must not make two gaps of one."""
    sink, _ = store
    row = row_of(1)
    gap = Gap(WRITER, 1, 99, row.ts, 12, "shed:audit_backpressure")
    await sink.insert([], [gap])
    await sink.insert([row], [gap])


async def test_ping_answers_in_milliseconds(store: Store) -> None:
    """Health shows the store's latency."""
    assert 0 <= await store[0].ping() < 5000


async def test_closed_sink_says_unavailable(store: Store) -> None:
    """Delivery must keep rows, not drop them, when the store has gone."""
    sink, _ = store
    if isinstance(sink, MemorySink):
        sink.failure = SinkUnavailable()
    await sink.close()
    with pytest.raises(SinkUnavailable):
        await sink.insert([row_of(1)])


async def test_empty_strings_unicode_and_limits_survive(store: Store) -> None:
    """Names come from callers: emoji, quotes, tabs, backslashes and the largest numbers must arrive unharmed."""
    sink, read = store
    row = row_of(3, app="", user='á"\t\\ 🙂 \\N', request_bytes=2**62, latency_ms=0.0, cost_usd=None, usage=None)
    await sink.insert([row])
    stored = (await read())[row.id]

    assert ("", 'á"\t\\ 🙂 \\N', 2**62, None, None) == (
        stored["app"], stored["user_id"], stored["request_bytes"], stored["cost_usd"], stored["tokens_in"],
    )  # fmt: skip


@pytest.mark.parametrize(
    "poison",
    [
        {"app": "nul \x00 here"},
        {"user_id": "lone \ud800"},
        {"tokens_in": 2**63},
        {"notes": '"\\u0000"'},
        {"http_status": "x"},
    ],
    ids=["nul", "surrogate", "too-big", "json-nul", "wrong-type"],
)
async def test_postgres_refuses_poison_rows_by_name(database_url: str, poison: dict[str, Any]) -> None:
    """A row PostgreSQL will never take must be told apart from a database that is away, or delivery stops."""
    for suffix in ("", "?pgbouncer=true"):
        sink = PostgresSink(database_url + suffix)
        await sink.open()
        try:
            with pytest.raises(RowRefused):
                await sink.insert([row_of(1), row_of(2)._replace(**poison)])
            await sink.insert([row_of(1)])
        finally:
            await sink.close()

    assert 1 == len(await read_postgres(database_url))


async def test_several_sidecars_start_at_once(database_url: str) -> None:
    """Ten pods of one deployment meet an empty database in the same second."""
    sinks = [PostgresSink(database_url) for _ in range(8)]
    async with asyncio.TaskGroup() as group:
        for sink in sinks:
            group.create_task(sink.open())
    for number, sink in enumerate(sinks, 1):
        await sink.insert([row_of(number)])
        await sink.close()

    assert 8 == len(await read_postgres(database_url))


async def test_fresh_install_equals_all_migrations_one_by_one(
    database_url: str, postgres: str, request: pytest.FixtureRequest
) -> None:
    """An upgraded database and a new one must not differ, or bugs depend on a site's history."""
    sink = PostgresSink(database_url)
    await sink.open()
    await sink.close()
    fresh = await catalog(database_url)
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        for step in migrations("postgres"):
            async with connection.transaction():
                assert step in await missing_migrations(connection)
                await apply_migrations(connection, [step])
        await connection.execute("SELECT audit_ensure_partitions(2)")
    finally:
        await connection.close()

    assert fresh == await catalog(database_url)


async def catalog(url: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        columns = await connection.fetch(
            "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns "
            "WHERE table_schema = 'public' ORDER BY 1, 2"
        )
        indexes = await connection.fetch("SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")
        return [tuple(row) for row in [*columns, *indexes]]
    finally:
        await connection.close()


async def test_partitions_are_made_ahead_and_odd_times_find_a_home(database_url: str) -> None:
    """A row with a clock far off is evidence too: the default partition takes it."""
    sink = PostgresSink(database_url)
    await sink.open()
    await sink.insert([row_of(1, ts_ms=1_000_000_000_000), row_of(2, ts_ms=4_000_000_000_000)])
    connection = await asyncpg.connect(database_url)
    try:
        partitions = await connection.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = 'audit'::regclass")
        strays = await connection.fetchval("SELECT count(*) FROM audit_default")
    finally:
        await connection.close()
        await sink.close()

    assert 4 == partitions
    assert 2 == strays


async def test_old_schema_is_left_alone_when_migrating_is_not_allowed(database_url: str) -> None:
    """Where a platform team owns the schema, a sidecar says what is missing instead of changing it."""
    sink = PostgresSink(database_url, may_migrate=False)
    with pytest.raises(SinkUnavailable, match="readygate audit migrate"):
        await sink.open()


def comparable(name: str, value: Any) -> Any:
    if name in {
        "attempts",
        "findings",
        "sanitized",
        "response_findings",
        "budget",
        "notes",
        "metadata",
        "caller_groups",
    }:
        return orjson.loads(value)
    if name == "ts":
        return value if isinstance(value, int) else round(value.timestamp() * 1000)
    if name in {"id", "writer"}:
        return str(value)
    if isinstance(value, bool):
        return int(value)
    return value
