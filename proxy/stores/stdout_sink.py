"""Audit rows as JSON lines on a stream, for platforms that collect standard output.

Owns nothing but the stream it is given. A line that was written may be written again after a crash: whoever
collects the lines removes repeats by ``id`` and ``seq``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import IO, Any, Final

import orjson

from proxy.core.audit.records import Record
from proxy.core.audit.row import CLAIMS, JSON_COLUMNS, Gap, Row, named
from proxy.terms.errors import SinkUnavailable

_OPTIONS: Final = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE


class StdoutSink:
    """Writes one JSON object a line; satisfies ``flow.audit_ports.Sink``."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    async def open(self) -> None:
        """Nothing to open."""

    async def insert(self, rows: Sequence[Row], gaps: Sequence[Gap] = (), records: Sequence[Record] = ()) -> None:
        """Write and flush all lines in one piece. Raises SinkUnavailable."""
        lines = [orjson.dumps({"audit": plain_row(row)}, option=_OPTIONS) for row in rows]
        lines += [orjson.dumps({"audit_gap": plain_gap(gap)}, option=_OPTIONS) for gap in gaps]
        lines += [orjson.dumps({"audit_checkpoint": plain_record(record)}, option=_OPTIONS) for record in records]
        try:
            self._stream.write(b"".join(lines))
            self._stream.flush()
        except (OSError, ValueError) as exc:
            raise SinkUnavailable("standard output cannot be written") from exc

    async def ping(self) -> float:
        """Return 0: a stream has no round trip."""
        return 0.0

    async def close(self) -> None:
        """Leave the stream as it is."""


def plain_row(row: Row) -> dict[str, Any]:
    """Return a row as JSON takes it; ``verify`` reads it back."""
    columns = named(row)
    columns["hash"] = _hex(row.hash)
    columns["seal"] = _hex(row.seal)
    columns["ts"] = _time(row.ts)
    for name in CLAIMS:
        columns[name] = bool(columns[name])
    for name in JSON_COLUMNS:
        columns[name] = orjson.Fragment(columns[name])
    return columns


def plain_gap(gap: Gap) -> dict[str, Any]:
    """Return a gap record as JSON takes it; ``verify`` reads it back."""
    return gap._asdict() | {"ts": _time(gap.ts), "hash": _hex(gap.hash)}


def plain_record(record: Record) -> dict[str, Any]:
    """Return a signed record as JSON takes it; ``verify`` reads it back."""
    return record._asdict() | {"ts": _time(record.ts), "signature": record.signature.hex()}


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _time(ts_ms: int) -> datetime:
    return datetime.fromtimestamp(ts_ms / 1000, UTC)
