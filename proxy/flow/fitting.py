"""What budgets and caps change in a request: its longest answer, and the report of usage at a stream's end.

Owns the changes of a body's top level. Knows no exchange; large bodies are fitted in the process that reads them.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from proxy.core.dialect import CHAT, Dialect
from proxy.core.dialect.seam import dumps_any
from proxy.flow.intake import Request

ASKS_USAGE: Final = frozenset({CHAT, Dialect.COMPLETIONS})
"""Dialects whose streams report usage only when asked; the others always do."""
_LENGTH_KEYS: Final = {
    CHAT: ("max_completion_tokens", "max_tokens"),
    Dialect.COMPLETIONS: ("max_tokens",),
    Dialect.RESPONSES: ("max_output_tokens",),
    Dialect.MESSAGES: ("max_tokens",),
}
"""Names of the longest answer; the first is written where the caller wrote none."""


def ask_usage(request: Request) -> bool:
    """Have the provider report usage at the end of the stream; True when the caller did not ask for it itself."""
    document = request.document
    options = document.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage") is True:
        return False
    wanted = {**options, "include_usage": True} if isinstance(options, dict) else {"include_usage": True}
    _put(request, "stream_options", wanted)
    return True


def cap_output(dialect: Dialect, request: Request, cap: int) -> None:
    """Bound the answer: with the caller's own word for it where there is one, never upwards."""
    keys = _LENGTH_KEYS.get(dialect)
    if keys is None or (request.max_tokens is not None and request.max_tokens <= cap):
        return
    written = [key for key in keys if request.document.get(key) is not None]
    for key in written or keys[:1]:
        _put(request, key, cap)
    request.max_tokens = cap


def _put(request: Request, key: str, value: Any) -> None:
    """Set one key at the top of the body; every other byte stays where the key is new."""
    document, body = request.document, request.body.rstrip()
    request.document = {**document, key: value}
    if key in document or not document or body[-1:] != b"}":
        request.body = dumps_any(request.document)
    else:
        request.body = b"%b,%b:%b}" % (body[:-1], orjson.dumps(key), orjson.dumps(value))
