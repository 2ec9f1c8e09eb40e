"""Admission against several limits at once: all are charged or none is.

Owns the open reservations and the order of checks; the sums are those of ``window`` and ``calendar``. Knows no
provider, no policy and no store. A store that keeps its sums elsewhere gives the same answers to the same calls:
``tests/unit/flow/test_budgets_contract.py`` is the suite for every one of them.

Guarantee: when no request uses more than was reserved for it, the actual use of the requests admitted in
any interval of length W is at most the limit, whatever the order of settlements and however the clock
steps back. At the last admission of the interval the sum of current charges was within the limit, and
charges only ever fall towards the actual use. An overrun adds itself once and is charged, so admission
stops until it has aged out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from proxy.core.budget.calendar import CalendarCounter
from proxy.core.budget.dimensions import UNITS, Dimension, Unit
from proxy.core.budget.limit_view import LimitView
from proxy.core.budget.window import SlotCounter, SlotView, WindowCounter

SLOT_WAIT_S = 1.0
"""What a caller is told when only slots are missing: nobody knows when a running exchange will end."""

Counter = WindowCounter | CalendarCounter | LimitView


class Amounts(NamedTuple):
    """What one request uses beyond its sum of tokens, for limits that count it apart."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    """Billionths of a US dollar."""


NO_AMOUNTS = Amounts()
_APART = {Unit.INPUT_TOKENS: 0, Unit.OUTPUT_TOKENS: 1, Unit.COST: 2}
"""Unit -> its place in ``Amounts``."""


class Meter(NamedTuple):
    """One limit of one budget with its counter."""

    budget_id: str
    dimension: Dimension
    counter: Counter | SlotCounter


class Account:
    """The meters that one kind of admission passes, sorted by what they count."""

    __slots__ = ("apart", "least_token_limit", "meters", "requests", "slots", "tokens")

    def __init__(self, meters: Sequence[Meter]) -> None:
        self.meters = tuple(meters)
        windows = [(UNITS[m.dimension], m.counter) for m in meters if not isinstance(m.counter, SlotCounter)]
        self.requests: tuple[Counter, ...] = tuple(c for unit, c in windows if unit is Unit.REQUESTS)
        self.tokens: tuple[Counter, ...] = tuple(c for unit, c in windows if unit is Unit.TOKENS)
        self.apart: tuple[tuple[Counter, int], ...] = tuple((c, _APART[u]) for u, c in windows if u in _APART)
        """Counters of what ``Amounts`` holds, each with its place in there."""
        self.slots: tuple[SlotCounter, ...] = tuple(m.counter for m in meters if isinstance(m.counter, SlotCounter))
        self.least_token_limit = min((c.limit for c in self.tokens), default=0)


class Reservation:
    """What one attempt holds until it is settled or cancelled. Only its ledger reads the inside."""

    __slots__ = ("account", "admitted_s", "apart", "charges", "rid", "tokens")

    def __init__(
        self,
        rid: str,
        account: Account,
        tokens: int,
        admitted_s: float,
        charges: tuple[int, ...] | None,
        apart: tuple[int, ...] = (),
    ) -> None:
        self.rid = rid
        self.account = account
        self.tokens = tokens
        self.admitted_s = admitted_s
        self.charges = charges
        """Tokens charged per token counter where an estimate was cut to a limit; None: ``tokens`` on each."""
        self.apart = apart
        """Charges of the account's ``apart`` counters, in their order."""


class Shortage(NamedTuple):
    """One limit that had no room. ``wait_s`` is true for windows and a hint for slots."""

    budget_id: str
    dimension: Dimension
    limit: int
    wait_s: float


def amount_of(dimension: Dimension, limit: int, tokens: int, amounts: Amounts) -> int:
    """Return what a request charges to a limit: an estimate larger than the limit is cut to it."""
    unit = UNITS[dimension]
    if unit is Unit.REQUESTS or unit is Unit.CONCURRENT:
        return 1
    return min(tokens if unit is Unit.TOKENS else amounts[_APART[unit]], limit)


def spent_of(dimension: Dimension, tokens: int, amounts: Amounts) -> int:
    """Return what a request turned out to use of what a dimension counts."""
    unit = UNITS[dimension]
    if unit is Unit.REQUESTS or unit is Unit.CONCURRENT:
        return 1
    return tokens if unit is Unit.TOKENS else amounts[_APART[unit]]


class Ledger:
    """Open reservations and the clock of all counters, which never runs backwards."""

    __slots__ = ("_now_s", "_open")

    def __init__(self) -> None:
        self._open: dict[str, Reservation] = {}
        self._now_s = 0.0

    @property
    def now_s(self) -> float:
        """The latest time seen."""
        return self._now_s

    @property
    def open_count(self) -> int:
        """Reservations neither settled nor cancelled."""
        return len(self._open)

    def held(self) -> dict[int, int]:
        """Return what open reservations hold, by the ``id`` of the counter. Costs a walk over all of them."""
        sums: dict[int, int] = {}
        for one in self._open.values():
            account = one.account
            charges = one.charges or (one.tokens,) * len(account.tokens)
            pairs: list[tuple[object, int]] = [(counter, 1) for counter in (*account.slots, *account.requests)]
            pairs += zip(account.tokens, charges, strict=True)
            pairs += zip((counter for counter, _ in account.apart), one.apart, strict=True)
            for counter, amount in pairs:
                owner = id(counter.base if isinstance(counter, LimitView | SlotView) else counter)
                sums[owner] = sums.get(owner, 0) + amount
        return sums

    def acquire(
        self, account: Account, tokens: int, now_s: float, rid: str, amounts: Amounts = NO_AMOUNTS
    ) -> Reservation | None:
        """Charge one request, ``tokens`` tokens and one slot to every meter, or nothing to any.

        ``rid`` names the attempt. Asked again for one that is still open, the answer is the same
        reservation and nothing more is charged. An estimate larger than a limit is charged up to it.
        None means that some meter has no room: ``shortages`` says which.
        """
        earlier = self._open.get(rid)
        if earlier is not None:
            return earlier
        if now_s > self._now_s:
            self._now_s = now_s
        else:
            now_s = self._now_s
        for slots in account.slots:
            if slots.used >= slots.limit:
                return None
        for window in account.requests:
            if not window.fits(1, now_s):
                return None
        charges: tuple[int, ...] | None = None
        if account.tokens:
            if tokens > account.least_token_limit:
                charges = tuple(min(tokens, w.limit) for w in account.tokens)
            if not _fit_tokens(account, tokens, charges, now_s):
                return None
        apart = _fit_apart(account, amounts, now_s) if account.apart else ()
        if apart is None:
            return None
        return self._admit(account, tokens, now_s, rid, charges, apart)

    def _admit(
        self,
        account: Account,
        tokens: int,
        now_s: float,
        rid: str,
        charges: tuple[int, ...] | None,
        apart: tuple[int, ...],
    ) -> Reservation:
        for slots in account.slots:
            slots.used += 1
        for window in account.requests:
            window.charge(1)
        if charges is None:
            for window in account.tokens:
                window.charge(tokens)
        else:
            for window, charge in zip(account.tokens, charges, strict=True):
                window.charge(charge)
        if apart:
            for (counter, _), charge in zip(account.apart, apart, strict=True):
                counter.charge(charge)
        reservation = self._open[rid] = Reservation(rid, account, tokens, now_s, charges, apart)
        return reservation

    def settle(
        self, reservation: Reservation, actual_tokens: int | None, now_s: float, amounts: Amounts | None = None
    ) -> bool:
        """Free the slot and correct the charges; None leaves the estimate charged.

        False, and nothing happens, when the reservation is not open (any more).
        """
        if not self._close(reservation):
            return False
        account = reservation.account
        if actual_tokens is not None and account.tokens:
            latest_s = self._now_s
            self._correct_tokens(reservation, max(0, actual_tokens), max(latest_s, now_s))
        if amounts is not None and account.apart:
            self._correct_apart(reservation, amounts, max(now_s, self._now_s))
        return True

    def cancel(self, reservation: Reservation, now_s: float) -> bool:
        """Take everything back: the provider never accepted the request. Idempotent like ``settle``."""
        if not self._close(reservation):
            return False
        now_s = max(now_s, self._now_s)
        for window in reservation.account.requests:
            window.correct(reservation.admitted_s, -1, now_s)
        self._correct_tokens(reservation, 0, now_s)
        if reservation.apart:
            self._correct_apart(reservation, NO_AMOUNTS, now_s)
        return True

    def shortages(
        self, account: Account, tokens: int, now_s: float, amounts: Amounts = NO_AMOUNTS
    ) -> tuple[Shortage, ...]:
        """Name every meter without room for one more request of ``tokens`` tokens."""
        found: list[Shortage] = []
        for budget_id, dimension, counter in account.meters:
            if isinstance(counter, SlotCounter):
                wait_s = SLOT_WAIT_S if counter.used >= counter.limit else 0.0
            else:
                wait_s = counter.wait_s(amount_of(dimension, counter.limit, tokens, amounts), now_s)
            if wait_s > 0.0:
                found.append(Shortage(budget_id, dimension, counter.limit, wait_s))
        return tuple(found)

    def _close(self, reservation: Reservation) -> bool:
        if self._open.get(reservation.rid) is not reservation:
            return False
        del self._open[reservation.rid]
        for slots in reservation.account.slots:
            slots.used -= 1
        return True

    def _correct_tokens(self, reservation: Reservation, actual: int, now_s: float) -> None:
        self._now_s = now_s
        windows, charges = reservation.account.tokens, reservation.charges
        if charges is None:
            by = actual - reservation.tokens
            if by:
                for window in windows:
                    window.correct(reservation.admitted_s, by, now_s)
            return
        for window, charge in zip(windows, charges, strict=True):
            window.correct(reservation.admitted_s, actual - charge, now_s)

    def _correct_apart(self, reservation: Reservation, actual: Amounts, now_s: float) -> None:
        self._now_s = now_s
        for (counter, place), charge in zip(reservation.account.apart, reservation.apart, strict=True):
            by = max(0, actual[place]) - charge
            if by:
                counter.correct(reservation.admitted_s, by, now_s)


def _fit_apart(account: Account, amounts: Amounts, now_s: float) -> tuple[int, ...] | None:
    """Return what is charged to the counters of what is counted apart; None when one has no room."""
    charges = tuple(min(amounts[place], counter.limit) for counter, place in account.apart)
    fits = (counter.fits(charge, now_s) for (counter, _), charge in zip(account.apart, charges, strict=True))
    return charges if all(fits) else None


def _fit_tokens(account: Account, tokens: int, charges: tuple[int, ...] | None, now_s: float) -> bool:
    if charges is None:
        for window in account.tokens:  # noqa: SIM110 - a generator costs more than the sums
            if not window.fits(tokens, now_s):
                return False
        return True
    return all(w.fits(charge, now_s) for w, charge in zip(account.tokens, charges, strict=True))
