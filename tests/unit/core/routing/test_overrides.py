"""Failure classes whose consequence a policy chooses."""

from __future__ import annotations

import pytest

from proxy.core.routing.overrides import CHANGEABLE, OnFailure, rules_with
from proxy.core.routing.walk import Course, GiveUp, Try, TryNext, Walk
from proxy.terms.outcomes import Outcome


def first_step(outcome: Outcome, what: OnFailure | None, *, http_status: int = 0) -> tuple[int, bool] | None:
    """Record one failure at the first of two targets; return whom to try then, and whether again, or None."""
    course = Course(2, 4, True, frozenset({500}), rules_with({} if what is None else {outcome: what}))
    walk = Walk(course, 100.0)
    walk.next(0.0)
    step = walk.record(outcome, 0.0, http_status=http_status)
    if isinstance(step, GiveUp):
        return None
    assert isinstance(step, TryNext)
    after = walk.next(0.0)
    assert isinstance(after, Try)
    return after.target_index, after.is_retry


@pytest.mark.parametrize(
    ("what", "expected"),
    [(None, (0, True)), (OnFailure.NEXT, (1, False)), (OnFailure.STOP, None), (OnFailure.RETRY, (0, True))],
)
def test_server_error_is_followed_by_what_policy_says(
    what: OnFailure | None, expected: tuple[int, bool] | None
) -> None:
    """Without a word of policy, the table's own."""
    assert expected == first_step(Outcome.UPSTREAM_5XX, what, http_status=500)


def test_class_that_is_never_repeated_may_be_repeated_by_policy() -> None:
    """An overloaded provider is left for the next one, unless policy knows better; the status list does not matter."""
    assert (1, False) == first_step(Outcome.OVERLOADED, None, http_status=529)
    assert (0, True) == first_step(Outcome.OVERLOADED, OnFailure.RETRY, http_status=529)


def test_callers_own_errors_cannot_be_made_to_walk() -> None:
    """No policy takes a refusal to another provider for a second opinion."""
    assert CHANGEABLE.isdisjoint({Outcome.OK, Outcome.UPSTREAM_4XX, Outcome.CLIENT_CANCELLED, Outcome.UNALIGNED,
                                  Outcome.CONTEXT_TOO_LONG, Outcome.BREAKER_OPEN, Outcome.STALE_CONNECTION})  # fmt: skip
    assert {Outcome.UPSTREAM_5XX, Outcome.RATE_LIMITED, Outcome.OWN_KEY_REFUSED} <= CHANGEABLE
