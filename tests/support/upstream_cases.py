"""The table of upstream faults as the tests hold it: what a row calls each and what a caller sees of it.

Owns the expectations; the fault's spelling is the simulated provider's. Used at the wire and through official clients.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    """One fault of the table: what the row calls it, and what the caller sees of it when nobody else is there."""

    fault: str
    outcome: str
    status: int
    code: str
    again: int = 1
    """Calls at a target that is alone, with ``retries: once``."""
    patient: int = 1
    """Calls at the first of two targets, with ``retries: once``."""


PLAIN = {
    "UF-04-silence": Case("silence", "ttfb_timeout", 504, "upstream_timeout"),
    "UF-05-429": Case("429:retry_after=2", "rate_limited", 429, "rate_limit_exceeded"),
    "UF-05-429-soon": Case("429:retry_after_ms=100", "rate_limited", 429, "rate_limit_exceeded", again=2),
    "UF-05-429-date": Case("429:retry_after_date=60", "rate_limited", 429, "rate_limit_exceeded"),
    "UF-07-500": Case("500", "upstream_5xx", 500, "server_error", again=2, patient=2),
    "UF-07-502": Case("502", "upstream_5xx", 502, "bad_gateway", again=2, patient=2),
    "UF-07-503": Case("503", "upstream_5xx", 503, "overloaded", again=2, patient=2),
    "UF-07-504": Case("504", "upstream_5xx", 504, "timeout", again=2, patient=2),
    "UF-07-529": Case("529", "overloaded", 529, "overloaded"),
    "408": Case("408", "upstream_conflict", 408, "request_timeout", again=2, patient=2),
    "409": Case("409", "upstream_conflict", 409, "conflict", again=2, patient=2),
    "401-own-key": Case("401", "own_key_refused", 401, "invalid_api_key"),
    "403-own-key": Case("403", "own_key_refused", 403, "permission_denied"),
    "UF-10-reset-before": Case("reset:after=nothing", "no_response", 502, "upstream_no_response"),
    "UF-10-reset-head": Case("reset:after=head", "reset", 502, "upstream_reset"),
    "UF-11-short": Case("cut:after=10", "truncated", 502, "upstream_truncated"),
    "UF-14-error-in-200": Case("error_in_200", "error_in_200", 502, "upstream_bad_response"),
    "UF-15-html": Case("html", "bad_content_type", 502, "upstream_bad_response"),
    "UF-15-events": Case("only_stream", "bad_content_type", 502, "upstream_bad_response"),
    "UF-17-bomb": Case("bomb:size=64MiB", "too_large", 502, "upstream_too_large"),
    "UF-23-http10-cut": Case("http10:after=20", "truncated", 502, "upstream_truncated"),
    "UF-26-empty-200": Case("empty:status=200", "bad_response", 502, "upstream_bad_response"),
    "UF-26-204": Case("empty:status=204", "bad_response", 502, "upstream_bad_response"),
    "UF-26-304": Case("empty:status=304", "bad_response", 502, "upstream_bad_response"),
    "redirect": Case("redirect:status=307", "redirect", 502, "upstream_redirect"),
    "1xx-flood": Case("informational:count=17", "bad_response", 502, "upstream_bad_response"),
    "101-unasked": Case("switch", "bad_response", 502, "upstream_bad_response"),
    "cl-te": Case("bad_framing:kind=cl_te", "bad_response", 502, "upstream_bad_response"),
    "garbage": Case("bad_framing:kind=garbage", "bad_response", 502, "upstream_bad_response"),
}
STREAMED = {
    "UF-04-silence": Case("silence", "ttfb_timeout", 504, "upstream_timeout"),
    "UF-07-503": Case("503", "upstream_5xx", 503, "overloaded", again=2, patient=2),
    "UF-10-reset-prelude": Case("reset:after=prelude", "reset", 502, "upstream_reset"),
    "UF-11-fin-prelude": Case("cut:after=prelude", "truncated", 502, "upstream_truncated"),
    "UF-11-clean-prelude": Case("clean_end:after=prelude", "truncated", 502, "upstream_truncated"),
    "UF-12-error-first": Case("error_event:after=0", "upstream_error_event", 502, "upstream_error_event"),
    "UF-12-vllm": Case("error_event:after=0,shape=vllm", "upstream_error_event", 502, "upstream_error_event"),
    "UF-12-openrouter": Case("error_event:after=0,shape=openrouter", "upstream_error_event", 502, "upstream_error_event"),
    "UF-12-overloaded": Case("error_event:after=0,type=overloaded_error", "overloaded", 503, "upstream_overloaded"),
    "UF-12-429": Case("error_event:after=0,status=429", "rate_limited", 429, "rate_limit_exceeded"),
    "UF-15-json": Case("no_stream", "bad_content_type", 502, "upstream_bad_response"),
    "UF-15-html": Case("html", "bad_content_type", 502, "upstream_bad_response"),
    "malformed": Case("malformed:after=0,kind=json", "bad_stream", 502, "upstream_bad_stream"),
    "big-event": Case("big_event:after=0", "bad_stream", 502, "upstream_bad_stream"),
    "UF-26-empty": Case("empty:status=200", "bad_response", 502, "upstream_bad_response"),
}  # fmt: skip
MIDWAY = {
    "UF-09-stall": Case("stall:after=3,rate=200", "stalled", 200, "upstream_stalled"),
    "UF-10-reset": Case("reset:after=3,rate=200", "reset", 200, "upstream_reset"),
    "UF-11-fin": Case("cut:after=3,rate=200", "truncated", 200, "upstream_truncated"),
    "UF-11-clean-end": Case("clean_end:after=3,rate=200", "truncated", 200, "upstream_truncated"),
    "malformed-event": Case("malformed:after=3,rate=200", "bad_stream", 200, "upstream_bad_stream"),
    "error-event": Case("error_event:after=3,rate=200", "upstream_error_event", 200, "server_error"),
}
"""Streams that break after their first content, which comes token by token."""
