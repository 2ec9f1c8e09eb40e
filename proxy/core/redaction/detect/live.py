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
_TOKEN_END = bytes(0x20 if chr(c) in " \t\r\n\x0b\x0c\"'<>`\xa0" else c for c in range(256))
_GROUP_END = bytes(0x20 if chr(c) in '- \xa0\n"' else c for c in range(256))
"""Tables that make one character of all that end a run, to be searched for once."""
_NUMBER_CHARS = b"0123456789 .-/():_+\xa0"
_EXTENSION = re.compile(rb"[0-9] ?(?:e|ex|ext|exte[a-z]{0,5}|x|r|ra|ram[a-z]{0,2})\.? ?[0-9]{0,6}\Z", re.IGNORECASE)
_ALNUM = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,?" + bytes(range(0xC0, 0x100))
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz?" + bytes(range(0xC0, 0x100))
_GROUP = re.compile(rb"[A-Z]{1,6}\.?|[A-Za-z]{0,6}[0-9][A-Za-z0-9.]{0,12}")
_WORDY = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz .,;!?'()\n" + bytes(range(0xC0, 0x100))
_LETTERS = _ALNUM.translate(None, b"0123456789.,")
_MAX_GROUPS = 12
_PART_OF_DATE = re.compile(
    rb"(?i:[0-9]{1,4}(?:st|nd|rd|th|\.|\xba|er)?,?)|(?:"
    + dates.MONTH_NAME
    + rb",?)|(?i:de|del|of|di|th(?:\xe1|a)n?g?|n[?a]m)"
)
_OTHER_DATE = re.compile(rb"[0-9]{1,4}[. ]{0,2}\?{1,12}[ 0-9?.]{0,16}\Z")
"""A date whose month, or whose signs for year, month and day, are in another script."""
_GROWING_MONTH = re.compile(
    rb"(?<![0-9])[0-9]{1,2}(?:st|nd|rd|th|\.|\xba|er)?[ \-/]{1,2}(?:de |of |di |d')?[A-Za-z?\x80-\xff]{1,12}"
    rb"(?:[ \-/]{1,2}(?:de?|del|of?)? ?[0-9]{0,4})?\Z"
)
"""A day with a word behind it that may be a month's, and the year that may follow."""
_SCHEME = re.compile(rb"(?i:bearer|basic|token) ?\Z")
_MAX_SCHEME = 7
_ARMOUR = re.compile(rb"-{1,5}(?:BEGIN[A-Z0-9 ]{0,40}-{0,5})?\Z")
_OPEN_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:[A-Za-z0-9+/=:,.\s]|\\+[nrt]?|-[^-])*(?:-{1,5}(?:E(?:N(?:D[A-Z0-9 ]*-{0,4})?)?)?)?\Z"
)
"""A private key whose END line is not there yet."""
MAX_JWT = 4096
_GROWING_JWT = re.compile(
    r"\beyJ[A-Za-z0-9_\-]{8,}(?:\.(?:e(?:y(?:J[A-Za-z0-9_\-]*(?:\.[A-Za-z0-9_\-]*)?)?)?)?)?\Z", re.ASCII
)
"""The beginning of a token in three parts, of which only the third makes it one."""


def live_start(text: str, *, is_hasty: bool = False) -> int:
    """Return the leftmost position from which some family could still grow past the end.

    Everything before it may be judged and released. The bound is ``MAX_HOLD`` characters; ``MAX_JWT`` for what may become
    a JWT; a private key is live until its END line.

    Args:
        is_hasty: Words of letters are not waited for, although an address or a code may begin with them.
    """
    tail = to_bytes(text[-MAX_HOLD:])
    size = len(tail)
    near = tail[-_TAIL:]
    shift = size - len(near)
    starts = [size - len(_token(tail)), shift + _numbers(near), shift + _groups(near)]
    is_in_run = starts[0] == 0 and size == MAX_HOLD
    if is_hasty:
        starts = [start for start in starts if tail[start:].translate(None, _WORDY)] or [size]
    extension = _EXTENSION.search(near)
    if extension is not None:
        starts.append(shift + _numbers(near[: extension.start() + 1]))
    scheme = _SCHEME.search(near, max(0, len(near) - _MAX_SCHEME))
    if scheme is not None:
        starts.append(shift + scheme.start())
    other = _OTHER_DATE.search(near) if b"?" in near else None
    if other is not None:
        starts.append(shift + other.start())
    month = _GROWING_MONTH.search(near)
    if month is not None:
        starts.append(shift + month.start())
    armour = _ARMOUR.search(near) if b"-" in near else None
    if armour is not None:
        starts.append(shift + armour.start())
    return min(len(text) - size + min(starts), _long_start(text, is_in_run=is_in_run))


def _long_start(text: str, *, is_in_run: bool) -> int:
    """Return where a key or token at the end starts that is longer than everything else."""
    at = text.rfind("-----BEGIN")
    if at >= 0 and _OPEN_KEY.match(text, at):
        return at
    found = _GROWING_JWT.search(text, max(0, len(text) - MAX_JWT)) if is_in_run else None
    return found.start() if found else len(text)


def _token(tail: bytes) -> bytes:
    """Return the run at the end that holds no blank and no quote."""
    return tail[tail.translate(_TOKEN_END).rfind(b" ") + 1 :]


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
    parted = near.translate(_GROUP_END)
    for _ in range(_MAX_GROUPS):
        first = parted.rfind(b" ", 0, stop) + 1
        group = near[first:stop]
        glued = max(len(group.rstrip(_ALNUM)), group.rstrip(b",.").rfind(b",") + 1)
        if glued:  # a sign stands in front: "x=GB82", "<iban>PT08", "**CH35"
            first, group = first + glued, group[glued:]
        if len(group) > 1 and group[0] >= 0x80 and group[1:].isalnum() and group[1:].isupper():
            glued, first, group = 1, first + 1, group[1:]  # "éDE89": an accented letter glues nothing
        is_short = len(group) <= 2 and not group.translate(None, _LETTERS)
        if not group or not (is_short or _GROUP.fullmatch(group) or _PART_OF_DATE.fullmatch(group)):
            break
        start = first
        if glued or first == 0 or near[first - 1] in b'\n"':
            break
        if is_short and group.islower() and stop != len(near) and not _PART_OF_DATE.fullmatch(group):
            break  # a word of prose; one that is not over yet may become a month's or "de"
        stop = len(near[:first].rstrip(b" -\xa0"))
    return start
