"""The facts of one exchange, gathered while it runs and written down when it ends.

One ``ExchangeFacts`` belongs to one exchange and is filled by its relay alone; the audit row,
the metrics and the log line are all made from it. It never holds prompt text, answer text,
credentials or vault contents: only ids, counts, names, numbers and times.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from proxy.terms.outcomes import OK, Fault, Outcome, Status

_bare: Final = object.__new__
_SUCCESS: Final = Status.SUCCESS


@dataclass(slots=True)
class AttemptFacts:
    """One try at one deployment."""

    provider: str
    model: str
    started_ms: float
    """Milliseconds after the exchange began."""
    outcome: Outcome = Outcome.OK
    http_status: int = 0
    ended_ms: float = 0.0
    reused_connection: bool = False
    retry_after_s: float | None = None


@dataclass(slots=True)
class Usage:
    """Tokens as the provider counted them, or as estimated when it did not."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    is_estimated: bool = False


@dataclass(slots=True)
class ExchangeFacts:
    """Everything the record of one exchange needs. Times in milliseconds; ``ts_ms`` is Unix time."""

    id: str
    """UUIDv7, canonical text form; also ``x-readygate-id``."""
    ts_ms: int
    """The moment the id begins with."""
    method: str = ""
    path: str = ""
    """Path without the query."""
    app: str = ""
    user: str = ""
    conversation: str = ""
    caller: str = ""
    """Name of the caller key that was used, or empty."""
    route: str = ""
    policy: str = ""
    policy_revision: str = ""
    provider: str = ""
    model_asked: str = ""
    model_served: str = ""
    is_stream: bool = False
    status: Status = Status.SUCCESS
    http_status: int = 0
    error_code: str = ""
    error_message: str = ""
    """Ours, or the provider's after scrubbing; never prompt text."""
    fault: Fault | None = None
    outcome: Outcome = Outcome.OK
    attempts: list[AttemptFacts] = field(default_factory=list)
    request_bytes: int = 0
    response_bytes: int = 0
    usage: Usage | None = None
    cost_usd: float | None = None
    latency_ms: float = 0.0
    first_token_ms: float | None = None
    upstream_ms: float = 0.0
    """Time spent waiting for providers, all attempts together."""
    findings: dict[str, int] = field(default_factory=dict)
    """Type name -> values seen in the request, whatever was done with them."""
    sanitized: dict[str, int] = field(default_factory=dict)
    """Type name -> values replaced in the request."""
    response_findings: dict[str, int] = field(default_factory=dict)
    """Type name -> values that the model itself wrote, whatever was done with them."""
    response_sanitized: dict[str, int] | None = None
    """Type name -> values replaced in the answer."""
    unscanned_bytes: int = 0
    budget: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """Short machine-readable remarks (``duplicate_risk``, ``skipped:groq:breaker_open``)."""
    groups: tuple[str, ...] = ()
    """The caller's, of a verified token, in its order."""


def facts_of(exchange_id: str, ts_ms: int, method: str, path: str) -> ExchangeFacts:
    """Return the facts of an exchange of which nothing else is known.

    The same as calling the class, filled in place: so many defaults cost twice what they do, at every exchange.
    """
    facts = _bare(ExchangeFacts)
    facts.id = exchange_id
    facts.ts_ms = ts_ms
    facts.method = method
    facts.path = path
    facts.app = ""
    facts.user = ""
    facts.conversation = ""
    facts.caller = ""
    facts.route = ""
    facts.policy = ""
    facts.policy_revision = ""
    facts.provider = ""
    facts.model_asked = ""
    facts.model_served = ""
    facts.is_stream = False
    facts.status = _SUCCESS
    facts.http_status = 0
    facts.error_code = ""
    facts.error_message = ""
    facts.fault = None
    facts.outcome = OK
    facts.attempts = []
    facts.request_bytes = 0
    facts.response_bytes = 0
    facts.usage = None
    facts.cost_usd = None
    facts.latency_ms = 0.0
    facts.first_token_ms = None
    facts.upstream_ms = 0.0
    facts.findings = {}
    facts.sanitized = {}
    facts.response_findings = {}
    facts.response_sanitized = None
    facts.unscanned_bytes = 0
    facts.budget = {}
    facts.notes = []
    facts.groups = ()
    return facts


def attempt_of(provider: str, model: str, started_ms: float) -> AttemptFacts:
    """Return the facts of an attempt that begins; the same as calling the class."""
    attempt = _bare(AttemptFacts)
    attempt.provider = provider
    attempt.model = model
    attempt.started_ms = started_ms
    attempt.outcome = OK
    attempt.http_status = 0
    attempt.ended_ms = 0.0
    attempt.reused_connection = False
    attempt.retry_after_s = None
    return attempt
