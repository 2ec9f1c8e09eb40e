"""Joins a second chat stream to a first that broke, so that the two read as one answer.

Owns what a stream has said so far, whether it can be continued at all, the request that asks for the rest, and the
alignment of what comes then. Works on the provider's own text (placeholders, not values) and on whole events. Does not
know targets, deadlines or who is asked.
"""

from __future__ import annotations

import json
from typing import Any, Final

import orjson

from proxy.core.sse import EventDecoder, ServerEvent, encode
from proxy.terms.exchange import Usage

RECORD_MAX_CHARS: Final = 512 * 1024
"""A stream that has said more is not continued: what is kept for it is bounded."""
ECHO_MIN_UNITS: Final = 32
"""A prefilled answer that repeats at least so much of what was said began anew in spite of the prefill."""

_ENVELOPE: Final = ("id", "created", "model", "system_fingerprint")
_NOT_PLAIN: Final = ("tool_calls", "function_call", "refusal", "audio", "images")
_THOUGHTS: Final = ("reasoning_content", "reasoning", "reasoning_details")


class Unaligned(Exception):
    """The second stream does not say what the first said, or cannot be joined to it."""


def may_resume(document: Any) -> bool:
    """Tell whether the answer to a chat request is plain text of one choice, the only kind that can be continued."""
    if not isinstance(document, dict) or not isinstance(document.get("messages"), list):
        return False
    wanted = document.get("response_format")
    is_text = wanted is None or (isinstance(wanted, dict) and wanted.get("type") == "text")
    modalities = document.get("modalities")
    return (
        is_text
        and modalities in (None, ["text"])
        and document.get("n") in (None, 1)
        and not any(document.get(key) for key in ("tools", "functions", "logprobs", "audio"))
    )


def with_prefill(document: dict[str, Any], said: str, spent_tokens: int) -> dict[str, Any]:
    """Return the request that asks for the rest of an answer of which ``said`` is known, ``spent_tokens`` long."""
    messages = list(document["messages"])
    last = messages[-1] if messages else None
    if isinstance(last, dict) and last.get("role") == "assistant" and isinstance(last.get("content"), str):
        messages[-1] = {**last, "content": last["content"] + said}
    else:
        messages.append({"role": "assistant", "content": said})
    asked = {**document, "messages": messages}
    for key in ("max_tokens", "max_completion_tokens"):
        limit = asked.get(key)
        if type(limit) is int:
            asked[key] = max(1, limit - spent_tokens)
    return asked


class StreamRecord:
    """What a chat stream has said, gathered as it passes. A codec that changes nothing.

    Attributes:
        is_plain: Nothing but the text of one choice has come.
        pieces: How many events carried text; about the number of tokens.
        is_finished: A finish reason came: the text is whole, whatever breaks after it.
    """

    __slots__ = ("_chars", "_decoder", "_parts", "envelope", "is_finished", "is_plain", "pieces")

    def __init__(self) -> None:
        self._decoder = EventDecoder()
        self._parts: list[str] = []
        self._chars = 0
        self.envelope: dict[str, Any] = {}
        self.is_plain = True
        self.is_finished = False
        self.pieces = 0

    @property
    def text(self) -> str:
        """Everything said so far."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    @property
    def prefill(self) -> str:
        """What to put into a model's mouth: providers refuse white space at its end, JSON half a character."""
        return _without_half_pair(self.text).rstrip()

    def feed(self, data: bytes) -> bytes:
        """Take whole events and return them as they are."""
        for event in self._decoder.feed(data):
            document = _read(event)
            if document is not None:
                self._take(document)
        return data

    def finish(self, broken: bool = False) -> bytes:
        """Nothing is held."""
        return b""

    def _take(self, document: dict[str, Any]) -> None:
        if not self.envelope:
            self.envelope = {key: document[key] for key in _ENVELOPE if key in document}
        for choice in document.get("choices") or ():
            delta = choice.get("delta") or {}
            if choice.get("index", 0) != 0 or any(delta.get(key) for key in _NOT_PLAIN):
                self.is_plain = False
            text = delta.get("content")
            if isinstance(text, str) and text:
                self._parts.append(text)
                self._chars += len(text)
                self.pieces += 1
            if choice.get("finish_reason"):
                self.is_finished = True
        if self._chars > RECORD_MAX_CHARS:
            self.is_plain = False


class Aligner:
    """Takes the text of a second answer and gives out what the first had not said.

    Compares UTF-16 units, because providers cut characters between them. Without a prefill the second answer must
    repeat ``said`` to the unit; with one it goes on behind it, unless it plainly began anew.
    """

    __slots__ = ("_got", "_is_done", "_said", "_surplus")

    def __init__(self, said: str, prefill: str | None) -> None:
        self._said = _units(said)
        self._surplus = None if prefill is None else self._said[len(_units(prefill)) :]
        self._got = b""
        self._is_done = not self._said

    def feed(self, text: str) -> str:
        """Return the new part of ``text``.

        Raises:
            Unaligned: It says something else than the first answer did.
        """
        if self._is_done:
            return text
        self._got += _units(text)
        got, said = self._got, self._said
        if got.startswith(said) and (self._surplus is None or len(said) >= 2 * ECHO_MIN_UNITS):
            return self._end(got[len(said) :])
        if said.startswith(got) and (self._surplus is None or len(said) >= 2 * ECHO_MIN_UNITS):
            return ""
        if self._surplus is None:
            raise Unaligned("the text is another")
        if self._surplus.startswith(got) and len(got) < len(self._surplus):
            return ""
        return self._end(got.removeprefix(self._surplus))

    def finish(self) -> str:
        """The second answer is whole; return what was kept back.

        Raises:
            Unaligned: It ended before it had said what the first had.
        """
        if self._is_done:
            return ""
        if self._surplus is None:
            raise Unaligned("the text is shorter")
        return self._end(self._got.removeprefix(self._surplus))

    def _end(self, rest: bytes) -> str:
        self._is_done = True
        self._got = b""
        return rest.decode("utf-16-le", "surrogatepass")


class Seam:
    """Turns the events of a second stream into the continuation of a first one; a codec over whole events.

    The caller goes on seeing the first stream's id, time and model; role and thoughts of the second are left out, and
    the usage it reports is the sum of both.
    """

    __slots__ = ("_aligner", "_decoder", "_earlier", "_envelope")

    def __init__(self, record: StreamRecord, prefill: str | None, earlier: Usage | None) -> None:
        """Continue ``record``; ``prefill`` is what the request put into the model's mouth, None when it began anew."""
        self._aligner = Aligner(record.text, prefill)
        self._decoder = EventDecoder()
        self._envelope = record.envelope
        self._earlier = earlier

    def feed(self, data: bytes) -> bytes:
        """Take whole events and return those of the continuation.

        Raises:
            Unaligned: The second stream does not join.
        """
        return b"".join([self._join(event) for event in self._decoder.feed(data)])

    def finish(self, broken: bool = False) -> bytes:
        """Nothing is held: the finish reason has brought it out."""
        return b""

    def _join(self, event: ServerEvent) -> bytes:
        if event.data is None:
            return event.raw
        document = _read(event)
        if document is None:
            return self._flushed() + event.raw
        document.update(self._envelope)
        self._add_usage(document.get("usage"))
        groq = document.get("x_groq")
        self._add_usage(groq.get("usage") if isinstance(groq, dict) else None)
        choices = document.get("choices")
        if not choices:
            return _written(event, document)
        before, is_empty = b"", True
        for choice in choices:
            held, says_nothing = self._join_choice(choice)
            before += held
            is_empty = is_empty and says_nothing
        if is_empty and not document.get("usage"):
            return before
        return before + _written(event, document)

    def _join_choice(self, choice: dict[str, Any]) -> tuple[bytes, bool]:
        """Align one choice in place; return events to go before it, and whether nothing is left of it."""
        delta = choice.get("delta") or {}
        if choice.get("index", 0) != 0 or any(delta.get(key) for key in _NOT_PLAIN):
            raise Unaligned("the stream is not plain text")
        for key in ("role", *_THOUGHTS):
            delta.pop(key, None)
        text = delta.get("content")
        if isinstance(text, str):
            delta["content"] = self._aligner.feed(text)
        before = self._flushed() if choice.get("finish_reason") else b""
        return before, not delta.get("content") and not choice.get("finish_reason")

    def _flushed(self) -> bytes:
        text = self._aligner.finish()
        if not text:
            return b""
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        return encode(dumps_any({**self._envelope, "object": "chat.completion.chunk", "choices": [choice]}))

    def _add_usage(self, usage: Any) -> None:
        earlier = self._earlier
        if earlier is None or not isinstance(usage, dict):
            return
        more = {"prompt_tokens": earlier.input_tokens, "completion_tokens": earlier.output_tokens}
        for key, count in more.items():
            usage[key] = (usage.get(key) or 0) + count
        if "total_tokens" in usage:
            usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]


def _units(text: str) -> bytes:
    return text.encode("utf-16-le", "surrogatepass")


def _without_half_pair(text: str) -> str:
    """Return the text with surrogate pairs joined and a half that still waits for its other half left out."""
    return _units(text).decode("utf-16-le", "ignore")


def _read(event: ServerEvent) -> dict[str, Any] | None:
    """Return the object of an event; None for ``[DONE]`` and whatever else is none."""
    data = event.data
    if data is None or data.strip() == b"[DONE]":
        return None
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            return None
    return document if isinstance(document, dict) else None


def _written(event: ServerEvent, document: dict[str, Any]) -> bytes:
    return encode(dumps_any(document), name=event.name, event_id=event.id, retry=event.retry)


def dumps_any(document: dict[str, Any]) -> bytes:
    """Return a document as JSON, half a character in it included."""
    try:
        return orjson.dumps(document)
    except TypeError:  # half a surrogate pair, which only an escape can carry
        return json.dumps(document, separators=(",", ":")).encode("ascii")
