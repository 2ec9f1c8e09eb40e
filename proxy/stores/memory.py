"""In-memory twins of the spool, the audit store and the dead letters.

They keep the same promises but one: what they hold ends with the process. For tests, and for trying things
out without a disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from proxy.core.audit.records import Record
from proxy.core.audit.row import Columns, Gap, Row, Stamp, merge, read_gap
from proxy.flow.audit_ports import Batch, Condition, SpoolState
from proxy.terms.errors import SinkUnavailable, SpoolFull, SpoolUnavailable

_WRITER = str(UUID(int=0))
_END_ROOM = 2048


class MemorySpool:
    """Holds payloads in lists; satisfies ``flow.audit_ports.Spool``. ``failure`` makes every append fail."""

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self._max_bytes = max_bytes
        self._open: dict[str, int] = {}
        self._rows: list[tuple[Row, int]] = []
        self._gaps: list[Gap] = []
        self._handed_out: dict[int, list[tuple[Row, int]]] = {}
        self._seq = 0
        self._used = 0
        self._appended = 0
        self.failure: SpoolUnavailable | None = None

    def begin(self, exchange_id: str, payload: bytes) -> None:
        self._admit(len(payload) + _END_ROOM)
        self._open[exchange_id] = len(payload)
        self._used += len(payload)

    def end(self, exchange_id: str, payload: bytes, columns: Columns | None = None) -> None:
        size = self._open.pop(exchange_id, 0)
        self._keep(payload, size)

    def single(self, payload: bytes, columns: Columns | None = None) -> None:
        self._admit(len(payload))
        self._keep(payload, 0)

    def gap(self, payload: bytes) -> None:
        if self.failure is not None:
            raise self.failure
        self._gaps.append(read_gap(payload, self._stamp()))

    def is_open(self, exchange_id: str) -> bool:
        return exchange_id in self._open

    def has_room(self, extra_bytes: int) -> bool:
        return self._committed() + extra_bytes <= self._max_bytes

    def waiter(self, exchange_id: str = "") -> asyncio.Future[None] | None:
        if self.failure is not None:
            raise self.failure
        return None

    def read_batch(self, max_rows: int) -> Batch:
        taken, self._rows = self._rows[:max_rows], self._rows[max_rows:]
        gaps, self._gaps = self._gaps, []
        self._seq += 1
        batch = Batch([row for row, _ in taken], gaps, self._seq, sum(size for _, size in taken))
        if not batch.is_empty:
            self._handed_out[batch.token] = taken
        return batch

    def acknowledge(self, token: int) -> None:
        self._used -= sum(size for _, size in self._handed_out.pop(token, []))

    @property
    def is_alive(self) -> bool:
        return True

    def state(self) -> SpoolState:
        waiting = [*self._rows, *(entry for batch in self._handed_out.values() for entry in batch)]
        failed = self.failure is not None
        return SpoolState(
            condition=Condition.FAILED if failed else Condition.OK,
            reason=str(self.failure) if failed else "",
            used_bytes=self._used,
            reserved_bytes=len(self._open) * _END_ROOM,
            limit_bytes=self._max_bytes,
            segments=1,
            open_exchanges=len(self._open),
            pending_rows=len(waiting),
            pending_bytes=sum(size for _, size in waiting),
            appended_rows=self._appended,
            torn_bytes=0,
            damaged_stretches=0,
            unreadable_frames=0,
            sync_failures=0,
        )

    def _committed(self) -> int:
        return self._used + len(self._open) * _END_ROOM

    def _admit(self, size: int) -> None:
        if self.failure is not None:
            raise self.failure
        if self._committed() + size > self._max_bytes:
            raise SpoolFull("the in-memory spool is full")

    def _stamp(self) -> Stamp:
        self._seq += 1
        return Stamp(_WRITER, 1, self._seq)

    def _keep(self, payload: bytes, begin_bytes: int) -> None:
        self._rows.append((merge(None, payload, self._stamp()), len(payload) + begin_bytes))
        self._used += len(payload)
        self._appended += 1


class MemorySink:
    """Holds rows in a dictionary; satisfies ``flow.audit_ports.Sink``. ``failure`` is raised while set."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.gaps: dict[tuple[str, int, int], Gap] = {}
        self.records: dict[tuple[str, int, str, int], Record] = {}
        self.batches: list[int] = []
        self.failure: Exception | None = None
        self._is_open = False

    async def open(self) -> None:
        if self.failure is not None:
            raise self.failure
        self._is_open = True

    async def insert(self, rows: Sequence[Row], gaps: Sequence[Gap] = (), records: Sequence[Record] = ()) -> None:
        if self.failure is not None:
            raise self.failure
        if not self._is_open:
            raise SinkUnavailable("the in-memory store is not open")
        self.batches.append(len(rows))
        for row in rows:
            known = self.rows.get(row.id)
            if known is None or known.seq < row.seq:
                self.rows[row.id] = row
        self.gaps.update({(gap.writer, gap.epoch, gap.seq): gap for gap in gaps})
        for record in records:
            self.records.setdefault((record.writer, record.epoch, record.kind, record.seq), record)

    async def ping(self) -> float:
        if self.failure is not None:
            raise self.failure
        return 0.0

    async def close(self) -> None:
        self._is_open = False


class MemoryDeadLetters:
    """Holds refused rows in a list; satisfies ``flow.audit_ports.DeadLetters``."""

    def __init__(self) -> None:
        self.kept: list[tuple[Row, str]] = []

    def keep(self, row: Row, reason: str) -> None:
        self.kept.append((row, reason))
