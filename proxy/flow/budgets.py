"""The owner of this process's budgets: what each provider was charged and what is still held.

Owns every counter and open reservation, keyed by budget id, so that a policy reload changes limits and
never sums. Knows no policy file and no HTTP: refusals are values. All calls are synchronous and finish
their change before they return, so no task ever sees half of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from proxy.core.budget.ledger import (
    DAILY,
    REQUEST_WINDOWS,
    TOKEN_WINDOWS,
    Account,
    Dimension,
    Ledger,
    Meter,
    Reservation,
)
from proxy.core.budget.window import SlotCounter, WindowCounter

_MAX_BINDINGS = 4096
"""Bound rule sets kept; routes times providers of two generations stay far below it."""


class BudgetLimits(Protocol):
    """What a budget rule says; None means no limit of that kind."""

    @property
    def id(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def requests_per_minute(self) -> int | None: ...
    @property
    def requests_per_hour(self) -> int | None: ...
    @property
    def requests_per_day(self) -> int | None: ...
    @property
    def tokens_per_minute(self) -> int | None: ...
    @property
    def concurrent(self) -> int | None: ...
    @property
    def when_exhausted(self) -> str: ...


class Granted(NamedTuple):
    """The attempt may go. Settle or cancel ``reservation`` exactly when the attempt ends.

    The other numbers are those of the tightest request and token limit, for ``x-ratelimit-*``;
    a limit of -1 means that no such limit applies. ``reset`` is seconds until that window would be
    whole again.
    """

    reservation: Reservation
    limit_requests: int = -1
    remaining_requests: int = -1
    reset_requests_s: float = 0.0
    limit_tokens: int = -1
    remaining_tokens: int = -1
    reset_tokens_s: float = 0.0


class Denied(NamedTuple):
    """No room; nothing was charged anywhere.

    ``retry_after_s`` is when every limit will have room again if nobody else comes. When several
    budgets are exhausted, one that says ``refuse`` speaks for all, then the longest wait.
    """

    budget_id: str
    dimension: Dimension
    retry_after_s: float
    spent_for_the_day: bool
    when_exhausted: str
    limit: int


class TooLarge(NamedTuple):
    """The request alone exceeds the limit: no wait will help."""

    budget_id: str
    limit: int
    dimension: Dimension
    when_exhausted: str


Verdict = Granted | Denied | TooLarge


class DimensionView(NamedTuple):
    """One limit as it stands. ``reset_s``: seconds until it is whole again without further use."""

    dimension: Dimension
    limit: int
    used: int
    remaining: int
    reset_s: float


class BudgetView(NamedTuple):
    """One budget in force as it stands."""

    budget_id: str
    provider: str
    when_exhausted: str
    dimensions: tuple[DimensionView, ...]


class _Binding(NamedTuple):
    """A rule set looked up for one provider. ``rules`` is held so that its ``id()`` cannot be reused."""

    rules: Sequence[BudgetLimits]
    account: Account | None
    when_exhausted: dict[str, str]
    hopeless: TooLarge | None


_UNLIMITED = Granted(Reservation("", Account(()), 0, 0.0, None))


class Budgets:
    """Live budgets in memory, for one process."""

    def __init__(self) -> None:
        self._ledger = Ledger()
        self._meters: dict[str, dict[Dimension, Meter]] = {}
        self._in_force: dict[str, BudgetLimits] = {}
        self._is_governed = False
        self._bindings: dict[tuple[int, str], _Binding] = {}

    @property
    def open_reservations(self) -> int:
        """Attempts that hold a reservation now."""
        return self._ledger.open_count

    def apply(self, rules: Iterable[BudgetLimits]) -> None:
        """Put these rules in force: new limits act at the next call, sums stay.

        Call it once with every rule of a snapshot when that snapshot takes effect. A budget that is no
        longer named keeps its sums while they matter, so removing and adding it again refunds nothing.
        """
        self._is_governed = True
        self._in_force = {rule.id: rule for rule in rules}
        self._bindings.clear()
        for rule in self._in_force.values():
            self._meters_of(rule)
        for budget_id in [b for b in self._meters if b not in self._in_force]:
            if not any(_in_use(meter, self._ledger.now_s) for meter in self._meters[budget_id].values()):
                del self._meters[budget_id]

    def reserve(
        self,
        rules: Sequence[BudgetLimits],
        provider: str,
        tokens: int,
        now_s: float,
        rid: str,
        *,
        is_explicit: bool = True,
    ) -> Verdict:
        """Charge every rule that names ``provider``, or none.

        Args:
            rules: The rules of the exchange's route; pass the same tuple each time, it is the cache key.
            tokens: The estimate to hold.
            now_s: Monotonic seconds.
            rid: Unique per attempt; a repeat while it is open charges nothing.
            is_explicit: The estimate rests on the caller's own ``max_tokens``. Then one that exceeds a
                limit is ``TooLarge``; otherwise it is charged up to the limit and corrected when settled.
        """
        binding = self._bindings.get((id(rules), provider))
        if binding is None:
            binding = self._bind(rules, provider)
        account = binding.account
        if account is None:
            return _UNLIMITED
        if binding.hopeless is not None:
            return binding.hopeless
        if is_explicit and account.tokens and tokens > account.least_token_limit:
            return _too_large(binding, account, tokens)
        reservation = self._ledger.acquire(account, tokens, now_s, rid)
        if reservation is None:
            return self._denial(binding, account, tokens, now_s)
        return _granted(reservation, account, now_s)

    def settle(self, reservation: Reservation, actual_tokens: int | None, now_s: float) -> None:
        """End an attempt the provider accepted. None: the use is unknown, the estimate stays charged."""
        self._ledger.settle(reservation, actual_tokens, now_s)

    def cancel(self, reservation: Reservation, now_s: float) -> None:
        """End an attempt the provider never accepted: everything is handed back."""
        self._ledger.cancel(reservation, now_s)

    def snapshot(self, now_s: float) -> tuple[BudgetView, ...]:
        """Every budget in force with its limits, use and resets."""
        return tuple(
            BudgetView(
                rule.id,
                rule.provider,
                str(rule.when_exhausted),
                tuple(_dimension_view(m, now_s) for m in self._meters_of(rule)),
            )
            for rule in self._in_force.values()
        )

    def _bind(self, rules: Sequence[BudgetLimits], provider: str) -> _Binding:
        if len(self._bindings) >= _MAX_BINDINGS:
            self._bindings.clear()
        named = [rule for rule in rules if rule.provider == provider]
        meters = [meter for rule in named for meter in self._meters_of(self._rule_in_force(rule))]
        ends = {rule.id: str(rule.when_exhausted) for rule in named}
        closed = next((m for m in meters if m.counter.limit < 1), None)
        binding = _Binding(
            rules,
            Account(meters) if meters else None,
            ends,
            TooLarge(closed.budget_id, closed.counter.limit, closed.dimension, ends[closed.budget_id])
            if closed
            else None,
        )
        self._bindings[(id(rules), provider)] = binding
        return binding

    def _rule_in_force(self, rule: BudgetLimits) -> BudgetLimits:
        """The rule of that id that counts: the applied one; without any ``apply``, the one seen last."""
        if not self._is_governed:
            self._in_force[rule.id] = rule
            return rule
        return self._in_force.get(rule.id, rule)

    def _meters_of(self, rule: BudgetLimits) -> list[Meter]:
        """The rule's meters with its limits set, made where they are missing."""
        known = self._meters.setdefault(rule.id, {})
        meters: list[Meter] = []
        for dimension in Dimension:
            limit: int | None = getattr(rule, dimension.value)
            if limit is None:
                continue
            meter = known.get(dimension)
            if meter is None:
                meter = known[dimension] = Meter(rule.id, dimension, _counter(dimension, limit))
            meter.counter.limit = limit
            meters.append(meter)
        return meters

    def _denial(self, binding: _Binding, account: Account, tokens: int, now_s: float) -> Denied:
        short = self._ledger.shortages(account, tokens, now_s)
        ends = binding.when_exhausted
        worst = max(short, key=lambda s: (ends[s.budget_id] == "refuse", s.wait_s))
        return Denied(
            worst.budget_id,
            worst.dimension,
            max(s.wait_s for s in short),
            worst.dimension in DAILY,
            ends[worst.budget_id],
            worst.limit,
        )


def _in_use(meter: Meter, now_s: float) -> bool:
    if isinstance(meter.counter, WindowCounter):
        meter.counter.advance(now_s)
    return meter.counter.used > 0


def _counter(dimension: Dimension, limit: int) -> WindowCounter | SlotCounter:
    if dimension is Dimension.CONCURRENT:
        return SlotCounter(limit)
    return WindowCounter(REQUEST_WINDOWS.get(dimension) or TOKEN_WINDOWS[dimension], limit)


def _too_large(binding: _Binding, account: Account, tokens: int) -> TooLarge:
    meter = min(
        (m for m in account.meters if m.dimension in TOKEN_WINDOWS and m.counter.limit < tokens),
        key=lambda m: m.counter.limit,
    )
    return TooLarge(meter.budget_id, meter.counter.limit, meter.dimension, binding.when_exhausted[meter.budget_id])


def _granted(reservation: Reservation, account: Account, now_s: float) -> Granted:
    requests = tokens = None
    if account.requests:
        requests = account.requests[0]
        for window in account.requests[1:]:
            if window.limit - window.used < requests.limit - requests.used:
                requests = window
    if account.tokens:
        tokens = account.tokens[0]
        for window in account.tokens[1:]:
            if window.limit - window.used < tokens.limit - tokens.used:
                tokens = window
    return Granted(
        reservation,
        requests.limit if requests else -1,
        max(0, requests.limit - requests.used) if requests else -1,
        requests.full_reset_s(now_s) if requests else 0.0,
        tokens.limit if tokens else -1,
        max(0, tokens.limit - tokens.used) if tokens else -1,
        tokens.full_reset_s(now_s) if tokens else 0.0,
    )


def _dimension_view(meter: Meter, now_s: float) -> DimensionView:
    counter = meter.counter
    reset_s = counter.reset_s(now_s) if isinstance(counter, WindowCounter) else 0.0
    return DimensionView(meter.dimension, counter.limit, counter.used, max(0, counter.limit - counter.used), reset_s)
