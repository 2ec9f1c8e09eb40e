"""Writes a server-sent event so that its text can never forge a line, a field or a boundary.

Owns the wire form of an event we changed or made ourselves; events that did not change go on as their ``raw`` bytes.
"""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\r|\n")


def encode(data: bytes, *, name: bytes = b"", event_id: bytes | None = None, retry: bytes | None = None) -> bytes:
    """Render one event with line feeds.

    A line break inside ``data`` becomes a new ``data`` line, which the reader joins again with a line feed; U+2028 and
    the like are no line breaks of this format and stay inside. Line breaks in the other fields would be a way to
    forge one, so they are dropped.
    """
    if not name and event_id is None and retry is None and data.find(b"\n") < 0 and data.find(b"\r") < 0:
        return b"data: " + data + b"\n\n"
    lines: list[bytes] = []
    if name:
        lines.append(b"event: " + _one_line(name))
    if event_id is not None:
        lines.append(b"id: " + _one_line(event_id))
    if retry is not None:
        lines.append(b"retry: " + _one_line(retry))
    lines += [b"data: " + line for line in _LINE_END.split(data)]
    return b"\n".join(lines) + b"\n\n"


def _one_line(value: bytes) -> bytes:
    return _LINE_END.sub(b"", value)
