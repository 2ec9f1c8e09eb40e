"""Audited exchanges decided again under other policies.

Owns the comparison of a row with what the policies in question would do. What was decided then comes from the policies of the
row's revision where they are still known and agree with the row, else from the row alone. Knows no store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from proxy.core.budget.prices import PriceTable
from proxy.core.policy.changes import Changes, cost_under
from proxy.core.policy.decide import (
    DECIDED_CODES,
    Decision,
    Difference,
    decide,
    differences,
    facts_of_row,
    is_partly_known,
    recorded,
)
from proxy.core.policy.policy_set import PolicySet
from proxy.terms.exchange import Usage


class Replay:
    """One run over many rows."""

    def __init__(
        self,
        policies: PolicySet,
        known: Callable[[str], PolicySet | None],
        prices: PriceTable | None = None,
        *,
        enforce: bool = False,
    ) -> None:
        """Take the policies in question, and how those of an earlier revision are found."""
        self._policies = policies
        self._known = known
        self._prices = prices
        self._enforce = enforce
        self.changes = Changes()
        self.undecided = 0
        """Rows that no policy decided: wrong keys, unreadable bodies, answers of our own."""
        self.by_row_alone = 0
        """Rows whose revision is not known any more, or tells another story: known by its columns only."""

    def take(self, row: Mapping[str, Any]) -> list[Difference]:
        """Decide one row (JSON columns parsed) again; return in what it would differ."""
        if not row["policy"] and (row["error_code"] not in DECIDED_CODES or row["attempt_count"]):
            self.undecided += 1
            return []
        before = self._before(row)
        after = decide(self._policies, facts_of_row(row, self._policies), enforce=self._enforce)
        found = differences(before, after)
        self.changes.add(row["id"], row["app"], found, is_partly_known=is_partly_known(before, after))
        cost_usd = 0.0 if before.refusal else row["cost_usd"]
        self.changes.add_cost(cost_usd, cost_under(before, after, cost_usd, _usage(row), self._prices))
        return found

    def _before(self, row: Mapping[str, Any]) -> Decision:
        told = recorded(row)
        then = self._known(row["policy_revision"])
        if then is not None:
            before = decide(then, facts_of_row(row, then))
            same_rule = told.refusal in DECIDED_CODES or (told.policy, told.route) == (before.policy, before.route)
            if same_rule and told.refusal == before.refusal:
                return before
        self.by_row_alone += 1
        return told

    def document(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "revision": self._policies.revision,
            "enforced": self._enforce,
            **self.changes.document(),
            "undecided": self.undecided,
            "by_row_alone": self.by_row_alone,
        }


def _usage(row: Mapping[str, Any]) -> Usage | None:
    if row["tokens_in"] is None or row["tokens_out"] is None:
        return None
    return Usage(row["tokens_in"], row["tokens_out"], row["tokens_cached"] or 0, row["tokens_reasoning"] or 0)
