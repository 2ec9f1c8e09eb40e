"""Finding room for one attempt in the budgets: reserving, asking what sidecars share, standing in line.

Owns no sums and no lines; ``Budgets`` and ``WaitingLines`` do. Knows no connection.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.core.budget.announced import HINT
from proxy.core.budget.ledger import NO_AMOUNTS, Amounts
from proxy.flow.booking import Plan
from proxy.flow.budget_binding import UNLIMITED
from proxy.flow.budgets import Ask, Budgets, Denied, Granted, TooLarge, Unpriced
from proxy.flow.catalog import Deployment
from proxy.flow.exchange import Exchange
from proxy.flow.ports import Clock, Upstream
from proxy.flow.pricing import Pricing
from proxy.flow.verdicts import NOBODY, Verdict, Who
from proxy.flow.waiting import WaitingLines
from proxy.terms.http import AnswerHead


@dataclass(slots=True)
class Room:
    """Finds room; one per process."""

    budgets: Budgets
    waiting: WaitingLines
    upstream: Upstream
    clock: Clock
    pricing: Pricing | None

    def reserve(
        self, exchange: Exchange, plan: Plan, deployment: Deployment, now_s: float, *, is_our_turn: bool = False
    ) -> Verdict | Ask | None:
        """Reserve with every budget that applies; None when the provider has no key.

        Newcomers line up behind those who wait for one of these budgets, unless it is our turn.
        """
        facts, budgets = exchange.facts, self.budgets
        if self.upstream.lacks_key(deployment.endpoint):
            facts.notes.append(f"skipped:{deployment.provider}:no_key")
            return None
        route = plan.route
        who, amounts = NOBODY, NO_AMOUNTS
        if route.knows_who:
            who = who_of(plan, deployment)
        if self.waiting.lines and route.may_wait and not is_our_turn:
            denied = self._behind_others(plan, deployment, who)
            if denied is not None:
                return denied
        if route.counts_apart:
            amounts = self._amounts(plan, deployment)
        attempts = len(facts.attempts)
        return budgets.reserve(
            route.budgets,
            deployment.provider,
            plan.tokens,
            now_s,
            f"{facts.id}:{attempts}" if attempts else facts.id,
            plan.is_explicit,
            who,
            amounts,
            target_of(plan, deployment) if budgets.is_shared or not budgets.paces.is_idle else "",
        )

    def _behind_others(self, plan: Plan, deployment: Deployment, who: Who) -> Denied | None:
        """Return what sends a newcomer to the end of a line that others stand in already."""
        now_s = self.clock.monotonic_s()
        rules = self.budgets.waits_before(plan.route.budgets, deployment.provider, who, now_s)
        for scope in rules:
            if self.waiting.ahead(scope, plan.route.plan.priority):
                front = self.waiting.denial_in_front(scope)
                assert front is not None
                return front._replace(when_exhausted="wait", scope=scope, why="in_line")
        return None

    def _amounts(self, plan: Plan, deployment: Deployment) -> Amounts:
        """Bound what an attempt uses of what is counted apart; a cost below zero is unknown."""
        output = plan.output_tokens
        cost = 0
        if plan.route.counts_cost:
            model = deployment.model or plan.request.model or ""
            prompt = plan.tokens - output
            cost = -1 if self.pricing is None else self.pricing.at_most(deployment.provider, model, prompt, output)
        return Amounts(plan.tokens - output, output, cost)

    async def find(
        self, exchange: Exchange, plan: Plan, deployment: Deployment, verdict: Verdict | Ask, deadline_s: float
    ) -> Verdict:
        """Ask the counters that sidecars share; then stand in line, where a budget says so."""
        if isinstance(verdict, Ask):
            verdict = await self.budgets.decide(verdict, self.clock.monotonic_s())
        if plan.route.plan.observe_only and not isinstance(verdict, Granted):
            return self._observed(exchange, deployment, verdict)
        if not isinstance(verdict, Denied) or verdict.when_exhausted != "wait":
            return verdict
        now_s = self.clock.monotonic_s()
        rule = self.budgets.waits_before(plan.route.budgets, deployment.provider, who_of(plan, deployment), now_s).get(
            verdict.scope
        )
        if rule is None:
            return verdict
        within_s = min(rule.wait_s, deadline_s - now_s)
        priority = plan.route.plan.priority
        ahead = self.waiting.ahead(verdict.scope, priority)
        line = self.waiting.lines.get(verdict.scope, ())
        if len(line) >= rule.max_waiting or self.budgets.cannot_be_in_time(verdict, ahead, within_s, now_s):
            return verdict

        async def try_again() -> Verdict:
            again = self.reserve(exchange, plan, deployment, self.clock.monotonic_s(), is_our_turn=True)
            if isinstance(again, Ask):
                return await self.budgets.decide(again, self.clock.monotonic_s())
            assert again is not None
            return again

        found = await self.waiting.wait(verdict.scope, priority, now_s + within_s, verdict, try_again)
        waited_ms = (self.clock.monotonic_s() - now_s) * 1000.0
        exchange.facts.notes.append(f"waited:{deployment.provider}:{waited_ms:.0f}ms")
        return found

    def _observed(self, exchange: Exchange, deployment: Deployment, verdict: Denied | TooLarge | Unpriced) -> Granted:
        """Let an attempt go that ``mode: enforce`` would refuse, charged nowhere as a refused one is not; and say so."""
        what = verdict.dimension.value if not isinstance(verdict, Unpriced) else "unknown_price"
        exchange.facts.notes.append(f"would_refuse:budget:{deployment.provider}:{what}")
        self.budgets.observed += 1
        return UNLIMITED

    def hear(self, plan: Plan, deployment: Deployment, head: AnswerHead) -> None:
        """Take note of what an answer's header lines say of the provider's own limits; most say that they are far."""
        paces = self.budgets.paces
        is_far = head.may_be_near is None or not head.may_be_near(head.values)
        if is_far and ((paces.is_idle and not paces.heard) or paces.hear_far(target_of(plan, deployment))):
            return
        if head.lines.find(HINT) >= 0:
            now_s = self.clock.monotonic_s()
            self.budgets.hear(target_of(plan, deployment), head.lines, now_s, self.clock.unix_ms() / 1000.0)


def target_of(plan: Plan, deployment: Deployment) -> str:
    """Return ``provider:model`` as the provider's own limits see it."""
    return deployment.dialled if deployment.model is not None else f"{deployment.provider}:{plan.request.model or ''}"


def who_of(plan: Plan, deployment: Deployment) -> Who:
    """Return whose attempt it is; the model is the one asked of this provider."""
    return plan.who._replace(model=deployment.model or plan.request.model or "")
