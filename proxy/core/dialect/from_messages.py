"""Answers of Anthropic's Messages API as chat completions: whole, streamed, and errors.

Owns the mapping of blocks, stop reasons, usage and events. Does not know requests (``to_messages``) nor transport.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from proxy.core.dialect.json_text import dumps
from proxy.core.sse import EventDecoder, ServerEvent, encode

_FINISH: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_ERROR_TYPES: Final = {
    "authentication_error": "invalid_request_error",
    "not_found_error": "invalid_request_error",
    "request_too_large": "invalid_request_error",
    "api_error": "server_error",
    "timeout_error": "server_error",
    "overloaded_error": "server_error",
}
_DONE: Final = b"data: [DONE]\n\n"


class NotAMessage(ValueError):
    """The document is no answer of the Messages API."""


def chat_of(document: Any, created_s: int) -> dict[str, Any]:
    """Return a whole message as a chat completion made at ``created_s`` (Unix).

    Raises:
        NotAMessage: It is something else.
    """
    if not isinstance(document, dict) or document.get("type") != "message":
        raise NotAMessage("no message")
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in document.get("content") or ():
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            texts.append(block.get("text") or "")
        elif kind == "thinking":
            thoughts.append(block.get("thinking") or "")
        elif kind == "tool_use":
            arguments = dumps(block.get("input") or {}).decode()
            function = {"name": block.get("name"), "arguments": arguments}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts or not calls else None}
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    message["refusal"] = None
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_of(document.get("stop_reason"))}
    return {
        "id": document.get("id"),
        "object": "chat.completion",
        "created": created_s,
        "model": document.get("model"),
        "choices": [choice],
        "usage": usage_of(document.get("usage")),
    }


def finish_of(stop_reason: Any) -> str:
    """Return the finish reason of a stop reason; an unknown one is a plain stop."""
    return _FINISH.get(stop_reason, "stop") if isinstance(stop_reason, str) else "stop"


def usage_of(usage: Any) -> dict[str, Any]:
    """Return token counts in the chat spelling: cached input, which is counted apart there, is part of the prompt."""
    counts = usage if isinstance(usage, dict) else {}

    def count(key: str) -> int:
        value = counts.get(key)
        return value if type(value) is int and value > 0 else 0

    cached = count("cache_read_input_tokens")
    prompt = count("input_tokens") + cached + count("cache_creation_input_tokens")
    output = count("output_tokens")
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def error_of(document: Any) -> dict[str, Any] | None:
    """Return an Anthropic error as an OpenAI one; None when the document is none."""
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict):
        return None
    kind = str(error.get("type") or "api_error")
    shown = {"message": error.get("message"), "type": _ERROR_TYPES.get(kind, kind), "param": None, "code": kind}
    return {"error": shown}


class ChatEvents:
    """Turns the events of a streamed message into chat chunks; fed any split of the bytes.

    Raises nothing of its own: an event that is no JSON object goes on as it is, for whoever watches the stream.
    """

    __slots__ = ("_base", "_blocks", "_created_s", "_decoder", "_reports_usage", "_tools", "_usage", "_with_input")

    def __init__(self, created_s: int, *, reports_usage: bool) -> None:
        """``reports_usage``: the caller asked for a usage event; otherwise the last chunk tells it."""
        self._decoder = EventDecoder()
        self._created_s = created_s
        self._reports_usage = reports_usage
        self._base: dict[str, Any] = {"id": "", "object": "chat.completion.chunk", "created": created_s, "model": ""}
        self._usage: dict[str, Any] = {}
        self._blocks: dict[Any, int] = {}
        self._with_input: set[int] = set()
        self._tools = 0

    def feed(self, data: bytes) -> bytes:
        """Return the chunks that these bytes complete."""
        return b"".join([self._one(event) for event in self._decoder.feed(data)])

    def flush(self) -> bytes:
        """Return the chunk of a last event that lacked its blank line."""
        return b"".join([self._one(event) for event in self._decoder.flush()])

    def _one(self, event: ServerEvent) -> bytes:
        if event.data is None:
            return event.raw
        try:
            document = orjson.loads(event.data)
        except orjson.JSONDecodeError:
            return encode(event.data)
        kind = document.get("type") if isinstance(document, dict) else None
        match kind:
            case "message_start":
                return self._start(document.get("message") or {})
            case "content_block_start":
                return self._block_start(document)
            case "content_block_delta":
                return self._delta(document)
            case "content_block_stop":
                return self._block_stop(document)
            case "message_delta":
                return self._finish(document)
            case "message_stop":
                return self._usage_event() + _DONE
            case "error":
                return encode(dumps(error_of(document) or document))
            case "ping":
                return b": ping\n\n"
            case _:
                return encode(event.data) if kind is None else b""

    def _start(self, message: dict[str, Any]) -> bytes:
        self._base["id"], self._base["model"] = message.get("id"), message.get("model")
        self._usage.update(message.get("usage") or {})
        return self._chunk({"role": "assistant", "content": ""})

    def _block_start(self, document: dict[str, Any]) -> bytes:
        block = document.get("content_block") or {}
        if block.get("type") == "text" and block.get("text"):
            return self._chunk({"content": block["text"]})
        if block.get("type") != "tool_use":
            return b""
        place = self._blocks[document.get("index")] = self._tools
        self._tools += 1
        function = {"name": block.get("name"), "arguments": ""}
        call = {"index": place, "id": block.get("id"), "type": "function", "function": function}
        return self._chunk({"tool_calls": [call]})

    def _delta(self, document: dict[str, Any]) -> bytes:
        delta = document.get("delta") or {}
        match delta.get("type"):
            case "text_delta":
                return self._chunk({"content": delta.get("text") or ""})
            case "thinking_delta":
                return self._chunk({"reasoning_content": delta.get("thinking") or ""})
            case "input_json_delta":
                place = self._blocks.get(document.get("index"), 0)
                if delta.get("partial_json"):
                    self._with_input.add(place)
                return self._arguments(place, delta.get("partial_json") or "")
            case _:
                return b""

    def _block_stop(self, document: dict[str, Any]) -> bytes:
        """A tool called without arguments has an empty object in chat."""
        place = self._blocks.get(document.get("index"))
        return b"" if place is None or place in self._with_input else self._arguments(place, "{}")

    def _arguments(self, place: int, text: str) -> bytes:
        return self._chunk({"tool_calls": [{"index": place, "function": {"arguments": text}}]})

    def _finish(self, document: dict[str, Any]) -> bytes:
        self._usage.update(document.get("usage") or {})
        reason = (document.get("delta") or {}).get("stop_reason")
        if reason is None:
            return b""
        return self._chunk({}, finish_of(reason), None if self._reports_usage else usage_of(self._usage))

    def _usage_event(self) -> bytes:
        if not self._reports_usage:
            return b""
        return encode(dumps({**self._base, "choices": [], "usage": usage_of(self._usage)}))

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, usage: dict[str, Any] | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        document = {**self._base, "choices": [choice]}
        if usage is not None:
            document["usage"] = usage
        return encode(dumps(document))
