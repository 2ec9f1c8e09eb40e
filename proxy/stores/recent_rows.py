"""The rows that were spooled a moment ago, still in memory: shipping them needs no reading back.

Owns a bounded window of finished rows in the order of the spool. Knows positions in segments, no files. It
answers only for a stretch without a hole: whatever was written in another way (gaps, rows that had to wait
for the disk, frames that were moved) moves the beginning of the window behind it, and the reader takes what
lies before from the disk. Losing the window loses nothing.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from proxy.core.audit.row import Columns, Written
from proxy.stores.segment import Segment

_MAX_ROWS: Final = 8192
"""About 2.5 KB each."""
_NOWHERE: Final = 1 << 64
"""Behind every segment: until ``restart`` says where it begins, the window answers for nothing."""


_RecentRow = tuple[int, int, Written]
"""An END, and where it is: its segment's first number and where it ends there. Only plain values, so that the
garbage collector need not look at them again and again."""


class RecentRows:
    """A window over the end of the spool: every END from (``first_seq``, ``offset``) on is in it."""

    def __init__(self, max_rows: int = _MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._rows: deque[_RecentRow] = deque()
        self._first_seq = _NOWHERE
        self._offset = 0

    def add(self, segment: Segment, exchange_id: str, seq: int, payload: bytes, columns: Columns | None) -> None:
        """An END was just written at the end of ``segment``; without columns it is to be read from there."""
        if columns is None:
            self.restart(segment)
            return
        rows = self._rows
        rows.append((segment.first_seq, segment.data_end, (exchange_id, seq, payload, columns)))
        if len(rows) > self._max_rows:
            self._first_seq, self._offset, _ = rows.popleft()

    def restart(self, segment: Segment) -> None:
        """Something else was written to ``segment``: the window begins behind it."""
        self._rows.clear()
        self._first_seq, self._offset = segment.first_seq, segment.data_end

    def begins_at(self, segment: Segment) -> int:
        """Return the offset in this segment from which rows need not be read from disk."""
        if segment.first_seq == self._first_seq:
            return self._offset
        return 0 if segment.first_seq > self._first_seq else segment.data_end

    def take(self, segment: Segment, max_rows: int) -> tuple[list[Written], int]:
        """Return the next rows of this segment behind its cursor, where the last of them ends, and forget them."""
        rows = self._rows
        first_seq, end = segment.first_seq, segment.cursor
        while rows and rows[0][:2] <= (first_seq, end):
            rows.popleft()
        taken: list[Written] = []
        for _ in range(min(max_rows, len(rows))):
            row = rows.popleft()
            if row[0] != first_seq:
                rows.appendleft(row)
                break
            _, end, written = row
            taken.append(written)
        return taken, end
