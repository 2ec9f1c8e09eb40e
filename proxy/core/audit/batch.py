"""When a batch of rows is ripe, and how long to wait for a store that is away.

Owns two sums; does not know the spool, the store or the clock.
"""

from __future__ import annotations


def is_ripe(*, rows: int, age_s: float, max_rows: int, max_age_s: float) -> bool:
    """Say whether waiting rows should be sent now: enough of them, or the oldest waited long enough."""
    return rows > 0 and (rows >= max_rows or age_s >= max_age_s)


def backoff_s(failures: int, *, first_s: float, max_s: float, jitter: float) -> float:
    """Return the wait before the next try after ``failures`` (>= 1) in a row.

    Doubles from ``first_s`` up to ``max_s``; ``jitter`` in [0, 1) takes away up to half of it, so that
    sidecars which lost their store together do not come back together.
    """
    ceiling = min(max_s, first_s * 2.0 ** min(failures - 1, 32))
    return ceiling * (1.0 - jitter / 2.0)
