"""The embedded audit store: one SQLite file, written by one thread.

Owns the connection and its thread. The event loop never waits for the disk; WAL mode lets the CLI read
while rows arrive. How rows become statements is in ``sqlite_rows``; the SQL is in ``sql/sqlite``.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from proxy.core.audit.records import Record
from proxy.core.audit.row import Gap, Row
from proxy.stores.late_rows import LateRows
from proxy.stores.migrations import migrations, statement
from proxy.stores.sqlite_rows import STATEMENTS, insert_rows
from proxy.terms.errors import RowRefused, SinkUnavailable

_T = TypeVar("_T")
_BUSY_S: Final = 5.0
_OTHER_STATEMENTS: Final = 16
_NAMED = ("readygate_schema (version INTEGER PRIMARY KEY, name TEXT NOT NULL)",)


class SqliteSink:
    """Stores rows in a SQLite file; satisfies ``flow.audit_ports.Sink``."""

    def __init__(self, path: Path, *, may_migrate: bool = True) -> None:
        """``may_migrate=False`` refuses to touch the schema of a file made by an older release."""
        self._path = path
        self._inode: tuple[int, int] | None = None
        self._may_migrate = may_migrate
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="audit-sqlite")
        self._connection: sqlite3.Connection | None = None
        self._late = LateRows()

    async def open(self) -> None:
        """Open the file, make its folder, bring the schema up to date. Raises SinkUnavailable."""
        await self._run(self._open)

    async def insert(self, rows: Sequence[Row], gaps: Sequence[Gap] = (), records: Sequence[Record] = ()) -> None:
        """Store all of these in one transaction; see the Protocol."""
        await self._run(lambda: self._insert(rows, gaps, records))

    async def ping(self) -> float:
        """Return how long the file takes to answer, in milliseconds. Raises SinkUnavailable."""
        started_s = time.perf_counter()
        await self._run(lambda: self._current().execute("SELECT 1 FROM audit LIMIT 1").fetchone())
        return (time.perf_counter() - started_s) * 1000

    async def close(self) -> None:
        """Close the file; a sink may be opened again."""
        await self._run(self._close)

    async def _run(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError) as exc:
            raise RowRefused(f"sqlite: {exc}") from exc
        except (UnicodeEncodeError, OverflowError) as exc:
            raise RowRefused(f"sqlite: {type(exc).__name__}") from exc
        except (sqlite3.Error, OSError) as exc:
            raise SinkUnavailable(f"sqlite {self._path}: {exc}") from exc

    def _open(self) -> None:
        if self._connection is not None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._path,
            timeout=_BUSY_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS + _OTHER_STATEMENTS,
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # FULL, because an acknowledged row leaves the spool: one sync per batch, in this thread.
            connection.execute("PRAGMA synchronous = FULL")
            self._migrate(connection)
        except sqlite3.Error:
            connection.close()
            raise
        self._connection = connection
        self._inode = self._inode_now()

    def _inode_now(self) -> tuple[int, int] | None:
        """Return what file the path names now; None when there is none."""
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _current(self) -> sqlite3.Connection:
        """Return a connection to the file that the path names now: rows committed to a deleted one would be gone."""
        if self._inode_now() != self._inode:
            self._close()
            self._open()
        return self._connected()

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(f"CREATE TABLE IF NOT EXISTS {_NAMED[0]}")
            (version,) = connection.execute("SELECT coalesce(max(version), 0) FROM readygate_schema").fetchone()
            missing = [step for step in migrations("sqlite") if step.version > version]
            if missing and version and not self._may_migrate:
                raise SinkUnavailable(
                    f"sqlite {self._path}: schema is at {version}, this release needs {missing[-1].version}; "
                    "run `readygate audit migrate`"
                )
            for step in missing:
                for part in split_statements(step.sql):
                    connection.execute(part)
                connection.execute("INSERT INTO readygate_schema VALUES (?, ?)", (step.version, step.name))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk has rolled back already
                connection.execute("ROLLBACK")
            raise

    def _insert(self, rows: Sequence[Row], gaps: Sequence[Gap], records: Sequence[Record]) -> None:
        connection = self._current()
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._look_for_tombstones(connection)
            insert_rows(connection, self._late.met(rows))
            if gaps:
                connection.executemany(statement("sqlite", "insert_gaps"), gaps)
            if records:
                connection.executemany(statement("sqlite", "insert_checkpoints"), records)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk has rolled back already
                connection.execute("ROLLBACK")
            raise

    def _look_for_tombstones(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("SELECT value FROM audit_store WHERE name = 'tombstones'").fetchone()
        if version != self._late.version:
            (salt,) = connection.execute("SELECT value FROM audit_store WHERE name = 'subject_salt'").fetchone()
            self._late.learn(version, salt, connection.execute("SELECT subject, before FROM audit_tombstones"))

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            raise SinkUnavailable(f"sqlite {self._path} is not open")
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def split_statements(sql: str) -> list[str]:
    """Return the statements of a script one by one, so that they can share a transaction."""
    statements, pending = [], ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements
