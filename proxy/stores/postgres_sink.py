"""The shared audit store: PostgreSQL, by COPY; batches with repeated rows by COPY into a staging table and one upsert.

Owns the connection pool and the schema's upkeep (migrations, partitions ahead). Knows rows as tuples in the
order of ``Row``; the SQL is in ``sql/postgres``. asyncpg is imported when a sink is opened, so a sidecar
with another store never pays for it.

Behind PgBouncer in transaction mode (``?pgbouncer=true``) a session keeps nothing: no temporary table, no
prepared statement, no session lock; rows go as arrays through ``unnest`` instead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from proxy.core.audit.records import Record
from proxy.core.audit.row import CLAIMS, Gap, Row
from proxy.stores.late_rows import LateRows
from proxy.stores.migrations import Migration, migrations, statement
from proxy.terms.errors import RowRefused, SinkUnavailable

_CONNECT_S: Final = 5.0
_COMMAND_S: Final = 30.0
_MONTHS_AHEAD: Final = 2
_UPKEEP_S: Final = 6 * 3600.0
_UPKEEP_RETRY_S: Final = 60.0
_REPEATS_S: Final = 10.0
"""After a repeated row (a replayed spool) batches are staged for so long, instead of copied twice."""
_LOCK_KEY: Final = 0x72656164796761  # "readyga": one advisory lock for every sidecar's start and upkeep
ERASE_LOCK: Final = _LOCK_KEY + 1
"""Shared by every transaction that inserts rows, taken alone for a moment by one that erases a person."""
_SAFE_COMMIT: Final = (
    "SELECT set_config('synchronous_commit', 'on', $1) WHERE current_setting('synchronous_commit') = 'off'"
)
"""An acknowledged row leaves the spool: a server that commits before it writes would lose it in a crash."""
_ROW_FAULTS: Final = ("22", "23", "54")
"""Classes of SQLSTATE that speak of what a row holds: data exception, integrity, limits."""
_SLICE_ROWS: Final = 50
"""Rows encoded at a stretch: about a millisecond of the event loop."""
_UNNESTED_ROWS: Final = 200
"""Rows in one statement of arrays, which the driver encodes at a stretch."""
_COLUMNS: Final = list(Row._fields)
_STREAM, _ESTIMATED, _DETECTED, _SANITIZED = sorted(map(Row._fields.index, CLAIMS))
_MIN_TS_MS: Final = -62_135_596_800_000
_MAX_TS_MS: Final = 253_402_300_799_999
_Record = tuple[Any, ...]


class PostgresSink:
    """Stores rows in PostgreSQL; satisfies ``flow.audit_ports.Sink``."""

    def __init__(self, url: str, *, password: str | None = None, may_migrate: bool = True) -> None:
        """Take a libpq URL (``sslmode`` and the rest as usual, plus ``pgbouncer=true``).

        Args:
            url: Where the database is; a password in it is used, ``password`` wins over it.
            password: Kept apart so that the URL can be shown.
            may_migrate: Bring the schema up to date at start; otherwise an old schema is an error.
        """
        self._url, self._is_pooled = split_pooler_flag(url)
        self._password = password
        self._may_migrate = may_migrate
        self._pool: Any = None
        self._kept_up_at_s = float("-inf")
        self._repeats_until_s = float("-inf")
        self._late = LateRows()

    async def open(self) -> None:
        """Connect, migrate, make partitions ahead. Raises SinkUnavailable."""
        if self._pool is not None:
            return
        import asyncpg  # noqa: PLC0415 - only the sidecars that use PostgreSQL pay for its driver

        async with self._faults():
            connection = await asyncpg.connect(self._url, **self._options())
            try:
                await self._migrate(connection)
                await self._keep_up(connection)
            finally:
                await connection.close(timeout=_CONNECT_S)
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=2,
                init=None if self._is_pooled else _prepare_session,
                reset=_keep_session,
                **self._options(),
            )

    async def insert(self, rows: Sequence[Row], gaps: Sequence[Gap] = (), records: Sequence[Record] = ()) -> None:
        """Store all of these in one transaction; see the Protocol."""
        async with self._faults(), self._connected().acquire(timeout=_CONNECT_S) as connection:
            if time.monotonic() - self._kept_up_at_s > _UPKEEP_S:
                await self._try_keep_up(connection)
            if not await self._copied(connection, rows, gaps, records):
                async with connection.transaction():
                    await self._insert(connection, await self._prepared(connection, rows), gaps, records)

    async def ping(self) -> float:
        """Return the round trip in milliseconds. Raises SinkUnavailable."""
        started_s = time.perf_counter()
        async with self._faults(), self._connected().acquire(timeout=_CONNECT_S) as connection:
            await connection.execute("SELECT 1")
        return (time.perf_counter() - started_s) * 1000

    async def close(self) -> None:
        """Close the connections, cutting them when they do not close at once."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(_CONNECT_S):
                await pool.close()
        except TimeoutError:
            pool.terminate()

    async def _copied(
        self, connection: Any, rows: Sequence[Row], gaps: Sequence[Gap], records: Sequence[Record]
    ) -> bool:
        """Copy rows straight into the table; False when some are there already, or were a moment ago.

        New rows are the rule, and this takes two thirds of the time of staging them first. A repeat found
        on the way leaves nothing behind.
        """
        import asyncpg  # noqa: PLC0415 - see open

        if not rows or time.monotonic() < self._repeats_until_s:
            return False
        try:
            async with connection.transaction():
                copied = await self._prepared(connection, rows)
                await connection.copy_records_to_table("audit", records=_in_slices(copied), columns=_COLUMNS)
                await self._insert(connection, [], gaps, records)
        except asyncpg.UniqueViolationError:
            self._repeats_until_s = time.monotonic() + _REPEATS_S
            return False
        return True

    async def _prepared(self, connection: Any, rows: Sequence[Row]) -> Sequence[Row]:
        """Return rows as the table takes them, without what erased people left; inside the transaction.

        Whoever erases takes the lock alone for a moment: all rows sent before are there to be found then,
        and all sent later meet the tombstone here.
        """
        if self._is_pooled:
            await connection.execute(_SAFE_COMMIT, True)
        await connection.execute(f"SELECT pg_advisory_xact_lock_shared({ERASE_LOCK})")
        late = self._late
        version = await connection.fetchval("SELECT value FROM audit_store WHERE name = 'tombstones'")
        if version != late.version:
            salt = await connection.fetchval("SELECT value FROM audit_store WHERE name = 'subject_salt'")
            dead = await connection.fetch("SELECT subject, before FROM audit_tombstones")
            late.learn(version, salt, [(subject, round(before.timestamp() * 1000)) for subject, before in dead])
        return late.met(rows)

    async def _insert(
        self, connection: Any, rows: Sequence[Row], gaps: Sequence[Gap], records: Sequence[Record]
    ) -> None:
        if rows and self._is_pooled:
            for start in range(0, len(rows), _UNNESTED_ROWS):
                part = map(record_of, rows[start : start + _UNNESTED_ROWS])
                columns = [list(column) for column in zip(*part, strict=True)]
                await connection.execute(statement("postgres", "insert_unnested"), *columns)
        elif rows:
            await connection.copy_records_to_table("audit_stage", records=_in_slices(rows), columns=_COLUMNS)
            await connection.execute(statement("postgres", "insert_staged"))
        if gaps:
            values = [(*gap[:3], moment(gap.ts), *gap[4:]) for gap in gaps]
            await connection.executemany(statement("postgres", "insert_gaps"), values)
        if records:
            stated = [(*record[:4], moment(record.ts), *record[5:]) for record in records]
            await connection.executemany(statement("postgres", "insert_checkpoints"), stated)

    def _options(self) -> dict[str, Any]:
        return {
            "password": self._password,
            "timeout": _CONNECT_S,
            "command_timeout": _COMMAND_S,
            "statement_cache_size": 0 if self._is_pooled else 64,
            "server_settings": {} if self._is_pooled else {"application_name": "readygate-audit"},
        }

    async def _migrate(self, connection: Any) -> None:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK_KEY)
            missing = await missing_migrations(connection)
            if missing and not self._may_migrate:
                raise SinkUnavailable(
                    f"the audit schema lacks migration {missing[0].version:04d}_{missing[0].name}; "
                    "run `readygate audit migrate`"
                )
            await apply_migrations(connection, missing)

    async def _keep_up(self, connection: Any) -> None:
        """Make the partitions of this month and the next ones, one sidecar at a time."""
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK_KEY)
            await connection.execute("SET LOCAL lock_timeout = '1s'")
            await connection.execute("SELECT audit_ensure_partitions($1)", _MONTHS_AHEAD)
        self._kept_up_at_s = time.monotonic()

    async def _try_keep_up(self, connection: Any) -> None:
        """Make partitions while rows flow; when somebody holds the table, rows go on and this waits."""
        import asyncpg  # noqa: PLC0415 - see open

        try:
            await self._keep_up(connection)
        except asyncpg.PostgresError:
            # The default partition takes what has no partition yet: no reason to hold back rows.
            self._kept_up_at_s = time.monotonic() - _UPKEEP_S + _UPKEEP_RETRY_S

    def _connected(self) -> Any:
        if self._pool is None:
            raise SinkUnavailable("the audit database is not open")
        return self._pool

    @asynccontextmanager
    async def _faults(self) -> AsyncIterator[None]:
        """Translate the driver's exceptions; an unknown outcome counts as not reached, and is sent again."""
        import asyncpg  # noqa: PLC0415 - see open

        try:
            yield
        except asyncpg.PostgresError as exc:
            code = exc.sqlstate or ""
            if code.startswith(_ROW_FAULTS):
                raise RowRefused(f"postgresql {code} {type(exc).__name__}") from exc
            raise SinkUnavailable(f"postgresql {code}: {exc}") from exc
        except asyncpg.InternalClientError as exc:
            raise SinkUnavailable(f"postgresql: {exc}") from exc
        except asyncpg.DataError as exc:
            raise RowRefused(f"postgresql: {type(exc).__name__}") from exc
        except asyncpg.InterfaceError as exc:
            raise SinkUnavailable(f"postgresql: {exc}") from exc
        except OSError as exc:  # before ValueError: a certificate that fails is both, and no row's fault
            raise SinkUnavailable(f"postgresql: {str(exc) or type(exc).__name__}") from exc
        except (UnicodeError, OverflowError, ValueError, TypeError) as exc:
            raise RowRefused(f"postgresql: {type(exc).__name__}") from exc


async def _in_slices(rows: Sequence[Row]) -> AsyncIterator[_Record]:
    """Yield rows as the driver takes them; everything else on the event loop has its turn after each slice."""
    for start in range(0, len(rows), _SLICE_ROWS):
        for row in rows[start : start + _SLICE_ROWS]:
            yield record_of(row)
        await asyncio.sleep(0)


def record_of(row: Row) -> _Record:
    """Return a row as the driver takes it: aware time, true booleans."""
    return (
        row[0], moment(row[1]), *row[2:_STREAM], row[_STREAM] == 1, *row[_STREAM + 1 : _ESTIMATED],
        row[_ESTIMATED] == 1, *row[_ESTIMATED + 1 : _DETECTED], row[_DETECTED] == 1, row[_SANITIZED] == 1,
        *row[_SANITIZED + 1 :],
    )  # fmt: skip


def moment(ts_ms: int) -> datetime:
    """Return Unix milliseconds as aware UTC, the nearest there is when they are no time at all."""
    return datetime.fromtimestamp(min(max(ts_ms, _MIN_TS_MS), _MAX_TS_MS) / 1000, UTC)


def split_pooler_flag(url: str) -> tuple[str, bool]:
    """Return the URL without ``pgbouncer=…``, and whether that said true."""
    parts = urlsplit(url)
    options = parse_qsl(parts.query, keep_blank_values=True)
    is_pooled = any(name == "pgbouncer" and value.lower() in {"true", "1", "yes"} for name, value in options)
    query = urlencode([(name, value) for name, value in options if name != "pgbouncer"])
    return urlunsplit(parts._replace(query=query)), is_pooled


async def missing_migrations(connection: Any) -> list[Migration]:
    """Return the migrations this database has not seen, in order; makes the table that counts them."""
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS readygate_schema "
        "(version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    version = await connection.fetchval("SELECT coalesce(max(version), 0) FROM readygate_schema")
    return [step for step in migrations("postgres") if step.version > version]


async def apply_migrations(connection: Any, steps: Sequence[Migration]) -> None:
    """Run these migrations inside the caller's transaction."""
    for step in steps:
        await connection.execute(step.sql)
        await connection.execute(
            "INSERT INTO readygate_schema (version, name) VALUES ($1, $2)", step.version, step.name
        )


async def _prepare_session(connection: Any) -> None:
    """Give a new connection its staging table and commits that wait for the disk."""
    await connection.execute(_SAFE_COMMIT, False)
    await connection.execute(statement("postgres", "stage"))


async def _keep_session(connection: Any) -> None:
    """Skip the driver's reset between uses: nothing of ours outlives a transaction but the staging table."""
