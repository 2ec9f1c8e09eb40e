"""What holds for every translation between chat and the Messages API."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.dialect.from_messages import ChatEvents, NotAMessage, chat_of, error_of, usage_of
from proxy.core.dialect.to_messages import Untranslatable, to_messages
from proxy.core.sse import EventDecoder

TEXT = st.text(max_size=20)
PART = st.builds(lambda text: {"type": "text", "text": text}, TEXT)
CONTENT = TEXT | st.lists(PART, min_size=1, max_size=3)
ARGUMENTS = st.dictionaries(TEXT, st.integers() | TEXT, max_size=3)
CALL = st.builds(
    lambda n, given_: {"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": json.dumps(given_)}},
    st.integers(0, 9),
    ARGUMENTS,
)
MESSAGE = st.one_of(
    st.builds(lambda content: {"role": "system", "content": content}, CONTENT),
    st.builds(lambda content: {"role": "user", "content": content}, CONTENT),
    st.builds(lambda content, calls: {"role": "assistant", "content": content, "tool_calls": calls}, CONTENT, st.lists(CALL, max_size=2)),
    st.builds(lambda content: {"role": "tool", "tool_call_id": "c1", "content": content}, CONTENT),
)  # fmt: skip


def _texts(value: Any) -> list[str]:
    """Every text under ``content``, ``text`` and ``system``, in order."""
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    if isinstance(value, dict):
        return _texts(value.get("text") if value.get("type") == "text" else value.get("content"))
    return []


@given(st.lists(MESSAGE, max_size=6))
def test_no_text_of_a_conversation_is_lost_or_moved(messages: list[dict[str, Any]]) -> None:
    """System prompts come together, everything else stays in order."""
    made = to_messages({"messages": messages}, "m").document

    turns = [text for message in messages if message["role"] != "system" for text in _texts(message)]
    assert turns == [text for turn in made["messages"] for text in _texts(turn["content"])]
    for message in messages:
        if message["role"] == "system":
            assert all(text in made["system"] for text in _texts(message))
    results = [block for turn in made["messages"] if isinstance(turn["content"], list) for block in turn["content"]
               if block["type"] == "tool_result"]  # fmt: skip
    assert sum(message["role"] == "tool" for message in messages) == len(results)


@given(st.lists(CALL, min_size=1, max_size=3))
def test_calls_keep_their_arguments(calls: list[dict[str, Any]]) -> None:
    """As JSON there, as text here."""
    made = to_messages({"messages": [{"role": "assistant", "content": None, "tool_calls": calls}]}, "m").document

    assert [json.loads(call["function"]["arguments"]) for call in calls] == [
        block["input"] for block in made["messages"][0]["content"]
    ]


@given(st.dictionaries(st.sampled_from(["seed", "logit_bias", "store", "top_logprobs", "service_tier"]), st.just("x")))
def test_every_parameter_is_sent_or_named(extra: dict[str, str]) -> None:
    """Nothing is dropped in silence."""
    made = to_messages({"messages": [], **extra}, "m")

    assert sorted(extra) == list(made.dropped)
    assert set(extra).isdisjoint(made.document)


@pytest.mark.parametrize(
    "chat",
    [
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        {"messages": [{"role": "function", "content": "x"}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
        {"messages": [], "n": 2},
        {"messages": [], "tools": [{"type": "web_search"}]},
        {"messages": [], "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": {"type": "x"}},
        {"messages": "hi"},
    ],
)
def test_what_cannot_be_said_is_refused_without_its_value(chat: dict[str, Any]) -> None:
    """The message of the refusal names the field."""
    with pytest.raises(Untranslatable) as refusal:
        to_messages(chat, "m")

    assert "[" in str(refusal.value) or str(refusal.value) in {*chat, "tool_choice"}


BLOCK = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, TEXT),
    st.builds(lambda text: {"type": "thinking", "thinking": text, "signature": "s"}, TEXT),
    st.builds(lambda given_: {"type": "tool_use", "id": "t", "name": "f", "input": given_}, ARGUMENTS),
)


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def _streamed(blocks: list[dict[str, Any]], stop: str, pieces: int) -> bytes:
    """The same message as a stream, each block cut into pieces."""
    events = [
        _event("message_start", message={"id": "i", "model": "m", "usage": {"input_tokens": 3, "output_tokens": 1}})
    ]
    for index, block in enumerate(blocks):
        key = {"text": "text", "thinking": "thinking", "tool_use": "partial_json"}[block["type"]]
        whole = json.dumps(block["input"]) if key == "partial_json" else block[key]
        kind = {"text": "text_delta", "thinking": "thinking_delta", "partial_json": "input_json_delta"}[key]
        empty = {**block, **({"input": {}} if key == "partial_json" else {key: ""})}
        events.append(_event("content_block_start", index=index, content_block=empty))
        size = max(1, -(-len(whole) // pieces))
        cut = [whole[at : at + size] for at in range(0, len(whole), size)]
        events += [_event("content_block_delta", index=index, delta={"type": kind, key: piece}) for piece in cut]
        events += [_event("ping"), _event("content_block_stop", index=index)]
    events.append(_event("message_delta", delta={"stop_reason": stop}, usage={"output_tokens": 7}))
    events.append(_event("message_stop"))
    return b"".join(events)


@given(
    st.lists(BLOCK, max_size=4),
    st.sampled_from(["end_turn", "max_tokens", "tool_use", "refusal", "new_reason"]),
    st.integers(1, 4),
    st.lists(st.integers(0, 4000), max_size=5),
)
def test_stream_says_what_the_whole_answer_says(
    blocks: list[dict[str, Any]], stop: str, pieces: int, cuts: list[int]
) -> None:
    """However it is cut, on the wire and into deltas."""
    usage = {"input_tokens": 3, "output_tokens": 7}
    whole = chat_of(
        {"type": "message", "id": "i", "model": "m", "content": blocks, "stop_reason": stop, "usage": usage}, 1
    )
    data, codec = _streamed(blocks, stop, pieces), ChatEvents(1, reports_usage=True)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    out = b"".join([codec.feed(data[a:b]) for a, b in pairwise(edges)]) + codec.flush()

    events = [event.data for event in EventDecoder().feed(out) if event.data is not None]
    documents = [json.loads(data) for data in events[:-1]]
    deltas = [choice["delta"] for document in documents for choice in document["choices"]]
    message, choice = whole["choices"][0]["message"], whole["choices"][0]
    calls: dict[int, str] = {}
    for delta in deltas:
        for call in delta.get("tool_calls", ()):
            calls[call["index"]] = calls.get(call["index"], "") + call["function"]["arguments"]
    assert b"[DONE]" == events[-1]
    assert (message["content"] or "") == "".join(delta.get("content") or "" for delta in deltas)
    assert message.get("reasoning_content", "") == "".join(delta.get("reasoning_content", "") for delta in deltas)
    assert [json.loads(call["function"]["arguments"]) for call in message.get("tool_calls", ())] == [
        json.loads(calls[index]) for index in sorted(calls)
    ]
    finishes = [c["finish_reason"] for d in documents for c in d["choices"] if c["finish_reason"]]
    assert [choice["finish_reason"]] == finishes
    assert whole["usage"] == documents[-1]["usage"] == usage_of(usage)


def test_cached_input_is_part_of_the_prompt() -> None:
    """Anthropic counts it apart, OpenAI within."""
    counts = {"input_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20, "output_tokens": 2}

    assert {
        "prompt_tokens": 125, "completion_tokens": 2, "total_tokens": 127, "prompt_tokens_details": {"cached_tokens": 100},
    } == usage_of(counts)  # fmt: skip


def test_errors_are_told_apart_from_answers() -> None:
    """Neither is ever taken for the other."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}

    assert {"message": "busy", "type": "server_error", "param": None, "code": "overloaded_error"} == (
        error_of(error) or {}
    )["error"]
    assert error_of({"type": "message"}) is None
    for document in (error, [], None, {"type": "completion"}):
        with pytest.raises(NotAMessage):
            chat_of(document, 1)
