"""Where a text that is still growing may yet turn into a value: the part a streaming redactor has to hold back.

Owns the trailing alphabets of the families. Knows no validator: what could grow is held, whatever it would become.
Each test reads the end once, backwards; nothing here backtracks.
"""

from __future__ import annotations

import re

from proxy.core.redaction.detect import dates
from proxy.core.redaction.detect.fold import to_bytes

MAX_HOLD = 256
"""A run without a blank that is longer than this has either been recognised by its beginning or never will be."""
_TAIL = 64
_TOKEN_END = b" \t\r\n\x0b\x0c\"'<>`\xa0"
_NUMBER_CHARS = b"0123456789 .-/():_+\xa0"
_EXTENSION = re.compile(rb"[0-9] ?(?:e|ex|ext|exte[a-z]{0,5}|x|r|ra|ram[a-z]{0,2})\.? ?[0-9]{0,6}\Z", re.IGNORECASE)
_ALNUM = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.," + bytes(range(0xC0, 0x100))
_GROUP = re.compile(rb"[A-Z]{1,6}\.?|[A-Za-z]{0,6}[0-9][A-Za-z0-9.]{0,12}")
_MAX_GROUPS = 12
_DAY = re.compile(rb"[0-9]{1,4}(?:st|nd|rd|th|\.|\xba|er)?,?", re.IGNORECASE)
_MONTH = re.compile(dates.MONTH_NAME + rb",?")
_LINK = re.compile(rb"(?:de|del|of|di)", re.IGNORECASE)
_SCHEME = re.compile(rb"(?i:bearer|basic|token) ?\Z")
_ARMOUR = re.compile(rb"-{1,5}(?:BEGIN[A-Z0-9 ]{0,40}-{0,5})?\Z")


def live_start(text: str) -> int:
    """Return the leftmost position from which some family could still grow past the end.

    Everything before it may be judged and released; the bound is ``MAX_HOLD`` characters.
    """
    tail = to_bytes(text[-MAX_HOLD:])
    size = len(tail)
    near = tail[-_TAIL:]
    shift = size - len(near)
    starts = [size - len(_token(tail)), shift + _numbers(near), shift + _groups(near)]
    for pattern in (_EXTENSION, _SCHEME, _ARMOUR):
        found = pattern.search(near)
        if found is not None:
            starts.append(shift + (_numbers(near[: found.start() + 1]) if pattern is _EXTENSION else found.start()))
    return len(text) - size + min(starts)


def _token(tail: bytes) -> bytes:
    """Return the run at the end that holds no blank and no quote."""
    return tail[max([tail.rfind(bytes([c])) for c in _TOKEN_END]) + 1 :]


def _numbers(near: bytes) -> int:
    """Return where the digit groups at the end start, an opening bracket or plus included."""
    start = len(near.rstrip(_NUMBER_CHARS))
    while start < len(near) and near[start] in b" .-/):_\xa0":
        start += 1
    return start


def _groups(near: bytes) -> int:
    """Return where the short groups at the end start: capitals, letters with digits, the words of a date."""
    start = len(near)
    stop = len(near.rstrip(b" -\xa0"))
    for _ in range(_MAX_GROUPS):
        lead = near[:stop]
        first = max(lead.rfind(b" "), lead.rfind(b"-"), lead.rfind(b"\xa0"), lead.rfind(b"\n"), lead.rfind(b'"')) + 1
        group = lead[first:]
        glued = len(group.rstrip(_ALNUM))
        if glued:  # a sign stands in front: "x=GB82", "<iban>PT08", "**CH35"
            first, group = first + glued, group[glued:]
        is_short = len(group) <= 2 and group.isalpha()
        if not group or not (is_short or any([p.fullmatch(group) for p in (_GROUP, _DAY, _MONTH, _LINK)])):
            break
        start = first
        if glued or first == 0 or near[first - 1] in b'\n"' or (is_short and group.islower() and start != len(near)):
            break
        stop = len(near[:first].rstrip(b" -\xa0"))
    return start
