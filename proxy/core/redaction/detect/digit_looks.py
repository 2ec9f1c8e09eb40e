"""What a run of digits looks like before anybody asks what it is: dates, decimals, rows of cards, groups of a dump.

Owns the looks that need no label and no checksum. Knows no kind and no catalog.
"""

from __future__ import annotations

import re

from proxy.core.redaction.detect import dates
from proxy.core.redaction.detect.context import Context

NON_DIGITS = bytes(c for c in range(256) if not 0x30 <= c <= 0x39)
SEPARATORS = b" .-/:()_\xa0+"
_YEARS = re.compile(rb"(?:19|20)[0-9]{2}[ \-/](?:19|20)[0-9]{2}")
_OPERAND = re.compile(rb"(?:[0-9)\]]|(?<![A-Za-z\x80-\xff])[A-Za-z]) ?\Z")
_HEX_GROUP = re.compile(
    rb"(?<![0-9A-Za-z])(?![A-Z]{2}[0-9]{2}[ \n])((?=[0-9]*[A-Fa-f])(?=[A-Fa-f]*[0-9])[0-9A-Fa-f]{2,5})[ \n]\Z"
)
"""A group of hex digits, right before a number, that shows it to be one of a dump; not the beginning of an account's."""
CARD = b"0000 0000 0000 0000"
MAX_CARDS = 64
_DECIMAL = re.compile(rb"[0-9]{1,6}\.[0-9]{2,}")
_ISBN = re.compile(rb"97[89][ -]?[0-9][0-9 \-]{8,13}")
_YEAR_FIRST = frozenset((b"0000-00-00", b"0000/00/00", b"0000.00.00"))
_YEAR_LAST = frozenset((b"00-00-0000", b"00/00/0000", b"00.00.0000"))
_TIMES = frozenset((b"", b" 00:00", b" 00:00:00", b":00:00:00", b" 00:00:00.000", b" 00:00:00.000000"))
PLAIN_DATES = frozenset(day + time for day in (*_YEAR_FIRST, *_YEAR_LAST) for time in _TIMES if len(time) < 10)
"""Dates with ten characters and times that need no closer look to be told from other runs."""
_DATES = frozenset(day + time for day in (*_YEAR_FIRST, *_YEAR_LAST) for time in _TIMES)
_CENTURIES = frozenset((b"19", b"20"))


def cards_from(shape: bytes, first: int) -> int:
    """Return how many numbers in four fours stand in a row from ``first`` on, one blank between two."""
    count, at = 0, first
    while count < MAX_CARDS and shape.startswith(CARD, at) and shape[at + 19 : at + 20] != b"0":
        count, at = count + 1, at + 20
        if shape[at - 1 : at] != b" ":
            break
    return count


def before_open(run: bytes, opened: int) -> int:
    """Return the end of what stands before the bracket at ``opened`` and before all that are open like it."""
    size = len(run)
    while opened > 0 and run.find(b")", opened, size) < 0:
        size = opened
        while size and run[size - 1] in SEPARATORS:
            size -= 1
        opened = run.rfind(b"(", 0, size)
    return size


def is_clear(shape: bytes) -> bool:
    """True for a shape that is no date's, and of which no number is benign or too short or has brackets or a sign before it."""
    is_date = shape[:10] in _YEAR_FIRST or shape[:10] in _YEAR_LAST
    return (
        shape[:1] == b"0"
        and shape.count(b"0") > 6
        and not is_date
        and not is_benign(shape, shape)
        and (shape.count(b"0") != 13 or bool(shape.strip(b"0- ")))
    )


def spaced(shape: bytes) -> bytes:
    """Return a shape with the plus signs inside it read as the blanks they stand for in a form, and two blanks as one."""
    return (shape[:1] + shape[1:].replace(b"+", b" ")).replace(b"  ", b" ")


def is_benign(run: bytes, shape: bytes) -> bool:
    """True for decimals and ISBN-13: runs that are none of our values."""
    if shape.strip(b"0.- "):
        return _YEARS.fullmatch(run) is not None
    if _YEARS.fullmatch(run) is not None:
        return True
    return _DECIMAL.fullmatch(run) is not None or (shape.count(b"0") == 13 and _ISBN.fullmatch(run) is not None)


def is_timestamp(digits: str) -> bool:
    """True for fourteen digits that are a day and a time of this or the last century: bare, they are that."""
    if len(digits) != 14 or digits[:2] not in ("19", "20"):
        return False
    day, hour, minute, second = digits[:8], digits[8:10], digits[10:12], digits[12:]
    return dates.is_calendar_date(day.encode()) and hour < "24" and minute < "60" and second < "60"


def is_of_telephone(data: bytes, start: int, special: re.Match[bytes]) -> bool:
    """True when four dotted groups may belong to the telephone number that a plus sign at ``start`` begins.

    What stands before them is not long enough for a number of its own.
    """
    if data[start] != 0x2B or special["ip"] is None:
        return False
    return len(data[start : special.start()].translate(None, NON_DIGITS)) <= 7


def is_date_shape(run: bytes, shape: bytes) -> bool:
    """True for a date of this or the last century with ten characters, perhaps with a time behind it."""
    if shape not in _DATES:
        return False
    if shape[4] != 0x30:  # no digit: the year stands first
        return run[:2] in _CENTURIES and run[5] in b"01"
    return run[6:8] in _CENTURIES and run[0] in b"0123"


def is_operand(data: bytes, start: int, end: int) -> bool:
    """True where the plus sign is that of a sum: ``3*x + 39062500``, ``+39062500*x``."""
    if data[end : end + 1] in (b"*", b"^"):
        return True
    return data[start + 1 : start + 2] == b" " and _OPERAND.search(data, max(0, start - 4), start) is not None


def is_of_more(ctx: Context, start: int, end: int, shape: bytes) -> bool:
    """True for groups of digits in a hex dump, in a longer dotted row, or in a formula."""
    data = ctx.data
    if data[end : end + 1] == b"*" and not ctx.local and data[end + 1 : end + 2].isalnum():
        return shape.isdigit()
    blank = shape.find(b" ")
    if blank > 0:
        found = _HEX_GROUP.search(data, max(0, start - blank - 2), start)
        return found is not None and found.end(1) - found.start(1) == blank
    return bool(start) and data[start - 1] == 0x2E and shape.find(b".") >= 0


def stands_alone(run: bytes, groups: list[tuple[int, int]], i: int, j: int, taken: int) -> bool:
    """True when the groups beside the window do not look like its own continuation."""
    inner = run[groups[i][1] : groups[i + 1][0]] if j > i else b""
    if i > taken and not _separates(run[groups[i - 1][1] : groups[i][0]], inner, groups[i - 1], groups[i]):
        return False
    if j + 1 == len(groups):
        return True
    last = run[groups[j - 1][1] : groups[j][0]] if j > i else b""
    return _separates(run[groups[j][1] : groups[j + 1][0]], last, groups[j + 1], groups[j])


def _separates(gap: bytes, inner: bytes, outside: tuple[int, int], inside: tuple[int, int]) -> bool:
    """A blank between groups of unlike length or where another separator is used inside; brackets, slash, colon."""
    if gap.strip(b" \xa0"):
        return gap[:1] in b"/:" or b"(" in gap
    return inner not in (gap, b"") or outside[1] - outside[0] != inside[1] - inside[0] or outside[1] - outside[0] > 8
