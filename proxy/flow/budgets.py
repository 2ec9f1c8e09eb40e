"""The owner of this process's budgets: what was charged here and what is still held.

Owns every counter and open reservation of this process, keyed by budget id, so that a policy reload changes
limits and never sums; and the order in which a limit's two parts are asked: the counter that sidecars share
first, then the private slice. Without a shared store the slice is the whole limit, and every call is synchronous
and finishes its change before it returns. Knows no HTTP: refusals are values.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from proxy.core.budget.announced import Paces
from proxy.core.budget.calendar import WallClock
from proxy.core.budget.central import CentralVerdict, Charge
from proxy.core.budget.dimensions import QUOTAS, UNITS, Dimension, Unit
from proxy.core.budget.ledger import NO_AMOUNTS, Account, Amounts, Ledger, Reservation, amount_of, spent_of
from proxy.core.budget.shares import OnOutage, Shares
from proxy.core.policy.model import BudgetRule
from proxy.flow.budget_binding import (
    APART,
    AWAY_WAIT_S,
    UNLIMITED,
    Binding,
    applies,
    denied_by,
    granted,
    granted_shared,
    paced,
    too_large,
)
from proxy.flow.budget_lines import Line, Lines, asks_who, partition_of, whose_text
from proxy.flow.budget_ports import Central
from proxy.flow.verdicts import (
    NOBODY,
    Ask,
    BudgetView,
    Denied,
    DimensionView,
    Granted,
    Held,
    Partition,
    Scope,
    SharedReservation,
    TooLarge,
    Unpriced,
    Verdict,
    Who,
)

__all__ = ["Ask", "BudgetView", "Budgets", "Denied", "DimensionView", "Granted", "TooLarge", "Unpriced", "Who"]

_MAX_BINDINGS = 4096
"""Bound rule sets kept; routes times providers of two generations stay far below it."""
_AFTER_DENIAL_S = 0.1
"""A shared counter that has just said no is not asked again for so long: denials cost more than admissions."""
_AGAIN = ":2"
"""Ends the id of a second try: the first one's outcome is unknown, and it will be cancelled by its own id."""
_LOOK_AT_ONCE = 200


class Budgets:
    """Live budgets of one process, alone or sharing their limits with others."""

    def __init__(
        self,
        *,
        central: Central | None = None,
        shares: Shares | None = None,
        wall: WallClock | None = None,
        started_s: float = 0.0,
        boost_after_s: float = 30.0,
    ) -> None:
        """Start empty.

        Args:
            central: The counters that sidecars share, and ``shares`` how limits are divided; None: all is here.
            wall: Where calendar days begin; kept up to date by its owner.
            started_s: Monotonic second since when this process may have admitted anything.
            boost_after_s: With ``on_outage: boost``, how long an outage lasts before slices grow.
        """
        self._ledger = Ledger()
        self._central = central
        self.is_shared = central is not None
        self._shares = shares if central is not None else None
        self._boost_after_s = boost_after_s
        self._lines = Lines(self._shares, wall or WallClock(), started_s)
        self._in_force: dict[str, BudgetRule] = {}
        self._canary: dict[int, BudgetRule] = {}
        """Rules of a canary by identity: its exchanges meet these beside those in force, on the same counters."""
        self._is_governed = False
        self._bindings: dict[tuple[object, ...], Binding] = {}
        self._scoped: dict[int, tuple[Sequence[BudgetRule], bool]] = {}
        self._shared_open: dict[str, Sequence[Charge]] = {}
        self.paces = Paces()
        """What providers have said of their own limits; only ever asked besides ours."""
        self.unpriced = 0
        """Attempts whose cost no budget could count."""
        self.unbounded = 0
        """Attempts that ``on_outage: allow`` let pass uncounted."""
        self.observed = 0
        """Attempts that would have been refused, had their policy not said ``mode: observe``."""

    @property
    def open_reservations(self) -> int:
        """Attempts that hold a reservation now."""
        return self._ledger.open_count + len(self._shared_open)

    def apply(self, rules: Iterable[BudgetRule], canary: Iterable[BudgetRule] = ()) -> None:
        """Put these rules in force: new limits act at the next call, sums stay.

        Call it once with every rule of a snapshot when that snapshot takes effect. A budget that is no
        longer named keeps its sums while they matter, so removing and adding it again refunds nothing.
        ``canary`` are the rules of a revision that decides some exchanges beside it: what a budget has used is one
        sum, and each revision holds it against its own limit.
        """
        self._is_governed = True
        self._in_force = {rule.id: rule for rule in rules}
        self._canary = {id(rule): rule for rule in canary}
        self._forget_bindings()
        for rule in self._in_force.values():
            if not rule.per:
                self._lines.of(rule, (), self._ledger.now_s)
        self._lines.forget(self._in_force.keys() | {rule.id for rule in self._canary.values()}, self._ledger.now_s)

    def _forget_bindings(self) -> None:
        self._bindings.clear()
        self._scoped.clear()

    # --- reserving --------------------------------------------------------------------------------

    def reserve(  # noqa: PLR0913, PLR0917 - one attempt, in its own words
        self,
        rules: Sequence[BudgetRule],
        provider: str,
        tokens: int,
        now_s: float,
        rid: str,
        is_explicit: bool = True,
        who: Who = NOBODY,
        amounts: Amounts = NO_AMOUNTS,
        target: str = "",
    ) -> Verdict | Ask:
        """Charge every rule that applies, or none.

        Args:
            rules: The rules of the exchange's route; pass the same tuple each time, it is the cache key.
            provider: Who is about to be asked.
            tokens: The estimate to hold.
            now_s: Monotonic seconds.
            rid: Unique per attempt; a repeat while it is open charges nothing.
            is_explicit: The estimate rests on the caller's own ``max_tokens``. Then one that exceeds a
                limit is ``TooLarge``; otherwise it is charged up to the limit and corrected when settled.
            who: Whose exchange it is; matters only to rules that name or count more than a provider.
            amounts: Estimates of what is counted apart; a cost below zero is unknown.
            target: ``provider:model``, whose own announced limits are obeyed where some rule applies; empty where
                nobody has announced any and nobody shares them.

        Returns:
            The verdict, or what ``decide`` has to be asked because sidecars share these limits.
        """
        binding = self._bindings.get((id(rules), provider))
        if binding is None:
            binding = self._bind(rules, provider, who, now_s)
        if binding.is_particular or target or amounts is not NO_AMOUNTS:
            verdict = self._first_word(binding, tokens, now_s, amounts, target)
            if verdict is not None:
                return verdict
            if amounts.cost < 0:
                amounts = amounts._replace(cost=0)
            if not binding.is_local:
                return self._reserve_shared(Ask(binding, rid, tokens, amounts, target), binding, now_s, is_explicit)
        account = binding.account
        assert account is not None
        if tokens > account.least_token_limit or account.apart:
            excess = too_large(binding, tokens, amounts, is_explicit)
            if excess is not None:
                return excess
        reservation = self._ledger.acquire(account, tokens, now_s, rid, amounts)
        if reservation is None:
            return self._denial(binding, account, tokens, now_s, amounts)
        if target:
            self.paces.take(target, tokens, now_s)
        return granted(reservation, account, now_s)

    def _first_word(self, binding: Binding, tokens: int, now_s: float, amounts: Amounts, target: str) -> Verdict | None:
        """Say what is known without any sum; None: the sums decide."""
        if binding.account is None:
            return UNLIMITED
        if binding.hopeless is not None:
            return binding.hopeless
        if amounts.cost < 0:
            if binding.refuses_unpriced is not None:
                return Unpriced(binding.refuses_unpriced, binding.when[binding.refuses_unpriced])
            self.unpriced += 1
        if target:
            wait_s, is_for_tokens = self.paces.wait_s(target, tokens, now_s)
            if wait_s > 0.0:
                return paced(binding, wait_s, is_for_tokens)
        return None

    def _reserve_shared(self, ask: Ask, binding: Binding, now_s: float, is_explicit: bool) -> Verdict | Ask:
        _, rid, tokens, amounts, _ = ask
        excess = too_large(binding, tokens, amounts, is_explicit)
        if excess is not None:
            return excess
        central = self._central
        assert central is not None
        if central.is_open:
            return self._away(binding, rid, tokens, now_s, amounts)
        if now_s < binding.full_until_s and binding.full_for is not None and binding.is_full_for(tokens, amounts):
            wait_s = max(0.001, binding.full_for.wait_s - (now_s + _AFTER_DENIAL_S - binding.full_until_s))
            return self._slice(binding, rid, tokens, now_s, amounts, binding.full_for._replace(wait_s=wait_s))
        return ask

    async def decide(self, ask: Ask, now_s: float) -> Verdict:
        """Ask the shared counters, then the slice; never longer than the store's command timeout."""
        binding, rid, tokens, amounts, target = ask
        central = self._central
        assert central is not None
        assert isinstance(binding, Binding)
        charges = tuple(
            Charge(line.central, amount_of(line.meter.dimension, line.central.limit, tokens, amounts))
            for line in binding.lines
            if line.central is not None
        )
        answer = await self._acquire(central, rid, charges, target)
        if answer is None:
            verdict = self._away(binding, rid, tokens, now_s, amounts)
            if isinstance(verdict, Granted) or central.is_open:
                return verdict
            # One late command is no outage, and a slice without room (after a start it is closed) no reason to refuse.
            rid += _AGAIN
            answer = await self._acquire(central, rid, charges, target)
            if answer is None:
                return verdict
        for line, left in zip(binding.lines, answer.left, strict=False):
            line.central_left = left
        if answer.is_granted:
            self._shared_open[rid] = charges
            self.paces.take(target, tokens, now_s)
            return granted_shared(SharedReservation(rid, charges), binding, now_s)
        if answer.why == "paused":
            self.paces.pause(target, answer.wait_s, now_s)
            return paced(binding, answer.wait_s, False)
        binding.full_until_s = now_s + min(_AFTER_DENIAL_S, answer.wait_s)
        binding.full_for, binding.full_tokens, binding.full_amounts = answer, tokens, amounts
        return self._slice(binding, rid, tokens, now_s, amounts, answer)

    @staticmethod
    async def _acquire(central: Central, rid: str, charges: Sequence[Charge], target: str) -> CentralVerdict | None:
        try:
            return await central.acquire(rid, charges, (target,) if target else ())
        except asyncio.CancelledError:
            central.cancel(rid, charges)
            raise

    def _away(self, binding: Binding, rid: str, tokens: int, now_s: float, amounts: Amounts) -> Verdict:
        """Decide without the shared counters, as ``on_outage`` says."""
        shares, central = self._shares, self._central
        assert shares is not None
        assert central is not None
        if shares.on_outage is OnOutage.ALLOW:
            self.unbounded += 1
            return UNLIMITED
        if shares.on_outage is OnOutage.DENY:
            return denied_by(binding, ())._replace(is_quota=False, why="store_away")
        if shares.on_outage is OnOutage.BOOST:
            self._lines.boost(central.outage_s(now_s) >= self._boost_after_s)
        return self._slice(binding, rid, tokens, now_s, amounts, None)

    def store_is_back(self) -> None:
        """Take back what a long outage had let slices grow to."""
        self._lines.boost(False)

    def _slice(
        self,
        binding: Binding,
        rid: str,
        tokens: int,
        now_s: float,
        amounts: Amounts,
        answer: CentralVerdict | None,
    ) -> Verdict:
        """Try this sidecar's own slice; when it is empty too, the sooner of both is the wait."""
        account = binding.account
        assert account is not None
        could_ever = all(
            amount_of(line.meter.dimension, line.limit, tokens, amounts) <= line.meter.counter.limit
            for line in binding.lines
        )
        if could_ever:
            reservation = self._ledger.acquire(account, tokens, now_s, rid, amounts)
            if reservation is not None:
                return granted(reservation, account, now_s)
        denied = self._denial(binding, account, tokens, now_s, amounts)
        if answer is None:
            # What no slice can ever hold waits for the store, which is probed every second.
            return denied._replace(why="store_away", retry_after_s=denied.retry_after_s if could_ever else AWAY_WAIT_S)
        wait_s = min(denied.retry_after_s, answer.wait_s) if could_ever else answer.wait_s
        line = binding.lines[answer.short] if answer.short >= 0 else None
        if answer.why or line is None:
            return denied._replace(retry_after_s=wait_s, why=answer.why)
        budget_id, dimension = line.meter.budget_id, line.meter.dimension
        return Denied(
            budget_id, dimension, wait_s, dimension in QUOTAS,
            binding.when[budget_id], line.limit, line.scope,
        )  # fmt: skip

    # --- ending -----------------------------------------------------------------------------------

    def settle(
        self, reservation: Held, actual_tokens: int | None, now_s: float, amounts: Amounts | None = None
    ) -> None:
        """End an attempt the provider accepted. None: the use is unknown, the estimate stays charged."""
        if type(reservation) is Reservation:
            self._ledger.settle(reservation, actual_tokens, now_s, amounts)
        elif isinstance(reservation, SharedReservation) and reservation.rid in self._shared_open:
            del self._shared_open[reservation.rid]
            assert self._central is not None
            spent = [
                charge.amount
                if actual_tokens is None or (amounts is None and UNITS[charge.counter.dimension] in APART)
                else spent_of(charge.counter.dimension, actual_tokens, amounts or NO_AMOUNTS)
                for charge in reservation.charges
            ]
            self._central.settle(reservation.rid, reservation.charges, spent)

    def cancel(self, reservation: Held, now_s: float) -> None:
        """End an attempt the provider never accepted: everything is handed back."""
        if type(reservation) is Reservation:
            self._ledger.cancel(reservation, now_s)
        elif isinstance(reservation, SharedReservation) and reservation.rid in self._shared_open:
            del self._shared_open[reservation.rid]
            assert self._central is not None
            self._central.cancel(reservation.rid, reservation.charges)

    # --- what providers say -----------------------------------------------------------------------

    def hear(self, target: str, lines: bytes, now_s: float, now_unix_s: float) -> None:
        """Take note of the limits in an answer's header lines; share it when the target takes nothing more."""
        wait_s = self.paces.hear(target, lines, now_s, now_unix_s)
        if wait_s > 0.0 and self._central is not None:
            self._central.pause(target, wait_s)

    def pause(self, target: str, for_s: float, now_s: float) -> None:
        """The target has answered 429: let nobody knock for so long, here or elsewhere."""
        self.paces.pause(target, for_s, now_s)
        if self._central is not None:
            self._central.pause(target, for_s)

    # --- looking ----------------------------------------------------------------------------------

    def snapshot(self, now_s: float) -> tuple[BudgetView, ...]:
        """Every budget in force with its limits, use and resets; shared ones as last heard of."""
        return tuple(view for rule in self._in_force.values() for view in self._lines.views(rule, now_s))

    def held(self) -> dict[tuple[str, Partition, Dimension], int]:
        """Return what exchanges that run here hold of each limit: budget, partition, dimension -> amount."""
        here = self._ledger.held()
        shared: dict[tuple[str, str, Dimension], int] = {}
        for charges in self._shared_open.values():
            for (rule, whose, dimension, *_), amount in charges:
                shared[rule, whose, dimension] = shared.get((rule, whose, dimension), 0) + amount
        return {
            (rule, partition, line.meter.dimension): here.get(id(line.meter.counter), 0)
            + shared.get((rule, whose_text(partition), line.meter.dimension), 0)
            for rule, partition, line in self._lines.named()
        }

    async def refresh(self) -> None:
        """Look at the shared counters, so that the next snapshot is of now."""
        if self._central is None:
            return
        lines = [line for line in self._lines.all() if line.central is not None]
        for start in range(0, len(lines), _LOOK_AT_ONCE):
            part = lines[start : start + _LOOK_AT_ONCE]
            found = await self._central.look([line.central for line in part if line.central is not None])
            for line, (used, reset_s) in zip(part, found or (), strict=False):
                assert line.central is not None
                line.central_left = line.central.limit - used
                line.central_reset_s = reset_s

    def rules(self) -> tuple[BudgetRule, ...]:
        """Every rule in force."""
        return tuple(self._in_force.values())

    def waits_before(
        self, rules: Sequence[BudgetRule], provider: str, who: Who, now_s: float
    ) -> dict[Scope, BudgetRule]:
        """Return the budgets of an attempt before which exchanges wait in line."""
        return self._bind(rules, provider, who, now_s).waits

    def cannot_be_in_time(self, denied: Denied, ahead: int, within_s: float, now_s: float) -> bool:
        """Say whether waiting is known to be in vain: requests are not handed back before their window has passed.

        Slots, tokens and cost are: what is reserved is more than what is used. So they are worth waiting for while
        anything is open.
        """
        if UNITS[denied.dimension] is Unit.REQUESTS or not self.open_reservations:
            if not ahead:
                return denied.retry_after_s > within_s
            return (
                max(denied.retry_after_s, self._lines.wait_s(denied.scope, denied.dimension, ahead, now_s)) > within_s
            )
        return False

    # --- binding ----------------------------------------------------------------------------------

    def _bind(self, rules: Sequence[BudgetRule], provider: str, who: Who, now_s: float) -> Binding:
        """Find the rules of a kind of attempt, with its counters; bind by whose it is only where that matters."""
        known = self._scoped.get(id(rules))
        if known is None:
            known = self._scoped[id(rules)] = (rules, any(asks_who(rule) for rule in rules))
        key: tuple[object, ...] = (id(rules), provider, who) if known[1] else (id(rules), provider)
        binding = self._bindings.get(key)
        if binding is not None:
            return binding
        if len(self._bindings) >= _MAX_BINDINGS:
            self._forget_bindings()
            self._scoped[id(rules)] = known
        named = [self._rule_in_force(rule) for rule in rules if applies(rule, provider, who)]
        evictions = self._lines.evictions
        lines = [line for rule in named for line in self._lines_of(rule, partition_of(rule, provider, who), now_s)]
        if evictions != self._lines.evictions:
            # Counters that held nothing were dropped: nobody may go on with the old ones beside new ones.
            self._forget_bindings()
            self._scoped[id(rules)] = known
        binding = self._bindings[key] = Binding(rules, named, lines)
        return binding

    def _lines_of(self, rule: BudgetRule, partition: Partition, now_s: float) -> list[Line]:
        if id(rule) in self._canary:
            return self._lines.beside(rule, self._in_force.get(rule.id), partition, now_s)
        return self._lines.of(rule, partition, now_s)

    def _rule_in_force(self, rule: BudgetRule) -> BudgetRule:
        """The rule of that id that counts: the applied one, or a canary's own; without any ``apply``, the one seen last."""
        if id(rule) in self._canary:
            return rule
        if not self._is_governed:
            self._in_force[rule.id] = rule
            return rule
        return self._in_force.get(rule.id, rule)

    def _denial(self, binding: Binding, account: Account, tokens: int, now_s: float, amounts: Amounts) -> Denied:
        return denied_by(binding, self._ledger.shortages(account, tokens, now_s, amounts))
