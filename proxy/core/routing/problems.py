"""Every refusal a caller can get, in one table, and how it is written.

Owns codes, statuses, wording, fault and whether the caller should try again. Knows no headers: the
server adds those from a ``Problem``. Messages never hold prompt text, credentials or vault values.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from proxy.terms.errors import ProxyError
from proxy.terms.outcomes import Fault


class Retry(StrEnum):
    """What the caller is told about trying again. Nothing told is None."""

    YES = "yes"
    NO = "no"


class Code(StrEnum):
    """The ``code`` of an error body: stable, documented, one per kind of refusal."""

    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
    INSUFFICIENT_QUOTA = "insufficient_quota"
    BUDGET_REQUEST_TOO_LARGE = "budget_request_too_large"
    UNKNOWN_PRICE = "unknown_price"
    CONTENT_POLICY_VIOLATION = "content_policy_violation"
    UNSCANNED_CONTENT = "unscanned_content"
    PERMISSION_DENIED = "permission_denied"
    MODEL_NOT_FOUND = "model_not_found"
    INVALID_API_KEY = "invalid_api_key"
    BODY_TOO_LARGE = "body_too_large"
    BODY_ENCODED = "body_encoded"
    BODY_UNREADABLE = "body_unreadable"
    BODY_TIMEOUT = "body_timeout"
    HEADER_TOO_LARGE = "header_too_large"
    URI_TOO_LONG = "uri_too_long"
    BAD_REQUEST = "bad_request"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_IMPLEMENTED = "not_implemented"
    EXPECTATION_FAILED = "expectation_failed"
    ALL_TARGETS_UNAVAILABLE = "all_targets_unavailable"
    NO_SUITABLE_TARGET = "no_suitable_target"
    UPSTREAM_CONNECT_ERROR = "upstream_connect_error"
    UPSTREAM_DNS_ERROR = "upstream_dns_error"
    UPSTREAM_TLS_ERROR = "upstream_tls_error"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_REFUSED = "upstream_refused"
    UPSTREAM_OVERLOADED = "upstream_overloaded"
    UPSTREAM_KEY_REFUSED = "upstream_key_refused"
    UPSTREAM_BAD_RESPONSE = "upstream_bad_response"
    UPSTREAM_NO_RESPONSE = "upstream_no_response"
    UPSTREAM_REDIRECT = "upstream_redirect"
    UPSTREAM_TOO_LARGE = "upstream_too_large"
    UPSTREAM_STALLED = "upstream_stalled"
    UPSTREAM_RESET = "upstream_reset"
    UPSTREAM_TRUNCATED = "upstream_truncated"
    UPSTREAM_BAD_STREAM = "upstream_bad_stream"
    UPSTREAM_ERROR_EVENT = "upstream_error_event"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    AUDIT_BACKPRESSURE = "audit_backpressure"
    REDACTION_FAILED = "redaction_failed"
    NOT_READY = "not_ready"
    SHUTTING_DOWN = "shutting_down"
    CLIENT_CLOSED_REQUEST = "client_closed_request"
    INTERNAL_ERROR = "internal_error"


class Problem(NamedTuple):
    """One refusal, ready to be written. ``retry_after_s`` is None when no wait is known to help."""

    status: int
    code: str
    type: str
    message: str
    param: str | None
    fault: Fault
    retry: Retry | None
    retry_after_s: float | None = None


class Dialect(StrEnum):
    """The error shape a caller understands."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class _Row(NamedTuple):
    status: int
    fault: Fault
    retry: Retry | None
    message: str
    type: str = ""


_CLIENT, _POLICY, _GATEWAY, _PROVIDER = Fault.CLIENT, Fault.POLICY, Fault.GATEWAY, Fault.PROVIDER
_YES, _NO = Retry.YES, Retry.NO

_TABLE: dict[Code, _Row] = {
    Code.RATE_LIMIT_EXCEEDED: _Row(429, _POLICY, _YES, "The rate budget is exhausted.", "rate_limit_error"),
    Code.INSUFFICIENT_QUOTA: _Row(429, _POLICY, _NO, "The budget is spent.", "insufficient_quota"),
    Code.BUDGET_REQUEST_TOO_LARGE: _Row(400, _POLICY, _NO, "The request is larger than its budget can ever hold."),
    Code.UNKNOWN_PRICE: _Row(403, _POLICY, _NO, "The model has no price, and its budget of cost demands one."),
    Code.CONTENT_POLICY_VIOLATION: _Row(400, _POLICY, _NO, "The request holds content that policy blocks."),
    Code.UNSCANNED_CONTENT: _Row(400, _POLICY, _NO, "The request holds content that policy cannot read."),
    Code.PERMISSION_DENIED: _Row(403, _POLICY, _NO, "Policy does not allow this request."),
    Code.MODEL_NOT_FOUND: _Row(404, _POLICY, _NO, "The model does not exist or policy does not allow it."),
    Code.INVALID_API_KEY: _Row(401, _CLIENT, _NO, "The API key is missing or not valid here."),
    Code.BODY_TOO_LARGE: _Row(413, _CLIENT, _NO, "The request body is larger than the limit."),
    Code.BODY_ENCODED: _Row(415, _CLIENT, _NO, "Request bodies with a content encoding are not accepted."),
    Code.BODY_UNREADABLE: _Row(400, _CLIENT, _NO, "The request body is not valid JSON in UTF-8."),
    Code.BODY_TIMEOUT: _Row(408, _CLIENT, None, "The request body did not arrive in time."),
    Code.HEADER_TOO_LARGE: _Row(431, _CLIENT, _NO, "The request headers are larger than the limit."),
    Code.URI_TOO_LONG: _Row(414, _CLIENT, _NO, "The request target is longer than the limit."),
    Code.BAD_REQUEST: _Row(400, _CLIENT, _NO, "The request is not well-formed HTTP."),
    Code.NOT_FOUND: _Row(404, _CLIENT, _NO, "There is nothing at this path."),
    Code.METHOD_NOT_ALLOWED: _Row(405, _CLIENT, _NO, "The method is not allowed here."),
    Code.NOT_IMPLEMENTED: _Row(
        501, _CLIENT, _NO, "The request asks for a transfer coding or protocol not spoken here."
    ),
    Code.EXPECTATION_FAILED: _Row(417, _CLIENT, _NO, "Only the expectation 100-continue is known."),
    Code.ALL_TARGETS_UNAVAILABLE: _Row(503, _GATEWAY, _YES, "No provider of this route can take the request now."),
    Code.NO_SUITABLE_TARGET: _Row(
        400, _POLICY, _NO, "No provider of this route can take this request, or may have it."
    ),
    Code.UPSTREAM_CONNECT_ERROR: _Row(502, _PROVIDER, _YES, "The provider could not be reached."),
    Code.UPSTREAM_DNS_ERROR: _Row(502, _PROVIDER, _YES, "The provider's name could not be resolved."),
    Code.UPSTREAM_TLS_ERROR: _Row(502, _PROVIDER, _YES, "No secure connection to the provider could be made."),
    Code.UPSTREAM_TIMEOUT: _Row(504, _PROVIDER, _YES, "The provider did not answer in time."),
    Code.UPSTREAM_ERROR: _Row(502, _PROVIDER, _YES, "The provider failed to answer."),
    Code.UPSTREAM_REFUSED: _Row(400, _PROVIDER, _NO, "The provider refused the request."),
    Code.UPSTREAM_OVERLOADED: _Row(503, _PROVIDER, _YES, "The provider is overloaded."),
    Code.UPSTREAM_KEY_REFUSED: _Row(502, _GATEWAY, _NO, "The provider refused the gateway's credential."),
    Code.UPSTREAM_BAD_RESPONSE: _Row(502, _PROVIDER, _YES, "The provider's answer could not be understood."),
    Code.UPSTREAM_NO_RESPONSE: _Row(502, _PROVIDER, _YES, "The provider closed the connection without an answer."),
    Code.UPSTREAM_REDIRECT: _Row(502, _PROVIDER, _NO, "The provider answered with a redirect, which is not followed."),
    Code.UPSTREAM_TOO_LARGE: _Row(502, _PROVIDER, _NO, "The provider's answer is larger than the limit."),
    Code.UPSTREAM_STALLED: _Row(504, _PROVIDER, _YES, "The provider's answer stopped arriving."),
    Code.UPSTREAM_RESET: _Row(502, _PROVIDER, _YES, "The provider broke the connection during its answer."),
    Code.UPSTREAM_TRUNCATED: _Row(502, _PROVIDER, _YES, "The provider's answer ended before it was complete."),
    Code.UPSTREAM_BAD_STREAM: _Row(502, _PROVIDER, _YES, "The provider's event stream could not be understood."),
    Code.UPSTREAM_ERROR_EVENT: _Row(502, _PROVIDER, _YES, "The provider reported an error within its stream."),
    Code.AUDIT_UNAVAILABLE: _Row(503, _GATEWAY, _YES, "The audit record cannot be kept, so nothing was sent."),
    Code.AUDIT_BACKPRESSURE: _Row(503, _GATEWAY, _YES, "The audit spool is full, so nothing was sent."),
    Code.REDACTION_FAILED: _Row(500, _GATEWAY, _NO, "The request could not be checked, so nothing was sent."),
    Code.NOT_READY: _Row(503, _GATEWAY, _YES, "The gateway is starting and has no policy yet."),
    Code.SHUTTING_DOWN: _Row(503, _GATEWAY, _YES, "The gateway is shutting down."),
    Code.CLIENT_CLOSED_REQUEST: _Row(499, _CLIENT, None, "The caller left before the answer was complete."),
    Code.INTERNAL_ERROR: _Row(500, _GATEWAY, _NO, "The gateway failed."),
}

_DEFAULT_WAIT_S: dict[Code, float] = {
    Code.ALL_TARGETS_UNAVAILABLE: 1.0,
    Code.AUDIT_UNAVAILABLE: 1.0,
    Code.AUDIT_BACKPRESSURE: 1.0,
    Code.NOT_READY: 1.0,
    Code.SHUTTING_DOWN: 1.0,
    Code.UPSTREAM_OVERLOADED: 1.0,
}
"""Told when the caller of ``problem`` knows no better and waiting does help."""

_OPENAI_TYPES = {403: "permission_error", 408: "timeout_error", 504: "timeout_error"}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def problem(
    code: Code,
    message: str | None = None,
    *,
    status: int | None = None,
    param: str | None = None,
    fault: Fault | None = None,
    retry_after_s: float | None = None,
    retry: Retry | None = None,
) -> Problem:
    """Build the refusal of that code; what is given replaces what the table says.

    Args:
        code: Which refusal.
        message: One or two sentences for a person; the table's when None.
        status: For codes that come with several statuses (a provider's 503 stays 503).
        param: The field of the request at fault, in the provider's notation (``messages[0].content``).
        fault: Whose fault it is, when the table's is not right.
        retry_after_s: True seconds until another try may succeed.
        retry: What the caller is told about trying again.
    """
    row = _TABLE[code]
    told = row.retry if retry is None else retry
    wait_s = _DEFAULT_WAIT_S.get(code) if retry_after_s is None else retry_after_s
    final = row.status if status is None else status
    return Problem(
        final,
        code.value,
        row.type or _openai_type(final),
        message or row.message,
        param,
        fault or row.fault,
        told,
        None if told is Retry.NO else wait_s,
    )


def problem_of_fault(error: ProxyError) -> Problem:
    """Build the refusal for a fault of our own; one that has no row of its own is an internal error."""
    try:
        code = Code(error.code)
    except ValueError:
        code = Code.INTERNAL_ERROR
    return problem(code)


def error_object(problem: Problem, request_id: str, dialect: Dialect = Dialect.OPENAI) -> dict[str, Any]:
    """Return the error document as a mapping, ready for JSON."""
    if dialect is Dialect.ANTHROPIC:
        kind = _ANTHROPIC_TYPES.get(problem.status, "api_error" if problem.status >= 500 else "invalid_request_error")
        error = {"type": kind, "message": problem.message, "code": problem.code, "request_id": request_id}
        return {"type": "error", "error": error, "request_id": request_id}
    return {
        "error": {
            "message": problem.message,
            "type": problem.type,
            "param": problem.param,
            "code": problem.code,
            "request_id": request_id,
        }
    }


def render(problem: Problem, request_id: str, dialect: Dialect = Dialect.OPENAI) -> bytes:
    """Return the body of an error answer."""
    return orjson.dumps(error_object(problem, request_id, dialect))


def render_event(problem: Problem, request_id: str, dialect: Dialect = Dialect.OPENAI) -> bytes:
    """Return the in-band error of a stream that broke after its first byte; no ``[DONE]`` may follow."""
    name = b"event: error\n" if dialect is Dialect.ANTHROPIC else b""
    return name + b"data: " + render(problem, request_id, dialect) + b"\n\n"


def retry_after_values(seconds: float) -> tuple[str, str]:
    """Return the values of ``retry-after`` (whole seconds, at least 1) and ``retry-after-ms``, rounded up."""
    return str(max(1, math.ceil(seconds))), str(max(1, math.ceil(seconds * 1000.0)))


def _openai_type(status: int) -> str:
    return _OPENAI_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
