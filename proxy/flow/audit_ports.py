"""What the audit story needs from the stores, as Protocols and the values that cross them.

Owns nothing. ``Spool`` is the disk before the database, ``Sink`` the database, ``DeadLetters`` where a
row goes that the database will never take. The stores implement them; each has an in-memory twin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from proxy.core.audit.chain import Chain
from proxy.core.audit.records import Record
from proxy.core.audit.row import Columns, Gap, Row


class Condition(StrEnum):
    """How a component is; the words of ``/health``."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SpoolState:
    """The spool at one moment. ``pending_rows`` is an estimate while an older spool is being replayed."""

    condition: Condition
    reason: str
    used_bytes: int
    reserved_bytes: int
    limit_bytes: int
    segments: int
    open_exchanges: int
    pending_rows: int
    pending_bytes: int
    appended_rows: int
    torn_bytes: int
    damaged_stretches: int
    unreadable_frames: int
    sync_failures: int


@dataclass(slots=True)
class Batch:
    """Rows read from the spool, not yet acknowledged. ``token`` hands them back."""

    rows: list[Row]
    gaps: list[Gap]
    token: int
    bytes: int = 0
    chains: list[Chain] = field(default_factory=list)
    """How each chain that has something in this batch stands behind it."""

    @property
    def is_empty(self) -> bool:
        return not self.rows and not self.gaps


class Spool(Protocol):
    """The append-only disk queue of one sidecar. Every method returns without waiting for the disk."""

    def begin(self, exchange_id: str, payload: bytes) -> None:
        """Append a BEGIN and set aside room for its END.

        Raises:
            SpoolFull: No room within the limit or on the volume; nothing was written.
            SpoolUnavailable: The disk fails.
        """
        ...

    def end(self, exchange_id: str, payload: bytes, columns: Columns | None = None) -> None:
        """Append the END of an open exchange. Never refuses: a failing disk makes it wait in memory.

        ``columns`` are what ``payload`` says, when at hand: the row may then be shipped without reading it back.
        """
        ...

    def single(self, payload: bytes, columns: Columns | None = None) -> None:
        """Append an END without a BEGIN; ``columns`` as for ``end``.

        Raises:
            SpoolFull, SpoolUnavailable: as for ``begin``.
        """
        ...

    def gap(self, payload: bytes) -> None:
        """Append a GAP; there is always room for two. Raises SpoolUnavailable."""
        ...

    def is_open(self, exchange_id: str) -> bool:
        """True between ``begin`` and ``end``."""
        ...

    def has_room(self, extra_bytes: int) -> bool:
        """True when an END may be this much larger than what was set aside for it."""
        ...

    def waiter(self, exchange_id: str = "") -> asyncio.Future[None] | None:
        """Return a future that is done when the BEGIN of an open exchange is as safe as the durability promises.

        Without the id of one, everything appended so far. None when that is so already. The future fails with
        SpoolUnavailable when the disk refuses to sync twice.

        Raises:
            SpoolUnavailable: It has done so already.
        """
        ...

    def read_batch(self, max_rows: int) -> Batch:
        """Return the next rows; an empty batch when there is none. Batches need not be acknowledged in order."""
        ...

    def acknowledge(self, token: int) -> None:
        """The rows of this batch are in the store: the spool may forget them."""
        ...

    @property
    def is_alive(self) -> bool:
        """False when a part of it that works on its own has died: nothing but a restart helps."""
        ...

    def state(self) -> SpoolState: ...


class Sink(Protocol):
    """An audit store. Inserting a row again changes nothing, so an unknown outcome is simply repeated."""

    async def open(self) -> None:
        """Connect and make sure the schema is there. Raises SinkUnavailable."""
        ...

    async def insert(self, rows: Sequence[Row], gaps: Sequence[Gap] = (), records: Sequence[Record] = ()) -> None:
        """Store all of these. After a fault some may be there: sending all of them again completes them.

        Rows of erased people that come late lose what names them on the way in.

        Raises:
            SinkUnavailable: Not reachable, not ready, or the outcome is unknown: try again later.
            RowRefused: At least one row will never be taken as it is.
        """
        ...

    async def ping(self) -> float:
        """Return the round trip to the store in milliseconds. Raises SinkUnavailable."""
        ...

    async def close(self) -> None: ...


class DeadLetters(Protocol):
    """Where a row is kept that the store refuses."""

    def keep(self, row: Row, reason: str) -> None:
        """Keep one row durably. Raises OSError: the disk fails, or there are too many; the row is kept nowhere."""
        ...


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the store is behind the spool."""

    rows: int
    bytes: int
    seconds: float


@dataclass(slots=True)
class DeliveryState:
    """What the delivery of rows did and how the store is; plain numbers for metrics and health."""

    condition: Condition = Condition.OK
    reason: str = ""
    since_s: float = 0.0
    """Monotonic seconds when ``condition`` last changed."""
    lag: Lag = field(default_factory=lambda: Lag(0, 0, 0.0))
    delivered_rows: int = 0
    delivered_batches: int = 0
    failed_batches: int = 0
    dead_letters: int = 0
    last_insert_ms: float = 0.0
