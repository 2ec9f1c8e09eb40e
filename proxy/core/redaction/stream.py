"""Takes new findings out of a streamed answer and puts the exchange's values back, while it streams.

Owns the lanes of the stream and the events that carry what a lane still held when it ended. Events that do not change
go on byte for byte. Does not know how placeholders look (``vault.py``) nor where an event begins (``core/sse``).
"""

from __future__ import annotations

import re
from typing import Any

from proxy.core.dialect import EMBEDDINGS, Dialect
from proxy.core.redaction.jsonio import dumps, loads
from proxy.core.redaction.lane import Treatment
from proxy.core.redaction.lanes import Frame, Held, LaneBook, LaneKey
from proxy.core.redaction.marks import Marks
from proxy.core.redaction.restore import (
    JSON_KEYS,
    restore_document,
    restore_plain,
    shift_annotations,
)
from proxy.core.redaction.vault import Vault
from proxy.core.sse import MAX_EVENT_BYTES, EventDecoder, ServerEvent, encode
from proxy.terms.errors import ProxyError, RedactionFault

_OPENER = re.compile(rb'\[[A-Za-z "\\\x80-\xff]')
"""A bracket behind which a placeholder may stand, or the end of a text; nothing else opens one but its other spellings:"""
_ESCAPED_OPENER = re.compile(rb"\\(?:\\|u(?:005[bBcC]|[fF]{2}3[bB]))")
_WIDE_OPENER = "\uff3b".encode()
_VERBATIM = frozenset({
    "role", "id", "type", "name", "object", "model", "finish_reason", "stop_reason", "data", "encrypted_content",
    "signature", "format", "status", "call_id", "item_id",
})  # fmt: skip
"""Members of a delta that are no lane: names, ids, enumerations, opaque bytes."""
_WHOLE = frozenset({"annotations", "citation", "citations", "images", "logprobs", "search_results"})
"""Members of a delta that come complete each time, so they are no lanes either."""
_FRAME = frozenset({
    "choices", "created", "id", "model", "object", "obfuscation", "provider", "service_tier", "system_fingerprint", "usage",
})  # fmt: skip
"""Members of a chat event, besides its choices, that no model writes."""
_CHOICE = frozenset({"finish_reason", "native_finish_reason", "text"})
"""Strings of a choice that are a word of the protocol, or a lane."""
_PLAIN_CHOICE = frozenset({"index", "delta", "logprobs", "finish_reason"})
_BLANKED = frozenset({"index", "delta", "text", "logprobs"})
"""Members of a choice that do not keep its event alive."""
_NO_TEXT_DELTAS = (".audio.delta", ".partial_image")
_ENDINGS = (".completed", ".incomplete", ".failed", ".cancelled")


class StreamRestorer:
    """Restores one event stream, fed in any pieces.

    Each choice and field (or Responses item, or Anthropic block) is a lane of its own; nothing crosses lanes. Held
    back, per lane, is at most the longest placeholder plus a few characters; where policy acts on answers, also
    ``judge.MAX_HOLD`` characters that may become a finding.
    """

    __slots__ = ("_book", "_decoder", "_has_failed", "_is_quiet", "_is_restoring", "_may_pass", "_treatment", "_vault")

    def __init__(
        self,
        vault: Vault,
        dialect: Dialect,
        marks: Marks | None = None,
        *,
        keeps_places: bool = False,
        only_counts: bool = False,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        """Begin with the stream.

        Args:
            vault: What is put back.
            dialect: What the events are.
            marks: What policy does with new findings; None where it does not look at answers.
            keeps_places: The stream may point into its own text by offsets, so all of it is read, to correct them.
            only_counts: Nothing is done with new findings but counting, and what comes out is thrown away.
            max_event_bytes: Larger events are refused.
        """
        self._vault = vault
        self._treatment = Treatment(vault, marks, only_counts=only_counts)
        self._is_restoring = dialect is not EMBEDDINGS
        self._has_failed = False
        self._decoder = EventDecoder(max_event_bytes)
        self._book = LaneBook(self._treatment)
        self._may_pass = self._is_restoring and marks is None and not (keeps_places or vault.needs_escaping)
        self._is_quiet = self._may_pass
        """No lane and no decoder holds anything, so events without a trace of a placeholder need no reading."""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the answer and return the bytes for the caller, whole events only.

        Raises:
            EventTooLarge: The upstream sent an event beyond the limit.
            AnswerBlocked: Policy forbids what the answer holds. Nothing more comes out of here then.
            RedactionFault: Something in here failed.
        """
        if (
            self._is_quiet
            and data.endswith((b"\n\n", b"\r\n\r\n"))
            and _OPENER.search(data) is None
            and (data.find(b"\\") < 0 or _ESCAPED_OPENER.search(data) is None)
            and (data.isascii() or data.find(_WIDE_OPENER) < 0)
        ) or not self._is_restoring:
            return data
        try:
            if self._may_pass and data.endswith(b"\n\n") and self._decoder.is_idle and data.find(b"\r") < 0:
                return self._some_read(data)
            return self._read(data)
        except ProxyError:
            self._has_failed = True
            raise
        except Exception as exc:
            self._has_failed = True
            raise RedactionFault(f"restoring a stream failed: {type(exc).__name__}") from exc

    def _read(self, data: bytes) -> bytes:
        restored = b"".join([self._restore(event) for event in self._decoder.feed(data)])
        self._is_quiet = self._may_pass and not self._book.held and self._decoder.is_idle
        return restored

    def _some_read(self, data: bytes) -> bytes:
        """Read those of several whole events that need it."""
        pieces: list[bytes] = []
        at = 0
        while at < len(data):
            if self._is_quiet:
                trace = _first_trace(data, at)
                passed = data.rfind(b"\n\n", at, trace) if trace >= 0 else len(data) - 2
                if passed >= 0:
                    pieces.append(data[at : passed + 2])
                    at = passed + 2
                    continue
            blank = data.find(b"\n\n", at)
            end = blank + 2 if blank >= 0 else len(data)
            pieces.append(self._read(data[at:end]))
            at = end
        return b"".join(pieces)

    def finish(self, broken: bool = False) -> bytes:
        """Return what is left when the upstream closed.

        Args:
            broken: The stream was cut. Half an event is then dropped, because an error event follows it on the wire;
                a last event that only lacks its blank line is completed.
        """
        if self._has_failed:
            return b""
        try:
            left = b"".join([self._last(event, broken) for event in self._decoder.flush()])
            held = b"".join(self._book.flush_all())
            return _completed(left) + held if held else left
        except ProxyError:
            if broken:  # the error that follows says enough, and what was held must not go out
                return b""
            raise
        except Exception as exc:
            raise RedactionFault(f"restoring a stream failed: {type(exc).__name__}") from exc

    def _last(self, event: ServerEvent, broken: bool) -> bytes:
        if event.data is not None and _is_whole(event.data):
            restored = self._restore(event)
            return _completed(restored) if broken else restored
        if broken:
            return b""
        return b"".join(self._book.flush_all()) + event.raw

    def _restore(self, event: ServerEvent) -> bytes:
        data = event.data
        if data is None:
            return event.raw
        if data.strip() == b"[DONE]":
            return b"".join(self._book.flush_all()) + event.raw
        try:
            document = loads(data)
        except ValueError:
            return self._as_text(event, data)
        if not isinstance(document, dict):
            document, changed = restore_document(self._treatment, document)
            return _render(event, document) if changed else event.raw
        if isinstance(document.get("choices"), list):
            return self._choices(event, document)
        kind = document.get("type")
        if isinstance(kind, str):
            if kind == "content_block_delta" and isinstance(document.get("delta"), dict):
                return self._block_delta(event, document)
            if kind.endswith(".delta") and isinstance(document.get("delta"), str):
                return self._item_delta(event, document, kind)
            before = b"".join(self._flush_before(document, kind))
            annotation = document.get("annotation")
            if kind.endswith(".annotation.added") and isinstance(annotation, dict):
                self._shift([annotation], _item_key(document, kind.removesuffix(".annotation.added")))
                restore_document(self._treatment, document)
                return before + _render(event, document)
            return before + self._whole(event, document)
        if document.get("error") or document.get("usage"):
            return b"".join(self._book.flush_all()) + self._whole(event, document)
        return self._whole(event, document)

    def _as_text(self, event: ServerEvent, data: bytes) -> bytes:
        restored = restore_plain(self._treatment, data)
        return event.raw if restored is data else _encode(event, restored)

    def _whole(self, event: ServerEvent, document: dict[str, Any]) -> bytes:
        restored, changed = restore_document(self._treatment, document)
        return _render(event, restored) if changed else event.raw

    # Chat and completions

    def _choices(self, event: ServerEvent, document: dict[str, Any]) -> bytes:
        choices = document["choices"]
        if len(choices) == 1 and not document.get("usage") and _FRAME.issuperset(document):
            choice = choices[0]
            if type(choice) is dict and _PLAIN_CHOICE.issuperset(choice) and not choice.get("finish_reason"):
                delta = choice.get("delta")
                if type(delta) is dict and len(delta) == 1 and type(delta.get("content")) is str:
                    return self._content(event, document, choice)
        return self._any_choices(event, document)

    def _content(self, event: ServerEvent, document: dict[str, Any], choice: dict[str, Any]) -> bytes:
        """The same for an event that says nothing but a piece of one text, as most do."""
        text: str = choice["delta"]["content"]
        key = (_place(choice, 0), "delta", "content")
        restored = self._book.feed(key, text, Frame(event.name, document, "choice"), is_json=False) if text else text
        if restored == text:
            return event.raw
        if not restored and event.id is None and event.retry is None:
            return b""
        choice["delta"]["content"] = restored
        if choice.get("logprobs"):
            choice["logprobs"] = None
        return _render(event, document)

    def _any_choices(self, event: ServerEvent, document: dict[str, Any]) -> bytes:
        before: list[bytes] = []
        changed = False
        frame = Frame(event.name, document, "choice")
        for position, choice in enumerate(document["choices"]):
            if not isinstance(choice, dict):
                continue
            index = _place(choice, position)
            is_last = bool(choice.get("finish_reason"))
            if self._book.held and _begins_tool_call(choice):
                before += self._book.flush_texts((index, "delta"))
            if self._choice(choice, (index,), frame, is_last):
                changed = True
                if choice.get("logprobs"):
                    choice["logprobs"] = None
            if is_last:
                before += self._book.flush((index,))
        if (not document["choices"] and document.get("usage")) or document.get("error"):
            before += self._book.flush_all()
        for name, value in document.items():
            if name not in _FRAME and value is not None:
                document[name], is_changed = restore_document(self._treatment, value)
                changed |= is_changed
        if not changed:
            return b"".join(before) + event.raw
        if _is_emptied(document, event):
            return b"".join(before)
        return b"".join(before) + _render(event, document)

    def _choice(self, choice: dict[str, Any], key: LaneKey, frame: Frame, is_last: bool) -> bool:
        changed = False
        text = choice.get("text")
        if isinstance(text, str):
            restored = self._text(text, (*key, "text"), frame, is_last, is_json=False)
            if restored != text:
                choice["text"] = restored
                changed = True
        delta = choice.get("delta")
        if isinstance(delta, dict):
            changed |= self._members(delta, (*key, "delta"), frame, is_last)
        message = choice.get("message")
        if isinstance(message, dict):
            changed |= restore_document(self._treatment, message)[1]
        for name, value in choice.items():
            if isinstance(value, (str, list)) and name not in _CHOICE:
                choice[name], is_changed = restore_document(self._treatment, value)
                changed |= is_changed
        return changed

    def _members(self, node: dict[str, Any], key: LaneKey, frame: Frame, is_last: bool) -> bool:
        """Feed each text of a delta to its lane; ``key`` is the way from the event's top to ``node``."""
        changed = False
        for name, value in node.items():
            if isinstance(value, str):
                if name in _VERBATIM or not value:
                    continue
                restored = self._text(value, (*key, name), frame, is_last, is_json=name in JSON_KEYS)
                if restored != value:
                    node[name] = restored
                    changed = True
            elif name in _WHOLE:
                changed |= restore_document(self._treatment, value)[1]
                if name == "annotations" and isinstance(value, list):
                    changed |= self._shift(value, (*key, "content"))
            elif isinstance(value, dict):
                changed |= self._members(value, (*key, name), frame, is_last)
            elif isinstance(value, list):
                for position, item in enumerate(value):
                    if isinstance(item, dict):
                        place = _place(item, position)
                        changed |= self._members(item, (*key, name, place), frame, is_last)
                    elif isinstance(item, (str, list)):
                        value[position], is_changed = restore_document(self._treatment, item)
                        changed |= is_changed
        return changed

    def _shift(self, annotations: list[Any], key: LaneKey) -> bool:
        """Correct the offsets of annotations of a lane's text."""
        shift_annotations(annotations, lambda at: self._book.place(key, at))
        return bool(annotations)

    def _text(self, text: str, key: LaneKey, frame: Frame, is_last: bool, *, is_json: bool) -> str:
        restored = self._book.feed(key, text, frame, is_json=is_json)
        return restored + self._book.finish(key) if is_last else restored

    # Anthropic

    def _block_delta(self, event: ServerEvent, document: dict[str, Any]) -> bytes:
        frame = Frame(event.name, document, "block")
        delta: dict[str, Any] = document["delta"]
        before = dict(delta)
        if not self._members(delta, (_place(document, 0), "delta"), frame, False):
            return event.raw
        if any(before[name] and value == "" for name, value in delta.items()):
            return b""
        return _render(event, document)

    # Responses and everything built like it

    def _item_delta(self, event: ServerEvent, document: dict[str, Any], kind: str) -> bytes:
        text: str = document["delta"]
        if kind.endswith(_NO_TEXT_DELTAS):
            return event.raw
        base = kind.removesuffix(".delta")
        frame = Frame(event.name, document, "item")
        restored = self._book.feed(_item_key(document, base), text, frame, is_json="arguments" in base)
        if restored == text:
            return event.raw
        if not restored:
            return b""
        document["delta"] = restored
        if document.get("logprobs"):
            document["logprobs"] = []
        return _render(event, document)

    def _flush_before(self, document: dict[str, Any], kind: str) -> list[bytes]:
        """Return the events that carry what the lanes ended by this event still held."""
        if kind == "content_block_stop":
            return self._book.flush((_place(document, 0),))
        if kind in ("message_delta", "message_stop", "error") or kind.endswith(_ENDINGS):
            return self._book.flush_all()
        if not kind.endswith(".done"):
            return []
        item = document.get("item")
        if isinstance(item, dict):
            return self._book.flush((str(item.get("id")),))
        if kind == "response.content_part.done":
            return self._book.flush((str(document.get("item_id")),))
        return self._book.flush(_item_key(document, kind.removesuffix(".done")))


def _first_trace(data: bytes, start: int) -> int:
    """Return where the first thing is that may open a placeholder; -1 when nothing does."""
    plain, escaped = _OPENER.search(data, start), _ESCAPED_OPENER.search(data, start)
    places = [found.start() for found in (plain, escaped) if found is not None]
    wide = -1 if data.isascii() else data.find(_WIDE_OPENER, start)
    if wide >= 0:
        places.append(wide)
    return min(places, default=-1)


def _is_whole(data: bytes) -> bool:
    """Tell whether the data of an event without its blank line is all there."""
    if data.strip() == b"[DONE]":
        return True
    try:
        loads(data)
    except ValueError:
        return False
    return True


def _place(node: dict[str, Any], position: int) -> int:
    """Return the ``index`` a list member declares, else its position."""
    index = node.get("index")
    return index if isinstance(index, int) else position


def _begins_tool_call(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    calls = delta.get("tool_calls") if isinstance(delta, dict) else None
    return isinstance(calls, list) and any(isinstance(call, dict) and call.get("id") for call in calls)


def _item_key(document: dict[str, Any], base: str) -> LaneKey:
    get = document.get
    return (str(get("item_id")), base, *(str(get(name)) for name in ("output_index", "content_index", "summary_index")))


def _is_emptied(document: dict[str, Any], event: ServerEvent) -> bool:
    """Tell whether nothing is left to say: one choice, one field, and its whole text is held back."""
    choices = document["choices"]
    if len(choices) != 1 or document.get("usage") or event.id is not None or event.retry is not None:
        return False
    choice = choices[0]
    if any(value for name, value in choice.items() if name not in _BLANKED):
        return False
    return choice.get("text", "") == "" and Held.is_blank(choice.get("delta"))


def _render(event: ServerEvent, document: Any) -> bytes:
    return _encode(event, dumps(document))


def _encode(event: ServerEvent, data: bytes) -> bytes:
    return encode(data, name=event.name, event_id=event.id, retry=event.retry)


def _completed(raw: bytes) -> bytes:
    """Return event bytes with the blank line that ends them."""
    if not raw or raw.endswith((b"\n\n", b"\r\r", b"\r\n\r\n")):
        return raw
    return raw + (b"\n" if raw.endswith((b"\n", b"\r")) else b"\n\n")
