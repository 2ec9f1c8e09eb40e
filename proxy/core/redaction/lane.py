"""One logical text of an answer, given in pieces of any size, with the values put back.

Owns the tail that may still become a placeholder, and how deep inside JSON strings a position is. Order within a lane:
new findings are redacted first, then placeholders restored, so a restored value is never redacted again. Does not know
events or documents; whole answers use the same lane with one piece, so streamed and whole restoring cannot differ.
"""

from __future__ import annotations

import re

from proxy.core.redaction.vault import Vault, may_hold_tag

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
            self.is_json = _opens_json(self._head)
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


def _opens_json(head: str) -> bool | None:
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


class Lane:
    """Restores one logical text. Fed piece by piece, it holds back only what may still become a placeholder."""

    __slots__ = ("_cursor", "_tail", "_vault")

    def __init__(self, vault: Vault, *, is_json: bool) -> None:
        """``is_json``: the text is JSON source by contract (arguments of a tool call)."""
        self._vault = vault
        self._tail = ""
        self._cursor = JsonCursor(True if is_json else None) if vault.needs_escaping else None

    @property
    def is_holding(self) -> bool:
        return bool(self._tail)

    def feed(self, piece: str) -> str:
        """Take the next piece and return what can be given out."""
        if not self._tail and not may_hold_tag(piece):
            if self._cursor is not None:
                self._cursor.feed(piece)
            return piece
        text = self._tail + piece
        cut = self._vault.hold_from(text)
        self._tail = text[cut:]
        return self._release(text[:cut])

    def finish(self) -> str:
        """Return what was held at the lane's end; half a placeholder goes out as it is and carries nothing."""
        left, self._tail = self._tail, ""
        return self._release(left) if left else ""

    def _release(self, text: str) -> str:
        cursor = self._cursor
        pieces: list[str] = []
        done = 0
        for start, end, body in self._vault.tags_in(text):
            depth = 0
            if cursor is not None:
                cursor.feed(text[done:start])
                depth = cursor.depth
                cursor.feed(text[start:end])
            pieces += (text[done:start], self._vault.value_of(body, depth))
            done = end
        if cursor is not None:
            cursor.feed(text[done:])
        return "".join(pieces) + text[done:] if pieces else text


def moves(vault: Vault, text: str) -> list[tuple[int, int]]:
    """Return, for each placeholder of a text, where it ends and by how much the text behind it moves (prose only)."""
    return [(end, len(vault.value_of(body)) - (end - start)) for start, end, body in vault.tags_in(text)]


def restore_whole(vault: Vault, text: str, *, is_json: bool) -> str:
    """Restore a text that is there in one piece, exactly as a stream of its pieces would be."""
    if not may_hold_tag(text):
        return text
    lane = Lane(vault, is_json=is_json)
    return lane.feed(text) + lane.finish()
