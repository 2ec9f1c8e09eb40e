"""The window counter: how much was charged in the last W seconds, and when there will be room again.

Owns the arithmetic of one limit over one window, and of one set of concurrency slots. Knows no budget
names, no other limits and no clock: seconds come in as arguments and may be on any monotonic scale.

Why a window and not a token bucket: a bucket of depth L refilled at L per W admits 2 L in some window,
and requests that reserve much and refund late break any bucket. Charges here belong to the bucket of
their *admission*, so a late settlement can only lower what an earlier window held.

Charges are kept in ``slices`` equal buckets per window plus one: the sum covers the current bucket and
the ``slices`` before it, so it is rounded outward and never covers less than W. The price is use, never
safety: at steady demand at most 1 / (slices + 1) of the limit stays unused.

=========  ========  ============  =============
window     slices    bucket        unused at most
=========  ========  ============  =============
10 s       10        1 s           9.1 %
minute     60        1 s           1.7 %
hour       120       30 s          0.9 %
day        288       5 min         0.4 %
=========  ========  ============  =============
"""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate
from typing import NamedTuple

_ROUNDING_S = 1e-6
"""Added to a wait so that ``now + wait`` cannot fall just short of a bucket's edge in floating point."""


class WindowShape(NamedTuple):
    """How long a window is and into how many buckets it is cut."""

    window_s: float
    slices: int


TEN_SECONDS = WindowShape(10.0, 10)
MINUTE = WindowShape(60.0, 60)
HOUR = WindowShape(3600.0, 120)
DAY = WindowShape(86400.0, 288)


class WindowCounter:
    """Charges of the last window against one limit.

    Time never runs backwards in here: an earlier ``now_s`` than one already seen counts as that one,
    so a clock that steps back cannot open a second window. ``limit`` may be changed at any time; it acts
    at the next question and leaves the charges alone.
    """

    __slots__ = ("_before", "_head", "_ring", "_since_s", "_size", "_width_s", "leaves_s", "limit", "until_s", "used")

    def __init__(self, shape: WindowShape, limit: int) -> None:
        self.limit = limit
        self.used = 0
        """Sum of the charges in the window as of the last call; what is added to it is charged to the current bucket."""
        self.until_s = -math.inf
        """When the current bucket is over; before that ``advance`` changes nothing."""
        self.leaves_s = 0.0
        """When a charge made now has left the window."""
        self._width_s = shape.window_s / shape.slices
        self._size = shape.slices + 1
        self._ring = [0] * self._size
        """Charges per bucket; those of the current one are written down when it is over."""
        self._before = 0
        """Sum of the charges in the window that are older than the current bucket."""
        self._since_s = -math.inf
        self._head = -1

    def advance(self, now_s: float) -> None:
        """Let the buckets that have left the window expire."""
        bucket = int(now_s // self._width_s)
        head = self._head
        if bucket <= head:
            return
        self._head = bucket
        self._since_s = bucket * self._width_s
        self.until_s = self._since_s + self._width_s
        self.leaves_s = self._leaves_at_s(bucket)
        used, size, ring = self.used, self._size, self._ring
        ring[head % size] = used - self._before
        if not used and not self._before:
            return
        if bucket - head >= size:
            self._ring = [0] * size
            self.used = self._before = 0
            return
        for passed in range(head + 1, bucket + 1):
            index = passed % size
            used -= ring[index]
            ring[index] = 0
        self.used = self._before = used

    def fits(self, amount: int, now_s: float) -> bool:
        """True when ``amount`` more may be charged now."""
        if now_s >= self.until_s:
            self.advance(now_s)
        return self.used + amount <= self.limit

    def charge(self, amount: int) -> None:
        """Charge the current bucket, whether it fits or not; ask ``fits`` first."""
        self.used += amount

    def correct(self, admitted_s: float, by: int, now_s: float) -> None:
        """Change a charge made at ``admitted_s`` by ``by``, in the bucket it was made in.

        When that bucket has left the window a refund has nothing left to give back, and an overrun is
        charged to the present.
        """
        if now_s >= self.until_s:
            self.advance(now_s)
        if admitted_s >= self._since_s:
            self.used += by
            return
        bucket = int(admitted_s // self._width_s)
        if bucket > self._head - self._size:
            self._ring[bucket % self._size] += by
            self._before += by
            self.used += by
        elif by > 0:
            self.used += by

    def wait_s(self, amount: int, now_s: float) -> float:
        """Seconds until ``amount`` fits if nothing else is charged; 0 when it fits, inf when it never will."""
        self.advance(now_s)
        surplus = self.used + amount - self.limit
        if surplus <= 0:
            return 0.0
        if amount > self.limit:
            return math.inf
        ring = self._all_charges()
        oldest = (self._head + 1) % self._size
        freed = list(accumulate(ring[oldest:] + ring[:oldest]))
        bucket = self._head - self._size + 1 + bisect_left(freed, surplus)
        return max(0.0, self._leaves_at_s(bucket) - now_s) + _ROUNDING_S

    def reset_s(self, now_s: float) -> float:
        """Seconds until the window is empty if nothing else is charged."""
        self.advance(now_s)
        if not self.used:
            return 0.0
        size, ring, bucket = self._size, self._all_charges(), self._head
        while not ring[bucket % size]:
            bucket -= 1
        return max(0.0, self._leaves_at_s(bucket) - now_s)

    def full_reset_s(self, now_s: float) -> float:
        """Seconds until a charge made just now has left the window."""
        return self.leaves_s - now_s

    def _all_charges(self) -> list[int]:
        self._ring[self._head % self._size] = self.used - self._before
        return self._ring

    def _leaves_at_s(self, bucket: int) -> float:
        return (bucket + self._size) * self._width_s


class SlotCounter:
    """Exchanges that may run at once. What takes a slot must give it back: nothing here expires."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


class SlotView(SlotCounter):
    """Another limit on the slots of a counter: what is taken through either is taken from both."""

    __slots__ = ("base",)

    def __init__(self, base: SlotCounter, limit: int) -> None:
        self.base = base
        self.limit = limit

    @property
    def used(self) -> int:
        """Slots that are taken."""
        return self.base.used

    @used.setter
    def used(self, value: int) -> None:
        self.base.used = value
