"""Refusals: every code has its row, every body its four keys, and only true hints are told."""

from __future__ import annotations

import orjson
import pytest

from proxy.core.routing.problems import (
    Code,
    Dialect,
    Retry,
    error_object,
    problem,
    problem_of_fault,
    render,
    render_event,
    retry_after_values,
)
from proxy.terms.errors import ProxyError, RedactionFault, RowRefused, SpoolFull, SpoolUnavailable
from proxy.terms.outcomes import Fault


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_a_row_and_a_sentence(code: Code) -> None:
    """A code without a row would crash the refusal that needs it."""
    shown = problem(code)

    assert shown.code == code.value
    assert 400 <= shown.status < 600
    assert shown.type
    assert shown.message.endswith(".")
    assert shown.retry is not Retry.NO or shown.retry_after_s is None


@pytest.mark.parametrize(
    ("code", "status", "fault", "retry"),
    [
        (Code.RATE_LIMIT_EXCEEDED, 429, Fault.POLICY, Retry.YES),
        (Code.INSUFFICIENT_QUOTA, 429, Fault.POLICY, Retry.NO),
        (Code.BUDGET_REQUEST_TOO_LARGE, 400, Fault.POLICY, Retry.NO),
        (Code.CONTENT_POLICY_VIOLATION, 400, Fault.POLICY, Retry.NO),
        (Code.PERMISSION_DENIED, 403, Fault.POLICY, Retry.NO),
        (Code.MODEL_NOT_FOUND, 404, Fault.POLICY, Retry.NO),
        (Code.INVALID_API_KEY, 401, Fault.CLIENT, Retry.NO),
        (Code.BODY_TOO_LARGE, 413, Fault.CLIENT, Retry.NO),
        (Code.BODY_ENCODED, 415, Fault.CLIENT, Retry.NO),
        (Code.BODY_UNREADABLE, 400, Fault.CLIENT, Retry.NO),
        (Code.ALL_TARGETS_UNAVAILABLE, 503, Fault.GATEWAY, Retry.YES),
        (Code.AUDIT_UNAVAILABLE, 503, Fault.GATEWAY, Retry.YES),
        (Code.AUDIT_BACKPRESSURE, 503, Fault.GATEWAY, Retry.YES),
        (Code.UPSTREAM_TIMEOUT, 504, Fault.PROVIDER, Retry.YES),
    ],
)
def test_promised_statuses_faults_and_hints(code: Code, status: int, fault: Fault, retry: Retry) -> None:
    """The wire conventions that SDKs obey."""
    shown = problem(code)

    assert (status, fault, retry) == (shown.status, shown.fault, shown.retry)


def test_openai_body_has_its_four_keys_and_the_request_id() -> None:
    """SDKs read message, type, param and code; people quote the id."""
    body = orjson.loads(render(problem(Code.MODEL_NOT_FOUND, "No route for it.", param="model"), "id-1"))

    assert body == {
        "error": {
            "message": "No route for it.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
            "request_id": "id-1",
        }
    }


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.BODY_UNREADABLE, "invalid_request_error"),
        (Code.INVALID_API_KEY, "authentication_error"),
        (Code.PERMISSION_DENIED, "permission_error"),
        (Code.NOT_FOUND, "not_found_error"),
        (Code.BODY_TOO_LARGE, "request_too_large"),
        (Code.RATE_LIMIT_EXCEEDED, "rate_limit_error"),
        (Code.ALL_TARGETS_UNAVAILABLE, "overloaded_error"),
        (Code.UPSTREAM_TIMEOUT, "timeout_error"),
        (Code.INTERNAL_ERROR, "api_error"),
    ],
)
def test_anthropic_body_has_its_own_shape(code: Code, kind: str) -> None:
    """``/v1/messages`` clients look for these types."""
    body = error_object(problem(code), "id-1", Dialect.ANTHROPIC)

    assert (body["type"], body["error"]["type"], body["request_id"]) == ("error", kind, "id-1")
    assert body["error"]["code"] == code.value


def test_stream_event_is_one_data_line_in_each_dialect() -> None:
    """What official SDKs raise on in mid-stream; a message with line breaks cannot break the framing."""
    broken = problem(Code.UPSTREAM_STALLED, "It stopped.\n\ndata: injected")
    openai = render_event(broken, "id-1")
    anthropic = render_event(broken, "id-1", Dialect.ANTHROPIC)

    assert openai.startswith(b'data: {"error":{')
    assert openai.endswith(b"}}\n\n")
    assert openai.count(b"\n") == 2
    assert anthropic.startswith(b'event: error\ndata: {"type":"error"')
    assert anthropic.count(b"\n") == 3


def test_wait_is_rounded_up_and_at_least_one() -> None:
    """A client that obeys must not come too early."""
    assert ("3", "2001") == retry_after_values(2.0001)
    assert ("1", "1") == retry_after_values(0.0)
    assert ("2", "2000") == retry_after_values(2.0)


def test_no_wait_is_told_where_no_retry_helps() -> None:
    """The two headers must not contradict each other."""
    assert problem(Code.INSUFFICIENT_QUOTA, retry_after_s=3600.0).retry_after_s is None
    assert problem(Code.RATE_LIMIT_EXCEEDED, retry_after_s=12.5).retry_after_s == 12.5


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SpoolUnavailable(), "audit_unavailable"),
        (SpoolFull(), "audit_backpressure"),
        (RedactionFault(), "redaction_failed"),
        (RowRefused(), "internal_error"),
        (ProxyError("secret detail"), "internal_error"),
    ],
)
def test_faults_of_ours_become_refusals_without_their_text(error: ProxyError, code: str) -> None:
    """What failed inside is for the log, not for the caller."""
    shown = problem_of_fault(error)

    assert shown.code == code
    assert "secret" not in shown.message
