"""The rules that one kind of attempt meets, looked up once; and what is read off them.

Owns no sums. ``budgets`` charges them; this says which rules apply, whether a request can ever fit, and what the caller
is told of what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import ge
from typing import Final

from proxy.core.budget.central import CentralVerdict
from proxy.core.budget.dimensions import QUOTAS, UNITS, Unit
from proxy.core.budget.ledger import NO_AMOUNTS, Account, Amounts, Reservation, Shortage, spent_of, tightest
from proxy.core.budget.window import SlotCounter
from proxy.core.policy.globs import compile_glob, is_glob
from proxy.core.policy.model import BudgetRule, UnknownPrice, WhenExhausted
from proxy.flow.budget_lines import Line
from proxy.flow.verdicts import Denied, Granted, SharedReservation, TooLarge, Who


class Binding:
    """The rules that one kind of attempt meets, looked up once. ``rules`` is held so that its ``id()`` stays taken."""

    __slots__ = ("account", "full_amounts", "full_for", "full_tokens", "full_until_s", "hopeless", "is_local", "is_particular", "lines", "refuses_unpriced", "rules", "waits", "when", "whole")  # fmt: skip

    def __init__(self, rules: Sequence[BudgetRule], named: Sequence[BudgetRule], lines: Sequence[Line]) -> None:
        self.rules = rules
        self.lines = tuple(lines)
        self.account = Account([line.meter for line in lines]) if lines else None
        self.when = {rule.id: str(rule.when_exhausted) for rule in named}
        self.refuses_unpriced = next(
            (r.id for r in named if r.unknown_price is UnknownPrice.REFUSE and r.counts(Unit.COST)), None
        )
        self.whole = [line for line in lines if not isinstance(line.meter.counter, SlotCounter)]
        self.is_local = all(line.central is None for line in lines)
        closed = next((line for line in lines if line.limit < 1), None)
        self.hopeless: TooLarge | None = None
        if closed is not None:
            budget_id, dimension = closed.meter[:2]
            self.hopeless = TooLarge(budget_id, closed.limit, dimension, self.when[budget_id])
        self.is_particular = self.account is None or closed is not None or not self.is_local
        """Something besides the sums has a word to say."""
        self.waits = {line.scope: rule for rule in named for line in lines if _waits_at(rule, line)}
        """Scope -> rule of the budgets before which exchanges wait in line."""
        self.full_until_s = 0.0
        """Until then the shared counters are taken to be as full as they said."""
        self.full_for: CentralVerdict | None = None
        self.full_tokens = 0
        self.full_amounts = NO_AMOUNTS

    def is_full_for(self, tokens: int, amounts: Amounts) -> bool:
        """Say whether the last denial speaks for this request, too: a smaller one may fit where a larger did not."""
        return tokens >= self.full_tokens and all(map(ge, amounts, self.full_amounts))


def _waits_at(rule: BudgetRule, line: Line) -> bool:
    return rule.when_exhausted is WhenExhausted.WAIT and line.meter.budget_id == rule.id


UNLIMITED = Granted(Reservation("", Account(()), 0, 0.0, None))
AWAY_WAIT_S: Final = 1.0
"""What a caller is told when ``on_outage: deny`` refuses: the store is probed every second."""
APART = frozenset({Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS, Unit.COST})


def paced(binding: Binding, wait_s: float, is_for_tokens: bool) -> Denied:
    """Say that the provider itself has no room, in the words of the budget that is nearest to what is missing."""
    wanted = Unit.TOKENS if is_for_tokens else Unit.REQUESTS
    line = next((line for line in binding.lines if UNITS[line.meter.dimension] is wanted), binding.lines[0])
    budget_id, dimension = line.meter[:2]
    return Denied(budget_id, dimension, wait_s, False, binding.when[budget_id], line.limit, line.scope, "paused")


def applies(rule: BudgetRule, provider: str, who: Who) -> bool:
    """Say whether a rule is about such an attempt."""
    return (
        rule.provider in (None, provider)
        and rule.caller in (None, who.caller)
        and all(
            pattern is None or pattern == value or (is_glob(pattern) and compile_glob(pattern).match(value) is not None)
            for pattern, value in ((rule.model, who.model), (rule.app, who.app), (rule.user, who.user))
        )
    )


def too_large(binding: Binding, tokens: int, amounts: Amounts, is_explicit: bool) -> TooLarge | None:
    """Name the smallest limit that one such request alone exceeds; an assumed length is cut instead."""
    account = binding.account
    if account is not None and not account.apart and tokens <= account.least_token_limit and binding.is_local:
        return None
    found: TooLarge | None = None
    for line in binding.whole:
        dimension = line.meter.dimension
        most = line.meter.counter.limit if line.central is None else max(line.central.limit, line.meter.counter.limit)
        if spent_of(dimension, tokens, amounts) <= most or (not is_explicit and UNITS[dimension] is not Unit.REQUESTS):
            continue
        if found is None or most < found.limit:
            budget_id = line.meter.budget_id
            found = TooLarge(budget_id, most, dimension, binding.when[budget_id])
    return found


def denied_by(binding: Binding, short: Sequence[Shortage]) -> Denied:
    """Say no in the words of the limit that decides: one that refuses before one that waits, then the longest wait.

    Args:
        short: The limits without room; none when the request is larger than this sidecar's slice, which a shared counter
            may still hold.
    """
    if not short:
        line = binding.lines[0]
        short = (Shortage(line.meter.budget_id, line.meter.dimension, line.limit, AWAY_WAIT_S),)
    ends = binding.when
    worst = max(short, key=lambda s: (ends[s.budget_id] == "refuse", s.wait_s))
    line = next(line for line in binding.lines if line.meter[:2] == worst[:2])
    return Denied(
        worst.budget_id,
        worst.dimension,
        max(s.wait_s for s in short),
        worst.dimension in QUOTAS,
        ends[worst.budget_id],
        line.limit,
        line.scope,
    )


def granted(reservation: Reservation, account: Account, now_s: float) -> Granted:
    """Tell the tightest request and token limit of this process."""
    requests = account.of_requests or tightest(account.requests)
    tokens = account.of_tokens or tightest(account.tokens)
    told = _bare(Granted)
    told.reservation = reservation
    told.limit_requests = most = requests.limit
    told.remaining_requests = most - requests.used
    told.reset_requests_s = requests.leaves_s - now_s
    told.limit_tokens = most = tokens.limit
    told.remaining_tokens = most - tokens.used
    told.reset_tokens_s = tokens.leaves_s - now_s
    return told


_bare: Final = object.__new__
"""An object filled in place, where every exchange passes: calling ``__init__`` costs as much as all it does."""


def granted_shared(reservation: SharedReservation, binding: Binding, now_s: float) -> Granted:
    """Tell the tightest of the whole limits: what the shared counters have left, and this sidecar's slice."""
    told: dict[Unit, tuple[int, int, float]] = {}
    for line in binding.whole:
        unit, counter = UNITS[line.meter.dimension], line.meter.counter
        if unit not in (Unit.REQUESTS, Unit.TOKENS) or isinstance(counter, SlotCounter):
            continue
        left = line.central_left + max(0, counter.limit - counter.used)
        if unit not in told or left < told[unit][1]:
            counter.advance(now_s)
            told[unit] = (line.limit, min(left, line.limit), counter.full_reset_s(now_s))
    nothing = (-1, -1, 0.0)
    return Granted(reservation, *told.get(Unit.REQUESTS, nothing), *told.get(Unit.TOKENS, nothing))
