"""Reading a store the way verifying needs it: every row in the order of its chain, gaps, signed records.

Owns the reading of both databases and of exported JSON lines (which pass through a SQLite file of their own, to be
sorted). Opens stores for reading only. Rows come back as ``Row``, JSON columns as they were bound.
"""

from __future__ import annotations

import gzip
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final, Protocol

import orjson

from proxy.core.audit.records import Record
from proxy.core.audit.row import CLAIMS, JSON_COLUMNS, Gap, Row
from proxy.core.audit.sanitise import NO_GROUPS
from proxy.stores.audit_stores import POSTGRES_SCHEMES, sqlite_path
from proxy.stores.migrations import migrations, statement
from proxy.stores.postgres_sink import split_pooler_flag
from proxy.stores.sqlite_rows import insert_rows
from proxy.stores.sqlite_sink import split_statements
from proxy.terms.errors import SinkUnavailable

_COLUMNS: Final = ", ".join(Row._fields)
_ORDERED: Final = f"SELECT {_COLUMNS} FROM audit ORDER BY writer, epoch, seq"  # noqa: S608 - fixed names
_GAPS: Final = "SELECT writer, epoch, seq, ts, shed, reason, position, hash FROM audit_gaps"
_RECORDS: Final = "SELECT writer, epoch, seq, kind, ts, body, key, signature FROM audit_checkpoints ORDER BY ts"
_AT_ONCE: Final = 2000
_WRITER: Final = Row._fields.index("writer")
_JSON: Final = [Row._fields.index(name) for name in sorted(JSON_COLUMNS)]
_FLAGS: Final = [Row._fields.index(name) for name in sorted(CLAIMS)]


@dataclass(slots=True)
class Chains:
    """What verifying needs besides the rows."""

    gaps: list[Gap]
    records: list[Record]
    row_count: int


class ChainSource(Protocol):
    """A store whose chains can be read. Both methods raise SinkUnavailable."""

    async def chains(self) -> Chains:
        """Return gaps, signed records and how many rows there are."""
        ...

    def rows(self) -> AsyncIterator[list[Row]]:
        """Return all rows ordered by writer, epoch and number, some at a time; after ``chains``, as of then."""
        ...

    async def close(self) -> None: ...


def open_source(store_url: str) -> ChainSource:
    """Return the chains of a store.

    Raises:
        ValueError: This store cannot be read back (``stdout:``).
    """
    if store_url.startswith("sqlite:"):
        return SqliteChains(sqlite_path(store_url))
    if store_url.split(":", 1)[0] in POSTGRES_SCHEMES:
        return PostgresChains(store_url)
    raise ValueError("this audit store cannot be read back; verify an export of whatever collects it with --file")


class SqliteChains:
    """The chains of a SQLite store, read in one snapshot; satisfies ``ChainSource``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None

    async def chains(self) -> Chains:
        try:
            uri = f"{self.path.absolute().as_uri()}?mode=ro"
            self._connection = connection = sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None)
            # SQLite takes any type in any column: what is none of ours must end as a finding, not as our failure.
            connection.text_factory = _text
            connection.execute("BEGIN")
            gaps = [Gap(*map(_fit, values, _OF_GAP)) for values in connection.execute(_GAPS)]
            records = [Record(*map(_fit, values, _OF_RECORD)) for values in connection.execute(_RECORDS)]
            (count,) = connection.execute("SELECT count(*) FROM audit").fetchone()
        except sqlite3.Error as exc:
            raise SinkUnavailable(f"sqlite {self.path}: {exc}") from exc
        return Chains(gaps, records, count)

    async def rows(self) -> AsyncIterator[list[Row]]:
        if self._connection is None:
            raise SinkUnavailable("the chains come before the rows")
        cursor = self._connection.execute(_ORDERED)
        while found := cursor.fetchmany(_AT_ONCE):
            yield [_row_of_sqlite(values) for values in found]

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_OF_GAP: Final = (str, int, int, int, object, object, int, bytes)
_OF_RECORD: Final = (str, int, int, str, int, str, str, bytes)
_OF_ROW: Final = {"id": str, "ts": int, "writer": str, "epoch": int, "seq": int, "hash": bytes, "seal": bytes}
_TYPED: Final = [(Row._fields.index(name), kind) for name, kind in _OF_ROW.items()]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _fit(value: Any, kind: type) -> Any:
    """Return a value of this type: itself, or one that fits nothing that was ever bound."""
    return value if value is None or isinstance(value, kind) else _MISFITS[kind]


_MISFITS: Final[dict[type, Any]] = {str: "\N{REPLACEMENT CHARACTER}", int: -1, bytes: b""}


def _row_of_sqlite(values: tuple[Any, ...]) -> Row:
    row = Row(*values)
    if all(values[index] is None or type(values[index]) is kind for index, kind in _TYPED):
        return row
    return row._replace(**{name: _fit(getattr(row, name), kind) for name, kind in _OF_ROW.items()})


class PostgresChains:
    """The chains of a PostgreSQL store, read in one snapshot; satisfies ``ChainSource``."""

    def __init__(self, url: str) -> None:
        self._url, self._is_pooled = split_pooler_flag(url)
        self._connection: Any = None

    async def chains(self) -> Chains:
        import asyncpg  # noqa: PLC0415 - only who uses PostgreSQL pays for its driver

        try:
            connection = await asyncpg.connect(self._url, timeout=5.0, statement_cache_size=0)
            self._connection = connection
            await connection.transaction(isolation="repeatable_read", readonly=True).start()
            await connection.execute("SET LOCAL work_mem = '128MB'")  # rows are sorted, and not on disk if they fit
            gaps = await connection.fetch(_GAPS)
            records = await connection.fetch(_RECORDS)
            count = await connection.fetchval("SELECT count(*) FROM audit")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            raise SinkUnavailable(f"postgresql: {exc}") from exc
        return Chains([_gap(values) for values in gaps], [_record(values) for values in records], count)

    async def rows(self) -> AsyncIterator[list[Row]]:
        cursor = await self._connection.cursor(_ORDERED)
        while found := await cursor.fetch(_AT_ONCE):
            yield [from_postgres(values) for values in found]

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


class ExportedChains:
    """The chains in a file of JSON lines, as exports and standard output have them; satisfies ``ChainSource``.

    Lines are rows (plain or under ``audit``), ``audit_gap`` and ``audit_checkpoint``; others are passed over.
    """

    def __init__(self, path: Path, progress: Callable[[int], None] | None = None) -> None:
        """``progress`` hears how many bytes were read so far."""
        self._path = path
        self._progress = progress
        self._folder = tempfile.TemporaryDirectory(prefix="readygate-verify-")
        self._store = SqliteChains(Path(self._folder.name) / "export.db")
        self.passed_over = 0

    async def chains(self) -> Chains:
        try:
            self._load()
        except (OSError, EOFError) as exc:
            raise SinkUnavailable(f"{self._path}: {exc}") from exc
        return await self._store.chains()

    async def rows(self) -> AsyncIterator[list[Row]]:
        async for some in self._store.rows():
            yield some

    async def close(self) -> None:
        await self._store.close()
        self._folder.cleanup()

    def _load(self) -> None:
        connection = sqlite3.connect(self._store.path, isolation_level=None)
        with closing(connection):
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            for step in migrations("sqlite"):
                for part in split_statements(step.sql):
                    connection.execute(part)
            for pending in self._batches():
                connection.execute("BEGIN")
                insert_rows(connection, pending.pop("insert_rows", ()))
                for name, values in pending.items():
                    connection.executemany(statement("sqlite", name), values)
                connection.execute("COMMIT")

    def _batches(self) -> Iterator[dict[str, list[Any]]]:
        pending: dict[str, list[Any]] = {}
        with open_lines(self._path) as lines:
            for number, line in enumerate(lines, 1):
                name, values = _from_line(line)
                if values is None:
                    self.passed_over += 1
                else:
                    pending.setdefault(name, []).append(values)
                if number % _AT_ONCE == 0:
                    yield pending
                    pending = {}
                    if self._progress is not None:
                        self._progress(lines.tell())
        yield pending


def open_lines(path: Path) -> IO[bytes]:
    """Open a file of JSON lines, compressed when its name ends in ``.gz``. Raises OSError."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def records_in(lines: Iterable[bytes]) -> Iterator[Record]:
    """Return the checkpoints among exported lines or log lines; the others are passed over."""
    for line in lines:
        name, values = _from_line(line)
        if name == "insert_checkpoints":
            yield values


def _from_line(line: bytes) -> tuple[str, Any]:
    """Return where a line of an export belongs, and its values; None for lines that are none of ours."""
    try:
        said = orjson.loads(line)
        if "audit_gap" in said:
            return "insert_gaps", _gap_of(said["audit_gap"])
        if "audit_checkpoint" in said:
            return "insert_checkpoints", _record_of(said["audit_checkpoint"])
        if said.get("event") == "audit_checkpoint":
            return "insert_checkpoints", _record_of(said["record"])
        return "insert_rows", _row_of(said.get("audit", said))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", None


def _row_of(said: dict[str, Any]) -> Row:
    values = {"caller_groups": NO_GROUPS, **said}  # exports of earlier releases do not have the column
    values["ts"] = _time(values["ts"])
    for name in JSON_COLUMNS:
        if not isinstance(values[name], str):
            values[name] = orjson.dumps(values[name], option=orjson.OPT_SORT_KEYS).decode()
    for name in CLAIMS:
        values[name] = int(values[name])
    for name in ("hash", "seal"):
        values[name] = _bytes(values.get(name))
    return Row(**{name: values[name] for name in Row._fields})


def _gap_of(said: dict[str, Any]) -> Gap:
    values = said | {"ts": _time(said["ts"]), "hash": _bytes(said.get("hash"))}
    return Gap(**{name: values[name] for name in Gap._fields})


def _record_of(said: dict[str, Any]) -> Record:
    values = said | {"ts": _time(said["ts"]), "signature": _bytes(said["signature"])}
    return Record(**{name: values[name] for name in Record._fields})


def from_postgres(values: Any) -> Row:
    """Return the row of a database record, JSON columns as they were bound."""
    columns = list(values)
    columns[0], columns[1], columns[_WRITER] = str(columns[0]), _milliseconds(columns[1]), str(columns[_WRITER])
    for index in _JSON:
        text = columns[index]
        if len(text) > 2:
            columns[index] = orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()
    for index in _FLAGS:
        columns[index] = int(columns[index])
    return Row(*columns)


def _gap(values: Any) -> Gap:
    writer, epoch, seq, ts, *rest = values
    return Gap(str(writer), epoch, seq, _milliseconds(ts), *rest)


def _record(values: Any) -> Record:
    writer, epoch, seq, kind, ts, body, key, signature = values
    return Record(str(writer), epoch, seq, kind, _milliseconds(ts), body, key, signature)


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _time(value: Any) -> int:
    return value if isinstance(value, int) else _milliseconds(datetime.fromisoformat(value))


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else bytes.fromhex(value)
