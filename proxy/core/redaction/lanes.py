"""The lanes of one stream: found by key, remembered with the event they last came in, flushed as events of their own.

Owns the making of extra events. Does not know where in an event a lane's text was found.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from proxy.core.redaction.jsonio import dumps
from proxy.core.redaction.lane import Lane, Treatment
from proxy.core.sse import encode

LaneKey = tuple[Any, ...]
"""What makes a text one lane. For choices and blocks: index, then the way from there to the text."""

_NOT_REPEATED = frozenset({"choices", "usage", "error", "obfuscation", "delta"})


class Frame(NamedTuple):
    """The event a lane's text came in; the model for the event that will carry what is held."""

    name: bytes
    document: dict[str, Any]
    shape: str
    """``choice`` (chat, completions), ``block`` (Anthropic) or ``item`` (Responses)."""


class Held(NamedTuple):
    """A lane that holds something, and where its text belongs."""

    lane: Lane
    frame: Frame

    @staticmethod
    def is_blank(delta: Any) -> bool:
        """Tell whether a delta carries nothing: no text, no role, no tool call's id or name."""
        if isinstance(delta, dict):
            return all(name == "index" or Held.is_blank(value) for name, value in delta.items())
        if isinstance(delta, list):
            return all(Held.is_blank(item) for item in delta)
        return delta is None or delta == ""


class LaneBook:
    """Every lane of one stream."""

    __slots__ = ("_lanes", "_treatment", "held")

    def __init__(self, treatment: Treatment) -> None:
        self._treatment = treatment
        self._lanes: dict[LaneKey, Lane] = {}
        self.held: dict[LaneKey, Held] = {}
        """The lanes that hold something, in the order in which they began to."""

    def feed(self, key: LaneKey, text: str, frame: Frame, *, is_json: bool) -> str:
        """Give a lane its next piece and return what may go out."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = self._treatment.lane(is_json=is_json)
        released = lane.feed(text)
        if lane.is_holding:
            self.held[key] = Held(lane, frame)
        else:
            self.held.pop(key, None)
        return released

    def finish(self, key: LaneKey) -> str:
        """End one lane and return what it held."""
        held = self.held.pop(key, None)
        return held.lane.finish() if held is not None else ""

    def place(self, key: LaneKey, at: int) -> int:
        """Return where an offset into a lane's text as it came is in the text as it goes out."""
        lane = self._lanes.get(key)
        return at if lane is None else lane.place(at)

    def flush(self, start: LaneKey) -> list[bytes]:
        """End every lane whose key begins with ``start``; each that held something gives one event."""
        size = len(start)
        return self._flushed([key for key in self.held if key[:size] == start])

    def flush_texts(self, start: LaneKey) -> list[bytes]:
        """End the lanes below ``start`` that are words, not arguments of a tool call."""
        size = len(start)
        return self._flushed([key for key in self.held if key[:size] == start and len(key) == size + 1])

    def _flushed(self, keys: list[LaneKey]) -> list[bytes]:
        events = [self._event(key, self.held.pop(key)) for key in keys]
        return [event for event in events if event]

    def flush_all(self) -> list[bytes]:
        """End every lane."""
        return self.flush(()) if self.held else []

    def _event(self, key: LaneKey, held: Held) -> bytes:
        frame = held.frame
        text = held.lane.finish()
        if not text:
            return b""
        document = {name: value for name, value in frame.document.items() if name not in _NOT_REPEATED}
        if frame.shape == "item":
            document["delta"] = text
        elif frame.shape == "block":
            document["delta"] = {"type": frame.document["delta"].get("type"), key[-1]: text}
        else:
            choice = {"index": key[0], **_branch(key[1:], text), "logprobs": None, "finish_reason": None}
            document["choices"] = [choice]
        return encode(dumps(document), name=frame.name)


def _branch(way: LaneKey, text: str) -> dict[str, Any]:
    """Return the members that lead to ``text``: ``("delta", "tool_calls", 0, "function", "arguments")``."""
    name, rest = way[0], way[1:]
    if not rest:
        return {name: text}
    if isinstance(rest[0], str):
        return {name: _branch(rest, text)}
    return {name: [{"index": rest[0], **_branch(rest[1:], text)}]}
