"""Stand-ins that came back in a text: ``[CPF-1]``, ``[PASSWORD_REDACTED]``, ``[PHONE:0a1b2c3d]``.

Owns how they look, and that the name of a type in one announces nothing: what is redacted twice must come to the same.
Knows no value behind them.
"""

from __future__ import annotations

import re

OWN_MARK = r"\[(?:([A-Z][A-Z0-9-]*)-(?:[0-9]{1,5}[a-z]?|[A-Z2-7]{8}|[A-Z2-7]{10})|([A-Z][A-Z0-9_]*)_REDACTED|([A-Z][A-Z0-9_]*):[0-9a-f]{8})\]"
"""The pattern of all stand-ins; one of its groups is the type, as it is spelled there."""
_MARK = re.compile(OWN_MARK.encode())
_REACH = 48


def end_of_mark(data: bytes, start: int, end: int) -> int:
    """Return the end of the stand-in inside which ``data[start:end]`` lies, or 0."""
    opened = data.rfind(b"[", max(0, start - _REACH), start + 1)
    mark = _MARK.match(data, opened) if opened >= 0 else None
    return mark.end() if mark is not None and end < mark.end() else 0


def is_mark(data: bytes, start: int) -> bool:
    """True when a stand-in starts here."""
    return _MARK.match(data, start) is not None


def without_names(window: bytes) -> bytes:
    """Return a window in which stand-ins have no words, each character in its place."""
    return _MARK.sub(_wordless, window)


def holds_one_of(window: bytes, start: int, kinds: frozenset[str]) -> bool:
    """True when a stand-in of one of the kinds ends behind ``start``: a value of theirs stands there already."""
    return any([mark.end() > start and _kind(mark) in kinds for mark in _MARK.finditer(window)])


def _wordless(mark: re.Match[bytes]) -> bytes:
    return b"[%b]" % (b"." * (len(mark[0]) - 2))


def _kind(mark: re.Match[bytes]) -> str:
    spelled = mark[1] or mark[2] or mark[3]
    return spelled.decode().replace("-", "_").removesuffix("_X")
