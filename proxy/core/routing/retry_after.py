"""When a provider says to come back: ``retry-after`` in seconds or as a date, and ``retry-after-ms``.

Owns parsing and the clamp; decides nothing.
"""

from __future__ import annotations

import math
from datetime import UTC
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_S = 300.0
_MAX_LENGTH = 64


def parse_retry_after(value: str | None, now_unix_s: float, value_ms: str | None = None) -> float | None:
    """Return seconds to wait, from 0 to 300, or None when nothing usable was said.

    Args:
        value: The ``retry-after`` header: seconds (a fraction is accepted) or an HTTP date.
        now_unix_s: Unix time of the answer's arrival, to measure a date against.
        value_ms: The ``retry-after-ms`` header, which is finer and wins.

    Source: RFC 9110, 10.2.3; ``retry-after-ms`` as the official SDKs read it.
    """
    wait_s = _number(value_ms)
    if wait_s is not None:
        return _clamp(wait_s / 1000.0)
    wait_s = _number(value)
    if wait_s is None:
        wait_s = _seconds_to_date(value, now_unix_s)
    return None if wait_s is None else _clamp(wait_s)


def _clamp(wait_s: float) -> float:
    return min(MAX_RETRY_AFTER_S, max(0.0, wait_s))


def _number(text: str | None) -> float | None:
    """A plain decimal number; not the ``nan``, ``inf``, ``1e3`` and ``1_0`` that ``float`` takes as well."""
    if text is None or len(text) > _MAX_LENGTH:
        return None
    digits = text.strip()
    unsigned = digits.removeprefix("-")
    if not unsigned.isascii() or not unsigned.replace(".", "", 1).isdigit():
        return None
    number = float(digits)
    return number if math.isfinite(number) else None


def _seconds_to_date(text: str | None, now_unix_s: float) -> float | None:
    if text is None or len(text) > _MAX_LENGTH:
        return None
    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return date.timestamp() - now_unix_s
    except (ValueError, OverflowError):
        return None
