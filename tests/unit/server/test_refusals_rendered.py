"""Refusals of the front door, as bytes."""

from __future__ import annotations

import json

import pytest

from proxy.core.routing.problems import Code, problem
from proxy.flow.headers import refusal_lines
from proxy.server.refusals import reason_of, render_refusal

LINES = b"x-readygate-id: the-id\r\nx-request-id: the-id\r\n"
"""What stands on every answer, as the door has it."""


@pytest.mark.parametrize("code", list(Code))
def test_every_code_renders_with_a_reason_and_the_id(code: Code) -> None:
    """Status line, four keys and the id, for each of them."""
    status, reason, headers, body = render_refusal(problem(code), "the-id", LINES, "/v1/chat/completions")
    error = json.loads(body)["error"]

    assert reason
    assert {"message", "type", "param", "code", "request_id"} == set(error)
    assert (code.value, "the-id", problem(code).status) == (error["code"], error["request_id"], status)
    assert b"content-type: application/json\r\n" in headers
    assert LINES in headers
    assert refusal_lines(problem(code)) in headers
    assert headers.endswith(b"\r\n")


def test_anthropic_path_gets_its_shape() -> None:
    """By the path alone: there may be no more of the request than that."""
    _, _, _, body = render_refusal(problem(Code.BODY_TOO_LARGE), "the-id", LINES, "/v1/messages")

    assert ("error", "request_too_large") == (json.loads(body)["type"], json.loads(body)["error"]["type"])


@pytest.mark.parametrize(("status", "reason"), [(404, b"Not Found"), (421, b"Misdirected Request"), (499, b"Unknown")])
def test_reasons(status: int, reason: bytes) -> None:
    """Standard phrases; a status without one still has some."""
    assert reason == reason_of(status)
