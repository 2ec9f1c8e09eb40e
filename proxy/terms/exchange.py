"""The facts of one exchange, gathered while it runs and written down when it ends.

One ``ExchangeFacts`` belongs to one exchange and is filled by its relay alone; the audit row,
the metrics and the log line are all made from it. It never holds prompt text, answer text,
credentials or vault contents: only ids, counts, names, numbers and times.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from proxy.terms.outcomes import Fault, Outcome, Status


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
