"""Text that every store can hold: what PostgreSQL, JSON and UTF-8 refuse is escaped, and said so.

Knows nothing of rows. A NUL and a lone surrogate are the two characters a Python ``str`` may hold and
an audit store may not; both would refuse the whole batch they travel in (22021, 22P05, 22P02,
``UnicodeEncodeError``). They become their JSON escapes, spelled out, so the reader still sees them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import orjson

ESCAPED: Final = 1
"""Flag bit: a NUL or a lone surrogate was spelled out."""
CUT: Final = 2
"""Flag bit: a text, a list or a number was cut to its limit."""
NO_GROUPS: Final = "[]"
"""The column of a caller without groups."""
MAX_GROUPS_BYTES: Final = 512
"""Longest JSON text of a caller's groups."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_INT64_MAX: Final = 2**63 - 1


def flag_names(bits: int) -> str:
    """Return the flag column for a bit set: ``""``, ``escaped``, ``cut`` or ``escaped,cut``."""
    return ",".join(name for bit, name in ((ESCAPED, "escaped"), (CUT, "cut")) if bits & bit)


def clean_text(text: str, max_bytes: int) -> tuple[str, int]:
    """Return the text as it may be stored, at most ``max_bytes`` of UTF-8, and the flag bits it earned."""
    bits = 0
    if _UNSTORABLE.search(text):
        text = _UNSTORABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", text[: max_bytes + 1])
        bits = ESCAPED
    if len(text) > max_bytes or (not text.isascii() and len(text.encode()) > max_bytes):
        text = text[:max_bytes].encode()[:max_bytes].decode(errors="ignore")
        bits |= CUT
    return text, bits


def clean_counts(
    counts: dict[str, int] | dict[str, float], max_items: int, max_bytes: int
) -> tuple[dict[str, float], int]:
    """Return a name -> number mapping with storable names and numbers, and the flag bits it earned."""
    bits = CUT if len(counts) > max_items else 0
    kept: dict[str, float] = {}
    for name, value in list(counts.items())[:max_items]:
        text, name_bits = clean_text(name, max_bytes)
        kept[text], value_bits = clean_number(value)
        bits |= name_bits | value_bits
    return kept, bits


@lru_cache(256)
def clean_groups(groups: tuple[str, ...]) -> tuple[int, str]:
    """Return the flag bits and the JSON text of a caller's groups: the first that fit ``MAX_GROUPS_BYTES``."""
    kept: list[str] = []
    text, bits = NO_GROUPS, 0
    for group in groups:
        clean, group_bits = clean_text(group, MAX_GROUPS_BYTES)
        longer = orjson.dumps([*kept, clean])
        if len(longer) > MAX_GROUPS_BYTES:
            return bits | CUT, text
        kept.append(clean)
        text, bits = longer.decode(), bits | group_bits
    return bits, text


def clean_number(value: float) -> tuple[float, int]:
    """Return a number a 64-bit column can hold, and the flag bits it earned."""
    if isinstance(value, int) and not -_INT64_MAX <= value <= _INT64_MAX:
        return (_INT64_MAX if value > 0 else -_INT64_MAX), CUT
    return value, 0
