"""Kept content in both databases: sealed under a key of the person, looked up by exchange.

Owns the SQL of ``audit_content`` and ``audit_subject_keys``. An insert meets the tombstones like a row does: it shares
the lock that an erasure takes alone, so content is either there to be destroyed or never comes.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Final

from proxy.core.audit.content import Content, decode_part
from proxy.flow.content import ContentStore, Pieces
from proxy.stores.audit_stores import POSTGRES_SCHEMES, sqlite_path
from proxy.stores.content_keys import ContentKeys, PersonKey, Unopenable, master_of
from proxy.stores.late_rows import subject_of
from proxy.stores.postgres_sink import ERASE_LOCK, moment, split_pooler_flag
from proxy.terms.errors import SinkUnavailable

_Found = Sequence[tuple[str, str, str, bytes, bytes | None]]
"""Id, part, subject, sealed, wrapped key of the person (None: destroyed or another master's)."""
_READ: Final = (
    "SELECT c.id, c.part, c.subject, c.sealed, k.wrapped FROM audit_content c "
    "LEFT JOIN audit_subject_keys k ON k.subject = c.subject || ':' || {key} WHERE c.id {among} ORDER BY c.id, c.part DESC"
)


def open_contents(store_url: str, keys: ContentKeys | None) -> ContentStore:
    """Return the content of a store; without ``keys`` it shows what there is and opens nothing.

    Raises:
        ValueError: This store keeps no rows (``stdout:``).
    """
    if store_url.startswith("sqlite:"):
        return SqliteContents(sqlite_path(store_url), keys)
    if store_url.split(":", 1)[0] in POSTGRES_SCHEMES:
        return PostgresContents(store_url, keys)
    raise ValueError("this audit store keeps no content")


def _living(contents: Sequence[Content], salt: str, dead: Mapping[str, int], now_ms: int) -> list[tuple[str, Content]]:
    """Return subject and content of what may be stored."""
    named = [(subject_of(salt, content.user), content) for content in contents if content.expires > now_ms]
    return [(subject, content) for subject, content in named if not content.user or content.ts >= dead.get(subject, 0)]


def _sealed(key: PersonKey, subject: str, content: Content) -> list[tuple[str, int, str, str, int, bytes]]:
    return [
        (content.id, content.ts, part.name, subject, content.expires, key.seal(content.id, part.name, part.encode()))
        for part in content.parts
    ]


def _opened(keys: ContentKeys | None, found: _Found) -> dict[str, Pieces]:
    opened: dict[str, Pieces] = {}
    for exchange_id, name, subject, sealed, wrapped in found:
        piece: dict[str, Any] = {"sealed": True, "key": master_of(sealed)}
        if keys is not None and wrapped is not None:
            try:
                part = decode_part(name, keys.unwrap(subject, wrapped).open(exchange_id, name, sealed))
                piece = {"mode": part.mode, "cut": part.is_cut, "text": part.text}
            except (Unopenable, ValueError):
                piece["damaged"] = True
        opened.setdefault(exchange_id, {})[name] = piece
    return opened


class SqliteContents:
    """Content of a SQLite store; satisfies ``flow.content.ContentStore``."""

    def __init__(self, path: Path, keys: ContentKeys | None) -> None:
        self._path = path
        self._keys = keys

    async def insert(self, contents: Sequence[Content], now_ms: int) -> None:
        """Store in one transaction; see the Protocol."""
        await self._run(self._insert, contents, now_ms)

    async def read(self, ids: Sequence[str]) -> Mapping[str, Pieces]:
        """Return what is kept; see the Protocol."""
        found: _Found = await self._run(self._read, list(ids))
        return _opened(self._keys, found)

    async def _run(self, work: Any, *arguments: Any) -> Any:
        try:
            return await asyncio.to_thread(work, *arguments)
        except sqlite3.Error as exc:
            raise SinkUnavailable(f"sqlite {self._path}: {exc}") from exc

    def _connect(self, mode: str) -> closing[sqlite3.Connection]:
        uri = f"{self._path.absolute().as_uri()}?mode={mode}"
        return closing(sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None))

    def _insert(self, contents: Sequence[Content], now_ms: int) -> None:
        keys = self._keys
        if keys is None:
            raise SinkUnavailable("content cannot be sealed without audit.key")
        with self._connect("rw") as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            (salt,) = connection.execute("SELECT value FROM audit_store WHERE name = 'subject_salt'").fetchone()
            dead = dict(connection.execute("SELECT subject, before FROM audit_tombstones").fetchall())
            for subject, content in _living(contents, salt, dead, now_ms):
                row = keys.key_row(subject)
                connection.execute(
                    "INSERT INTO audit_subject_keys VALUES (?, ?, ?) ON CONFLICT (subject) DO NOTHING",
                    (row, keys.new_wrapped(subject), now_ms),
                )
                wrapped = connection.execute("SELECT wrapped FROM audit_subject_keys WHERE subject = ?", (row,))
                key = _unwrapped(keys, subject, wrapped.fetchone()[0])
                connection.executemany(
                    "INSERT INTO audit_content (id, ts, part, subject, expires, sealed) VALUES (?, ?, ?, ?, ?, ?) "
                    "ON CONFLICT (id, part) DO NOTHING",
                    _sealed(key, subject, content),
                )
            connection.execute("COMMIT")

    def _read(self, ids: list[str]) -> _Found:
        with self._connect("ro") as connection:
            sql = _READ.format(key="?", among=f"IN ({', '.join('?' * len(ids))})")
            name = self._keys.name if self._keys is not None else ""
            return connection.execute(sql, (name, *ids)).fetchall()


class PostgresContents:
    """Content of a PostgreSQL store; satisfies ``flow.content.ContentStore``."""

    def __init__(self, url: str, keys: ContentKeys | None) -> None:
        self._url, _ = split_pooler_flag(url)
        self._keys = keys

    async def insert(self, contents: Sequence[Content], now_ms: int) -> None:
        """Store in one transaction; see the Protocol."""
        keys = self._keys
        if keys is None:
            raise SinkUnavailable("content cannot be sealed without audit.key")
        async with self._connected() as connection, connection.transaction():
            await connection.execute("SET LOCAL synchronous_commit = 'on'")
            await connection.execute(f"SELECT pg_advisory_xact_lock_shared({ERASE_LOCK})")
            salt = await connection.fetchval("SELECT value FROM audit_store WHERE name = 'subject_salt'")
            found = await connection.fetch("SELECT subject, before FROM audit_tombstones")
            dead = {subject: round(before.timestamp() * 1000) for subject, before in found}
            living = _living(contents, salt, dead, now_ms)
            opened = await self._person_keys(connection, keys, sorted({subject for subject, _ in living}), now_ms)
            rows = [row for subject, content in living for row in _sealed(opened[subject], subject, content)]
            await connection.executemany(
                "INSERT INTO audit_content (id, ts, part, subject, expires, sealed) VALUES ($1, $2, $3, $4, $5, $6) "
                "ON CONFLICT (id, part) DO NOTHING",
                [(row[0], moment(row[1]), *row[2:4], moment(row[4]), row[5]) for row in rows],
            )

    async def _person_keys(
        self, connection: Any, keys: ContentKeys, subjects: list[str], now_ms: int
    ) -> dict[str, PersonKey]:
        """Return the keys of these people, made for those who have none; in order, so that two sidecars never cross."""
        names = {keys.key_row(subject): subject for subject in subjects}
        await connection.execute(
            "INSERT INTO audit_subject_keys (subject, wrapped, made_at) "
            "SELECT *, $3 FROM unnest($1::text[], $2::bytea[]) ON CONFLICT (subject) DO NOTHING",
            list(names),
            [keys.new_wrapped(subject) for subject in subjects],
            moment(now_ms),
        )
        found = await connection.fetch(
            "SELECT subject, wrapped FROM audit_subject_keys WHERE subject = ANY($1)", [*names]
        )
        return {names[row]: _unwrapped(keys, names[row], wrapped) for row, wrapped in found}

    async def read(self, ids: Sequence[str]) -> Mapping[str, Pieces]:
        """Return what is kept; see the Protocol."""
        name = self._keys.name if self._keys is not None else ""
        async with self._connected() as connection:
            found = await connection.fetch(_READ.format(key="$1::text", among="= ANY($2::uuid[])"), name, list(ids))
        return _opened(self._keys, [(str(row[0]), *tuple(row)[1:]) for row in found])

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        import asyncpg  # noqa: PLC0415 - only who uses PostgreSQL pays for its driver

        try:
            connection = await asyncpg.connect(self._url, timeout=5.0, command_timeout=30.0, statement_cache_size=0)
            try:
                yield connection
            finally:
                await connection.close(timeout=5.0)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            raise SinkUnavailable(f"postgresql: {exc}") from exc


def _unwrapped(keys: ContentKeys, subject: str, wrapped: bytes) -> PersonKey:
    try:
        return keys.unwrap(subject, wrapped)
    except Unopenable as exc:
        raise SinkUnavailable("a person's content key in the store was changed") from exc
