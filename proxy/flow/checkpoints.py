"""When a chain gets a signed checkpoint, and what else is signed on the way to the store.

Owns how far each chain was signed. Knows the key by a Protocol only. A checkpoint is due after
``every_rows`` rows or ``every_s`` seconds, and at once for a chain of an earlier opening, which will never have
another occasion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol

from proxy.core.audit.chain import Chain, position_of, standing_alone
from proxy.core.audit.records import Draft, Record, Skip, checkpoint, interrupted, skipped
from proxy.core.audit.row import Row
from proxy.flow.ports import Clock

_MAX_CHAINS: Final = 256


class Signer(Protocol):
    """Signs statements about chains."""

    key: str
    """Names the key; says nothing of it."""

    def sign(self, body: bytes) -> bytes: ...


@dataclass(slots=True)
class _Signed:
    """How far a chain was signed."""

    position: int
    at_s: float
    previous: str = ""
    waiting: Chain | None = None


class Checkpoints:
    """Signs what the store should be able to prove."""

    def __init__(
        self,
        signer: Signer,
        clock: Clock,
        on_signed: Callable[[Record], None] | None = None,
        *,
        every_rows: int = 1000,
        every_s: float = 60.0,
    ) -> None:
        """``on_signed`` tells the world outside the store: whoever can write there cannot take it back."""
        self._signer = signer
        self._clock = clock
        self._on_signed = on_signed
        self._every_rows = every_rows
        self._every_s = every_s
        self._signed: dict[tuple[str, int], _Signed] = {}

    def for_shipment(self, chains: Sequence[Chain], rows: Sequence[Row]) -> list[Record]:
        """Return the records that go to the store together with these rows."""
        records = [self._checkpoint(chain) for chain in chains if self._is_due(chain)]
        alone = standing_alone(rows)
        if alone:
            records += [self._sign(draft) for draft in interrupted(alone, self._clock.unix_ms())]
        return records

    def is_overdue(self) -> bool:
        """Say whether a chain has waited long enough without a new row."""
        return any(self._is_late(state) for state in self._signed.values())

    def overdue(self, *, everything: bool = False) -> list[Record]:
        """Return checkpoints of chains that have waited long enough without a new row; all that wait at the end."""
        return [
            self._checkpoint(state.waiting)
            for state in list(self._signed.values())
            if state.waiting is not None and (everything or self._is_late(state))
        ]

    def _is_late(self, state: _Signed) -> bool:
        return state.waiting is not None and self._clock.monotonic_s() - state.at_s >= self._every_s

    def for_dead_letter(self, row: Row) -> list[Record]:
        """Return what lets the chain go on behind a row the store refuses."""
        position = position_of(row)
        if position is None or row.hash is None:
            return []
        skip = Skip(row.writer, row.epoch, position, position, row.seq, row.hash)
        return [self._sign(skipped(skip, self._clock.unix_ms(), "dead_letter"))]

    def _is_due(self, chain: Chain) -> bool:
        now_s = self._clock.monotonic_s()
        state = self._signed.get((chain.writer, chain.epoch))
        if state is None:
            state = self._signed[chain.writer, chain.epoch] = _Signed(0, now_s)
            while len(self._signed) > _MAX_CHAINS:
                del self._signed[next(iter(self._signed))]
        if chain.position <= state.position:
            return False
        state.waiting = chain
        newest = max(epoch for writer, epoch in self._signed if writer == chain.writer)
        return (
            chain.position - state.position >= self._every_rows
            or now_s - state.at_s >= self._every_s
            or chain.epoch < newest
        )

    def _checkpoint(self, chain: Chain) -> Record:
        state = self._signed[chain.writer, chain.epoch]
        record = self._sign(checkpoint(chain, self._clock.unix_ms(), state.previous))
        state.position, state.at_s, state.waiting = chain.position, self._clock.monotonic_s(), None
        state.previous = sha256(record.signature).hexdigest()
        return record

    def _sign(self, draft: Draft) -> Record:
        record = draft.signed(self._signer.key, self._signer.sign(draft.body.encode()))
        if self._on_signed is not None:
            self._on_signed(record)
        return record
