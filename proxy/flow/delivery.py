"""The story of audit rows: read a ripe batch from the spool, insert it, acknowledge it.

Owns the pace (batches, back-off) and what is known of the store's health. Knows spool, sink and dead
letters by their Protocols only. Runs beside the exchanges and never makes one wait: rows are read and
encoded in slices of about a millisecond, and while exchanges run a backlog gets half of the time.

Away: the batch is kept and tried again, later each time. Refused: it is halved until the one row that
cannot be stored is found, which goes to the dead letters; when those are full the batch stays in the spool
and the state says so. Outcome unknown: sent again, which is harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from proxy.core.audit.batch import backoff_s, is_ripe
from proxy.core.audit.chain import Chain
from proxy.core.audit.records import Record
from proxy.core.audit.row import Gap, Row
from proxy.flow.audit_ports import Batch, Condition, DeadLetters, DeliveryState, Lag, Sink, Spool
from proxy.flow.checkpoints import Checkpoints
from proxy.flow.ports import Clock
from proxy.terms.errors import RowRefused, SinkUnavailable

_SLICE_ROWS: Final = 50
"""Rows taken from the spool at a stretch: a tenth of a millisecond of the event loop, one when they come from the disk."""

_MAX_BREATH_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class DeliveryPace:
    """How rows are sent. Waits in seconds."""

    max_rows: int = 1000
    max_age_s: float = 0.5
    """A row waits at most this long for company."""
    look_every_s: float = 0.1
    first_backoff_s: float = 0.25
    max_backoff_s: float = 15.0


@dataclass(slots=True)
class _Shipment:
    """Rows that go to the store together, each id once, and the batches they came from."""

    by_id: dict[str, Row] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    chains: dict[tuple[str, int], Chain] = field(default_factory=dict)
    records: list[Record] | None = None
    """What was signed for it: once, however often it is sent."""

    @property
    def rows(self) -> list[Row]:
        return list(self.by_id.values())

    def add(self, batch: Batch) -> None:
        self.tokens.append(batch.token)
        self.gaps += batch.gaps
        self.chains.update({(chain.writer, chain.epoch): chain for chain in batch.chains})
        by_id = self.by_id
        for row in batch.rows:
            known = by_id.setdefault(row[0], row)
            if known is not row and known.seq < row.seq:
                by_id[row[0]] = row


class Delivery:
    """Moves rows from the spool to the store, one batch at a time."""

    def __init__(
        self,
        spool: Spool,
        sink: Sink,
        dead_letters: DeadLetters,
        clock: Clock,
        jitter: Callable[[], float],
        pace: DeliveryPace | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        """``jitter`` returns a number in [0, 1) at each call; without ``checkpoints`` nothing is signed."""
        self._spool = spool
        self._sink = sink
        self._dead_letters = dead_letters
        self._clock = clock
        self._jitter = jitter
        self._pace = pace or DeliveryPace()
        self._checkpoints = checkpoints
        self._unsent: list[Record] = []
        self._state = DeliveryState(condition=Condition.DEGRADED, reason="not_opened_yet")
        self._state.since_s = clock.monotonic_s()
        self._is_open = False
        self._failures = 0
        self._waiting_since_s: float | None = None
        self._in_hand: _Shipment | None = None
        self._read_ahead: _Shipment | None = None
        self._oldest_ms: int | None = None
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Deliver until cancelled. A batch in hand when that happens stays in the spool."""
        while True:
            if self._failures:
                await asyncio.sleep(self._next_wait_s())
            elif not self._is_ripe():
                await asyncio.sleep(self._pace.look_every_s)
                continue
            started_s = self._clock.monotonic_s()
            sent = await self.deliver_once()
            # A backlog is caught up with in half the time there is: exchanges that run have the other half.
            is_catching_up = sent >= self._pace.max_rows and self._spool.state().open_exchanges > 0
            took_s = self._clock.monotonic_s() - started_s
            await asyncio.sleep(min(took_s, _MAX_BREATH_S) if is_catching_up else 0)

    async def deliver_once(self) -> int:
        """Send what is ripe in one go, and return how many rows left the spool."""
        async with self._lock:
            try:
                return await self._deliver()
            except (SinkUnavailable, OSError) as exc:
                self._failed(str(exc))
                return 0

    async def drain(self, deadline_s: float) -> bool:
        """Send everything that waits, for at most ``deadline_s`` seconds; True when nothing is left.

        What is left stays in the spool for the next start.
        """
        try:
            async with asyncio.timeout(deadline_s):
                while self._in_hand is not None or self._has_unsent():
                    if not await self.deliver_once():
                        if self._failures == 0:
                            break
                        await asyncio.sleep(self._next_wait_s())
                with suppress(SinkUnavailable, OSError):  # the rows are there; the next opening signs this chain again
                    await self._sign_overdue(everything=True)
        except TimeoutError:
            return False
        return self._in_hand is None and not self._has_unsent()

    async def ping(self) -> float:
        """Return the store's round trip in milliseconds. Raises SinkUnavailable."""
        return await self._sink.ping()

    def state(self) -> DeliveryState:
        """Return the numbers for health and metrics, the lag brought up to date."""
        spool = self._spool.state()
        age_s = 0.0
        if spool.pending_rows and self._oldest_ms is not None:
            age_s = max(0.0, (self._clock.unix_ms() - self._oldest_ms) / 1000)
        self._state.lag = Lag(spool.pending_rows, spool.pending_bytes if spool.pending_rows else 0, age_s)
        return self._state

    def _has_unsent(self) -> bool:
        spool = self._spool.state()
        return spool.pending_rows > 0 or spool.pending_bytes > 0

    def _is_ripe(self) -> bool:
        """Say whether to send now. Frames without a row of their own (BEGIN, GAP) ripen by age like rows."""
        spool = self._spool.state()
        pending = spool.pending_rows or min(spool.pending_bytes, 1)
        now_s = self._clock.monotonic_s()
        if pending == 0:
            self._waiting_since_s = None
            return not self._is_open or (self._checkpoints is not None and self._checkpoints.is_overdue())
        if self._waiting_since_s is None:
            self._waiting_since_s = now_s
        age_s = now_s - self._waiting_since_s
        return is_ripe(rows=pending, age_s=age_s, max_rows=self._pace.max_rows, max_age_s=self._pace.max_age_s)

    async def _deliver(self) -> int:
        if not self._is_open:
            await self._sink.open()
            self._is_open = True
        if self._in_hand is None:
            self._in_hand = await self._read_shipment()
        shipment = self._in_hand
        if shipment is None:
            self._waiting_since_s = None
            await self._sign_overdue()
            self._worked()
            return 0
        first = next(iter(shipment.by_id.values()), None)
        if first is not None:
            self._oldest_ms = first.ts
        refused = await self._send_and_read_on(shipment)
        self._in_hand = None
        self._oldest_ms = None
        for token in shipment.tokens:
            self._spool.acknowledge(token)
        self._state.delivered_rows += len(shipment.by_id) - refused
        self._state.delivered_batches += 1
        if self._read_ahead is None:
            self._waiting_since_s = None
        self._worked()
        return len(shipment.by_id)

    async def _send_and_read_on(self, shipment: _Shipment) -> int:
        """Insert a shipment, and while the store is busy with it read the next one if rows wait."""
        started_s = self._clock.monotonic_s()
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._try_insert(shipment), name="audit-insert")
            if len(shipment.by_id) >= self._pace.max_rows and self._read_ahead is None:
                with suppress(OSError):  # met again, and told, when its turn comes
                    self._read_ahead = await self._read_shipment()
        self._state.last_insert_ms = (self._clock.monotonic_s() - started_s) * 1000
        outcome = sending.result()
        if isinstance(outcome, int):
            return outcome
        raise outcome

    async def _try_insert(self, shipment: _Shipment) -> int | SinkUnavailable | OSError:
        """Insert, with a fault as a value: a task group would wrap it."""
        rows = shipment.rows
        if shipment.records is None:
            signing = self._checkpoints
            shipment.records = [] if signing is None else signing.for_shipment(list(shipment.chains.values()), rows)
        try:
            return await self._insert(rows, shipment.gaps, shipment.records)
        except (SinkUnavailable, OSError) as exc:
            return exc

    async def _read_shipment(self) -> _Shipment | None:
        """Read up to ``max_rows`` rows in slices, letting other tasks run after each."""
        ahead, self._read_ahead = self._read_ahead, None
        if ahead is not None:
            return ahead
        shipment = _Shipment()
        while len(shipment.by_id) < self._pace.max_rows:
            batch = self._spool.read_batch(min(_SLICE_ROWS, self._pace.max_rows - len(shipment.by_id)))
            if batch.is_empty:
                break
            shipment.add(batch)
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                self._read_ahead = shipment
                raise
        return shipment if shipment.tokens else None

    async def _insert(self, rows: list[Row], gaps: list[Gap], records: list[Record]) -> int:
        """Insert these rows, halving around any that are refused; return how many were."""
        try:
            await self._sink.insert(rows, gaps, records)
        except RowRefused as exc:
            if len(rows) <= 1:
                return await self._bury(rows, gaps, records, str(exc))
            half = len(rows) // 2
            refused = await self._insert(rows[:half], [], [])
            return refused + await self._insert(rows[half:], gaps, records)
        return 0

    async def _bury(self, rows: list[Row], gaps: list[Gap], records: list[Record], reason: str) -> int:
        excused: list[Record] = []
        for row in rows:
            self._dead_letters.keep(row, reason)
            self._state.dead_letters += 1
            if self._checkpoints is not None:
                excused += self._checkpoints.for_dead_letter(row)
        if rows and (gaps or records or excused):
            await self._sink.insert([], gaps, [*excused, *records])
        return len(rows)

    async def _sign_overdue(self, *, everything: bool = False) -> None:
        """Send checkpoints of chains that have waited long enough without a new row."""
        if self._checkpoints is not None and self._is_open and self._in_hand is None:
            self._unsent += self._checkpoints.overdue(everything=everything)
            if self._unsent:
                await self._sink.insert([], [], self._unsent)
                self._unsent = []

    def _next_wait_s(self) -> float:
        pace = self._pace
        return backoff_s(self._failures, first_s=pace.first_backoff_s, max_s=pace.max_backoff_s, jitter=self._jitter())

    def _worked(self) -> None:
        self._failures = 0
        self._set(Condition.OK, "")

    def _failed(self, reason: str) -> None:
        self._failures += 1
        self._state.failed_batches += 1
        self._set(Condition.DEGRADED, reason)

    def _set(self, condition: Condition, reason: str) -> None:
        if condition is not self._state.condition:
            self._state.since_s = self._clock.monotonic_s()
        self._state.condition = condition
        self._state.reason = reason
