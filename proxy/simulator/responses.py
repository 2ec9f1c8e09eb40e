"""The Responses API in the OpenAI shape: one object, or its stream of typed events.

Owns the JSON of ``/responses``, over POST and over websockets. Pure.
"""

from __future__ import annotations

from typing import Any

import orjson

from proxy.simulator.answers import CREATED, Answer, Asked, Event, Kind, error_answer, json_answer, json_string
from proxy.simulator.chat import spoken_text, token_counts, wanted_calls
from proxy.simulator.text import ToolCall, cut_pieces


def answer_responses(asked: Asked) -> Answer:
    """Answer ``POST /responses``."""
    if "input" not in asked.data and "prompt" not in asked.data:
        return error_answer(400, "Missing required parameter: 'input'.", code="missing_required_parameter",
                            param="input")  # fmt: skip
    calls = wanted_calls(asked)
    text = "" if calls else spoken_text(asked)
    if asked.wants_stream:
        return Answer(events=response_events(asked, text, calls), content_type="text/event-stream; charset=utf-8")
    return json_answer(_response(asked, "completed", _output(asked, text, calls), text))


def _response(asked: Asked, status: str, output: list[dict[str, Any]], said: str | None) -> dict[str, Any]:
    usage: dict[str, Any] | None = None
    if said is not None and asked.speech.usage:
        tokens_in, tokens_out = token_counts(asked, said or "".join(o.get("arguments", "") for o in output))
        usage = {
            "input_tokens": tokens_in, "input_tokens_details": {"cached_tokens": asked.speech.cached_tokens},
            "output_tokens": tokens_out,
            "output_tokens_details": {"reasoning_tokens": asked.speech.reasoning_tokens},
            "total_tokens": tokens_in + tokens_out,
        }  # fmt: skip
    data = asked.data
    return {
        "id": asked.new_id("resp_"), "object": "response", "created_at": CREATED, "status": status, "error": None,
        "incomplete_details": None, "instructions": data.get("instructions"), "max_output_tokens": None,
        "model": asked.model, "output": output, "parallel_tool_calls": True, "previous_response_id": None,
        "store": True, "temperature": 1.0, "text": {"format": {"type": "text"}},
        "tool_choice": data.get("tool_choice", "auto"), "tools": data.get("tools", []), "top_p": 1.0,
        "truncation": "disabled", "usage": usage, "metadata": data.get("metadata") or {},
    }  # fmt: skip


def _output(asked: Asked, text: str, calls: tuple[ToolCall, ...]) -> list[dict[str, Any]]:
    if calls:
        return [_call_item(asked, index, call, "completed") for index, call in enumerate(calls)]
    return [_message_item(asked, "completed", [_text_part(text)])]


def _message_item(asked: Asked, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": asked.new_id("msg_"), "type": "message", "status": status, "role": "assistant", "content": content}


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call_item(asked: Asked, index: int, call: ToolCall, status: str) -> dict[str, Any]:
    return {
        "id": f"fc_sim{asked.number:06d}{index}", "type": "function_call", "status": status,
        "call_id": f"call_sim{asked.number:06d}{index}", "name": call.name,
        "arguments": call.arguments if status == "completed" else "",
    }  # fmt: skip


class _Stream:
    """Numbers the events of one response."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, event: str, kind: Kind, **fields: Any) -> None:
        data = {"type": event, "sequence_number": len(self.events), **fields}
        self.events.append(Event(orjson.dumps(data), kind, event))

    def add_delta(self, name: str, item_id: str, output_index: int, delta: bytes, tail: bytes) -> None:
        data = b'{"type":"%s","sequence_number":%d,"item_id":"%s","output_index":%d,%s"delta":%s}' % (
            name.encode(), len(self.events), item_id.encode(), output_index, tail, delta,
        )  # fmt: skip
        self.events.append(Event(data, Kind.CONTENT, name))


def response_events(asked: Asked, text: str, calls: tuple[ToolCall, ...]) -> list[Event]:
    """Return the events of one response, from ``response.created`` to ``response.completed``."""
    stream = _Stream()
    begun = _response(asked, "in_progress", [], None)
    stream.add("response.created", Kind.PRELUDE, response=begun)
    stream.add("response.in_progress", Kind.PRELUDE, response=begun)
    if calls:
        for index, call in enumerate(calls):
            _add_call(stream, asked, index, call)
    else:
        _add_message(stream, asked, text)
    whole = _response(asked, "completed", _output(asked, text, calls), text)
    stream.add("response.completed", Kind.FINISH, response=whole)
    return stream.events


def _add_message(stream: _Stream, asked: Asked, text: str) -> None:
    item_id = asked.new_id("msg_")
    place: dict[str, Any] = {"item_id": item_id, "output_index": 0, "content_index": 0}
    stream.add("response.output_item.added", Kind.PRELUDE, output_index=0, item=_message_item(asked, "in_progress", []))
    stream.add("response.content_part.added", Kind.PRELUDE, **place, part=_text_part(""))
    for piece in cut_pieces(text, asked.speech.chars, asked.speech.utf16):
        stream.add_delta("response.output_text.delta", item_id, 0, json_string(piece),
                         b'"content_index":0,"logprobs":[],')  # fmt: skip
    stream.add("response.output_text.done", Kind.OTHER, **place, text=text, logprobs=[])
    stream.add("response.content_part.done", Kind.OTHER, **place, part=_text_part(text))
    whole = _message_item(asked, "completed", [_text_part(text)])
    stream.add("response.output_item.done", Kind.OTHER, output_index=0, item=whole)


def _add_call(stream: _Stream, asked: Asked, index: int, call: ToolCall) -> None:
    item = _call_item(asked, index, call, "in_progress")
    stream.add("response.output_item.added", Kind.PRELUDE, output_index=index, item=item)
    for piece in cut_pieces(call.arguments, asked.speech.chars or 5, utf16=False):
        stream.add_delta("response.function_call_arguments.delta", item["id"], index, json_string(piece), b"")
    stream.add("response.function_call_arguments.done", Kind.OTHER, item_id=item["id"], output_index=index,
               name=call.name, arguments=call.arguments)  # fmt: skip
    whole = _call_item(asked, index, call, "completed")
    stream.add("response.output_item.done", Kind.OTHER, output_index=index, item=whole)
