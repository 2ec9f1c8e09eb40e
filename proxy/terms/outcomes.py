"""How attempts and exchanges end: every word an audit row, a metric or a breaker may use.

An *attempt* is one try at one deployment; an *exchange* is one caller request, with all its attempts.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Outcome(StrEnum):
    """How one attempt ended. The table that turns these into decisions is in core/routing."""

    OK = "ok"
    CONNECT_ERROR = "connect_error"
    DNS_ERROR = "dns_error"
    TLS_ERROR = "tls_error"
    CONNECT_TIMEOUT = "connect_timeout"
    TTFB_TIMEOUT = "ttfb_timeout"
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    RATE_LIMITED = "rate_limited"
    UPSTREAM_5XX = "upstream_5xx"
    OVERLOADED = "overloaded"
    UPSTREAM_4XX = "upstream_4xx"
    CONTEXT_TOO_LONG = "context_too_long"
    """The request is longer than the model can read."""
    UPSTREAM_CONFLICT = "upstream_conflict"
    """408, 409 or 425: worth one more try."""
    OWN_KEY_REFUSED = "own_key_refused"
    """401 or 403 for a credential of ours."""
    STALLED = "stalled"
    RESET = "reset"
    TRUNCATED = "truncated"
    BAD_STREAM = "bad_stream"
    UPSTREAM_ERROR_EVENT = "upstream_error_event"
    UNALIGNED = "unaligned"
    """Asked to go on with a stream that had broken elsewhere, it said something else."""
    ERROR_IN_200 = "error_in_200"
    BAD_CONTENT_TYPE = "bad_content_type"
    BAD_RESPONSE = "bad_response"
    TOO_LARGE = "too_large"
    NO_RESPONSE = "no_response"
    STALE_CONNECTION = "stale_connection"
    """A reused socket died before one byte of the answer: safe to try once on a fresh one."""
    REDIRECT = "redirect"
    CLIENT_CANCELLED = "client_cancelled"
    BREAKER_OPEN = "breaker_open"
    UNSUITABLE = "unsuitable"
    """Passed over: it cannot take the request, or policy does not let it have it."""
    BUDGET_DENIED = "budget_denied"
    SHUTTING_DOWN = "shutting_down"
    ANSWER_BLOCKED = "answer_blocked"
    """The answer came, and policy forbids what it holds."""
    GATEWAY_FAULT = "gateway_fault"


OK: Final = Outcome.OK
"""The same by a name of its own: ``Outcome.OK`` costs CPython 3.11 a call of the enumeration's ``__getattr__`` hook."""


class Status(StrEnum):
    """How one exchange ended; the ``status`` column of its audit row."""

    SUCCESS = "success"
    ERROR = "error"
    RATE_LIMITED = "rate_limited"
    FALLBACK = "fallback"
    BLOCKED = "blocked"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    RESCUED = "rescued"


class Fault(StrEnum):
    """Whose fault a refusal is; the ``x-readygate-fault`` header."""

    CLIENT = "client"
    POLICY = "policy"
    GATEWAY = "gateway"
    PROVIDER = "provider"
