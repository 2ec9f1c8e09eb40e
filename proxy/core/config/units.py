"""Durations and sizes as people write them: ``500ms``, ``90d``, ``32MiB``.

Owns the units. A number without one is refused by the caller, with the units listed here.
"""

from __future__ import annotations

import re

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
_DECIMAL_SIZES = {"kb": "KiB", "mb": "MiB", "gb": "GiB", "tb": "TiB", "k": "KiB", "m": "MiB", "g": "GiB", "t": "TiB"}
_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([A-Za-zµ]+)\Z")
_BARE = re.compile(r"[-+]?[0-9.]+\Z")


class UnitMissing(ValueError):
    """A number stands alone."""


class UnitUnknown(ValueError):
    """The text is not a number followed by a known unit; the message says which are."""


def parse_duration(text: str) -> float:
    """Return seconds for ``500ms``, ``2s``, ``5m``, ``1h`` or ``90d``.

    Raises:
        UnitMissing: Only a number.
        UnitUnknown: Anything else.
    """
    amount, unit = _split(text)
    if unit not in SECONDS:
        raise UnitUnknown(_unknown(unit, {u.lower(): u for u in SECONDS}, "ms, s, m, h, d"))
    return round(float(amount) * SECONDS[unit], 6)


def parse_size(text: str) -> int:
    """Return bytes for ``64KiB``, ``32MiB``, ``1GiB`` or ``512B``.

    Raises:
        UnitMissing: Only a number.
        UnitUnknown: Anything else, also ``MB``, which some read as 1000 and some as 1024.
    """
    amount, unit = _split(text)
    if unit not in BYTES:
        near = {u.lower(): u for u in BYTES} | _DECIMAL_SIZES
        raise UnitUnknown(_unknown(unit, near, "B, KiB, MiB, GiB, TiB"))
    total = float(amount) * BYTES[unit]
    if total != int(total):
        raise UnitUnknown("not a whole number of bytes")
    return int(total)


def _split(text: str) -> tuple[str, str]:
    found = _QUANTITY.match(text)
    if found is None:
        if _BARE.match(text):
            raise UnitMissing
        raise UnitUnknown("")
    return found.group(1), found.group(2)


def _unknown(unit: str, near: dict[str, str], known: str) -> str:
    guess = near.get(unit.lower())
    hint = f"; did you mean {guess}?" if guess else ""
    return f"unknown unit {unit!r}: use one of {known}{hint}"
