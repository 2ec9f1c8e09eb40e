"""Where a text that is still growing may yet turn into a value: the part a streaming redactor has to hold back.

Owns the trailing alphabets of the families. Knows no validator: what could grow is held, whatever it would become.
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
_OPEN_ENDS = re.compile(
    rb"(?:(?:[+(] ?){0,2}[0-9][0-9 .\-/():_\xa0]{0,48}(?:[eErR]?[xXaA]?[tTmM]?[aA]?[lL]?\.? ?#?[0-9]{0,6})"
    rb"|(?:\b[A-Za-z]{1,2}[ \-\xa0]?)?(?:(?:[A-Z]{1,6}|[A-Za-z]{0,6}[0-9][A-Za-z0-9]{0,10})[ \-\xa0.]{0,2}){0,12}[A-Za-z]?"
    rb"|[0-9]{1,2}(?:st|nd|rd|th|\.|\xba|er)?[ \-/,]{1,2}(?:de |of |di |d')?[A-Za-z\xe0-\xff]{0,12}\.?[ \-/,]{0,2}(?:de |del |of )?[0-9]{0,4}"
    rb"|\b" + dates.MONTH_NAME + rb"(?: {1,2}[0-9]{0,2}(?:st|nd|rd|th)?,? {0,2}[0-9]{0,4})?"
    rb"|-{1,5}(?:BEGIN[A-Z0-9 ]{0,40}-{0,5})?"
    rb"|(?i:bearer|basic|token) ?"
    rb"|[+(] ?)$"
)  # fmt: skip


def live_start(text: str) -> int:
    """Return the leftmost position from which some family could still grow past the end.

    Everything before it may be judged and released; the bound is ``MAX_HOLD`` characters.
    """
    size = len(text)
    tail = to_bytes(text[-MAX_HOLD:])
    token = len(tail) - len(_trailing(tail))
    near = tail[-_TAIL:]
    found = _OPEN_ENDS.search(near)
    open_end = len(tail) - len(near) + found.start() if found else len(tail)
    numbers = len(tail) - len(near) + len(near.rstrip(_NUMBER_CHARS))
    while numbers < len(tail) and tail[numbers] in b" .-/):_\xa0":
        numbers += 1
    return size - len(tail) + min(token, open_end, numbers)


def _trailing(tail: bytes) -> bytes:
    """Return the run at the end that holds no blank and no quote."""
    cut = max([tail.rfind(bytes([c])) for c in _TOKEN_END])
    return tail[cut + 1 :]
