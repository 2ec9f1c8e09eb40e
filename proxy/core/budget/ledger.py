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

import math
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from proxy.core.budget.calendar import CalendarCounter
from proxy.core.budget.dimensions import UNITS, Dimension, Unit
from proxy.core.budget.limit_view import LimitView
from proxy.core.budget.window import MINUTE, SlotCounter, SlotView, WindowCounter

_bare: Final = object.__new__
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


NO_WINDOW: Final = WindowCounter(MINUTE, -1)
"""Stands for a limit that does not exist."""


class Account:
    """The meters that one kind of admission passes, sorted by what they count."""

    __slots__ = (
        "apart",
        "least_token_limit",
        "meters",
        "of_requests",
        "of_tokens",
        "ones",
        "requests",
        "slots",
        "tokens",
        "until_s",
    )

    def __init__(self, meters: Sequence[Meter]) -> None:
        self.meters = tuple(meters)
        windows = [(UNITS[m.dimension], m.counter) for m in meters if not isinstance(m.counter, SlotCounter)]
        self.requests: tuple[Counter, ...] = tuple(c for unit, c in windows if unit is Unit.REQUESTS)
        self.tokens: tuple[Counter, ...] = tuple(c for unit, c in windows if unit is Unit.TOKENS)
        self.apart: tuple[tuple[Counter, int], ...] = tuple((c, _APART[u]) for u, c in windows if u in _APART)
        """Counters of what ``Amounts`` holds, each with its place in there."""
        self.slots: tuple[SlotCounter, ...] = tuple(m.counter for m in meters if isinstance(m.counter, SlotCounter))
        self.ones: tuple[Counter | SlotCounter, ...] = (*self.slots, *self.requests)
        """What every admission charges with one."""
        self.least_token_limit = min((c.limit for c in self.tokens), default=sys.maxsize)
        self.of_requests = _lone(self.requests)
        self.of_tokens = _lone(self.tokens)
        """The one window that counts tokens; ``NO_WINDOW``: none does; None: several do."""
        self.until_s = -math.inf
        """Before this the sums of all windows are those of the current buckets."""

    def advance(self, now_s: float) -> None:
        """Let what has left the windows expire."""
        self.until_s = math.inf
        for counter in (*self.requests, *self.tokens, *[counter for counter, _ in self.apart]):
            if now_s >= counter.until_s:
                counter.advance(now_s)
            self.until_s = min(self.until_s, counter.until_s)

    def take_back(self, short: Counter | SlotCounter | None, tokens: int) -> None:
        """Undo what was charged before ``short`` was found to have no room; None: one of each of ``ones``."""
        for counter in self.ones:
            if counter is short:
                return
            counter.used -= 1
        for window in self.tokens if short is not None else ():
            if window is short:
                return
            window.used -= tokens


def _lone(windows: Sequence[Counter]) -> Counter | None:
    if not windows:
        return NO_WINDOW
    return windows[0] if len(windows) == 1 else None


def tightest(windows: Sequence[Counter]) -> Counter:
    """Return the one of several windows that has least left."""
    return min(windows, key=lambda window: window.limit - window.used)


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
        if rid in self._open:
            return self._open[rid]
        if now_s > self._now_s:
            self._now_s = now_s
        else:
            now_s = self._now_s
        if now_s >= account.until_s:
            account.advance(now_s)
        # Charged one after the other, and taken back where one has no room: ``fits`` and ``charge`` in a single look.
        for counter in account.ones:
            used = counter.used + 1
            if used > counter.limit:
                account.take_back(counter, tokens)
                return None
            counter.used = used
        if tokens > account.least_token_limit or account.apart:
            return self._acquire_by_limit(account, tokens, now_s, rid, amounts)
        for window in account.tokens:
            used = window.used + tokens
            if used > window.limit:
                account.take_back(window, tokens)
                return None
            window.used = used
        # Filled in place: calling ``__init__`` costs as much as all it does, and every exchange passes here.
        reservation = self._open[rid] = _bare(Reservation)
        reservation.rid = rid
        reservation.account = account
        reservation.tokens = tokens
        reservation.admitted_s = now_s
        reservation.charges = None
        reservation.apart = ()
        return reservation

    def _acquire_by_limit(
        self, account: Account, tokens: int, now_s: float, rid: str, amounts: Amounts
    ) -> Reservation | None:
        """Go on where limits are charged differently: an estimate is cut to one, or more than the sum is counted."""
        cut = tuple([min(tokens, window.limit) for window in account.tokens])
        apart = tuple([min(amounts[place], counter.limit) for counter, place in account.apart])
        charges = [*zip(account.tokens, cut, strict=True)]
        charges += zip([counter for counter, _ in account.apart], apart, strict=True)
        if not all(counter.fits(amount, now_s) for counter, amount in charges):
            account.take_back(None, 0)
            return None
        for counter, amount in charges:
            counter.used += amount
        reservation = self._open[rid] = Reservation(rid, account, tokens, now_s, cut, apart)
        return reservation

    def settle(
        self, reservation: Reservation, actual_tokens: int | None, now_s: float, amounts: Amounts | None = None
    ) -> bool:
        """Free the slot and correct the charges; None leaves the estimate charged.

        False, and nothing happens, when the reservation is not open (any more).
        """
        held = self._open.pop(reservation.rid, None)
        if held is not reservation:
            if held is not None:  # a later attempt of that name
                self._open[held.rid] = held
            return False
        if now_s > self._now_s:
            self._now_s = now_s
        else:
            now_s = self._now_s
        account = reservation.account
        for slots in account.slots:
            slots.used -= 1
        if actual_tokens is not None:
            if actual_tokens < 0:  # noqa: PLR1730 - every exchange passes here, and ``max`` costs more than the sums
                actual_tokens = 0
            by = actual_tokens - reservation.tokens
            if reservation.charges is not None:
                for window, charge in zip(account.tokens, reservation.charges, strict=True):
                    window.correct(reservation.admitted_s, actual_tokens - charge, now_s)
            elif by:
                for window in account.tokens:
                    window.correct(reservation.admitted_s, by, now_s)
        if amounts is not None and account.apart:
            self._correct_apart(reservation, amounts, now_s)
        return True

    def cancel(self, reservation: Reservation, now_s: float) -> bool:
        """Take everything back: the provider never accepted the request. Idempotent like ``settle``."""
        if not self.settle(reservation, 0, now_s, NO_AMOUNTS):
            return False
        for window in reservation.account.requests:
            window.correct(reservation.admitted_s, -1, self._now_s)
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

    def _correct_apart(self, reservation: Reservation, actual: Amounts, now_s: float) -> None:
        for (counter, place), charge in zip(reservation.account.apart, reservation.apart, strict=True):
            by = max(0, actual[place]) - charge
            if by:
                counter.correct(reservation.admitted_s, by, now_s)
