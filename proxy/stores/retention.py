"""Deleting rows that are too old, in both databases, without holding up those that arrive.

Owns the SQL and its order. PostgreSQL: a month of which every row is too old is detached (a lock asked for at most
half a second, again later when somebody holds it), read once more for the record, and dropped; what is left
over goes row by row in batches of a few milliseconds. SQLite: batches alone. Each batch replaces the signed
records of the chains it touches in its own transaction, so verifying never sees a row gone and no reason.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import orjson

from proxy.core.audit.pruning import Ages, Change, Place, settle
from proxy.core.audit.records import Record, Skip
from proxy.flow.checkpoints import Signer
from proxy.flow.retention import Pruner
from proxy.stores.audit_stores import POSTGRES_SCHEMES, sqlite_path
from proxy.stores.migrations import statement
from proxy.stores.postgres_sink import ERASE_LOCK, moment, split_pooler_flag
from proxy.terms.errors import SinkUnavailable

_AT_ONCE: Final = 1000
_LOCK: Final = ERASE_LOCK + 1
_MONTH: Final = "^audit_y[0-9]{4}m[0-9]{2}$"
_RECORDS: Final = "SELECT writer, epoch, seq, kind, ts, body, key, signature FROM audit_checkpoints"
_RECORDS_OF: Final = _RECORDS + " WHERE (writer, epoch) IN (SELECT * FROM unnest($1::uuid[], $2::bigint[])) FOR UPDATE"  # noqa: S608 - fixed


def open_pruner(store_url: str, signer: Signer) -> Pruner:
    """Return what deletes old rows of a store.

    Raises:
        ValueError: This store keeps no rows (``stdout:``).
    """
    if store_url.startswith("sqlite:"):
        return SqlitePruner(sqlite_path(store_url), signer)
    if store_url.split(":", 1)[0] in POSTGRES_SCHEMES:
        return PostgresPruner(store_url, signer)
    raise ValueError("this audit store keeps no rows")


def _cutoffs(ages: Ages, now_ms: int) -> list[tuple[str | None, int]]:
    """Return policy (None: all others) and the Unix ms before which its rows go."""
    named: list[tuple[str | None, float | None]] = [*ages.by_policy.items(), (None, ages.others)]
    return [(policy, now_ms - int(age_s * 1000)) for policy, age_s in named if age_s is not None]


def _place(row_id: str, writer: str, epoch: int, seq: int, digest: bytes | None, seal: bytes | None) -> Place:
    position = int.from_bytes(seal[1:9], "big") if seal is not None and seal[:1] == b"\x01" else None
    return Place(writer, epoch, seq, position, digest, row_id)


def _change(skips: list[Skip], places: Sequence[Place], known: Iterable[Record], signer: Signer, now_ms: int) -> Change:
    """Say what becomes of the records; those that somebody else signed, or nobody, are not believed."""
    ours = [
        record for record in known if record.key == signer.key and signer.sign(record.body.encode()) == record.signature
    ]
    skips = skips + [
        Skip(place.writer, place.epoch, place.position, place.position, place.seq, place.hash)
        for place in places
        if place.position is not None and place.hash is not None
    ]
    return settle(skips, {place.row_id for place in places if place.position is None}, ours, now_ms)


def _signed(change: Change, signer: Signer) -> list[Record]:
    return [draft.signed(signer.key, signer.sign(draft.body.encode())) for draft in change.fresh]


class SqlitePruner:
    """Deletes old rows of a SQLite store; satisfies ``flow.retention.Pruner``."""

    def __init__(self, path: Path, signer: Signer) -> None:
        self._path = path
        self._signer = signer

    async def prune(self, ages: Ages, now_ms: int) -> int:
        """Delete one batch; see the Protocol."""
        return int(await self._run(self._prune, ages, now_ms))

    async def note(self, rows: int, now_ms: int, actor: str) -> None:
        """Write the entry; see the Protocol."""
        await self._run(self._note, rows, now_ms, actor)

    async def _run(self, work: Any, *arguments: Any) -> Any:
        try:
            return await asyncio.to_thread(work, *arguments)
        except sqlite3.Error as exc:
            raise SinkUnavailable(f"sqlite {self._path}: {exc}") from exc

    def _connect(self) -> closing[sqlite3.Connection]:
        uri = f"{self._path.absolute().as_uri()}?mode=rw"
        return closing(sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None))

    def _prune(self, ages: Ages, now_ms: int) -> int:
        with self._connect() as connection:
            found = self._too_old(connection, ages, now_ms)  # before the lock: nobody waits for a search
            connection.execute("BEGIN IMMEDIATE")
            gone = self._content(connection, now_ms)
            sql = "DELETE FROM audit WHERE id = ? AND ts = ? AND seq = ?"
            places = [
                place for place, ts in found if connection.execute(sql, (place.row_id, ts, place.seq)).rowcount == 1
            ]
            known: list[Record] = []
            for writer, epoch in sorted({place[:2] for place in places}):
                records = connection.execute(_RECORDS + " WHERE writer = ? AND epoch = ?", (writer, epoch))
                known += [Record(*values) for values in records]
            change = _change([], places, known, self._signer, now_ms)
            connection.executemany(
                "DELETE FROM audit_checkpoints WHERE writer = ? AND epoch = ? AND kind = ? AND seq = ?",
                [(record.writer, record.epoch, record.kind, record.seq) for record in change.stale],
            )
            connection.executemany(statement("sqlite", "insert_checkpoints"), _signed(change, self._signer))
            connection.execute("COMMIT")
            return len(places) + gone

    def _too_old(self, connection: sqlite3.Connection, ages: Ages, now_ms: int) -> list[tuple[Place, int]]:
        found: list[tuple[Place, int]] = []
        named = sorted(ages.by_policy)
        for policy, cutoff in _cutoffs(ages, now_ms):
            marks = ", ".join("?" * len(named))
            which, values = ("policy = ?", [policy]) if policy is not None else (f"policy NOT IN ({marks})", named)
            sql = f"SELECT id, writer, epoch, seq, hash, seal, ts FROM audit WHERE ts < ? AND {which} LIMIT ?"  # noqa: S608
            rows = connection.execute(sql, (cutoff, *values, _AT_ONCE - len(found)))
            found += [(_place(*row[:6]), row[6]) for row in rows]
        return found

    def _content(self, connection: sqlite3.Connection, now_ms: int) -> int:
        sql = "DELETE FROM audit_content WHERE rowid IN (SELECT rowid FROM audit_content WHERE expires < ? LIMIT ?)"
        return connection.execute(sql, (now_ms, _AT_ONCE)).rowcount

    def _note(self, rows: int, now_ms: int, actor: str) -> None:
        with self._connect() as connection:
            connection.execute(
                "INSERT INTO audit_actions VALUES (?, ?, ?, 'retention', ?)",
                (_new_id(), now_ms, actor, orjson.dumps({"rows": rows}).decode()),
            )


class PostgresPruner:
    """Deletes old rows of a PostgreSQL store; satisfies ``flow.retention.Pruner``."""

    def __init__(self, url: str, signer: Signer) -> None:
        self._url, _ = split_pooler_flag(url)
        self._signer = signer

    async def prune(self, ages: Ages, now_ms: int) -> int:
        """Drop one month, or delete one batch of rows; see the Protocol."""
        async with self._connected() as connection:
            gone = await self._drop_detached(connection, now_ms)
            if gone:
                return gone
            if ages.longest is not None and await self._detach(connection, moment(now_ms - int(ages.longest * 1000))):
                return await self._drop_detached(connection, now_ms)
            return await self._delete_some(connection, ages, now_ms)

    async def note(self, rows: int, now_ms: int, actor: str) -> None:
        """Write the entry; see the Protocol."""
        async with self._connected() as connection:
            await connection.execute(
                "INSERT INTO audit_actions (id, ts, actor, action, detail) VALUES ($1, $2, $3, 'retention', $4)",
                _new_id(), moment(now_ms), actor, orjson.dumps({"rows": rows}).decode(),
            )  # fmt: skip

    async def _detach(self, connection: Any, cutoff: datetime) -> bool:
        """Take the oldest month out of the table when all of it lies before ``cutoff``."""
        import asyncpg  # noqa: PLC0415 - only who uses PostgreSQL pays for its driver

        name = await connection.fetchval(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = 'audit'::regclass AND c.relname ~ $1 "
            r"AND to_date(substring(c.relname from 8 for 7), 'YYYY\"m\"MM') + interval '1 month' <= $2 AT TIME ZONE 'UTC' "
            "ORDER BY c.relname LIMIT 1",
            _MONTH,
            cutoff,
        )
        if name is None:
            return False
        try:
            async with connection.transaction():
                if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
                    return False
                await connection.execute("SET LOCAL lock_timeout = '500ms'")
                await connection.execute(f'ALTER TABLE audit DETACH PARTITION "{name}"')
        except (asyncpg.LockNotAvailableError, asyncpg.UndefinedTableError):
            return False
        return True

    async def _drop_detached(self, connection: Any, now_ms: int) -> int:
        """Drop a month that was detached, putting its chains' records in its place."""
        name = await connection.fetchval(
            "SELECT c.relname FROM pg_class c WHERE c.relkind = 'r' AND NOT c.relispartition "
            "AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'audit'::regclass) "
            "AND c.relname ~ $1 ORDER BY c.relname LIMIT 1",
            _MONTH,
        )
        if name is None:
            return 0
        async with connection.transaction():
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
                return 0
            rows = await connection.fetchval(f'SELECT count(*) FROM "{name}"')  # noqa: S608 - by pattern
            runs = await connection.fetch(statement("postgres", "runs_of_month").replace("/*month*/", f'"{name}"'))
            alone = await connection.fetch(
                f'SELECT id, writer, epoch, seq, hash, seal FROM "{name}" WHERE get_byte(seal, 0) = 2'  # noqa: S608
            )
            skips = [Skip(str(run[0]), *run[1:]) for run in map(tuple, runs)]
            places = [_place(str(row[0]), str(row[1]), *tuple(row)[2:]) for row in alone]
            await self._settle(connection, skips, places, now_ms)
            await connection.execute(f'DROP TABLE "{name}"')
        return max(1, int(rows))

    async def _delete_some(self, connection: Any, ages: Ages, now_ms: int) -> int:
        async with connection.transaction():
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
                return 0
            content = await connection.execute(
                "DELETE FROM audit_content WHERE (id, part) IN "
                "(SELECT id, part FROM audit_content WHERE expires < $1 LIMIT $2)",
                moment(now_ms),
                _AT_ONCE,
            )
            found: list[Any] = []
            for policy, cutoff in _cutoffs(ages, now_ms):
                which = "policy = ANY($2)" if policy is not None else "NOT policy = ANY($2)"
                found += await connection.fetch(
                    "SELECT id, writer, epoch, seq, hash, seal, ts FROM audit "  # noqa: S608 - fixed
                    f"WHERE ts < $1 AND {which} LIMIT $3 FOR UPDATE SKIP LOCKED",
                    moment(cutoff),
                    [policy] if policy is not None else sorted(ages.by_policy),
                    _AT_ONCE - len(found),
                )
            await connection.execute(
                "DELETE FROM audit USING unnest($1::uuid[], $2::timestamptz[]) AS gone (id, ts) "
                "WHERE audit.id = gone.id AND audit.ts = gone.ts",
                [row[0] for row in found],
                [row[6] for row in found],
            )
            places = [_place(str(row[0]), str(row[1]), *tuple(row)[2:6]) for row in found]
            await self._settle(connection, [], places, now_ms)
        return len(found) + int(content.rsplit(" ", 1)[1])

    async def _settle(self, connection: Any, skips: list[Skip], places: list[Place], now_ms: int) -> None:
        """Replace the signed records of the chains that lost rows."""
        chains = sorted({(item[0], item[1]) for item in (*skips, *places)})
        if not chains:
            return
        found = await connection.fetch(
            _RECORDS_OF,
            [writer for writer, _ in chains],
            [epoch for _, epoch in chains],
        )
        known = [_record(values) for values in found]
        change = _change(skips, places, known, self._signer, now_ms)
        await connection.executemany(
            "DELETE FROM audit_checkpoints WHERE writer = $1 AND epoch = $2 AND kind = $3 AND seq = $4",
            [(record.writer, record.epoch, record.kind, record.seq) for record in change.stale],
        )
        await connection.executemany(
            statement("postgres", "insert_checkpoints"),
            [(*record[:4], moment(record.ts), *record[5:]) for record in _signed(change, self._signer)],
        )

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


def _record(values: Any) -> Record:
    writer, epoch, seq, kind, ts, body, key, signature = values
    return Record(str(writer), epoch, seq, kind, round(ts.timestamp() * 1000), body, key, signature)


def _new_id() -> str:
    return str(UUID(bytes=os.urandom(16), version=4))
