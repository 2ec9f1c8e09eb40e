"""Erasing and handing over the rows of one person, in both databases.

Owns the order that leaves no row behind: the tombstone first, in a transaction that waits for every insert under
way; then the rows that are there, some at a time; then the entry. A run that was cut short is simply run
again. Personal columns are emptied and the salt that bound them goes, so the chain still verifies and
nobody can try guesses against it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import orjson

from proxy.core.audit.chain import erased_seal
from proxy.core.audit.row import Row
from proxy.flow.people import Erased, People
from proxy.stores.audit_stores import POSTGRES_SCHEMES, sqlite_path
from proxy.stores.late_rows import subject_of
from proxy.stores.postgres_sink import ERASE_LOCK, moment, split_pooler_flag
from proxy.stores.stdout_sink import plain_row
from proxy.terms.errors import SinkUnavailable

_AT_ONCE: Final = 500
_COLUMNS: Final = ", ".join(Row._fields)
_NAMED: Final = "user_id, conversation, error_message, metadata, caller_groups"
_EMPTIED: Final = (
    "user_id = '', conversation = '', error_message = '', metadata = '{}', caller_groups = '[]', subject = NULL"
)


def open_people(store_url: str) -> People:
    """Return the people of a store.

    Raises:
        ValueError: This store cannot be changed (``stdout:``).
    """
    if store_url.startswith("sqlite:"):
        return SqlitePeople(sqlite_path(store_url))
    if store_url.split(":", 1)[0] in POSTGRES_SCHEMES:
        return PostgresPeople(store_url)
    raise ValueError("this audit store keeps no rows; ask whatever collects them")


class SqlitePeople:
    """The people of a SQLite store; satisfies ``flow.people.People``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def erase(self, user: str, *, before_ms: int, actor: str) -> Erased:
        """Erase one person; see the Protocol."""
        done: Erased = await self._run(self._erase, user, before_ms, actor)
        return done

    async def note_export(self, user: str, *, actor: str, now_ms: int) -> None:
        """Write the entry of an export."""
        await self._run(self._note_export, user, actor, now_ms)

    async def note_content(self, exchange_id: str, *, actor: str, now_ms: int) -> None:
        """Write the entry of words that are read."""
        await self._run(self._note_content, exchange_id, actor, now_ms)

    async def rows(self, user: str, *, actor: str, now_ms: int) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield one person's rows; see the Protocol."""
        await self._run(self._note_export, user, actor, now_ms)
        after = (-(2**63), "")
        while page := await self._run(self._page, user, after):
            yield [plain_row(row) for row in page]
            after = (page[-1].ts, page[-1].id)

    async def _run(self, work: Any, *arguments: Any) -> Any:
        try:
            return await asyncio.to_thread(work, *arguments)
        except sqlite3.Error as exc:
            raise SinkUnavailable(f"sqlite {self._path}: {exc}") from exc

    def _connect(self) -> closing[sqlite3.Connection]:
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw", uri=True, timeout=5.0, isolation_level=None
        )
        connection.execute("PRAGMA secure_delete = ON")
        return closing(connection)

    def _erase(self, user: str, before_ms: int, actor: str) -> Erased:
        with self._connect() as connection:
            connection.execute("BEGIN IMMEDIATE")
            subject = _subject(connection, user)
            connection.execute(
                "INSERT INTO audit_tombstones VALUES (?, ?) "
                "ON CONFLICT (subject) DO UPDATE SET before = max(before, excluded.before)",
                (subject, before_ms),
            )
            connection.execute("UPDATE audit_store SET value = CAST(value AS INTEGER) + 1 WHERE name = 'tombstones'")
            connection.execute("DELETE FROM audit_subject_keys WHERE substr(subject, 1, 33) = ? || ':'", (subject,))
            parts = connection.execute("DELETE FROM audit_content WHERE subject = ?", (subject,)).rowcount
            connection.execute("COMMIT")
            rows = 0
            while some := self._erase_some(connection, user, before_ms):
                rows += some
            detail = {"subject": subject, "rows": rows, "content_parts": parts, "before_ms": before_ms}
            _note(connection, actor, "erase", before_ms, detail)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return Erased(subject, rows, parts)

    def _erase_some(self, connection: sqlite3.Connection, user: str, before_ms: int) -> int:
        connection.execute("BEGIN IMMEDIATE")
        found = connection.execute(
            f"SELECT ts, id, seal, {_NAMED} FROM audit WHERE user_id = ? AND user_id <> '' AND ts < ? LIMIT ?",  # noqa: S608 - fixed
            (user, before_ms, _AT_ONCE),
        ).fetchall()
        # By exchange, too: a name that was cut to fit its row is another subject.
        connection.executemany("DELETE FROM audit_content WHERE id = ?", [(row_id,) for _, row_id, *_ in found])
        changes = [(erased_seal(seal, *personal), ts, row_id) for ts, row_id, seal, *personal in found]
        connection.executemany(
            f"UPDATE audit SET {_EMPTIED}, seal = ? WHERE ts = ? AND id = ?",  # noqa: S608 - fixed
            changes,
        )
        connection.execute("COMMIT")
        return len(changes)

    def _note_export(self, user: str, actor: str, now_ms: int) -> None:
        with self._connect() as connection:
            _note(connection, actor, "export", now_ms, {"subject": _subject(connection, user)})

    def _note_content(self, exchange_id: str, actor: str, now_ms: int) -> None:
        with self._connect() as connection:
            _note(connection, actor, "content", now_ms, {"exchange": exchange_id})

    def _page(self, user: str, after: tuple[int, str]) -> list[Row]:
        with self._connect() as connection:
            found = connection.execute(
                f"SELECT {_COLUMNS} FROM audit WHERE user_id = ? AND user_id <> '' AND (ts, id) > (?, ?) "  # noqa: S608 - fixed
                "ORDER BY ts, id LIMIT ?",
                (user, *after, _AT_ONCE),
            )
            return [Row(*values) for values in found]


def _subject(connection: sqlite3.Connection, user: str) -> str:
    (salt,) = connection.execute("SELECT value FROM audit_store WHERE name = 'subject_salt'").fetchone()
    return subject_of(salt, user)


def _note(connection: sqlite3.Connection, actor: str, action: str, ts_ms: int, detail: dict[str, Any]) -> None:
    connection.execute(
        "INSERT INTO audit_actions VALUES (?, ?, ?, ?, ?)",
        (_new_id(), ts_ms, actor, action, orjson.dumps(detail).decode()),
    )


class PostgresPeople:
    """The people of a PostgreSQL store; satisfies ``flow.people.People``."""

    def __init__(self, url: str) -> None:
        self._url, _ = split_pooler_flag(url)

    async def erase(self, user: str, *, before_ms: int, actor: str) -> Erased:
        """Erase one person; see the Protocol."""
        before = moment(before_ms)
        async with self._connected() as connection:
            async with connection.transaction():
                # Every insert under way ends first, and all later ones meet the tombstone.
                await connection.execute("SET LOCAL lock_timeout = '60s'")
                await connection.execute("SELECT pg_advisory_xact_lock($1)", ERASE_LOCK)
                subject = await _subject_there(connection, user)
                await connection.execute(
                    "INSERT INTO audit_tombstones (subject, before) VALUES ($1, $2) "
                    "ON CONFLICT (subject) DO UPDATE SET before = greatest(audit_tombstones.before, excluded.before)",
                    subject,
                    before,
                )
                await connection.execute(
                    "UPDATE audit_store SET value = (value::bigint + 1)::text WHERE name = 'tombstones'"
                )
                await connection.execute(
                    "DELETE FROM audit_subject_keys WHERE starts_with(subject, $1::text || ':')", subject
                )
                gone = await connection.execute("DELETE FROM audit_content WHERE subject = $1", subject)
            parts, rows = int(gone.rsplit(" ", 1)[1]), 0
            while some := await self._erase_some(connection, user, before):
                rows += some
            detail = {"subject": subject, "rows": rows, "content_parts": parts, "before_ms": before_ms}
            await _note_there(connection, actor, "erase", before_ms, detail)
        return Erased(subject, rows, parts)

    async def note_export(self, user: str, *, actor: str, now_ms: int) -> None:
        """Write the entry of an export."""
        async with self._connected() as connection:
            await _note_there(connection, actor, "export", now_ms, {"subject": await _subject_there(connection, user)})

    async def note_content(self, exchange_id: str, *, actor: str, now_ms: int) -> None:
        """Write the entry of words that are read."""
        async with self._connected() as connection:
            await _note_there(connection, actor, "content", now_ms, {"exchange": exchange_id})

    async def rows(self, user: str, *, actor: str, now_ms: int) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield one person's rows; see the Protocol."""
        from proxy.stores.chain_scan import from_postgres  # noqa: PLC0415 - keeps the sidecar's start lean

        async with self._connected() as connection:
            await _note_there(connection, actor, "export", now_ms, {"subject": await _subject_there(connection, user)})
            sql = f"SELECT {_COLUMNS} FROM audit WHERE user_id = $1 ORDER BY ts, id"  # noqa: S608 - fixed
            async with connection.transaction(readonly=True):
                cursor = await connection.cursor(sql, user)
                while found := await cursor.fetch(_AT_ONCE):
                    yield [plain_row(from_postgres(values)) for values in found]

    async def _erase_some(self, connection: Any, user: str, before: Any) -> int:
        async with connection.transaction():
            found = await connection.fetch(
                f"SELECT id, ts, seal, {_NAMED} FROM audit WHERE user_id = $1 AND user_id <> '' AND ts < $2 "  # noqa: S608 - fixed
                f"ORDER BY ts, id LIMIT {_AT_ONCE} FOR UPDATE",
                user,
                before,
            )
            # By exchange, too: a name that was cut to fit its row is another subject.
            await connection.execute("DELETE FROM audit_content WHERE id = ANY($1)", [values[0] for values in found])
            seals = [
                erased_seal(seal, user_id, conversation, error, _canonical(metadata), _canonical(groups))
                for _, _, seal, user_id, conversation, error, metadata, groups in found
            ]
            await connection.execute(
                f"UPDATE audit SET {_EMPTIED}, seal = gone.seal "  # noqa: S608 - fixed
                "FROM unnest($1::uuid[], $2::timestamptz[], $3::bytea[]) AS gone (id, ts, seal) "
                "WHERE audit.id = gone.id AND audit.ts = gone.ts",
                [values[0] for values in found],
                [values[1] for values in found],
                seals,
            )
        return len(found)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        import asyncpg  # noqa: PLC0415 - only who uses PostgreSQL pays for its driver

        try:
            connection = await asyncpg.connect(self._url, timeout=5.0, statement_cache_size=0)
            try:
                yield connection
            finally:
                await connection.close(timeout=5.0)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            raise SinkUnavailable(f"postgresql: {exc}") from exc


def _new_id() -> str:
    return str(UUID(bytes=os.urandom(16), version=4))


async def _subject_there(connection: Any, user: str) -> str:
    return subject_of(await connection.fetchval("SELECT value FROM audit_store WHERE name = 'subject_salt'"), user)


async def _note_there(connection: Any, actor: str, action: str, ts_ms: int, detail: dict[str, Any]) -> None:
    await connection.execute(
        "INSERT INTO audit_actions (id, ts, actor, action, detail) VALUES ($1, $2, $3, $4, $5)",
        _new_id(),
        moment(ts_ms),
        actor,
        action,
        orjson.dumps(detail).decode(),
    )


def _canonical(text: str) -> str:
    return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()
