"""A list of outcomes that would be otherwise: by app, rule and kind of change, with a few exchanges as examples.

Owns the counting, bounded however many exchanges and rules there are. Knows no source of them: ``replay`` and the shadow fill it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from proxy.core.budget.dimensions import NANO_USD
from proxy.core.budget.prices import PriceTable
from proxy.core.policy.decide import Decision, Difference
from proxy.terms.exchange import Usage

MAX_GROUPS: Final = 500
MAX_EXAMPLES: Final = 5

_Key = tuple[str, str, str, str, str]


class _Group:
    __slots__ = ("count", "examples")

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[str] = []


class Changes:
    """What came of comparing exchanges; add them one after the other."""

    def __init__(self, max_groups: int = MAX_GROUPS) -> None:
        self.exchanges = 0
        """Compared, changed or not."""
        self.changed = 0
        self.partly_known = 0
        """Exchanges in which more might be found than the facts tell."""
        self.beyond = 0
        """Changes of groups that there was no room for."""
        self.cost_before_usd = 0.0
        self.cost_after_usd = 0.0
        self.unpriced = 0
        """Exchanges whose cost under the other decision nobody knows; they are in neither sum."""
        self._max_groups = max_groups
        self._groups: dict[_Key, _Group] = {}

    def add(self, exchange_id: str, app: str, found: Sequence[Difference], *, is_partly_known: bool = False) -> None:
        """Count an exchange and in what it would differ."""
        self.exchanges += 1
        self.partly_known += is_partly_known
        self.changed += bool(found)
        for one in found:
            group = self._group((app, one.what.value, one.rule, one.before, one.after))
            if group is None:
                self.beyond += 1
                continue
            group.count += 1
            if len(group.examples) < MAX_EXAMPLES:
                group.examples.append(exchange_id)

    def add_cost(self, before_usd: float | None, after_usd: float | None) -> None:
        """Add what an exchange cost, and what it would have cost."""
        if before_usd is None or after_usd is None:
            self.unpriced += 1
        else:
            self.cost_before_usd += before_usd
            self.cost_after_usd += after_usd

    def _group(self, key: _Key) -> _Group | None:
        found = self._groups.get(key)
        if found is None and len(self._groups) < self._max_groups:
            found = self._groups[key] = _Group()
        return found

    def document(self) -> dict[str, Any]:
        """Return the report as plain data, the most frequent change first."""
        ordered = sorted(self._groups.items(), key=lambda pair: (-pair[1].count, pair[0]))
        names = ("app", "what", "rule", "before", "after")
        return {
            "exchanges": self.exchanges,
            "changed": self.changed,
            "partly_known": self.partly_known,
            "changes_beyond_list": self.beyond,
            "cost": {
                "before_usd": round(self.cost_before_usd, 9),
                "after_usd": round(self.cost_after_usd, 9),
                "unpriced": self.unpriced,
            },
            "changes": [
                {**dict(zip(names, key, strict=True)), "count": group.count, "examples": group.examples}
                for key, group in ordered
            ],
        }


def cost_under(
    before: Decision, after: Decision, cost_usd: float | None, usage: Usage | None, prices: PriceTable | None
) -> float | None:
    """Return what an exchange would have cost under another decision, by its tokens; None when nobody knows."""
    if after.refusal:
        return 0.0
    if not before.refusal and before.chain[:1] == after.chain[:1]:
        return cost_usd
    if usage is None or prices is None or not after.chain:
        return None
    provider, _, model = after.chain[0].partition(":")
    price = prices.find(provider, model)
    return None if price is None else price.of(usage) / NANO_USD
