"""One word for whatever an upstream did."""

from __future__ import annotations

import pytest

from proxy.core.routing.classify import classify_answer, classify_error_event
from proxy.terms.outcomes import Outcome

JSON, SSE, HTML = "application/json", "text/event-stream", "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, Outcome.OK),
        (201, Outcome.OK),
        (100, Outcome.BAD_RESPONSE),
        (101, Outcome.BAD_RESPONSE),
        (0, Outcome.BAD_RESPONSE),
        (600, Outcome.BAD_RESPONSE),
        (301, Outcome.REDIRECT),
        (307, Outcome.REDIRECT),
        (400, Outcome.UPSTREAM_4XX),
        (404, Outcome.UPSTREAM_4XX),
        (422, Outcome.UPSTREAM_4XX),
        (408, Outcome.UPSTREAM_CONFLICT),
        (409, Outcome.UPSTREAM_CONFLICT),
        (425, Outcome.UPSTREAM_CONFLICT),
        (429, Outcome.RATE_LIMITED),
        (500, Outcome.UPSTREAM_5XX),
        (502, Outcome.UPSTREAM_5XX),
        (503, Outcome.UPSTREAM_5XX),
        (504, Outcome.UPSTREAM_5XX),
        (529, Outcome.OVERLOADED),
    ],
)
def test_status_has_its_class(status: int, expected: Outcome) -> None:
    """UF-07: the table of statuses."""
    assert expected is classify_answer(status, JSON, False, True)


@pytest.mark.parametrize("status", [401, 402, 403])
def test_refused_key_is_ours_only_when_we_sent_ours(status: int) -> None:
    """With the caller's own key the refusal is the caller's business and must not walk or alarm."""
    assert Outcome.OWN_KEY_REFUSED is classify_answer(status, JSON, False, True)
    assert Outcome.UPSTREAM_4XX is classify_answer(status, JSON, False, False)


@pytest.mark.parametrize(
    ("content_type", "is_stream_asked", "expected"),
    [
        (JSON, False, Outcome.OK),
        ("Application/JSON; charset=utf-8", False, Outcome.OK),
        ("application/problem+json", False, Outcome.OK),
        (SSE, True, Outcome.OK),
        ("text/event-stream;charset=utf-8", True, Outcome.OK),
        ("", False, Outcome.OK),
        ("", True, Outcome.OK),
        (HTML, False, Outcome.BAD_CONTENT_TYPE),
        (HTML, True, Outcome.BAD_CONTENT_TYPE),
        (JSON, True, Outcome.BAD_CONTENT_TYPE),
        (SSE, False, Outcome.BAD_CONTENT_TYPE),
    ],
)
def test_content_type_has_to_be_what_was_asked(content_type: str, is_stream_asked: bool, expected: Outcome) -> None:
    """UF-15: an HTML login page under 200 is not an answer; a missing header is forgiven."""
    assert expected is classify_answer(200, content_type, is_stream_asked, True)


@pytest.mark.parametrize("is_stream_asked", [False, True])
def test_error_document_under_200_is_an_error(is_stream_asked: bool) -> None:
    """UF-14."""
    assert Outcome.ERROR_IN_200 is classify_answer(200, JSON, is_stream_asked, True, True)


@pytest.mark.parametrize(("status", "is_empty"), [(200, True), (204, True), (204, False), (304, True)])
def test_no_content_is_no_answer_where_one_is_due(status: int, is_empty: bool) -> None:
    """UF-26."""
    assert Outcome.BAD_RESPONSE is classify_answer(status, "", False, True, is_body_empty=is_empty)


@pytest.mark.parametrize(("status", "content_type"), [(204, ""), (304, ""), (200, "audio/mpeg"), (200, HTML)])
def test_paths_of_unknown_shape_may_answer_anything(status: int, content_type: str) -> None:
    """Files, audio and deletions pass as they are."""
    assert Outcome.OK is classify_answer(status, content_type, False, True, is_known_shape=False, is_body_empty=True)


@pytest.mark.parametrize(
    ("kind", "code", "expected"),
    [
        ("overloaded_error", "", Outcome.OVERLOADED),
        ("rate_limit_error", "rate_limit_exceeded", Outcome.RATE_LIMITED),
        ("tokens", "rate_limit_exceeded", Outcome.RATE_LIMITED),
        ("", "429", Outcome.RATE_LIMITED),
        ("invalid_request_error", "context_length_exceeded", Outcome.UPSTREAM_4XX),
        ("", "content_filter", Outcome.UPSTREAM_4XX),
        ("server_error", "", Outcome.UPSTREAM_ERROR_EVENT),
        ("", "", Outcome.UPSTREAM_ERROR_EVENT),
    ],
)
def test_error_as_first_event_is_what_it_would_have_been_as_a_status(kind: str, code: str, expected: Outcome) -> None:
    """UF-12: a content refusal in a stream must not walk the chain either."""
    assert expected is classify_error_event(kind, code)
