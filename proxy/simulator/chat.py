"""Chat and text completions in the OpenAI shape, plain and streamed.

Owns the JSON of ``/chat/completions`` and ``/completions``. Pure: a question in, an answer out.
"""

from __future__ import annotations

from typing import Any

import orjson

from proxy.simulator.answers import (
    CREATED,
    DONE,
    Answer,
    Asked,
    Event,
    Kind,
    as_object,
    error_answer,
    json_answer,
    json_string,
)
from proxy.simulator.text import ToolCall, answer_text, calls_of, count_tokens, cut_pieces, default_text, sample_of

_PLACE = "\x00here\x00"
_PLACE_JSON = orjson.dumps(_PLACE)


def answer_chat(asked: Asked) -> Answer:
    """Answer ``POST /chat/completions``."""
    messages = asked.data.get("messages")
    if not isinstance(messages, list) or not messages:
        return error_answer(400, "Missing required parameter: 'messages'.", code="missing_required_parameter",
                            param="messages")  # fmt: skip
    calls = wanted_calls(asked)
    text = "" if calls else spoken_text(asked)
    if asked.wants_stream:
        return Answer(events=_chat_events(asked, text, calls), content_type="text/event-stream; charset=utf-8")
    return json_answer(_chatas_object(asked, text, calls))


def answer_completion(asked: Asked) -> Answer:
    """Answer ``POST /completions``."""
    text = spoken_text(asked)
    base: dict[str, Any] = {"id": asked.new_id("cmpl-"), "object": "text_completion", "created": CREATED,
                            "model": asked.model}  # fmt: skip
    finish = asked.speech.finish or "stop"
    if not asked.wants_stream:
        base["choices"] = [{"text": text, "index": 0, "logprobs": None, "finish_reason": finish}]
        if asked.speech.usage:
            base["usage"] = usage_of(asked, text)
        return json_answer(base)

    def chunk(piece: str, reason: str | None, kind: Kind) -> Event:
        choice = {"text": piece, "index": 0, "logprobs": None, "finish_reason": reason}
        return Event(orjson.dumps({**base, "choices": [choice]}), kind)

    pieces = cut_pieces(text, asked.speech.chars, utf16=False)
    events = [chunk(piece, None, Kind.CONTENT) for piece in pieces] + [chunk("", finish, Kind.FINISH)]
    if wants_usage(asked):
        events.append(Event(orjson.dumps({**base, "choices": [], "usage": usage_of(asked, text)}), Kind.USAGE))
    return Answer(events=[*events, DONE], content_type="text/event-stream; charset=utf-8")


def spoken_text(asked: Asked) -> str:
    """Return the text of the answer: scripted, echoed, made from a JSON schema, or the default."""
    schema = _schema_of(asked.data)
    if schema is not None and asked.scripted is None and not asked.prompt.last_user.startswith("echo:"):
        return orjson.dumps(sample_of(schema)).decode()
    speech = asked.speech
    return answer_text(asked.prompt, speech.text or default_text(speech.tokens, speech.voice), asked.scripted)


def _schema_of(data: dict[str, Any]) -> Any:
    wanted = data.get("response_format")
    if not isinstance(wanted, dict):
        text = data.get("text")
        wanted = text.get("format") if isinstance(text, dict) else None
    if not isinstance(wanted, dict):
        return None
    if wanted.get("type") == "json_object":
        return {"type": "object"}
    inner = wanted.get("json_schema", wanted)
    return inner.get("schema") if isinstance(inner, dict) else None


def wanted_calls(asked: Asked) -> tuple[ToolCall, ...]:
    """Return the tool calls to make: those the prompt spells out, or one when the choice demands it."""
    tools = asked.data.get("tools")
    if not isinstance(tools, list) or not tools or asked.prompt.after_tool or asked.scripted is not None:
        return ()
    calls = calls_of(asked.prompt.last_user)
    if calls:
        return calls
    choice = asked.data.get("tool_choice")
    if choice == "required" or isinstance(choice, dict):
        name, schema = _chosen_tool(tools, choice)
        return (ToolCall(name, orjson.dumps(sample_of(schema)).decode()),)
    return ()


def _chosen_tool(tools: list[Any], choice: Any) -> tuple[str, Any]:
    described = [as_object(tool.get("function"), tool) for tool in tools if isinstance(tool, dict)] or [{}]
    wanted = ""
    if isinstance(choice, dict):
        wanted = str(choice.get("name") or as_object(choice.get("function")).get("name") or "")
    tool = next((t for t in described if t.get("name") == wanted), described[0])
    schema = tool.get("parameters", tool.get("input_schema"))
    return str(tool.get("name", "tool")), schema if isinstance(schema, dict) else {"type": "object"}


def wants_usage(asked: Asked) -> bool:
    """Return whether a stream is to end with a usage chunk."""
    options = asked.data.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True and asked.speech.usage


def token_counts(asked: Asked, said: str) -> tuple[int, int]:
    """Return tokens in and out, as set or as counted, and write them down as what was billed."""
    speech = asked.speech
    tokens_in = asked.prompt.tokens if speech.prompt_tokens < 0 else speech.prompt_tokens
    tokens_out = count_tokens(said) if speech.completion_tokens < 0 else speech.completion_tokens
    asked.billed = (tokens_in, tokens_out)
    return tokens_in, tokens_out


def usage_of(asked: Asked, said: str) -> dict[str, Any]:
    """Return the usage object of the chat and completions endpoints."""
    tokens_in, tokens_out = token_counts(asked, said)
    return {
        "prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out,
        "prompt_tokens_details": {"cached_tokens": asked.speech.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": asked.speech.reasoning_tokens, "audio_tokens": 0,
                                      "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
    }  # fmt: skip


def _choice_count(asked: Asked) -> int:
    n = asked.data.get("n")
    return n if isinstance(n, int) and 1 <= n <= 128 else 1


def _call_objects(asked: Asked, calls: tuple[ToolCall, ...]) -> list[dict[str, Any]]:
    return [
        {"id": f"call_sim{asked.number:06d}{index}", "type": "function",
         "function": {"name": call.name, "arguments": call.arguments}}
        for index, call in enumerate(calls)
    ]  # fmt: skip


def _said(text: str, calls: tuple[ToolCall, ...]) -> str:
    return text or "".join(call.arguments for call in calls)


def _chatas_object(asked: Asked, text: str, calls: tuple[ToolCall, ...]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text or None, "refusal": None, "annotations": []}
    if calls:
        message["tool_calls"] = _call_objects(asked, calls)
    elif not text:
        message["content"] = ""
    finish = asked.speech.finish or ("tool_calls" if calls else "stop")
    count = _choice_count(asked)
    answer: dict[str, Any] = {
        "id": asked.new_id("chatcmpl-"), "object": "chat.completion", "created": CREATED, "model": asked.model,
        "choices": [
            {"index": index, "message": message, "logprobs": None, "finish_reason": finish} for index in range(count)
        ],
    }  # fmt: skip
    if asked.speech.usage:
        answer["usage"] = usage_of(asked, _said(text, calls) * count)
    return {**answer, "service_tier": "default", "system_fingerprint": "fp_simulated"}


def _chat_events(asked: Asked, text: str, calls: tuple[ToolCall, ...]) -> list[Event]:
    with_usage = wants_usage(asked)
    base: dict[str, Any] = {
        "id": asked.new_id("chatcmpl-"), "object": "chat.completion.chunk", "created": CREATED, "model": asked.model,
        "service_tier": "default", "system_fingerprint": "fp_simulated",
    }  # fmt: skip
    null_usage: dict[str, Any] = {"usage": None} if with_usage else {}

    def chunk(index: int, delta: dict[str, Any], kind: Kind, finish: str | None = None) -> Event:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return Event(orjson.dumps({**base, "choices": [choice], **null_usage}), kind)

    count = _choice_count(asked)
    opening: dict[str, Any] = {"role": "assistant", "content": None if calls else "", "refusal": None}
    events = [_azure_opening(base)] if asked.is_azure else []
    events += [chunk(index, opening, Kind.PRELUDE) for index in range(count)]
    if calls:
        events += _call_chunks(asked, calls, chunk)
    else:
        halves = [chunk(i, {"content": _PLACE}, Kind.CONTENT).data.split(_PLACE_JSON) for i in range(count)]
        for piece in cut_pieces(text, asked.speech.chars, asked.speech.utf16):
            written = json_string(piece)
            events += [Event(before + written + after) for before, after in halves]
    finish = asked.speech.finish or ("tool_calls" if calls else "stop")
    events += [chunk(index, {}, Kind.FINISH, finish) for index in range(count)]
    if with_usage:
        figures = {"usage": usage_of(asked, _said(text, calls) * count)}
        events.append(Event(orjson.dumps({**base, "choices": [], **figures}), Kind.USAGE))
    return [*events, DONE]


def _azure_opening(base: dict[str, Any]) -> Event:
    filters = [{"prompt_index": 0, "content_filter_results": {}}]
    data = {**base, "id": "", "model": "", "created": 0, "choices": [], "prompt_filter_results": filters}
    return Event(orjson.dumps(data), Kind.PRELUDE)


def _call_chunks(asked: Asked, calls: tuple[ToolCall, ...], chunk: Any) -> list[Event]:
    events: list[Event] = []
    for index, call in enumerate(_call_objects(asked, calls)):
        arguments = call["function"]["arguments"]
        head = {"index": index, **call, "function": {"name": call["function"]["name"], "arguments": ""}}
        events.append(chunk(0, {"tool_calls": [head]}, Kind.CONTENT))
        for piece in cut_pieces(arguments, asked.speech.chars or 5, utf16=False):
            delta = {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
            events.append(chunk(0, delta, Kind.CONTENT))
    return events
