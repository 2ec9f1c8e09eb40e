"""Reading the audit store: rows by filter, newest first, and sums.

Owns the two readers and the WHERE clause they share; values always travel as parameters. Used by the
command line and the admin API, never on the request path. Opens the store for reading only.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from proxy.core.audit.row import CLAIMS, JSON_COLUMNS, Row
from proxy.stores.audit_stores import POSTGRES_SCHEMES, sqlite_path
from proxy.stores.migrations import statement
from proxy.stores.postgres_sink import split_pooler_flag
from proxy.terms.errors import SinkUnavailable

Record = dict[str, Any]
_COLUMNS: Final = ", ".join(Row._fields)
_CONNECT_S: Final = 5.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Which rows are wanted; ``None`` means any. ``since`` is inclusive, ``until`` is not."""

    since: datetime | None = None
    until: datetime | None = None
    app: str | None = None
    user: str | None = None
    status: str | None = None
    provider: str | None = None
    model: str | None = None
    limit: int = 100


class AuditReader(Protocol):
    """Reads one audit store. Both methods raise SinkUnavailable."""

    async def rows(self, wanted: RowFilter) -> list[Record]:
        """Return matching rows, newest first, JSON columns parsed, times as aware datetimes."""
        ...

    async def sums(self, wanted: RowFilter) -> list[Record]:
        """Return one record per provider, model served and status, the largest first."""
        ...

    async def shed_rows(self) -> int:
        """Return how many rows are known to be missing, by the gap records."""
        ...

    async def close(self) -> None: ...


def open_reader(store_url: str) -> AuditReader:
    """Return the reader of a store; it connects when it is first asked.

    Raises:
        ValueError: This store cannot be read back (``stdout:``).
    """
    if store_url.startswith("sqlite:"):
        return SqliteReader(sqlite_path(store_url))
    if store_url.split(":", 1)[0] in POSTGRES_SCHEMES:
        return PostgresReader(store_url)
    raise ValueError("this audit store cannot be read back; query whatever collects it")


class SqliteReader:
    """Reads a SQLite file beside the sidecar that writes it; satisfies ``AuditReader``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def rows(self, wanted: RowFilter) -> list[Record]:
        clause, values = where(wanted, numbered=False)
        sql = f"SELECT {_COLUMNS} FROM audit {clause} ORDER BY ts DESC, id DESC LIMIT ?"  # noqa: S608 - fixed names
        return [_plain(record) for record in await self._fetch(sql, [*values, wanted.limit])]

    async def sums(self, wanted: RowFilter) -> list[Record]:
        clause, values = where(wanted, numbered=False)
        return await self._fetch(statement("sqlite", "sums").replace("/*where*/", clause), values)

    async def shed_rows(self) -> int:
        return int((await self._fetch("SELECT coalesce(sum(shed), 0) AS shed FROM audit_gaps", []))[0]["shed"])

    async def close(self) -> None:
        """Nothing is kept open."""

    async def _fetch(self, sql: str, values: Sequence[Any]) -> list[Record]:
        return await asyncio.to_thread(self._fetch_now, sql, values)

    def _fetch_now(self, sql: str, values: Sequence[Any]) -> list[Record]:
        if not self._path.exists():
            raise SinkUnavailable(f"{self._path} does not exist yet: no sidecar has written a row there")
        try:
            connection = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True, timeout=_CONNECT_S)
            try:
                connection.row_factory = sqlite3.Row
                bound = [_milliseconds(value) if isinstance(value, datetime) else value for value in values]
                return [dict(record) for record in connection.execute(sql, bound)]
            finally:
                connection.close()
        except sqlite3.Error as exc:
            raise SinkUnavailable(f"sqlite {self._path}: {exc}") from exc


class PostgresReader:
    """Reads PostgreSQL over one connection; satisfies ``AuditReader``."""

    def __init__(self, url: str) -> None:
        self._url, _ = split_pooler_flag(url)
        self._connection: Any = None

    async def rows(self, wanted: RowFilter) -> list[Record]:
        clause, values = where(wanted, numbered=True)
        sql = f"SELECT {_COLUMNS} FROM audit {clause} ORDER BY ts DESC, id DESC LIMIT ${len(values) + 1}"  # noqa: S608
        return [_plain(record) for record in await self._fetch(sql, [*values, wanted.limit])]

    async def sums(self, wanted: RowFilter) -> list[Record]:
        clause, values = where(wanted, numbered=True)
        return await self._fetch(statement("postgres", "sums").replace("/*where*/", clause), values)

    async def shed_rows(self) -> int:
        found = await self._fetch("SELECT coalesce(sum(shed), 0)::bigint AS shed FROM audit_gaps", [])
        return int(found[0]["shed"])

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close(timeout=_CONNECT_S)
            self._connection = None

    async def _fetch(self, sql: str, values: Sequence[Any]) -> list[Record]:
        import asyncpg  # noqa: PLC0415 - only those who read PostgreSQL pay for its driver

        try:
            if self._connection is None:
                self._connection = await asyncpg.connect(self._url, timeout=_CONNECT_S, statement_cache_size=0)
            return [dict(record) for record in await self._connection.fetch(sql, *values)]
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
            raise SinkUnavailable(f"postgresql: {str(exc) or type(exc).__name__}") from exc


def where(wanted: RowFilter, *, numbered: bool) -> tuple[str, list[Any]]:
    """Return the WHERE clause of a filter and its values; placeholders are ``$1`` when numbered, else ``?``."""
    conditions = {
        "ts >=": wanted.since,
        "ts <": wanted.until,
        "app =": wanted.app,
        "user_id =": wanted.user,
        "status =": wanted.status,
        "provider =": wanted.provider,
        "model_served =": wanted.model,
    }
    asked = {left: value for left, value in conditions.items() if value is not None}
    parts = [f"{left} {f'${number}' if numbered else '?'}" for number, left in enumerate(asked, 1)]
    return ("WHERE " + " AND ".join(parts) if parts else ""), list(asked.values())


def _milliseconds(moment: datetime) -> int:
    """Return the first whole Unix millisecond that is not before ``moment``."""
    return -((_EPOCH - moment) // timedelta(milliseconds=1))


def _plain(record: Record) -> Record:
    """Return a record with parsed JSON columns, aware times, true booleans and text ids."""
    for name, value in record.items():
        if name in JSON_COLUMNS:
            record[name] = orjson.loads(value)
        elif name in CLAIMS:
            record[name] = bool(value)
        elif name == "ts" and isinstance(value, int):
            record[name] = datetime.fromtimestamp(value / 1000, UTC)
        elif name in {"id", "writer"}:
            record[name] = str(value)
        elif name == "hash" and value is not None:
            record[name] = bytes(value).hex()
    return record
