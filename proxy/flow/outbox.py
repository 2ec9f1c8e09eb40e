"""The door of the audit: what the request path calls, synchronous and cheap.

Owns which exchanges were kept, what could not be kept, and what is done about it (``when_full``). Knows
the spool only by its Protocol. Measured with the disk spool: see loadtest/bench_audit.py.

The order that makes a killed process lose nothing (reliability-cases 2.2): ``begin`` before the upstream
call, ``end`` before the last byte to the caller; with ``durability: fsync`` also ``await durable()``
before the first byte and before the last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from proxy.core.audit.payload import encode_begin, encode_end, encode_gap, finish
from proxy.core.audit.row import RESERVED_BYTES
from proxy.core.config.settings import WhenFull
from proxy.flow.audit_ports import Condition, Spool, SpoolState
from proxy.terms.errors import SpoolUnavailable
from proxy.terms.exchange import ExchangeFacts


@dataclass(frozen=True, slots=True)
class Kept:
    """The row is in the spool."""


@dataclass(frozen=True, slots=True)
class Shed:
    """The row was given up, the exchange goes on; ``code`` says why."""

    code: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The exchange must not go on; ``code`` is ``audit_backpressure`` or ``audit_unavailable``."""

    code: str


Admission = Kept | Shed | Refused
KEPT = Kept()


@dataclass(frozen=True, slots=True)
class OutboxState:
    """The outbox at one moment, for health and metrics; the counters only ever rise."""

    condition: Condition
    reason: str
    spool: SpoolState
    kept_rows: int
    shed_rows: int


class Outbox:
    """Keeps the row of every exchange, or says that it cannot."""

    def __init__(self, spool: Spool, when_full: WhenFull, unix_ms: Callable[[], int]) -> None:
        self._spool = spool
        self._when_full = when_full
        self._unix_ms = unix_ms
        self._kept = 0
        self._shed = 0
        self._gap_since_ms: int | None = None
        self._gap_rows = 0
        self._gap_reason = ""

    def begin(self, facts: ExchangeFacts) -> Admission:
        """Keep what is known of an exchange before a provider is called.

        After ``Refused`` the exchange has been counted: call neither ``end`` nor ``single`` for it.
        """
        try:
            self._spool.begin(facts.id, encode_begin(facts))
        except SpoolUnavailable as exc:
            return self._not_kept(exc)
        if self._gap_since_ms is not None:
            self._close_gap()
        return KEPT

    def end(self, facts: ExchangeFacts) -> None:
        """Keep the row of an exchange that ended, whatever ``begin`` answered but ``Refused``.

        For an exchange that was begun this never fails: its room was set aside.
        """
        spool = self._spool
        if not spool.is_open(facts.id):
            self._end_shed(facts)
            return
        payload, columns = finish(facts)
        excess = len(payload) - RESERVED_BYTES
        if excess > 0 and not spool.has_room(excess):
            payload = encode_end(facts, RESERVED_BYTES)
        spool.end(facts.id, payload, columns)
        self._kept += 1

    def single(self, facts: ExchangeFacts) -> Admission:
        """Keep the whole row of an exchange that ended before any provider was called."""
        try:
            self._spool.single(*finish(facts))
        except SpoolUnavailable as exc:
            admission = self._not_kept(exc)
            if isinstance(admission, Shed):
                self._count_shed()
            return admission
        self._kept += 1
        if self._gap_since_ms is not None:
            self._close_gap()
        return KEPT

    async def durable(self, exchange_id: str = "") -> None:
        """Wait until the BEGIN of a running exchange (without one: all that was kept) is as safe as configured.

        Returns at once for ``write``.

        Raises:
            SpoolUnavailable: The disk refused twice; send no further byte of the answer.
        """
        waiter = self._spool.waiter(exchange_id)
        if waiter is not None:
            await waiter

    def waiter(self) -> asyncio.Future[None] | None:
        """Return what will be done when all that was kept is safe, None when it is. Raises SpoolUnavailable."""
        return self._spool.waiter()

    def state(self) -> OutboxState:
        """Return how the outbox is: the spool's condition, or ``degraded`` while rows are being shed."""
        spool = self._spool.state()
        condition, reason = spool.condition, spool.reason
        if condition is Condition.OK and self._gap_since_ms is not None:
            condition, reason = Condition.DEGRADED, self._gap_reason
        return OutboxState(condition, reason, spool, self._kept, self._shed)

    def close_gap(self) -> None:
        """Write the count of a gap that is still open; called once at shutdown."""
        if self._gap_since_ms is not None:
            self._close_gap()

    def _end_shed(self, facts: ExchangeFacts) -> None:
        """Keep the row after all when there is room by now: an END needs no BEGIN."""
        try:
            self._spool.single(*finish(facts))
        except SpoolUnavailable:
            self._count_shed()
            return
        self._kept += 1

    def _not_kept(self, exc: SpoolUnavailable) -> Admission:
        self._open_gap(f"{self._when_full}:{exc.code}")
        if self._when_full is WhenFull.SHED:
            return Shed(exc.code)
        self._gap_rows += 1
        return Refused(exc.code)

    def _count_shed(self) -> None:
        self._shed += 1
        self._gap_rows += 1

    def _open_gap(self, reason: str) -> None:
        """Say on disk that rows are missing from here on, so that a kill does not hide it."""
        if self._gap_since_ms is not None:
            return
        self._gap_since_ms = self._unix_ms()
        self._gap_reason = reason
        self._write_gap(None)

    def _close_gap(self) -> None:
        if self._write_gap(self._gap_rows):
            self._gap_since_ms = None
            self._gap_rows = 0

    def _write_gap(self, rows: int | None) -> bool:
        try:
            self._spool.gap(encode_gap(self._gap_since_ms or 0, rows, self._gap_reason))
        except SpoolUnavailable:
            return False  # the count stays in memory and is written when the disk answers again
        return True
