"""What budgets ask of a provider on the caller's behalf, and that the caller does not see it."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from proxy.core.dialect import Dialect
from proxy.flow.fitting import ask_usage, cap_output
from proxy.flow.intake import Request, read_json
from proxy.flow.metering import UsageHider


def read(document: dict[str, Any], dialect: Dialect = Dialect.CHAT) -> Request:
    request = read_json(json.dumps(document).encode(), dialect)
    assert isinstance(request, Request)
    return request


def test_usage_is_asked_for_without_touching_another_byte() -> None:
    """Prompt caches hang on bytes."""
    request = read({"model": "m", "stream": True, "messages": [{"role": "user", "content": "a } b"}]})
    before = request.body

    assert ask_usage(request)
    assert before[:-1] + b',"stream_options":{"include_usage":true}}' == request.body
    assert orjson.loads(request.body) == request.document


@pytest.mark.parametrize(
    ("options", "hides"),
    [({"include_usage": True}, False), ({"include_usage": False}, True), ({"include_obfuscation": False}, True)],
)
def test_other_stream_options_stay_and_a_caller_that_asked_is_answered(options: dict[str, Any], hides: bool) -> None:
    """Nothing is hidden from who wanted it, and nothing else is lost."""
    request = read({"model": "m", "stream": True, "stream_options": options})

    assert hides is ask_usage(request)
    assert {**options, "include_usage": True} == orjson.loads(request.body)["stream_options"]


def event(**fields: Any) -> bytes:
    return b"data: " + orjson.dumps({"id": "x", **fields}) + b"\n\n"


def test_usage_the_caller_did_not_ask_for_is_taken_out() -> None:
    """The event of its own goes, ``null`` goes, text that speaks of usage stays."""
    said = event(choices=[{"delta": {"content": 'say "usage":null'}}])
    stream = (
        event(choices=[{"delta": {"content": "hi"}}], usage=None)
        + said
        + event(choices=[], usage={"prompt_tokens": 1})
        + b"data: [DONE]\n\n"
    )

    assert event(choices=[{"delta": {"content": "hi"}}]) + said + b"data: [DONE]\n\n" == UsageHider().feed(stream)


def test_usage_with_line_ends_of_two_characters_is_taken_out() -> None:
    """Providers end lines as they like."""
    usage = event(choices=[], usage={"prompt_tokens": 1}).replace(b"\n", b"\r\n")

    assert b"data: [DONE]\r\n\r\n" == UsageHider().feed(usage + b"data: [DONE]\r\n\r\n")


@pytest.mark.parametrize(
    ("dialect", "written", "expected"),
    [
        (Dialect.CHAT, {}, {"max_completion_tokens": 50}),
        (Dialect.CHAT, {"max_tokens": 900}, {"max_tokens": 50}),
        (Dialect.CHAT, {"max_completion_tokens": 10}, {"max_completion_tokens": 10}),
        (Dialect.COMPLETIONS, {}, {"max_tokens": 50}),
        (Dialect.RESPONSES, {}, {"max_output_tokens": 50}),
        (Dialect.MESSAGES, {"max_tokens": 900}, {"max_tokens": 50}),
        (Dialect.EMBEDDINGS, {}, {}),
    ],
)
def test_cap_bounds_the_answer_in_the_callers_own_words(
    dialect: Dialect, written: dict[str, int], expected: dict[str, int]
) -> None:
    """A cap is never raised, and each API has its own name for it."""
    request = read({"model": "m", **written}, dialect)
    cap_output(dialect, request, 50)

    assert {"model": "m", **expected} == orjson.loads(request.body)
