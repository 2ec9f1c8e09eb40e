"""The outcome table, row by row: what is tried next, what the breaker learns, what the caller sees."""

from __future__ import annotations

import pytest

from proxy.core.routing.problems import problem
from proxy.core.routing.table import RULES, Health, SameTarget
from proxy.terms.outcomes import Outcome


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_a_row(outcome: Outcome) -> None:
    """A new outcome fails here until someone decides what it means."""
    rule = RULES[outcome]

    assert 0.0 <= rule.weight <= 1.0
    assert (rule.weight > 0) == (rule.health is Health.BAD)
    assert problem(rule.code).code == rule.code


NEVER, ONCE, ALONE = SameTarget.NEVER, SameTarget.ONCE, SameTarget.ONCE_IF_ALONE
SAID = (
    # outcome, same target, walks, status, code, breaker weight
    (Outcome.CONNECT_ERROR, ALONE, True, 502, "upstream_connect_error", 1.0),
    (Outcome.DNS_ERROR, NEVER, True, 502, "upstream_dns_error", 1.0),
    (Outcome.TLS_ERROR, NEVER, True, 502, "upstream_tls_error", 1.0),
    (Outcome.CONNECT_TIMEOUT, NEVER, True, 504, "upstream_timeout", 1.0),
    (Outcome.TTFB_TIMEOUT, NEVER, True, 504, "upstream_timeout", 1.0),
    (Outcome.FIRST_TOKEN_TIMEOUT, NEVER, True, 504, "upstream_timeout", 1.0),
    (Outcome.RATE_LIMITED, SameTarget.AFTER_WAIT, True, 429, "rate_limit_exceeded", 0.0),
    (Outcome.UPSTREAM_5XX, ONCE, True, 502, "upstream_error", 1.0),
    (Outcome.OVERLOADED, NEVER, True, 503, "upstream_overloaded", 0.5),
    (Outcome.UPSTREAM_4XX, NEVER, False, 400, "upstream_refused", 0.0),
    (Outcome.UPSTREAM_CONFLICT, ONCE, True, 502, "upstream_error", 0.0),
    (Outcome.OWN_KEY_REFUSED, NEVER, True, 502, "upstream_key_refused", 1.0),
    (Outcome.STALLED, NEVER, True, 504, "upstream_stalled", 1.0),
    (Outcome.RESET, NEVER, True, 502, "upstream_reset", 1.0),
    (Outcome.TRUNCATED, NEVER, True, 502, "upstream_truncated", 1.0),
    (Outcome.BAD_STREAM, NEVER, True, 502, "upstream_bad_stream", 1.0),
    (Outcome.UPSTREAM_ERROR_EVENT, NEVER, True, 502, "upstream_error_event", 1.0),
    (Outcome.ERROR_IN_200, NEVER, True, 502, "upstream_bad_response", 1.0),
    (Outcome.BAD_CONTENT_TYPE, NEVER, True, 502, "upstream_bad_response", 1.0),
    (Outcome.TOO_LARGE, NEVER, True, 502, "upstream_too_large", 1.0),
    (Outcome.STALE_CONNECTION, SameTarget.ONCE_FRESH, True, 502, "upstream_no_response", 0.0),
    (Outcome.NO_RESPONSE, NEVER, True, 502, "upstream_no_response", 1.0),
    (Outcome.CLIENT_CANCELLED, NEVER, False, 499, "client_closed_request", 0.0),
    (Outcome.BAD_RESPONSE, NEVER, True, 502, "upstream_bad_response", 1.0),
    (Outcome.REDIRECT, NEVER, True, 502, "upstream_redirect", 1.0),
    (Outcome.BREAKER_OPEN, NEVER, True, 503, "all_targets_unavailable", 0.0),
    (Outcome.BUDGET_DENIED, NEVER, True, 429, "rate_limit_exceeded", 0.0),
)


@pytest.mark.parametrize(("outcome", "same", "walks", "status", "code", "weight"), SAID)
def test_row_is_the_one_of_the_fault_catalogue(
    outcome: Outcome, same: SameTarget, walks: bool, status: int, code: str, weight: float
) -> None:
    """The table users are promised."""
    rule = RULES[outcome]
    shown = problem(rule.code)

    assert (same, walks, weight) == (rule.same_target, rule.may_walk, rule.weight)
    assert (status, code) == (shown.status, shown.code)


def test_a_callers_own_mistake_outranks_everything_and_a_dead_key_almost_nothing() -> None:
    """The most useful error is the one the caller can act on."""
    ranks = {outcome: rule.rank for outcome, rule in RULES.items()}

    assert ranks[Outcome.UPSTREAM_4XX] > ranks[Outcome.RATE_LIMITED] > ranks[Outcome.OVERLOADED]
    assert ranks[Outcome.OVERLOADED] > ranks[Outcome.UPSTREAM_5XX] > ranks[Outcome.TTFB_TIMEOUT]
    assert ranks[Outcome.TTFB_TIMEOUT] > ranks[Outcome.CONNECT_ERROR] > ranks[Outcome.OWN_KEY_REFUSED]
    assert ranks[Outcome.OWN_KEY_REFUSED] > ranks[Outcome.BUDGET_DENIED] > ranks[Outcome.BREAKER_OPEN]
