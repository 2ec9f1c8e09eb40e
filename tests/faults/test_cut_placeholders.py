"""Streams that end in the middle of a placeholder: its beginning is the model's own text, and carries no value."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.raw_provider import RawProvider, raw_provider
from tests.support.wire import Message, Sidecar, chat, sidecar_for, stream_text

pytestmark = pytest.mark.faults

POLICY = """
version: 1
policy: default
redaction: {request: {default: restore}}
routes: [{name: any, match: {models: ["*"]}, chain: [{provider: main}], retries: none, broken_stream: event}]
"""
EMAIL = "ana.canary@example.com"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def provider() -> Iterator[RawProvider]:
    with raw_provider() as running:
        yield running


@pytest.fixture(scope="module")
def sidecar(provider: RawProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = f'providers: {{main: {{base_url: "{provider.base_url}"}}}}\n'
    with sidecar_for(tmp_path_factory.mktemp("cut"), config, POLICY) as running:
        yield running


def said(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    event = b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def streamed(sidecar: Sidecar, provider: RawProvider, *pieces: bytes, model: str = "whole") -> Message:
    provider.answer(HEAD, *pieces, gap_s=0.02, closes=True)
    return sidecar.ask(chat(f"write to {EMAIL}", stream=True, model=model))


@pytest.mark.parametrize("beginning", ["[", "[EMA", "[EMAIL-", "[EMAIL-1", "\\[EMAIL-1"])
def test_break_in_a_placeholder_shows_its_beginning_and_the_break(
    sidecar: Sidecar, provider: RawProvider, beginning: str
) -> None:
    """What was held goes out before the error event: dropped, the caller would have less than the model wrote, and
    only a whole placeholder stands for a value.
    """
    answer = streamed(sidecar, provider, said("to [EMAIL-1], and "), said(beginning), model="cut")
    row = sidecar.row(answer.get("x-readygate-id"))

    text = "".join(json.loads(event)["choices"][0]["delta"]["content"] for event in answer.events[:-1])
    assert f"to {EMAIL}, and {beginning}" == text
    assert "upstream_truncated" == json.loads(answer.events[-1])["error"]["code"]
    assert ("error", "upstream_truncated") == (row["status"], row["error_code"])


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_answer_that_ends_in_a_placeholder_keeps_its_beginning(
    sidecar: Sidecar, provider: RawProvider, finish: str
) -> None:
    """A model that runs out of tokens there, say: the answer is whole, and so is its text."""
    ending = [said(" [EMAIL", finish), b"e\r\ndata: [DONE]\n\n\r\n", b"0\r\n\r\n"]
    answer = streamed(sidecar, provider, said("to [EMAIL-1], and"), *ending)

    assert f"to {EMAIL}, and [EMAIL" == stream_text(answer)
    assert "whole" == answer.ended
