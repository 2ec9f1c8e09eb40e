"""Text to the bytes the automaton reads: one byte a character, so offsets need no conversion.

Owns the look-alikes that people and other programs write (full-width digits, thin spaces, dashes, zero-width
characters). Knows no detector.
"""

from __future__ import annotations

import re
from bisect import bisect_right

_SPACES = "\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63"
_QUOTES = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2028": "\n", "\u2029": "\n"}
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
_DIGIT_BLOCKS = (0x0660, 0x06F0, 0x0966, 0x09E6, 0x0E50)

_FOLDED: dict[str, str] = {
    **dict.fromkeys(_SPACES, " "),
    **dict.fromkeys(_DASHES, "-"),
    **_QUOTES,
    **{chr(0xFF01 + i): chr(0x21 + i) for i in range(94)},
    "\ufe6b": "@",
    **dict.fromkeys("\u2192\u21d2\u279c\u2794", ">"),
    **dict.fromkeys("\u300c\u300d\u300e\u300f", '"'),
    **{chr(0x1D7CE + i): str(i % 10) for i in range(50)},
    **{chr(0x1D400 + i): chr((0x41, 0x61)[i // 26 % 2] + i % 26) for i in range(676)},
    **{chr(block + i): str(i) for block in _DIGIT_BLOCKS for i in range(10)},
}
_FOLDED_TO = {char: ord(plain) for char, plain in _FOLDED.items()}
_RARE = 32
"""Of so many characters one is looked at by itself sooner than all are searched."""
_FEW = 64
_PERCENT = re.compile(r"%[2-7][0-9A-Fa-f]")
_MARKED = re.compile(r"\\[-._@+()]")
"""Signs that Markdown writers put a backslash before: ``ana\\_lima@x.com``, ``529\\.982``."""
_UNPLAIN = re.compile(rf"[{_INVISIBLE}]|\\(?=[-._@+()])|%([2-6][0-9A-Fa-f]|7[0-9A-Ea-e])")
_NEEDS_FOLDING = re.compile("[" + "".join(re.escape(c) for c in _FOLDED if c < "\U00010000") + "]")
_ASTRAL = re.compile("[\U0001d400-\U0001d7ff]")
"""Letters and digits of mathematics; apart from the others, for one class of both is searched forty times slower."""


def to_bytes(text: str) -> bytes:
    """Return one byte a character: Latin-1 as it is, look-alikes as what they look like, the rest as ``?``."""
    if text.isascii():
        return text.encode()
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raw = bytearray(text, "latin-1", "replace")
    if raw.count(b"?") < len(raw) // _RARE:
        at = raw.find(b"?")
        while at >= 0:
            raw[at] = _FOLDED_TO.get(text[at], 0x3F)
            at = raw.find(b"?", at + 1)
        return bytes(raw)
    for found in _NEEDS_FOLDING.finditer(text):
        raw[found.start()] = ord(_FOLDED[found[0]])
    for found in _ASTRAL.finditer(text):
        raw[found.start()] = ord(_FOLDED.get(found[0], "?"))
    return bytes(raw)


def has_other_letters(text: str, data: bytes) -> bool:
    """True when some letter of the text may be none of Latin-1, so the bytes show question marks for it.

    Signs alone, as people strew them (emoji, arrows, bullets), are no letters; where they are many, nobody looks.
    """
    if text.isascii():
        return False
    at = data.find(b"?")
    for _ in range(_FEW):
        if at < 0:
            return False
        if text[at] > "\xff" and text[at].isalpha():
            return True
        at = data.find(b"?", at + 1)
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return True
    return False


def is_escape(piece: str) -> bool:
    """True for a percent escape the view undoes."""
    return len(piece) == 3 and _UNPLAIN.fullmatch(piece) is not None


def _has_hidden(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return any([c in text for c in _INVISIBLE])  # memory searches beat one regex
    return "\u00ad" in text


class Places:
    """Where each character of a view starts in the text; one more place marks the end."""

    __slots__ = ("_edges", "_shifts")

    def __init__(self, edges: list[int], shifts: list[int]) -> None:
        """Take positions of the view, ascending from 0, and how far right of each the text stands from there on."""
        self._edges = edges
        self._shifts = shifts

    def __getitem__(self, position: int) -> int:
        return position + self._shifts[bisect_right(self._edges, position) - 1]


def plain_view(text: str) -> tuple[str, Places] | None:
    """Return the text as it is read and its places, or None when it is read as it is written.

    Zero-width characters and Markdown's backslashes are left out and percent escapes of printable ASCII undone.
    """
    hidden = not text.isascii() and _has_hidden(text)
    escaped = "%" in text and _PERCENT.search(text) is not None
    if not hidden and not escaped and not ("\\" in text and _MARKED.search(text) is not None):
        return None
    pieces: list[str] = []
    edges, shifts = [0], [0]
    at = size = 0
    for found in _UNPLAIN.finditer(text):
        start = found.start()
        pieces.append(text[at:start])
        size += start - at
        at = found.end()
        if found[1]:
            pieces.append(chr(int(found[1], 16)))
            edges.append(size)
            shifts.append(start - size)
            size += 1
        edges.append(size)
        shifts.append(at - size)
    pieces.append(text[at:])
    return "".join(pieces), Places(edges, shifts)
