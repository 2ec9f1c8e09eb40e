"""The owner of the prices in force, and of what this process has spent by them.

Owns the table (one reference that is swapped) and the sums per provider since the start. Knows no file.
"""

from __future__ import annotations

from proxy.core.budget.dimensions import NANO_USD
from proxy.core.budget.prices import PriceTable
from proxy.terms.exchange import Usage


class Pricing:
    """Prices for budgets, rows and metrics; one per process that has a table."""

    def __init__(self, table: PriceTable) -> None:
        self.table = table
        self.spent: dict[str, int] = {}
        """Provider -> billionths of a US dollar."""
        self.unknown: dict[str, int] = {}
        """Provider -> attempts whose model has no price."""

    def accept(self, table: PriceTable) -> None:
        """Put another table in force; what was spent stays spent."""
        self.table = table

    def at_most(self, provider: str, model: str, input_tokens: int, output_tokens: int) -> int:
        """Bound what an attempt may cost; below zero when nobody knows."""
        price = self.table.find(provider, model)
        return -1 if price is None else price.at_most(input_tokens, output_tokens)

    def charge(self, provider: str, model: str, usage: Usage) -> int | None:
        """Return what an attempt cost and count it; None when nobody knows."""
        price = self.table.find(provider, model)
        if price is None:
            self.unknown[provider] = self.unknown.get(provider, 0) + 1
            return None
        cost = price.of(usage)
        self.spent[provider] = self.spent.get(provider, 0) + cost
        return cost

    def spent_usd(self, provider: str) -> float:
        """Return what was spent at a provider since the start, in US dollars."""
        return self.spent.get(provider, 0) / NANO_USD
