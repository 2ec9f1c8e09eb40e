"""The Messages API in the Anthropic shape, plain and streamed.

Owns the JSON of ``/messages``. Pure.
"""

from __future__ import annotations

from typing import Any

import orjson

from proxy.simulator.answers import Answer, Asked, Event, Kind, anthropic_error, json_answer, json_string
from proxy.simulator.chat import spoken_text, token_counts, wanted_calls
from proxy.simulator.text import ToolCall, cut_pieces

_FINISH = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal", "tool_calls": "tool_use"}


def answer_messages(asked: Asked) -> Answer:
    """Answer ``POST /messages``."""
    for needed in ("messages", "max_tokens"):
        if needed not in asked.data:
            return anthropic_error(400, "invalid_request_error", f"{needed}: Field required", asked.new_id("req_"))
    calls = wanted_calls(asked)
    text = "" if calls else spoken_text(asked)
    if asked.wants_stream:
        return Answer(events=_events(asked, text, calls), content_type="text/event-stream; charset=utf-8")
    return json_answer(_message(asked, _blocks(asked, text, calls), text, calls, is_whole=True))


def answer_count_tokens(asked: Asked) -> Answer:
    """Answer ``POST /messages/count_tokens``."""
    return json_answer({"input_tokens": token_counts(asked, "")[0]})


def _blocks(asked: Asked, text: str, calls: tuple[ToolCall, ...]) -> list[dict[str, Any]]:
    if not calls:
        return [{"type": "text", "text": text}]
    return [{**_call_block(asked, i, call), "input": orjson.loads(call.arguments)} for i, call in enumerate(calls)]


def _call_block(asked: Asked, index: int, call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_sim{asked.number:06d}{index}", "name": call.name, "input": {}}


def _stop_reason(asked: Asked, calls: tuple[ToolCall, ...]) -> str:
    finish = asked.speech.finish or ("tool_calls" if calls else "stop")
    return _FINISH.get(finish, finish)


def _message(asked: Asked, blocks: list[dict[str, Any]], text: str, calls: tuple[ToolCall, ...],
             is_whole: bool) -> dict[str, Any]:  # fmt: skip
    said = text or "".join(call.arguments for call in calls)
    tokens_in, tokens_out = token_counts(asked, said)
    usage = {"input_tokens": tokens_in, "output_tokens": tokens_out if is_whole else 1,
             "cache_read_input_tokens": asked.speech.cached_tokens, "cache_creation_input_tokens": 0}  # fmt: skip
    return {
        "id": asked.new_id("msg_"), "type": "message", "role": "assistant", "model": asked.model, "content": blocks,
        "stop_reason": _stop_reason(asked, calls) if is_whole else None, "stop_sequence": None, "usage": usage,
    }  # fmt: skip


def _event(name: str, kind: Kind, **fields: Any) -> Event:
    return Event(orjson.dumps({"type": name, **fields}), kind, name)


def _events(asked: Asked, text: str, calls: tuple[ToolCall, ...]) -> list[Event]:
    events = [_event("message_start", Kind.PRELUDE, message=_message(asked, [], text, calls, is_whole=False))]
    if calls:
        for index, call in enumerate(calls):
            block = _call_block(asked, index, call)
            events += _block_events(index, block, "input_json_delta", "partial_json",
                                    cut_pieces(call.arguments, asked.speech.chars or 5, utf16=False))  # fmt: skip
    else:
        pieces = cut_pieces(text, asked.speech.chars, asked.speech.utf16)
        events += _block_events(0, {"type": "text", "text": ""}, "text_delta", "text", pieces)
    events.insert(2, _event("ping", Kind.PRELUDE))
    said = text or "".join(call.arguments for call in calls)
    delta = {"stop_reason": _stop_reason(asked, calls), "stop_sequence": None}
    figures = {"output_tokens": token_counts(asked, said)[1]}
    events.append(_event("message_delta", Kind.FINISH, delta=delta, usage=figures))
    events.append(_event("message_stop", Kind.DONE))
    return events


def _block_events(index: int, block: dict[str, Any], delta: str, key: str, pieces: list[str]) -> list[Event]:
    events = [_event("content_block_start", Kind.PRELUDE, index=index, content_block=block)]
    before = b'{"type":"content_block_delta","index":%d,"delta":{"type":"%s","%s":' % (
        index, delta.encode(), key.encode(),
    )  # fmt: skip
    events += [Event(before + json_string(p) + b"}}", Kind.CONTENT, "content_block_delta") for p in pieces]
    events.append(_event("content_block_stop", Kind.OTHER, index=index))
    return events
