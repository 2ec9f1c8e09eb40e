"""Builders for budget rules: ``budget_rule("p", "groq", requests_per_minute=30)``."""

from __future__ import annotations

from typing import Any

from proxy.core.budget.dimensions import NANO_USD, UNITS, Dimension, Unit
from proxy.core.policy.model import BudgetRule


def budget_rule(budget_id: str, provider: str | None, /, **words: Any) -> BudgetRule:
    """Return a rule; limits by the names of the policy file, cost in dollars, the rest as ``BudgetRule`` takes it."""
    limits = tuple(
        (d, round(words.pop(d.value) * NANO_USD) if UNITS[d] is Unit.COST else words.pop(d.value))
        for d in Dimension
        if d.value in words
    )
    return BudgetRule(budget_id, provider, limits, **words)
