"""A target that speaks Anthropic's Messages API behind chat traffic, and Messages traffic to it: both ways, byte-true.

The simulated provider speaks both dialects; its journal shows what the target was asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from tests.support.simulator import Simulator
from tests.support.wire import Message, Sidecar, chat, request, sidecar_for, stream_text, threaded_simulator

pytestmark = pytest.mark.integration

COPIES = 24
POLICY = """
version: 1
policy: default
redaction: {request: {default: restore}}
routes:
""" + "".join(
    f"""
  - {{match: {{models: [claude-{n}]}}, chain: [{{provider: anthropic, model: claude-{n}}}], retries: none, broken_stream: event}}
  - {{match: {{models: [pair-{n}]}}, chain: [{{provider: anthropic, model: c-{n}}}, {{provider: openai, model: o-{n}}}], retries: none, rescue: resume}}
  - {{match: {{models: [turn-{n}]}}, chain: [{{provider: openai, model: p-{n}}}, {{provider: anthropic, model: d-{n}, prefill: true}}], retries: none, rescue: resume}}
"""
    for n in range(COPIES)
)
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Weather", "parameters": {"type": "object", "properties": {}}},
}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
_turns = count()


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = f"""
providers:
  anthropic: {{base_url: "{provider.origin}/anthropic/v1", kind: anthropic, api_key: {{env: RG_KEY}}}}
  openai: {{base_url: "{provider.origin}/openai1/v1"}}
"""
    env = {"RG_KEY": "sk-ant-own-0123456789abcdef"}
    with sidecar_for(tmp_path_factory.mktemp("sidecar"), config, POLICY, env=env) as running:
        yield running


@pytest.fixture(autouse=True)
def _forget(provider: Simulator) -> None:
    provider.reset()


def ask(sidecar: Sidecar, content: str = "echo: one two three", kind: str = "claude", **fields: Any) -> Message:
    """Ask a route of that kind, in chat."""
    return sidecar.ask(chat(content, model=f"{kind}-{next(_turns) % COPIES}", **fields))


def sent(provider: Simulator) -> dict[str, Any]:
    document: dict[str, Any] = provider.last.json()
    return document


def test_plain_answer_is_a_chat_completion(sidecar: Sidecar, provider: Simulator) -> None:
    """The app sees what OpenAI would have answered; the target what Anthropic's own client would have asked."""
    answer = ask(sidecar, max_tokens=50, temperature=1.7, stop=["END"], user="u1")

    document = answer.json()
    choice = document["choices"][0]
    assert (200, "chat.completion", "stop") == (answer.status, document["object"], choice["finish_reason"])
    assert {"role": "assistant", "content": "one two three", "refusal": None} == choice["message"]
    usage = document["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    entry, asked = provider.last, sent(provider)
    assert "/anthropic/v1/messages" == entry.target
    assert ("sk-ant-own-0123456789abcdef", "2023-06-01") == (
        entry.header("x-api-key"),
        entry.header("anthropic-version"),
    )
    assert entry.header("authorization") is None
    assert (50, 1, ["END"], {"user_id": "u1"}) == (
        asked["max_tokens"], asked["temperature"], asked["stop_sequences"], asked["metadata"],
    )  # fmt: skip
    row = sidecar.row(answer.get("x-readygate-id"))
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (row["tokens_in"], row["tokens_out"])
    assert ["changed:anthropic:temperature"] == json.loads(row["notes"])


def test_streamed_answer_is_a_chat_stream(sidecar: Sidecar) -> None:
    """Role, text, finish reason, usage when asked, [DONE]."""
    answer = ask(sidecar, stream=True, stream_options={"include_usage": True})
    documents = [json.loads(event) for event in answer.events[:-1]]

    assert ("one two three", "[DONE]", "whole") == (stream_text(answer), answer.events[-1], answer.ended)
    assert {"chat.completion.chunk"} == {document["object"] for document in documents}
    assert {"role": "assistant", "content": ""} == documents[0]["choices"][0]["delta"]
    assert "stop" == documents[-2]["choices"][0]["finish_reason"]
    assert ([], True) == (documents[-1]["choices"], documents[-1]["usage"]["completion_tokens"] > 0)


def test_stream_without_usage_asked_has_none_but_the_row_has(sidecar: Sidecar) -> None:
    """An app that did not ask for the extra event does not get it."""
    answer = ask(sidecar, stream=True)

    assert all(json.loads(event)["choices"] for event in answer.events[:-1])
    row = sidecar.row(answer.get("x-readygate-id"))
    assert (True, 0) == (row["tokens_out"] > 0, row["tokens_estimated"])


@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "streamed"])
def test_tools_go_there_and_their_calls_come_back(sidecar: Sidecar, provider: Simulator, is_stream: bool) -> None:
    """Definitions, choice, calls and arguments."""
    answer = ask(
        sidecar, 'call get_weather {"city":"Paris"}', stream=is_stream, tools=[WEATHER], tool_choice="required",
        parallel_tool_calls=False,
    )  # fmt: skip

    if is_stream:
        deltas = [c["delta"] for e in answer.events[:-1] for c in json.loads(e)["choices"]]
        pieces = [call for delta in deltas for call in delta.get("tool_calls", ())]
        name, arguments = pieces[0]["function"]["name"], "".join(p["function"]["arguments"] for p in pieces)
        finish = json.loads(answer.events[-2])["choices"][0]["finish_reason"]
    else:
        choice = answer.json()["choices"][0]
        call = choice["message"]["tool_calls"][0]["function"]
        name, arguments, finish = call["name"], call["arguments"], choice["finish_reason"]
    assert ("get_weather", {"city": "Paris"}, "tool_calls") == (name, json.loads(arguments), finish)
    asked = sent(provider)
    assert {"type": "any", "disable_parallel_tool_use": True} == asked["tool_choice"]
    assert ["description", "input_schema", "name"] == sorted(asked["tools"][0])


def test_whole_conversation_is_told_in_the_other_words(sidecar: Sidecar, provider: Simulator) -> None:
    """System, images, earlier calls, and results of two tools in one turn."""
    call = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": PIXEL}}]},
        {"role": "assistant", "content": "hm", "tool_calls": [call, {**call, "id": "t2"}]},
        {"role": "tool", "tool_call_id": "t1", "content": "r1"},
        {"role": "tool", "tool_call_id": "t2", "content": "r2"},
    ]  # fmt: skip
    answer = ask(sidecar, messages=messages)

    assert 200 == answer.status
    asked = sent(provider)
    assert "Be brief.\n\nBe kind." == asked["system"]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    assert [{"type": "text", "text": "look"}, image] == asked["messages"][0]["content"]
    kinds = [(turn["role"], [block["type"] for block in turn["content"]]) for turn in asked["messages"][1:]]
    assert [("assistant", ["text", "tool_use", "tool_use"]), ("user", ["tool_result", "tool_result"])] == kinds


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [("400", 400, "invalid_request_error"), ("429:retry_after=3", 429, "rate_limit_error"), ("529", 529, "overloaded_error"),
     ("500", 500, "api_error")],
)  # fmt: skip
@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "streamed"])
def test_error_has_the_shape_the_app_knows(
    sidecar: Sidecar, provider: Simulator, fault: str, status: int, code: str, is_stream: bool
) -> None:
    """Status, words, and the four keys."""
    provider.script(fault)
    answer = ask(sidecar, stream=is_stream)

    assert (status, code) == (answer.status, answer.error["code"])
    assert {"message", "type", "param", "code"} == set(answer.error)
    assert answer.error["message"]


def test_error_event_in_mid_stream_has_the_shape_the_app_knows(sidecar: Sidecar, provider: Simulator) -> None:
    """After the first token it comes in-band, without [DONE]."""
    provider.script("error_event:after=2,rate=100,type=overloaded_error")
    answer = ask(sidecar, stream=True)

    assert "overloaded_error" == json.loads(answer.events[-1])["error"]["code"]
    assert ("eof", False) == (answer.ended, "[DONE]" in answer.events)


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_stop_reasons_are_finish_reasons(sidecar: Sidecar, provider: Simulator, finish: str) -> None:
    """Both for whole and for streamed answers."""
    provider.fault(f"ok:finish={finish}")
    plain, streamed = ask(sidecar), ask(sidecar, stream=True)

    assert finish == plain.json()["choices"][0]["finish_reason"]
    assert finish == json.loads(streamed.events[-2])["choices"][0]["finish_reason"]


def test_what_has_no_counterpart_is_dropped_and_noted(sidecar: Sidecar, provider: Simulator) -> None:
    """Never silently."""
    answer = ask(sidecar, seed=7, frequency_penalty=0.5, max_tokens=9)

    assert {"seed", "frequency_penalty"}.isdisjoint(sent(provider))
    notes = json.loads(sidecar.row(answer.get("x-readygate-id"))["notes"])
    assert ["dropped:anthropic:frequency_penalty", "dropped:anthropic:seed"] == notes


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"n": 2}, "n"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}, "messages[0].content[0]"),
    ],
    ids=["n", "schema", "audio"],
)  # fmt: skip
def test_what_would_change_the_answer_goes_to_the_next_target(
    sidecar: Sidecar, provider: Simulator, fields: dict[str, Any], why: str
) -> None:
    """The row says why the first was passed over; alone it is an honest refusal."""
    answer, alone = ask(sidecar, kind="pair", **fields), ask(sidecar, **fields)

    assert (200, "openai") == (answer.status, answer.get("x-readygate-provider"))
    row = sidecar.row(answer.get("x-readygate-id"))
    assert f"skipped:anthropic:no_counterpart:{why}" in json.loads(row["notes"])
    assert (400, "no_suitable_target") == (alone.status, alone.error["code"])
    assert {"openai1"} == {entry.provider for entry in provider.entries}


@pytest.mark.parametrize("kind", ["pair", "turn"])
def test_stream_goes_on_in_the_other_dialect(sidecar: Sidecar, provider: Simulator, kind: str) -> None:
    """Cut at one, resumed at the other; by prefill where the Messages API takes over."""
    provider.script("cut:after=5,rate=500")
    text = "one two three four five six seven eight nine ten"
    answer = ask(sidecar, f"echo: {text}", kind, stream=True)

    assert (text, "[DONE]", "whole") == (stream_text(answer), answer.events[-1], answer.ended)
    assert 1 == len({json.loads(event)["id"] for event in answer.events[:-1]})
    if kind == "turn":
        assert ("assistant", "one two three four five") == tuple(sent(provider)["messages"][-1].values())


def test_values_are_replaced_there_and_restored_here(sidecar: Sidecar, provider: Simulator) -> None:
    """Redaction knows one dialect at each end."""
    for is_stream in (False, True):
        answer = ask(sidecar, "echo: write to jane.doe@example.org today", stream=is_stream)
        text = stream_text(answer) if is_stream else answer.json()["choices"][0]["message"]["content"]

        assert "write to jane.doe@example.org today" == text
    assert not any(b"jane.doe" in entry.body for entry in provider.entries)


# ---------------------------------------------------------------- Messages all the way


def _message(model: str, content: str, **fields: Any) -> bytes:
    body = {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": content}], **fields}
    return request("POST", "/v1/messages", json.dumps(body).encode(), {"content-type": "application/json"})


def test_messages_traffic_keeps_its_dialect(sidecar: Sidecar, provider: Simulator) -> None:
    """Values replaced and restored in whole answers and in streamed blocks; system prompts too."""
    model, text = f"claude-{next(_turns) % COPIES}", "echo: ask jane.doe@example.org"
    plain = sidecar.ask(_message(model, text, system="I am john.roe@example.org"))
    streamed = sidecar.ask(_message(model, text, stream=True))
    deltas = [json.loads(event) for event in streamed.events]

    assert ("message", "ask jane.doe@example.org") == (plain.json()["type"], plain.json()["content"][0]["text"])
    said = "".join(d["delta"].get("text", "") for d in deltas if d["type"] == "content_block_delta")
    assert ("ask jane.doe@example.org", "message_stop") == (said, deltas[-1]["type"])
    assert not re.search(rb"jane\.doe|john\.roe", b"".join(entry.body for entry in provider.entries))
    assert {"/anthropic/v1/messages"} == {entry.target for entry in provider.entries}


def test_refusal_to_messages_traffic_has_its_shape(sidecar: Sidecar, provider: Simulator) -> None:
    """The provider's own error and ours, before and after the first token."""
    model = f"claude-{next(_turns) % COPIES}"
    provider.script("529", "503", "cut:after=2,rate=100")
    theirs, ours = sidecar.ask(_message(model, "hi")), sidecar.ask(_message("nobody", "hi"))
    sidecar.ask(_message(model, "hi"))
    broken = sidecar.ask(_message(f"claude-{next(_turns) % COPIES}", "echo: one two three four", stream=True))

    assert (529, "error", "overloaded_error") == (theirs.status, theirs.json()["type"], theirs.error["type"])
    assert (404, "error") == (ours.status, ours.json()["type"])
    assert ("eof", "error") == (broken.ended, json.loads(broken.events[-1])["type"])
