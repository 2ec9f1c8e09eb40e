"""What one attempt holds with budgets and fleet, and gives back exactly once.

Owns no state: spend belongs to ``Budgets``, health to ``Fleet``. Knows no chain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.core.budget.dimensions import NANO_USD
from proxy.core.budget.ledger import NO_AMOUNTS, Amounts
from proxy.core.dialect import Dialect
from proxy.core.health.breaker import Admission
from proxy.core.routing.table import RULES, Health
from proxy.flow.catalog import Deployment, Route
from proxy.flow.exchange import Exchange
from proxy.flow.intake import Request
from proxy.flow.ports import BodySource
from proxy.flow.verdicts import NOBODY, Held, Who
from proxy.terms.exchange import AttemptFacts, Usage
from proxy.terms.outcomes import OK, Outcome

if TYPE_CHECKING:
    from proxy.flow.attempts import Attempts
    from proxy.flow.large_bodies import Renamings

NOT_ACCEPTED: Final = frozenset(
    {
        Outcome.CONNECT_ERROR,
        Outcome.DNS_ERROR,
        Outcome.TLS_ERROR,
        Outcome.CONNECT_TIMEOUT,
        Outcome.STALE_CONNECTION,
        Outcome.RATE_LIMITED,
        Outcome.OVERLOADED,
        Outcome.UPSTREAM_5XX,
        Outcome.OWN_KEY_REFUSED,
        Outcome.REDIRECT,
    }
)
"""Outcomes that mean that the provider did no work: the reservation is handed back."""


class Plan:
    """What every attempt of one exchange shares. What most exchanges do not need is the class's own."""

    route: Route
    request: Request
    body: bytes | BodySource
    tokens: int = 0
    is_explicit: bool = False
    who: Who = NOBODY
    """Filled where a budget of the route asks."""
    output_tokens: int = 0
    """Of ``tokens``."""
    deployments: tuple[Deployment, ...] = ()
    """The chain in the order of this exchange; set by the walk."""
    renamings: Renamings | None = None
    """Of a large body."""


class Booking:
    """What one attempt holds with budgets and fleet, given back exactly once by ``close``. Made by ``book``."""

    __slots__ = (
        "_attempts",
        "_exchange",
        "_is_open",
        "admission",
        "counts_apart",
        "deployment",
        "facts",
        "reservation",
        "variant",
    )

    _attempts: Attempts
    _exchange: Exchange
    _is_open: bool
    deployment: Deployment
    facts: AttemptFacts
    reservation: Held
    admission: Admission
    variant: str
    counts_apart: bool

    def close(self, outcome: Outcome, http_status: int = 0, retry_after_s: float | None = None) -> None:
        """Record how the attempt ended and settle what it had reserved; later calls do nothing."""
        if not self._is_open:
            return
        self._is_open = False
        owner, facts, deployment = self._attempts, self.facts, self.deployment
        facts.retry_after_s = retry_after_s
        taken_ms = self._exchange.end_attempt(facts, outcome, http_status)
        now_s = owner.clock.monotonic_s()
        load = deployment.load
        if load is not None:
            load.in_flight -= 1
            if outcome is OK or RULES[outcome].health is Health.BAD:
                load.latency.note(taken_ms, now_s)
        change = owner.fleet.record(
            deployment.name, outcome, now_s, taken_ms, retry_after_s, self.admission, self.variant
        )
        if change is not None:
            owner.witness.notice(
                "breaker_alarm" if change.is_alarm else f"breaker_{change.now.value}",
                deployment=change.deployment,
                was=change.was.value,
                outcome=change.outcome.value,
            )
        usage = self._exchange.facts.usage
        if outcome is not OK and outcome in NOT_ACCEPTED:
            owner.budgets.cancel(self.reservation, now_s)
        elif usage is not None:
            amounts = self._amounts(usage) if self.counts_apart or owner.pricing is not None else None
            owner.budgets.settle(self.reservation, usage.input_tokens + usage.output_tokens, now_s, amounts)
        elif 400 <= http_status < 500:
            owner.budgets.settle(self.reservation, 0, now_s, NO_AMOUNTS)
        else:
            owner.budgets.settle(self.reservation, None, now_s)
        if owner.waiting.lines:
            owner.waiting.freed()

    def _amounts(self, usage: Usage) -> Amounts:
        """Return what the attempt used apart from its sum of tokens, with its cost, which the facts get, too."""
        pricing, facts = self._attempts.pricing, self._exchange.facts
        cost = None
        if pricing is not None:
            cost = pricing.charge(self.facts.provider, self.facts.model, usage)
        if cost is not None:
            facts.cost_usd = (facts.cost_usd or 0.0) + cost / NANO_USD
        return Amounts(usage.input_tokens, usage.output_tokens, cost or 0)


def book(
    attempts: Attempts,
    exchange: Exchange,
    deployment: Deployment,
    facts: AttemptFacts,
    reservation: Held,
    admission: Admission,
    variant: str,
    counts_apart: bool,
) -> Booking:
    """Say what an attempt holds from now on; a function, because every exchange pays for an ``__init__`` twice."""
    booking = Booking()
    booking._attempts = attempts
    booking._exchange = exchange
    booking._is_open = True
    booking.deployment = deployment
    booking.facts = facts
    booking.reservation = reservation
    booking.admission = admission
    booking.variant = variant
    booking.counts_apart = counts_apart
    if deployment.load is not None:
        deployment.load.in_flight += 1
    return booking


_CHAT_LIKE: Final = frozenset({Dialect.CHAT, Dialect.COMPLETIONS, Dialect.RESPONSES, Dialect.MESSAGES})
_ENDPOINTS: Final = frozenset(
    {
        *("audio", "batches", "embeddings", "files", "fine_tuning", "images", "models", "moderations", "realtime"),
        *("threads", "uploads", "vector_stores"),
    }
)


def variant_of(dialect: Dialect, path: str, model: str | None) -> str:
    """Name what may fail by itself at a deployment that takes any model: the model, or endpoint class and model.

    Empty: nothing of the kind. ``path`` begins with ``/v1``.
    """
    if dialect in _CHAT_LIKE:
        return model or ""
    first = path.split("/", 3)[2] if path.count("/") > 1 else ""
    return f"{first if first in _ENDPOINTS else 'other'}/{model or ''}"
