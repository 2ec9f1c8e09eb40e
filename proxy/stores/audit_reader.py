"""Reading the audit store: rows by filter and page, counts, sums, redactions.

Owns the two readers and how a filter becomes their SQL; values always travel as parameters. Used by the
command line and the admin API, never on the request path. Opens the store for reading only, with a limit
on the time of each query, over a connection of its own.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson

from proxy.core.audit.query import DEFAULT_GROUPS, Condition, Cursor, RowFilter, Value, clause
from proxy.core.audit.row import CLAIMS, COLUMNS, JSON_COLUMNS
from proxy.flow.audit_reading import PAGE_ROWS, AuditReader, Record, cursor_of
from proxy.stores.audit_stores import POSTGRES_SCHEMES, sqlite_path
from proxy.stores.migrations import Dialect, statement
from proxy.stores.postgres_sink import split_pooler_flag
from proxy.terms.errors import QueryTooSlow, SinkUnavailable

_COLUMNS: Final = ", ".join(COLUMNS)
_OLDER: Final = "the tables are those of an earlier release: run `readygate audit migrate`"
_CONNECT_S: Final = 5.0
_DEFAULT_LIMIT_S: Final = 600.0
_SLICE_ROWS: Final = 100
"""For readers beside exchanges: about a millisecond of the event loop."""
_STEPS_BETWEEN_LOOKS: Final = 20_000
"""SQLite's virtual machine steps between two looks at the clock: well under a millisecond."""
_PARTIAL: Final = (("user_id", ""), ("status", "success"))
"""Columns with a partial index, and the value whose rows it leaves out."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def open_reader(store_url: str, *, limit_s: float = _DEFAULT_LIMIT_S, slice_rows: int = PAGE_ROWS) -> AuditReader:
    """Return the reader of a store; it connects when it is first asked. No query runs longer than ``limit_s``.

    Raises:
        ValueError: This store cannot be read back (``stdout:``).
    """
    if store_url.startswith("sqlite:"):
        return SqliteReader(sqlite_path(store_url), limit_s)
    if store_url.split(":", 1)[0] in POSTGRES_SCHEMES:
        return PostgresReader(store_url, limit_s, slice_rows)
    raise ValueError("this audit store cannot be read back; query whatever collects it")


def readers(store_url: str, limit_s: float) -> Callable[[], AuditReader] | None:
    """Return what opens readers of a store beside running exchanges, or None when it cannot be read back."""
    try:
        open_reader(store_url, limit_s=limit_s)
    except ValueError:
        return None
    return lambda: open_reader(store_url, limit_s=limit_s, slice_rows=_SLICE_ROWS)


class SqliteReader:
    """Reads a SQLite file beside the sidecar that writes it; satisfies ``AuditReader``."""

    def __init__(self, path: Path, limit_s: float = _DEFAULT_LIMIT_S) -> None:
        self._path = path
        self._limit_s = limit_s

    async def rows(
        self, wanted: RowFilter, limit: int, after: Cursor | None = None, *, oldest_first: bool = False
    ) -> list[Record]:
        sql, values = _select("sqlite", wanted, limit, after, oldest_first=oldest_first)
        return await asyncio.to_thread(self._rows_now, sql, values)

    async def count(self, wanted: RowFilter) -> int:
        where, values = _where(wanted, _question_mark)
        return int((await self._fetch(f"SELECT count(*) AS rows FROM audit {where}", values))[0]["rows"])  # noqa: S608

    async def sums(self, wanted: RowFilter, by: tuple[str, ...] = DEFAULT_GROUPS) -> list[Record]:
        where, values = _where(wanted, _question_mark)
        return await self._fetch(_grouped("sqlite", where, by), values)

    async def redactions(self, wanted: RowFilter) -> list[Record]:
        where, values = _where(wanted, _question_mark)
        return await self._fetch(statement("sqlite", "redactions").replace("/*where*/", where), values)

    async def shed_rows(self) -> int:
        return int((await self._fetch("SELECT coalesce(sum(shed), 0) AS shed FROM audit_gaps", []))[0]["shed"])

    async def close(self) -> None:
        """Nothing is kept open."""

    async def _fetch(self, sql: str, values: Sequence[Value]) -> list[Record]:
        return await asyncio.to_thread(self._fetch_now, sql, values)

    def _rows_now(self, sql: str, values: Sequence[Value]) -> list[Record]:
        return [plain(record) for record in self._fetch_now(sql, values)]

    def _fetch_now(self, sql: str, values: Sequence[Value]) -> list[Record]:
        if not self._path.exists():
            raise SinkUnavailable(f"{self._path} does not exist yet: no sidecar has written a row there")
        deadline_s = time.monotonic() + self._limit_s
        try:
            connection = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True, timeout=_CONNECT_S)
            try:
                connection.row_factory = sqlite3.Row
                connection.set_progress_handler(lambda: time.monotonic() > deadline_s, _STEPS_BETWEEN_LOOKS)
                bound = [_milliseconds(value) if isinstance(value, datetime) else value for value in values]
                return [dict(record) for record in connection.execute(sql, bound)]
            finally:
                connection.close()
        except sqlite3.OperationalError as exc:
            if str(exc) == "interrupted":
                raise QueryTooSlow from exc
            older = f"; {_OLDER}" if "no such column" in str(exc) else ""
            raise SinkUnavailable(f"sqlite {self._path}: {exc}{older}") from exc
        except sqlite3.Error as exc:
            raise SinkUnavailable(f"sqlite {self._path}: {exc}") from exc


class PostgresReader:
    """Reads PostgreSQL over one connection of its own; satisfies ``AuditReader``. One question at a time."""

    def __init__(self, url: str, limit_s: float = _DEFAULT_LIMIT_S, slice_rows: int = PAGE_ROWS) -> None:
        """``slice_rows`` are asked for and decoded at a stretch: 10 us of the event loop each."""
        self._url, _ = split_pooler_flag(url)
        self._slice_rows = slice_rows
        self._limit_s = limit_s
        self._connection: Any = None
        self._lock = asyncio.Lock()

    async def rows(
        self, wanted: RowFilter, limit: int, after: Cursor | None = None, *, oldest_first: bool = False
    ) -> list[Record]:
        found: list[Record] = []
        while len(found) < limit:
            slice_rows = min(self._slice_rows, limit - len(found))
            sql, values = _select("postgres", wanted, slice_rows, after, oldest_first=oldest_first)
            part = [plain(record) for record in await self._fetch(sql, values)]
            found += part
            if len(part) < slice_rows:
                break
            after = cursor_of(part[-1])
        return found

    async def count(self, wanted: RowFilter) -> int:
        where, values = _where(wanted, _dollar)
        return int((await self._fetch(f"SELECT count(*) AS rows FROM audit {where}", values))[0]["rows"])  # noqa: S608

    async def sums(self, wanted: RowFilter, by: tuple[str, ...] = DEFAULT_GROUPS) -> list[Record]:
        where, values = _where(wanted, _dollar)
        return await self._fetch(_grouped("postgres", where, by), values)

    async def redactions(self, wanted: RowFilter) -> list[Record]:
        where, values = _where(wanted, _dollar)
        return await self._fetch(statement("postgres", "redactions").replace("/*where*/", where), values)

    async def shed_rows(self) -> int:
        found = await self._fetch("SELECT coalesce(sum(shed), 0)::bigint AS shed FROM audit_gaps", [])
        return int(found[0]["shed"])

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close(timeout=_CONNECT_S)
            self._connection = None

    async def _fetch(self, sql: str, values: Sequence[Value]) -> list[Record]:
        import asyncpg  # noqa: PLC0415 - only those who read PostgreSQL pay for its driver

        async with self._lock:
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await asyncpg.connect(self._url, timeout=_CONNECT_S, statement_cache_size=0)
                return await self._fetch_bounded(sql, values)
            except asyncpg.QueryCanceledError as exc:
                raise QueryTooSlow from exc
            except asyncpg.PostgresError as exc:
                older = f"; {_OLDER}" if isinstance(exc, asyncpg.UndefinedColumnError) else ""
                raise SinkUnavailable(f"postgresql: {str(exc) or type(exc).__name__}{older}") from exc
            except (asyncpg.InterfaceError, OSError) as exc:
                self._drop()
                raise SinkUnavailable(f"postgresql: {str(exc) or type(exc).__name__}") from exc

    def _drop(self) -> None:
        """Give up a connection of which nobody knows where it stands."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _fetch_bounded(self, sql: str, values: Sequence[Value]) -> list[Record]:
        """Run a query that can only read and that the server gives up in time.

        Nothing of it outlives the transaction, no prepared statement either: behind PgBouncer the session belongs
        to somebody else a moment later.
        """
        async with self._connection.transaction(readonly=True):
            await self._connection.execute(f"SET LOCAL statement_timeout = {round(self._limit_s * 1000)}")
            return [dict(record) for record in await self._connection.fetch(sql, *values)]


def plain(record: Record) -> Record:
    """Return a record with parsed JSON columns, aware times, true booleans and text ids."""
    for name, value in record.items():
        if name in JSON_COLUMNS:
            record[name] = orjson.loads(value)
        elif name in CLAIMS:
            record[name] = bool(value)
        elif name == "ts" and isinstance(value, int):
            record[name] = _EPOCH + timedelta(milliseconds=value)
        elif name in {"id", "writer"}:
            record[name] = str(value)
        elif name in {"hash", "seal"} and value is not None:
            record[name] = bytes(value).hex()
    return record


def _select(
    dialect: Dialect, wanted: RowFilter, limit: int, after: Cursor | None, *, oldest_first: bool
) -> tuple[str, list[Value]]:
    """Return the query of one page. ``ts`` stands beside the pair so that partitions can be passed over."""
    mark = _dollar if dialect == "postgres" else _question_mark
    order, behind = ("ASC", ">") if oldest_first else ("DESC", "<")
    more = [] if after is None else [Condition("ts", f"{behind}=", _EPOCH + timedelta(milliseconds=after.ts_ms))]
    where, values = _where(wanted, mark, more)
    if after is not None:
        first, second = mark(len(values) + 1), mark(len(values) + 2)
        where += f" AND (ts, id) {behind} ({first}, {second})"
        values += [more[0].value, after.id]
    sql = f"SELECT {_COLUMNS} FROM audit {where} ORDER BY ts {order}, id {order} LIMIT {mark(len(values) + 1)}"  # noqa: S608
    return sql, [*values, limit]


def _where(wanted: RowFilter, mark: Callable[[int], str], more: Sequence[Condition] = ()) -> tuple[str, list[Value]]:
    """Return the WHERE clause and its values, with the words in it that the partial indexes ask for.

    A planner that sees a placeholder cannot know that its value is in such an index.
    """
    where, values = clause(wanted, mark, more)
    for column, left_out in _PARTIAL:
        if any(one[:2] == (column, "=") and one.value != left_out for one in wanted.conditions):
            where += f" AND {column} <> '{left_out}'"
    return where, values


def _grouped(dialect: Dialect, where: str, by: tuple[str, ...]) -> str:
    return statement(dialect, "sums").replace("/*where*/", where).replace("/*by*/", ", ".join(by))


def _dollar(number: int) -> str:
    return f"${number}"


def _question_mark(_: int) -> str:
    return "?"


def _milliseconds(moment: datetime) -> int:
    """Return the first whole Unix millisecond that is not before ``moment``."""
    return -((_EPOCH - moment) // timedelta(milliseconds=1))
