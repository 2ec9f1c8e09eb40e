"""One budget decision alone, timed: reserve and settle in memory."""

from __future__ import annotations

import time

from proxy.core.budget.dimensions import Dimension
from proxy.core.policy.model import BudgetRule, Scope, WhenExhausted
from proxy.flow.budgets import Budgets, Granted, Who

_ROUNDS = 5
_PLENTY = 10**9


def _rule(name: str, *dimensions: Dimension, per: tuple[Scope, ...] = ()) -> BudgetRule:
    limits = tuple((dimension, _PLENTY) for dimension in dimensions)
    return BudgetRule(f"bench/{name}", "groq", limits, WhenExhausted.REFUSE, per=per)


_PLAIN = (Dimension.REQUESTS_PER_MINUTE, Dimension.TOKENS_PER_MINUTE, Dimension.REQUESTS_PER_DAY, Dimension.CONCURRENT)
CASES: dict[str, tuple[BudgetRule, ...]] = {
    "one budget of four limits": (_rule("provider", *_PLAIN),),
    "three budgets of eight limits, one for each app": (
        _rule("provider", *_PLAIN),
        _rule("app", Dimension.REQUESTS_PER_MINUTE, Dimension.TOKENS_PER_HOUR, per=(Scope.APP,)),
        _rule("split", Dimension.INPUT_TOKENS_PER_MINUTE, Dimension.OUTPUT_TOKENS_PER_MINUTE),
    ),
}


def time_decisions(decisions: int = 10_000) -> dict[str, float]:
    """Return microseconds of CPU for one reserve and settle, the best of a few rounds, for each case."""
    return {name: min(_time(rules, decisions) for _ in range(_ROUNDS)) for name, rules in CASES.items()}


def _time(rules: tuple[BudgetRule, ...], decisions: int) -> float:
    budgets = Budgets()
    budgets.apply(rules)
    who = Who(app="shop")
    began_s = time.process_time()
    for number in range(decisions):
        now_s = number * 0.001
        verdict = budgets.reserve(rules, "groq", 300, now_s, f"exchange-{number}", who=who)
        assert isinstance(verdict, Granted)
        budgets.settle(verdict.reservation, 120, now_s)
    return (time.process_time() - began_s) / decisions * 1e6
