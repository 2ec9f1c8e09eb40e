"""How deep inside JSON strings a position of a growing text is.

Owns the walk over quotes and escapes. Does not know placeholders, nor what the texts say.
"""

from __future__ import annotations

import json
import re

from proxy.core.redaction.sites import Edit

_QUOTE = re.compile(r'"')
_QUOTE_OR_ESCAPE = re.compile(r'["\\]')
_SHORT_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_MAX_LEVELS = 8


class JsonCursor:
    """Knows at how many levels of JSON strings the next character of a text stands.

    A text that opens like an object or an array is taken for JSON, and so is a string inside it that opens like one;
    ``is_json=True`` skips the question for texts that are JSON by contract (tool-call arguments).
    """

    __slots__ = ("_child", "_escape", "_head", "_in_string", "_level", "is_json")

    def __init__(self, is_json: bool | None, level: int = 0) -> None:
        self.is_json = is_json
        """None while the beginning does not tell."""
        self._level = level
        self._head = ""
        self._in_string = False
        self._escape = ""
        self._child: JsonCursor | None = None

    @property
    def depth(self) -> int:
        if not self.is_json or not self._in_string:
            return 0
        return 1 + (self._child.depth if self._child is not None else 0)

    def feed(self, text: str) -> None:
        """Walk over the next characters."""
        if self.is_json is None:
            self._head += text
            self.is_json = opens_json(self._head)
            if self.is_json:
                text, self._head = self._head, ""
        if self.is_json:
            self._walk(text)

    def _walk(self, text: str) -> None:
        at = 0
        while at < len(text):
            if not self._in_string:
                opened = _QUOTE.search(text, at)
                if opened is None:
                    return
                at = opened.end()
                self._in_string = True
                self._child = JsonCursor(None if self._level < _MAX_LEVELS else False, self._level + 1)
            elif self._escape:
                at = self._finish_escape(text, at)
            else:
                at = self._walk_string(text, at)

    def _walk_string(self, text: str, at: int) -> int:
        special = _QUOTE_OR_ESCAPE.search(text, at)
        end = special.start() if special else len(text)
        if end > at and self._child is not None:
            self._child.feed(text[at:end])
        if special is None:
            return end
        if special[0] == '"':
            self._in_string = False
            self._child = None
        else:
            self._escape = "\\"
        return end + 1

    def _finish_escape(self, text: str, at: int) -> int:
        """Take one more character of an escape sequence and hand the decoded character to the inner text."""
        self._escape += text[at]
        if self._escape[1] == "u" and len(self._escape) < 6:
            return at + 1
        escape, self._escape = self._escape[1:], ""
        if escape[0] == "u":
            decoded = chr(int(escape[1:], 16)) if all(c in "0123456789abcdefABCDEF" for c in escape[1:]) else "?"
        else:
            decoded = _SHORT_ESCAPES.get(escape, escape)
        if self._child is not None:
            self._child.feed(decoded)
        return at + 1


def as_meant(text: str, edits: list[Edit], *, is_json: bool) -> list[Edit]:
    """Return the findings of a text that was read as it is written, with values inside JSON strings decoded.

    A text that opens like JSON and was read so was cut, or is too long to be taken apart. Its values are put back as what
    stands in JSON strings, so they have to be kept as what these say: a line break, not the two characters it is written with.

    Args:
        is_json: It is JSON by contract.
    """
    if not any("\\" in edit.value for edit in edits):
        return edits
    cursor = JsonCursor(True if is_json else None)
    meant: list[Edit] = []
    done = 0
    for edit in edits:
        cursor.feed(text[done : edit.start])
        done = edit.start
        value = _decoded(edit.value, cursor.depth) if "\\" in edit.value else None
        meant.append(edit if value is None else edit._replace(value=value, depth=cursor.depth))
    return meant


def _decoded(source: str, depth: int) -> str | None:
    """Return what a piece of JSON strings says, ``depth`` levels down; None where it says nothing."""
    try:
        for _ in range(depth):
            source = json.loads(f'"{source}"', strict=False)
    except ValueError:
        return None
    return source


def opens_json(head: str) -> bool | None:
    """Tell whether a text that begins with ``head`` is JSON; None when that needs more of it."""
    head = head.lstrip(" \t\r\n")
    if not head:
        return None
    if head[0] not in "{[":
        return False
    inner = head[1:].lstrip(" \t\r\n")
    if not inner:
        return None
    return inner[0] in ('"}' if head[0] == "{" else '"{[]')
