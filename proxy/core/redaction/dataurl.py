"""Bytes in disguise: data: URLs and base64, told from text without reading them closely.

Owns their extent. Works in slices, so that twenty megabytes of image never keep other threads waiting.
"""

from __future__ import annotations

import re

_SLICE = 1 << 16
_MARK = ";base64,"
_HEAD = re.compile(r"data:[A-Za-z0-9.+/;=_-]{0,128}\Z")
_MAX_HEAD = 140
_RUN = re.compile(r"[A-Za-z0-9+/_%-]*={0,2}")


def without_data(text: str) -> tuple[str, int]:
    """Return the text with each base64 data: URL blanked, its length kept, and how many characters that were."""
    pieces: list[str] = []
    done = hidden = 0
    at = text.find(_MARK)
    while at >= 0:
        head = _HEAD.search(text, max(done, at - _MAX_HEAD), at)
        end = _run_end(text, at + len(_MARK))
        if head is not None:
            pieces += (text[done : head.start()], " " * (end - head.start()))
            hidden += end - head.start()
            done = end
        at = text.find(_MARK, end)
    if not pieces:
        return text, 0
    return "".join(pieces) + text[done:], hidden


def is_base64(text: str) -> bool:
    """Tell whether a text is nothing but base64."""
    return _run_end(text, 0) == len(text)


def _run_end(text: str, start: int) -> int:
    """Return where the run of base64 characters that begins at ``start`` ends."""
    at = start
    while found := _RUN.match(text, at, at + _SLICE):
        if found.end() < at + _SLICE or found.end() == at:
            return found.end()
        at = found.end()
    return at
