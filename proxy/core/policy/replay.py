"""Audited exchanges decided again under other policies.

Owns the comparison of a row with what the policies in question would do. What was decided then comes from the policies of the
row's revision where they are still known and agree with the row, else from the row alone. Knows no store: kept words are read by
a ``Look``, budgets played by a ``Play``, both given by whoever has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from proxy.core.budget.prices import PriceTable
from proxy.core.policy.changes import Changes, cost_under
from proxy.core.policy.decide import (
    DECIDED_CODES,
    Decision,
    Difference,
    Facts,
    What,
    decide,
    decide_plan,
    differences,
    facts_of_row,
    is_partly_known,
    plan_for,
    recorded,
)
from proxy.core.policy.model import NoRoute, RoutePlan
from proxy.core.policy.policy_set import PolicySet
from proxy.core.routing.problems import Code
from proxy.terms.exchange import Usage

BUDGET_CODES: Final = frozenset(
    {
        Code.RATE_LIMIT_EXCEEDED.value,
        Code.INSUFFICIENT_QUOTA.value,
        Code.BUDGET_REQUEST_TOO_LARGE.value,
        Code.UNKNOWN_PRICE.value,
    }
)
"""Refusals of our budgets, where the row says that policy is at fault."""


class Looked(NamedTuple):
    """What the policy in question finds in words that were kept."""

    findings: Mapping[str, int]
    has_unscanned: bool
    document: Any
    """The parsed request; None: not known."""
    is_whole: bool
    """Nothing was left to guess."""
    body_bytes: int = 0
    answer_findings: Mapping[str, int] | None = None
    """None: the row's counts are all there is."""


class Played(NamedTuple):
    """What budgets came to: a refusal, or who served; both empty where neither is known."""

    refusal: str = ""
    served: str = ""
    because: str = ""
    """The budgets that said no on the way."""
    health: str = ""
    """No target answered: no matter of budgets."""


Look = Callable[[Mapping[str, Any], RoutePlan], Looked | None]


class Play(Protocol):
    """Plays budgets; ``flow.budget_replay`` does."""

    def offer(
        self,
        row: Mapping[str, Any],
        then: tuple[PolicySet, RoutePlan] | None,
        now: tuple[PolicySet, RoutePlan] | None,
        body: bytes | None,
        done: Callable[[Played, Played], None],
    ) -> None:
        """Play one exchange; ``done`` hears what was recorded and what is in question."""
        ...

    def finish(self) -> None:
        """Play everything to its end."""
        ...


class Replay:
    """One run over many rows, in the order of their time."""

    def __init__(
        self,
        policies: PolicySet,
        known: Callable[[str], PolicySet | None],
        prices: PriceTable | None = None,
        *,
        enforce: bool = False,
        look: Look | None = None,
        play: Play | None = None,
    ) -> None:
        """Take the policies in question, and how those of an earlier revision are found."""
        self._policies = policies
        self._known = known
        self._prices = prices
        self._enforce = enforce
        self._look = look
        self._play = play
        self.changes = Changes()
        self.undecided = 0
        """Rows that no policy decided: wrong keys, unreadable bodies, answers of our own."""
        self.by_row_alone = 0
        """Rows whose revision is not known any more, or tells another story: known by its columns only."""

    def take(self, row: Mapping[str, Any], *, counts: bool = True) -> list[Difference]:
        """Decide one row (JSON columns parsed) again; ``counts`` False: it only feeds the budgets.

        Returns in what it would differ, as far as that is known before the budgets were played.
        """
        if not row["policy"] and (row["error_code"] not in DECIDED_CODES or row["attempt_count"]):
            self.undecided += counts
            return []
        then, before = self._before(row)
        self.by_row_alone += counts and not before.is_exact
        facts = facts_of_row(row, self._policies)
        plan = plan_for(self._policies, facts)
        looked = self._look(row, plan) if self._look is not None and isinstance(plan, RoutePlan) else None
        if looked is not None:
            facts = _as_seen(facts, looked)
        after = decide_plan(plan, facts, enforce=self._enforce)
        partly = is_partly_known(before, after) if looked is None else not looked.is_whole

        compare = partial(self._compare, row, before, after, is_partly_known=partly, counts=counts)
        if self._play is None:
            return compare(Played(), Played())
        found: list[Difference] = []
        self._play.offer(
            row,
            None if then is None or before.plan is None or before.refusal else (then, before.plan),
            None if isinstance(plan, NoRoute) or after.refusal else (self._policies, plan),
            _body_of(row),
            lambda told, played: found.extend(compare(told, played)),
        )
        return found

    def finish(self) -> None:
        """Compare what is still under way."""
        if self._play is not None:
            self._play.finish()

    def _compare(
        self,
        row: Mapping[str, Any],
        before: Decision,
        after: Decision,
        told: Played,
        played: Played,
        *,
        is_partly_known: bool,
        counts: bool,
    ) -> list[Difference]:
        if not counts:
            return []
        if told.refusal and not before.refusal:
            before = replace(before, refusal=told.refusal, because=told.because)
        if played.refusal and not after.refusal:
            after = replace(after, refusal=played.refusal, because=played.because)
        found = differences(before, after)
        if not found and told.served and played.served and told.served != played.served:
            rule = f"{after.policy}/{after.route}: {played.because or 'no budget any more'}"
            found = [Difference(What.TARGET, rule, told.served, played.served)]
        self.changes.add(row["id"], row["app"], found, is_partly_known=is_partly_known)
        cost_usd = 0.0 if before.refusal else row["cost_usd"]
        self.changes.add_cost(cost_usd, cost_under(before, after, cost_usd, _usage(row), self._prices))
        return found

    def _before(self, row: Mapping[str, Any]) -> tuple[PolicySet | None, Decision]:
        told = recorded(row)
        then = self._known(row["policy_revision"])
        if then is not None:
            before = decide(then, facts_of_row(row, then))
            same_rule = told.refusal in DECIDED_CODES or (told.policy, told.route) == (before.policy, before.route)
            if same_rule and told.refusal == before.refusal:
                return then, before
        return then, told

    def document(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "revision": self._policies.revision,
            "enforced": self._enforce,
            **self.changes.document(),
            "undecided": self.undecided,
            "by_row_alone": self.by_row_alone,
        }


def _as_seen(facts: Facts, looked: Looked) -> Facts:
    facts = facts._replace(findings=looked.findings, has_unscanned=looked.has_unscanned, document=looked.document)
    return facts if looked.answer_findings is None else facts._replace(answer_findings=looked.answer_findings)


def _body_of(row: Mapping[str, Any]) -> bytes | None:
    piece = row.get("content", {}).get("request", {})
    return str(piece["text"]).encode("utf-8", "surrogatepass") if "text" in piece and not piece["cut"] else None


def _usage(row: Mapping[str, Any]) -> Usage | None:
    if row["tokens_in"] is None or row["tokens_out"] is None:
        return None
    return Usage(row["tokens_in"], row["tokens_out"], row["tokens_cached"] or 0, row["tokens_reasoning"] or 0)
