"""One row per outcome: what may be tried next, what the breaker learns, what the caller sees.

Owns the decisions about failure classes, all in one place. Knows no chain (``walk``) and no wire
(``classify``). Adding an outcome without a row here fails a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from proxy.core.routing.problems import Code
from proxy.terms.outcomes import Outcome


class SameTarget(StrEnum):
    """Whether the same target may be tried a second time."""

    NEVER = "never"
    ONCE = "once"
    """After a short random wait, and only with attempts to spare for the targets not yet tried."""
    ONCE_IF_ALONE = "once_if_alone"
    """Only when there is no other target left: another one is the better bet."""
    AFTER_WAIT = "after_wait"
    """When alone, and the provider names a wait of at most a second."""
    ONCE_FRESH = "once_fresh"
    """At once on a new connection, whatever policy says: the provider never saw the request."""


class Health(StrEnum):
    """What an attempt says about its deployment."""

    GOOD = "good"
    BAD = "bad"
    ANSWERED = "answered"
    """It is alive; nothing more."""
    SILENT = "silent"
    """Nothing: the attempt did not get that far, or was ours to end."""


@dataclass(frozen=True, slots=True)
class OutcomeRule:
    """The decisions for one outcome.

    ``weight`` is the breaker weight of a failure (0 to 1). ``rank`` orders errors by how much they help
    the caller: of all failures of an exchange the highest is shown. ``retry_base_s`` bounds the random
    wait before a second try at the same target.
    """

    same_target: SameTarget
    may_walk: bool
    health: Health
    code: Code
    rank: int
    weight: float = 0.0
    retry_base_s: float = 0.25
    is_attempt: bool = True
    """False: the target was passed over and nothing was sent."""
    cools: bool = False
    """The target is left alone until the time it names."""
    passes_body: bool = False
    """When this is what the caller sees, it is the provider's own answer, sanitised."""
    is_local: bool = False
    """The failure arose before the provider's software was reached."""
    alarms: bool = False
    """An operator has to act: nothing will heal by waiting."""


_NEVER, _ONCE, _ALONE = SameTarget.NEVER, SameTarget.ONCE, SameTarget.ONCE_IF_ALONE
_BAD, _ANSWERED, _SILENT = Health.BAD, Health.ANSWERED, Health.SILENT


def _fails(code: Code, rank: int, same: SameTarget = _NEVER, weight: float = 1.0, **more: bool | float) -> OutcomeRule:
    base_s = more.pop("retry_base_s", 0.25)
    flags = {name: bool(value) for name, value in more.items()}
    return OutcomeRule(same, True, _BAD, code, rank, weight=weight, retry_base_s=float(base_s), **flags)


RULES: dict[Outcome, OutcomeRule] = {
    Outcome.OK: OutcomeRule(_NEVER, False, Health.GOOD, Code.INTERNAL_ERROR, 0),
    # Nothing was sent, or nothing arrived at the provider's software.
    Outcome.CONNECT_ERROR: _fails(Code.UPSTREAM_CONNECT_ERROR, 30, _ALONE, retry_base_s=0.05, is_local=True),
    Outcome.DNS_ERROR: _fails(Code.UPSTREAM_DNS_ERROR, 31, is_local=True),
    Outcome.TLS_ERROR: _fails(Code.UPSTREAM_TLS_ERROR, 32, is_local=True),
    Outcome.CONNECT_TIMEOUT: _fails(Code.UPSTREAM_TIMEOUT, 33, is_local=True),
    Outcome.STALE_CONNECTION: OutcomeRule(SameTarget.ONCE_FRESH, True, _SILENT, Code.UPSTREAM_NO_RESPONSE, 35),
    # Silence and slowness.
    Outcome.TTFB_TIMEOUT: _fails(Code.UPSTREAM_TIMEOUT, 52),
    Outcome.FIRST_TOKEN_TIMEOUT: _fails(Code.UPSTREAM_TIMEOUT, 51),
    Outcome.TOTAL_TIMEOUT: _fails(Code.UPSTREAM_TIMEOUT, 50, weight=0.5),
    # Answers that refuse.
    Outcome.RATE_LIMITED: OutcomeRule(
        SameTarget.AFTER_WAIT, True, _ANSWERED, Code.RATE_LIMIT_EXCEEDED, 90, cools=True, passes_body=True
    ),
    Outcome.UPSTREAM_5XX: _fails(Code.UPSTREAM_ERROR, 70, _ONCE, passes_body=True),
    Outcome.OVERLOADED: _fails(Code.UPSTREAM_OVERLOADED, 80, weight=0.5, cools=True, passes_body=True),
    Outcome.UPSTREAM_4XX: OutcomeRule(_NEVER, False, _ANSWERED, Code.UPSTREAM_REFUSED, 100, passes_body=True),
    Outcome.CONTEXT_TOO_LONG: OutcomeRule(_NEVER, True, _ANSWERED, Code.UPSTREAM_REFUSED, 99, passes_body=True),
    Outcome.UPSTREAM_CONFLICT: OutcomeRule(_ONCE, True, _ANSWERED, Code.UPSTREAM_ERROR, 65, passes_body=True),
    Outcome.OWN_KEY_REFUSED: _fails(Code.UPSTREAM_KEY_REFUSED, 20, passes_body=True, alarms=True),
    # Answers that break.
    Outcome.STALLED: _fails(Code.UPSTREAM_STALLED, 48),
    Outcome.RESET: _fails(Code.UPSTREAM_RESET, 46),
    Outcome.TRUNCATED: _fails(Code.UPSTREAM_TRUNCATED, 47),
    Outcome.BAD_STREAM: _fails(Code.UPSTREAM_BAD_STREAM, 45),
    Outcome.UPSTREAM_ERROR_EVENT: _fails(Code.UPSTREAM_ERROR_EVENT, 69),
    Outcome.UNALIGNED: OutcomeRule(_NEVER, True, _ANSWERED, Code.UPSTREAM_TRUNCATED, 15),
    Outcome.NO_RESPONSE: _fails(Code.UPSTREAM_NO_RESPONSE, 44),
    # Answers that are not answers.
    Outcome.ERROR_IN_200: _fails(Code.UPSTREAM_BAD_RESPONSE, 68),
    Outcome.BAD_CONTENT_TYPE: _fails(Code.UPSTREAM_BAD_RESPONSE, 42),
    Outcome.BAD_RESPONSE: _fails(Code.UPSTREAM_BAD_RESPONSE, 43),
    Outcome.TOO_LARGE: _fails(Code.UPSTREAM_TOO_LARGE, 49),
    Outcome.REDIRECT: _fails(Code.UPSTREAM_REDIRECT, 41, alarms=True),
    # Ours.
    Outcome.CLIENT_CANCELLED: OutcomeRule(_NEVER, False, _SILENT, Code.CLIENT_CLOSED_REQUEST, 110),
    Outcome.SHUTTING_DOWN: OutcomeRule(_NEVER, False, _SILENT, Code.SHUTTING_DOWN, 109),
    Outcome.ANSWER_BLOCKED: OutcomeRule(_NEVER, False, Health.GOOD, Code.CONTENT_POLICY_VIOLATION, 107),
    Outcome.GATEWAY_FAULT: OutcomeRule(_NEVER, False, _SILENT, Code.INTERNAL_ERROR, 108),
    Outcome.BREAKER_OPEN: OutcomeRule(_NEVER, True, _SILENT, Code.ALL_TARGETS_UNAVAILABLE, 10, is_attempt=False),
    Outcome.UNSUITABLE: OutcomeRule(_NEVER, True, _SILENT, Code.NO_SUITABLE_TARGET, 5, is_attempt=False),
    Outcome.BUDGET_DENIED: OutcomeRule(_NEVER, True, _SILENT, Code.RATE_LIMIT_EXCEEDED, 11, is_attempt=False),
}
