"""Cuts a byte stream into server-sent events without changing one byte of them.

Owns line endings, comments, the byte order mark and the size limit. Does not know what an event means.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from proxy.terms.errors import ProxyError

MAX_EVENT_BYTES = 1 << 20
"""Largest event accepted by default, its line endings included."""

_BOM = b"\xef\xbb\xbf"
_BLANK = re.compile(rb"\r\n\r\n?|\r\n\n|\r\r\n?|\n\r\n?|\n\n")
_LINE_END = re.compile(rb"\r\n|\r|\n")
_COMMENTS_ONLY = re.compile(rb"[\r\n]*(?::[^\r\n]*(?:\r\n|\r|\n)+)+")


class EventTooLarge(ProxyError):
    """An event of the upstream's stream is larger than the limit."""

    code = "upstream_event_too_large"


class ServerEvent(NamedTuple):
    """One event as it came. ``raw`` joined over all events is the stream, byte for byte."""

    raw: bytes
    data: bytes | None = None
    """The ``data`` lines joined by a line feed; None when there was no such line (a comment, a blank line)."""
    name: bytes = b""
    """The ``event`` field, empty when absent."""
    id: bytes | None = None
    retry: bytes | None = None


class EventDecoder:
    """Takes the bytes of a stream in any pieces and gives back the events they complete."""

    __slots__ = ("_held", "_is_first", "_max_event_bytes", "_searched")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._held = bytearray()
        self._searched = 0
        self._is_first = True
        self._max_event_bytes = max_event_bytes

    @property
    def is_idle(self) -> bool:
        """True when no part of an event is held."""
        return not self._held

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Take the next bytes of the stream and return the events they complete.

        A carriage return at the very end completes a blank line at once; a line feed that follows it arrives as (or
        in front of) the next event and means nothing there. Comment lines and blank lines between events are given
        out as soon as they are whole, so that they go on keeping the connection alive.

        Args:
            data: Any slice of the body; it may cut a line, a CRLF or a UTF-8 character in two.

        Raises:
            EventTooLarge: More than ``max_event_bytes`` belong to one event.

        Source: HTML Living Standard, "Parsing an event stream".
        """
        held = self._held
        # ``find`` and not ``in``, here as in all that every event passes: see ``terms.http``.
        if (
            not held
            and data.endswith(b"\n\n")
            and data.find(b"\r") < 0
            and data.find(b"\n\n\n") < 0
            and data[0] != 0x0A
        ):
            return [self._event(piece + b"\n\n") for piece in data[:-2].split(b"\n\n")]
        held += data
        events: list[ServerEvent] = []
        start = 0
        for end in self._ends(held):
            events.append(self._event(bytes(held[start:end])))
            start = end
        if start:
            del held[:start]
        self._searched = max(0, len(held) - 3)
        if held and self._is_only_filler(held):
            events.append(ServerEvent(bytes(held)))
            self._is_first = False  # a byte order mark counts only as the very first bytes
            held.clear()
            self._searched = 0
        if len(held) > self._max_event_bytes:
            raise EventTooLarge(f"more than {self._max_event_bytes} bytes without a blank line")
        return events

    def flush(self) -> list[ServerEvent]:
        """Return what is left at the end of the stream as one last event without its blank line, if there is any."""
        if not self._held:
            return []
        last = self._event(bytes(self._held))
        self._held.clear()
        self._searched = 0
        return [last]

    def _ends(self, held: bytearray) -> list[int]:
        """Return the offset after each blank line that ends an event in ``held``."""
        ends: list[int] = []
        search = _BLANK.search
        at = self._searched
        start = 0
        while found := search(held, at):
            at = found.end()
            if found.start() == start and held[start] in b"\r\n":
                at = found.start() + 1  # a blank line in front of an event: part of it, not its end
                while at < len(held) and held[at] in b"\r\n":
                    at += 1
                continue
            ends.append(at)
            start = at
        return ends

    def _is_only_filler(self, held: bytearray) -> bool:
        if held[-1] not in b"\r\n":
            return False
        first = held[0]
        if first in b"\r\n":
            return not held.strip(b"\r\n") or _COMMENTS_ONLY.fullmatch(held) is not None
        return first == 0x3A and _COMMENTS_ONLY.fullmatch(held) is not None

    def _event(self, raw: bytes) -> ServerEvent:
        """Read the fields of one event; the fast way when it is a single ``data: `` line."""
        if len(raw) > self._max_event_bytes:
            raise EventTooLarge(f"an event of {len(raw)} bytes")
        if raw.startswith(b"data: ") and raw.endswith(b"\n\n") and raw.count(b"\n") == 2 and raw.find(b"\r") < 0:
            self._is_first = False
            return ServerEvent(raw, raw[6:-2])
        body = raw
        if self._is_first:
            self._is_first = False
            body = raw.removeprefix(_BOM)
        return _read_fields(raw, body)


def _read_fields(raw: bytes, body: bytes) -> ServerEvent:
    data: list[bytes] = []
    name = b""
    identity: bytes | None = None
    retry: bytes | None = None
    for line in _LINE_END.split(body):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match field:
            case b"data":
                data.append(value)
            case b"event":
                name = value
            case b"id":
                identity = value
            case b"retry":
                retry = value
            case _:
                pass  # a comment (nothing before the colon), a blank line, or a field nobody defined
    return ServerEvent(raw, b"\n".join(data) if data else None, name, identity, retry)
