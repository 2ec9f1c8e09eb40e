"""What was asked and answered, when policy has it kept: bounded pieces of text, and their bytes before sealing.

Owns the bounds, the layout and the gathering of a stream's words. Knows no key and no disk: nothing here may be written
anywhere before it is sealed.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

import orjson

from proxy.core.sse import EventDecoder
from proxy.terms.errors import ProxyError

MAX_PART_BYTES: Final = 64 * 1024
"""Text kept of a request, and of an answer; what is longer is cut and says so."""
REQUEST: Final = "request"
ANSWER: Final = "answer"
_VERSION: Final = 1


class Part(NamedTuple):
    """One piece of an exchange's words; ``mode`` is ``redacted`` or ``full``."""

    name: str
    mode: str
    is_cut: bool
    text: str

    def encode(self) -> bytes:
        """Return the bytes that are sealed in the store."""
        return orjson.dumps((self.mode, self.is_cut, self.text))


class Content(NamedTuple):
    """What is kept of one exchange; times in Unix milliseconds."""

    id: str
    ts: int
    user: str
    expires: int
    parts: tuple[Part, ...]

    def encode(self) -> bytes:
        """Return the bytes that are sealed while they wait on disk."""
        return orjson.dumps((_VERSION, *self[:4], [tuple(part) for part in self.parts]))


def decode(data: bytes) -> Content:
    """Return what ``Content.encode`` wrote. Raises ValueError: another layout."""
    values = orjson.loads(data)
    if not isinstance(values, list) or len(values) != 6 or values[0] != _VERSION:
        raise ValueError("content of an unknown layout")
    exchange_id, ts, user, expires = values[1:5]
    return Content(exchange_id, ts, user, expires, tuple(Part(*part) for part in values[5]))


def decode_part(name: str, data: bytes) -> Part:
    """Return what ``Part.encode`` wrote. Raises ValueError: another layout."""
    mode, is_cut, text = orjson.loads(data)
    return Part(name, mode, is_cut, text)


def part_of(name: str, mode: str, body: bytes) -> Part:
    """Return a piece of at most ``MAX_PART_BYTES``; a character cut in two at the end goes."""
    is_cut = len(body) > MAX_PART_BYTES
    if not is_cut:
        return Part(name, mode, False, body.decode("utf-8", "replace"))
    kept = body[:MAX_PART_BYTES]
    return Part(name, mode, True, kept.decode("utf-8", "ignore"))


class StreamText:
    """Gathers the words of an event stream, lane by lane: each choice, tool call or output item has its own."""

    __slots__ = ("_bytes", "_decoder", "_lanes", "is_cut")

    def __init__(self) -> None:
        self._decoder = EventDecoder()
        self._lanes: dict[str, list[str]] = {}
        self._bytes = 0
        self.is_cut = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream; nothing is looked at any more once the bound is reached."""
        if self.is_cut:
            return
        try:
            for event in self._decoder.feed(data):
                if event.data is not None and event.data[:1] == b"{":
                    self._take(event.data)
        except ProxyError:
            self.is_cut = True

    @property
    def text(self) -> str:
        """Everything said so far; lanes are parted by a blank line."""
        text = "\n\n".join("".join(pieces) for pieces in self._lanes.values())
        # Providers cut characters between events: halves that meet again are one, those that do not are no text.
        return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _take(self, data: bytes) -> None:
        try:
            document = orjson.loads(data)
        except ValueError:
            try:
                document = json.loads(data)  # takes half a character
            except (ValueError, RecursionError):
                return
        if isinstance(document, dict):
            for lane, text in _said(document):
                self._add(lane, text)

    def _add(self, lane: str, text: str) -> None:
        room = MAX_PART_BYTES - self._bytes
        raw = text.encode("utf-8", "surrogatepass")
        if len(raw) > room:
            self.is_cut = True
            text = raw[:room].decode("utf-8", "ignore") if room > 0 else ""
        self._bytes += len(raw)
        self._lanes.setdefault(lane, []).append(text)


def _said(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Return lane and text of what one event adds, in any of the dialects."""
    found: list[tuple[str, str]] = []
    choices = document.get("choices")
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict):
                found += _of_choice(choice)
        return found
    delta, kind = document.get("delta"), str(document.get("type"))
    if isinstance(delta, str):
        found.append((f"{kind}/{document.get('item_id')}/{document.get('content_index')}", delta))
    elif isinstance(delta, dict):
        lane = f"{kind}/{document.get('index')}"
        found += [(f"{lane}/{key}", text) for key, text in delta.items() if key in _WORDS and isinstance(text, str)]
    return found


_WORDS: Final = frozenset({"text", "thinking", "partial_json", "content", "refusal", "reasoning_content", "reasoning"})


def _of_choice(choice: dict[str, Any]) -> list[tuple[str, str]]:
    index = choice.get("index", 0)
    found = [(f"{index}/text", text)] if isinstance(text := choice.get("text"), str) else []
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return found
    found += [(f"{index}/{key}", text) for key, text in delta.items() if key in _WORDS and isinstance(text, str)]
    calls = delta.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            lane = f"{index}/call/{call.get('index', 0)}"
            found += [(lane, text) for key in ("name", "arguments") if isinstance(text := function.get(key), str)]
    return found
