"""What those who read the audit need from its store, as a Protocol.

Owns nothing. The stores implement it; the command line and the admin API read through it, never on the
request path and never over the connection that rows are shipped on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

from proxy.core.audit.query import DEFAULT_GROUPS, Cursor, RowFilter

PAGE_ROWS: Final = 1000

Record = dict[str, Any]
"""A row by column: JSON columns parsed, times as aware datetimes, claims as booleans."""


class AuditReader(Protocol):
    """Reads one audit store. Every method raises SinkUnavailable, or QueryTooSlow after the time it is given."""

    async def rows(
        self, wanted: RowFilter, limit: int, after: Cursor | None = None, *, oldest_first: bool = False
    ) -> list[Record]:
        """Return up to ``limit`` matching rows behind ``after``, newest first unless told otherwise."""
        ...

    async def count(self, wanted: RowFilter) -> int:
        """Return how many rows match."""
        ...

    async def sums(self, wanted: RowFilter, by: tuple[str, ...] = DEFAULT_GROUPS) -> list[Record]:
        """Return one record per value of these columns, the largest first: counts, latency, tokens, cost."""
        ...

    async def redactions(self, wanted: RowFilter) -> list[Record]:
        """Return one record per type that was found: ``type``, ``found``, ``replaced``, ``exchanges``."""
        ...

    async def shed_rows(self) -> int:
        """Return how many rows are known to be missing, by the gap records."""
        ...

    async def close(self) -> None: ...


def cursor_of(record: Record) -> Cursor:
    """Return the mark behind this row."""
    return Cursor(round(record["ts"].timestamp() * 1000), record["id"])


async def pages(
    reader: AuditReader,
    wanted: RowFilter,
    *,
    after: Cursor | None = None,
    oldest_first: bool = False,
    page_rows: int = PAGE_ROWS,
) -> AsyncIterator[list[Record]]:
    """Yield matching rows in pages; what is inserted meanwhile neither repeats a row nor hides one."""
    while True:
        page = await reader.rows(wanted, page_rows, after, oldest_first=oldest_first)
        if not page:
            return
        yield page
        if len(page) < page_rows:
            return
        after = cursor_of(page[-1])
