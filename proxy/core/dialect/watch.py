"""Watches a streamed answer go by: has it begun, has it ended, did it fail, what did it cost.

Owns the reading of terminal events; changes nothing and keeps at most one incomplete event. Does not know why anyone
asks, and parses only the few events that can carry an answer to these questions.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from proxy.core.dialect.names import CHAT, Dialect
from proxy.core.dialect.usage import error_in_body, read_usage
from proxy.core.sse import MAX_EVENT_BYTES, EventDecoder, EventTooLarge, ServerEvent
from proxy.terms.exchange import Usage

_DONE = b"[DONE]"
_ENDING_TYPES = frozenset({
    "response.completed", "response.incomplete", "response.failed", "response.cancelled",
    "message_stop",
    "transcript.text.done", "speech.audio.done", "image_generation.completed", "image_edit.completed",
})  # fmt: skip
_FAILED_TYPES = frozenset({"error", "response.failed"})
_ENDING_MARKS = (b'"response.', b'"message_', b'.done"', b'.completed"')
_CHOICE_TEXTS = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call", "audio")

_TEXT_KEY = b'"content":"'
_MAX_FUTILE = 8
"""Events learnt from in a row without one that is alike: some providers put something new into each."""
_NOT_PLAIN = bytes(range(0x20)) + b'"\\'
"""Bytes that a JSON text does not hold as they are."""


class StreamWatch:
    """Facts of one event stream, gathered from its raw bytes.

    Attributes:
        usage: The last usage reported, or None.
        saw_content: A token (text, reasoning, refusal, tool call) has come; the first-token moment.
        is_finished: The dialect's end was seen for every expected choice, or ``[DONE]``. A stream that closes before
            is cut short, however politely.
        saw_done: ``[DONE]`` was seen.
        error: An in-band error event was seen.
        error_data: The data of the first of them.
        is_malformed: An event is not the JSON object it has to be; nothing after it can be trusted.
        events: Events with data so far, ``[DONE]`` included.
        text_bytes_estimate: About how many bytes of text have come: what exceeds the envelope of the first token's
            event. Meant for estimating tokens when a provider reports none.
    """

    __slots__ = (
        "_before", "_begun", "_behind", "_data_bytes", "_decoder", "_dialect", "_ended", "_envelope", "_envelopes",
        "_expected", "_futile", "_held", "_max_event_bytes", "error", "error_data", "events", "is_finished",
        "is_malformed", "saw_content", "saw_done", "usage",
    )  # fmt: skip

    def __init__(self, dialect: Dialect, *, expected_choices: int = 1, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.usage: Usage | None = None
        self.saw_content = False
        self.is_finished = False
        self.saw_done = False
        self.error = False
        self.error_data = b""
        self.is_malformed = False
        self.events = 0
        self._dialect = dialect
        self._expected = expected_choices
        self._before = self._behind = b""
        self._futile = 0
        self._ended: set[int] = set()
        self._begun: set[int] = set()
        self._max_event_bytes = max_event_bytes
        self._held = bytearray()
        self._decoder: EventDecoder | None = None
        self._data_bytes = 0
        self._envelope = 0
        self._envelopes = 0

    @property
    def text_bytes_estimate(self) -> int:
        return max(0, self._data_bytes - self._envelope * self._envelopes)

    def is_cut_at_done(self, *, is_strict: bool) -> bool:
        """Tell whether ``[DONE]`` ends a chat whose choices have not all ended: somebody before us was cut off politely.

        Some providers never give a finish reason; without ``is_strict`` they are believed, when they said something.
        """
        if self._dialect is not CHAT:
            return False
        if self._ended:
            return bool(self._begun - self._ended)
        return is_strict or not self.saw_content

    @property
    def is_error_plain(self) -> bool:
        """The error is one that official clients raise on: where they look for a filled ``error`` member, it has one."""
        if self._dialect is not CHAT and self._dialect is not Dialect.COMPLETIONS:
            return True
        try:
            document = orjson.loads(self.error_data)
        except orjson.JSONDecodeError:
            return False
        return isinstance(document, dict) and bool(document.get("error"))

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream, cut anywhere.

        Raises:
            EventTooLarge: More than ``max_event_bytes`` belong to one event.
        """
        if self._decoder is not None:
            for event in self._decoder.feed(data):
                self._one(event)
        elif data.find(b"\r") >= 0 or data.startswith(b"\xef\xbb\xbf"):
            self._decoder = EventDecoder(self._max_event_bytes)
            for event in self._decoder.feed(bytes(self._held) + data):
                self._one(event)
            self._held.clear()
        elif not self._held and data.endswith(b"\n\n"):
            self._several(data)
        else:
            self._feed_cut(data)

    def finish(self) -> None:
        """Read an event at the very end that lacks its blank line; call it when the stream closed."""
        if self._decoder is not None:
            left = self._decoder.flush()
        elif self._held:
            left = EventDecoder(self._max_event_bytes).feed(bytes(self._held) + b"\n\n")
            self._held.clear()
        else:
            left = []
        for event in left:
            self._one(event)

    def _feed_cut(self, data: bytes) -> None:
        held = self._held
        begin = max(0, len(held) - 1)
        held += data
        end = held.rfind(b"\n\n", begin) + 2
        if end > 1:
            whole = bytes(held[:end])
            del held[:end]
            self._several(whole)
        if len(held) > self._max_event_bytes:
            raise EventTooLarge(f"more than {self._max_event_bytes} bytes without a blank line")

    def _several(self, data: bytes) -> None:
        """Take whole events with line feeds."""
        if len(data) > self._max_event_bytes or not self.saw_content or self._expected > 1:
            self._by_the_book(data)
        elif self._before and self._is_alike(data):
            self._count_alike(data)
        else:
            for piece in data[:-2].split(b"\n\n"):
                event = piece + b"\n\n"
                if self._before and self._is_alike(event):
                    self._count_alike(event)
                elif piece:
                    self._single(event)

    def _is_alike(self, data: bytes) -> bool:
        """True for one event that differs from one seen before in nothing but the plain text it carries.

        Then it is as well-formed as that one, and ends as little.
        """
        before, behind = self._before, self._behind
        if not data.startswith(before) or not data.endswith(behind):
            return False
        text = data[len(before) : -len(behind)]
        if not text:
            return len(data) >= len(before) + len(behind)
        return text.isascii() and len(text.translate(None, _NOT_PLAIN)) == len(text)

    def _count_alike(self, data: bytes) -> None:
        self._futile = 0
        self.events += 1
        self._envelopes += 1
        self._data_bytes += len(data)

    def _single(self, data: bytes) -> None:
        """Take one event; look inside only when it could matter."""
        if self._may_matter(data):
            self._by_the_book(data)
            return
        piece = data[:-2]
        at = 5 if piece.startswith(b"data:") else piece.find(b"\ndata:") + 6
        has_data = at > 5 - piece.startswith(b"data:")
        if has_data and not _is_object(piece[at:]):
            self._judge_slowly(piece)
        elif has_data and self._futile < _MAX_FUTILE:
            self._learn(piece)
        count = data.count(b"\ndata:") + data.startswith(b"data:")
        self.events += count
        self._data_bytes += len(data)
        self._envelopes += count

    def _learn(self, piece: bytes) -> None:
        """Remember what stands around the text of a well-formed event on a line of its own."""
        self._futile += 1
        at = piece.find(_TEXT_KEY) + len(_TEXT_KEY)
        end = piece.find(b'"', at)
        if at >= len(_TEXT_KEY) and end > 0 and piece.find(b"\\", at, end) < 0 and piece.find(b"\n") < 0:
            self._before, self._behind = piece[:at], piece[end:] + b"\n\n"

    def _by_the_book(self, data: bytes) -> None:
        for event in EventDecoder(self._max_event_bytes).feed(data):
            self._one(event)

    def _judge_slowly(self, piece: bytes) -> None:
        """Look again, by the book, at an event that did not read as one JSON object at first sight."""
        for event in EventDecoder(self._max_event_bytes).feed(piece + b"\n\n"):
            if event.data is not None and not _is_object(event.data):
                self.is_malformed = True

    def _may_matter(self, data: bytes) -> bool:
        """Tell whether some event here could carry an end, a usage or an error; false alarms only cost time.

        A key inside text is always written with escaped quotes, so counting the key against its ``null`` form is
        exact for compact and for spaced JSON.
        """
        if self._dialect is CHAT or self._dialect is Dialect.COMPLETIONS:
            if _filled(data, b'"finish_reason"') or data.find(b"[DONE]") >= 0:
                return True
        elif data.find(b"[DONE]") >= 0 or self._is_ending(data):
            return True
        if data.find(b"error") >= 0 and (
            _filled(data, b'"error"') or b"event: error" in data or b"event:error" in data
        ):
            return True
        return _filled(data, b'"usage"')

    def _is_ending(self, data: bytes) -> bool:
        if self._dialect is Dialect.RESPONSES:
            return b'"response.c' in data or b'"response.failed' in data or b'"response.in' in data
        return any(mark in data for mark in _ENDING_MARKS) or b'"finish_reason"' in data

    def _one(self, event: ServerEvent) -> None:
        if event.data is None:
            return
        self.events += 1
        data = event.data
        if data.strip() == _DONE:
            self.saw_done = True
            self.is_finished = True
            return
        if event.name == b"error":
            self._fail(data)
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError:
            # JSON with half a surrogate pair is content and ends nothing; anything else is no event at all.
            self.is_malformed = self.is_malformed or not _is_object(data)
            self._count_text(event, self._envelope)
            self.saw_content = self.saw_content or len(data) > 0
            return
        if isinstance(document, dict):
            self._read(document, event)
        else:
            self.is_malformed = True

    def _read(self, document: dict[str, Any], event: ServerEvent) -> None:
        text_bytes = _text_bytes(document)
        if text_bytes and not self.saw_content:
            self.saw_content = True
            self._envelope = len(event.raw) - text_bytes
        if text_bytes:
            self._count_text(event, len(event.raw) - text_bytes)
        usage = read_usage(document)
        if usage is not None:
            self.usage = _later(self.usage, usage)
        said = document.get("type")
        kind = said if type(said) is str else ""
        if error_in_body(document) or kind in _FAILED_TYPES:
            self._fail(event.data or b"")
        if kind in _ENDING_TYPES:
            self.is_finished = True
        choices = document.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, dict):
                    self._read_choice(choice, event)
            if len(self._ended) >= self._expected:
                self.is_finished = True

    def _read_choice(self, choice: dict[str, Any], event: ServerEvent) -> None:
        index = choice.get("index")
        index = index if isinstance(index, int) and 0 <= index < 1024 else 0
        if self._expected > 1:
            self._begun.add(index)
        reason = choice.get("finish_reason")
        if reason == "error":
            self._fail(event.data or b"")
        elif reason:
            self._ended.add(index)

    def _fail(self, data: bytes) -> None:
        if not self.error:
            self.error = True
            self.error_data = data

    def _count_text(self, event: ServerEvent, envelope_bytes: int) -> None:
        self._data_bytes += len(event.raw) - envelope_bytes


def _later(before: Usage | None, now: Usage) -> Usage:
    """Return the newer counts; what they leave out (Anthropic reports in two parts) stays from before."""
    if before is None:
        return now
    return Usage(
        now.input_tokens or before.input_tokens,
        now.output_tokens or before.output_tokens,
        now.cached_tokens or before.cached_tokens,
        now.reasoning_tokens or before.reasoning_tokens,
    )


def _is_object(data: bytes) -> bool:
    """True for the text of a JSON object, or for none; half a surrogate pair in an escape is allowed, providers send it."""
    if not data.strip():
        return True
    try:
        return type(orjson.loads(data)) is dict
    except orjson.JSONDecodeError:
        pass
    try:
        return type(json.loads(data)) is dict
    except (ValueError, RecursionError):
        return False


def _filled(data: bytes, key: bytes) -> bool:
    """Tell whether ``key`` occurs with anything but ``null`` right behind it."""
    found = data.count(key)
    if not found:
        return False
    nothing = data.count(key + b":null")
    return found != nothing and found != nothing + data.count(key + b": null")


def _text_bytes(document: dict[str, Any]) -> int:
    """Return how many characters of model output one event carries; 0 when it carries none."""
    choices = document.get("choices")
    if isinstance(choices, list):
        return sum(_choice_text(choice) for choice in choices if isinstance(choice, dict))
    delta = document.get("delta")
    if isinstance(delta, str):
        return len(delta)
    if isinstance(delta, dict):  # Anthropic: text, partial_json or thinking
        return sum(len(value) for key, value in delta.items() if isinstance(value, str) and key in _ANTHROPIC_TEXTS)
    return 0


_ANTHROPIC_TEXTS = frozenset({"text", "partial_json", "thinking"})


def _choice_text(choice: dict[str, Any]) -> int:
    text = choice.get("text")
    total = len(text) if isinstance(text, str) else 0
    delta = choice.get("delta")
    if isinstance(delta, dict):
        for key in _CHOICE_TEXTS:
            value = delta.get(key)
            if isinstance(value, str):
                total += len(value)
            elif value:
                total += len(orjson.dumps(value))
    return total
