"""Streams for tests: built from pieces of text, read back as a client would."""

from __future__ import annotations

import json
from typing import Any

from proxy.core.dialect import Dialect
from proxy.core.redaction import StreamRestorer, Vault
from proxy.core.sse import EventDecoder, ServerEvent

DONE = b"data: [DONE]\n\n"


def event(document: Any, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(document, separators=(',', ':'))}\n\n".encode()


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish, **more}
    return event({"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": [choice]})


def arguments(piece: str, call: int = 0, index: int = 0) -> bytes:
    return chunk({"tool_calls": [{"index": call, "function": {"arguments": piece}}]}, index=index)


def restored(vault: Vault, *pieces: bytes, dialect: Dialect = Dialect.CHAT, broken: bool = False) -> bytes:
    restorer = StreamRestorer(vault, dialect)
    return b"".join([restorer.feed(piece) for piece in pieces]) + restorer.finish(broken)


def events(stream: bytes) -> list[ServerEvent]:
    decoder = EventDecoder()
    return [found for found in decoder.feed(stream) + decoder.flush() if found.data is not None]


def documents(stream: bytes) -> list[Any]:
    return [json.loads(found.data or b"") for found in events(stream) if found.data != b"[DONE]"]


def texts(stream: bytes) -> dict[tuple[Any, ...], str]:
    """Put the deltas of a chat stream together as an SDK does: (choice, field[, call]) -> text."""
    together: dict[tuple[Any, ...], str] = {}
    for document in documents(stream):
        for choice in document.get("choices", []):
            index = choice["index"]
            if "text" in choice:
                together[index, "text"] = together.get((index, "text"), "") + choice["text"]
            for field, value in choice.get("delta", {}).items():
                if isinstance(value, str) and field != "role":
                    together[index, field] = together.get((index, field), "") + value
                for call in value if isinstance(value, list) else []:
                    key = (index, field, call["index"])
                    together[key] = together.get(key, "") + call.get("function", {}).get("arguments", "")
    return together
