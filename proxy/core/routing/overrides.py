"""What a policy may change in the outcome table: for single failure classes, what follows from them.

Owns which classes may be changed and how a changed row looks. The caller's own errors and content refusals are not
among them: no policy makes those walk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

from proxy.core.routing.table import RULES, Health, OutcomeRule, SameTarget
from proxy.terms.outcomes import Outcome


class OnFailure(StrEnum):
    """What follows from a failure."""

    RETRY = "retry"
    """The same target once more (with attempts to spare for the others), then the next."""
    NEXT = "next"
    """The next target at once."""
    STOP = "stop"
    """No other target; the caller gets the error."""


CHANGEABLE = frozenset(
    outcome
    for outcome, rule in RULES.items()
    if rule.is_attempt and rule.may_walk and rule.health is not Health.SILENT
    if outcome not in (Outcome.UNALIGNED, Outcome.CONTEXT_TOO_LONG)
)
"""Failure classes whose consequence a policy may choose."""


def rules_with(changes: Mapping[Outcome, OnFailure]) -> dict[Outcome, OutcomeRule] | None:
    """Return the changed rows of the table; None when nothing is changed."""
    return {outcome: _changed(RULES[outcome], what) for outcome, what in changes.items()} or None


def _changed(rule: OutcomeRule, what: OnFailure) -> OutcomeRule:
    match what:
        case OnFailure.RETRY:
            return replace(rule, same_target=SameTarget.ONCE)
        case OnFailure.NEXT:
            return replace(rule, same_target=SameTarget.NEVER)
        case OnFailure.STOP:
            return replace(rule, same_target=SameTarget.NEVER, may_walk=False)
