"""Calendar windows: a day or a month of the wall clock in some time zone.

Owns where such a period begins and ends, and the counter of one. Unlike a sliding window it is empty again at
its boundary, so twice the limit may pass around midnight: that is what "per calendar day" means.

The counter is driven by monotonic seconds like every other; ``WallClock`` says how far the wall clock is away. A
period once left never comes back: a wall clock that steps back cannot reopen yesterday, or empty today twice.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

_DAY_S = 86400.0


class Calendar(StrEnum):
    """How long a calendar period is."""

    DAY = "calendar_day"
    MONTH = "month"

    @property
    def longest_s(self) -> float:
        """Seconds of the longest such period, the change of the clocks included."""
        return 25 * 3600.0 if self is Calendar.DAY else 31 * _DAY_S + 3600.0


class WallClock:
    """How far Unix time is ahead of the monotonic scale; its owner keeps it up to date."""

    __slots__ = ("offset_s",)

    def __init__(self, offset_s: float = 0.0) -> None:
        self.offset_s = offset_s


def period_of(kind: Calendar, zone: str, unix_s: float) -> tuple[float, float]:
    """Return the beginning (inclusive) and end of the period around a moment, in Unix seconds.

    Raises:
        ZoneInfoNotFoundError: No such time zone.
    """
    tz = ZoneInfo(zone)
    # A shared counter judges by another machine's clock, so even an absurd time must have a period.
    there = datetime.fromtimestamp(min(max(unix_s, 0.0), 2e11), UTC).astimezone(tz)
    start = there.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if kind is Calendar.MONTH:
        start = start.replace(day=1)
        after = (start + timedelta(days=32)).replace(day=1)
    else:
        after = start + timedelta(days=1)
    # Arithmetic within a zone is by its wall clock, so a day with a change of the clocks has 23 or 25 hours.
    return start.timestamp(), after.timestamp()


class CalendarCounter:
    """Charges of the current period against one limit; the face of ``WindowCounter``."""

    __slots__ = ("_began_s", "_end_unix_s", "_start_unix_s", "_until_s", "_wall", "_wall_at", "kind", "limit", "until_s", "used", "zone")  # fmt: skip

    def __init__(self, kind: Calendar, zone: str, limit: int, wall: WallClock) -> None:
        self.limit = limit
        self.used = 0
        """Sum of the charges in the period as of the last call."""
        self.until_s = -math.inf
        """Never in the future: whether the period is over depends on the wall clock, too, so ``advance`` has to look."""
        self.kind = kind
        self.zone = zone
        self._wall = wall
        self._wall_at = 0.0
        self._start_unix_s = -math.inf
        self._end_unix_s = -math.inf
        self._until_s = -math.inf
        self._began_s = -math.inf

    def advance(self, now_s: float) -> None:
        """Begin the next period when this one is over."""
        wall = self._wall.offset_s
        if now_s < self._until_s and wall == self._wall_at:
            return
        self._wall_at = wall
        unix_s = now_s + wall
        if unix_s >= self._end_unix_s:
            start_s, end_s = period_of(self.kind, self.zone, unix_s)
            if start_s > self._start_unix_s:
                self._start_unix_s, self._end_unix_s = start_s, end_s
                self._began_s = now_s
                self.used = 0
        self._until_s = self._end_unix_s - wall

    def fits(self, amount: int, now_s: float) -> bool:
        """True when ``amount`` more may be charged now."""
        self.advance(now_s)
        return self.used + amount <= self.limit

    def charge(self, amount: int) -> None:
        """Charge the current period, whether it fits or not; ask ``fits`` first."""
        self.used += amount

    def correct(self, admitted_s: float, by: int, now_s: float) -> None:
        """Change a charge made at ``admitted_s`` by ``by``; of an earlier period only an overrun still counts."""
        self.advance(now_s)
        if admitted_s >= self._began_s or by > 0:
            self.used += by

    def wait_s(self, amount: int, now_s: float) -> float:
        """Seconds until ``amount`` fits if nothing else is charged; 0 when it fits, inf when it never will."""
        self.advance(now_s)
        if self.used + amount <= self.limit:
            return 0.0
        return math.inf if amount > self.limit else self._left_s(now_s)

    def reset_s(self, now_s: float) -> float:
        """Seconds until the period is over; 0 when nothing is charged."""
        self.advance(now_s)
        return self._left_s(now_s) if self.used else 0.0

    @property
    def leaves_s(self) -> float:
        """When a charge made now no longer counts."""
        return self._until_s + 1e-6

    def full_reset_s(self, now_s: float) -> float:
        """Seconds until a charge made just now no longer counts."""
        return self._left_s(now_s)

    def _left_s(self, now_s: float) -> float:
        return max(0.0, self._until_s - now_s) + 1e-6
