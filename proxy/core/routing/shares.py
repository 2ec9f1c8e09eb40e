"""How the targets of one chain step share its load: turns by weight, load and latency, stickiness.

Owns the arithmetic. Knows no deployment, breaker, clock or dice: names, weights, seconds and random numbers come in.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Final

EWMA_TAU_S: Final = 10.0
"""After so long without news a remembered latency has shrunk to a third."""
UNKNOWN_MS: Final = 1.0
"""What is assumed of a target nobody has asked: it is asked soon."""


class WeightedTurns:
    """Turns in proportion to weights, as evenly spread as weights allow (smooth weighted round robin).

    Over any stretch during which all take part, each gets its share to within one turn.
    """

    __slots__ = ("_credits", "_weights")

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = tuple(weights)
        self._credits = [0.0] * len(weights)

    def take(self, present: Sequence[int]) -> int:
        """Return whose turn it is among those present (indices, at least one)."""
        total = 0.0
        for index in present:
            self._credits[index] += self._weights[index]
            total += self._weights[index]
        best = max(present, key=lambda index: self._credits[index])
        self._credits[best] -= total
        return best


class PeakEwma:
    """A latency that jumps up with bad news and comes down slowly: one slow answer is enough to be careful."""

    __slots__ = ("_at_s", "_value_ms")

    def __init__(self) -> None:
        self._value_ms = 0.0
        self._at_s = 0.0

    def note(self, latency_ms: float, now_s: float) -> None:
        """Take the latency of one answer."""
        value_ms = self.value_ms(now_s)
        if latency_ms >= value_ms:
            self._value_ms = latency_ms
        else:
            keep = math.exp(-max(0.0, now_s - self._at_s) / EWMA_TAU_S)
            self._value_ms = self._value_ms * keep + latency_ms * (1.0 - keep)
        self._at_s = max(now_s, self._at_s)

    def value_ms(self, now_s: float) -> float:
        """Return the remembered latency, fading when there is no news."""
        return self._value_ms * math.exp(-max(0.0, now_s - self._at_s) / EWMA_TAU_S)


class Load:
    """What one target is carrying, and how long it takes."""

    __slots__ = ("in_flight", "latency")

    def __init__(self) -> None:
        self.in_flight = 0
        self.latency = PeakEwma()

    def cost(self, weight: float, now_s: float, *, by_latency: bool) -> float:
        """Return how dear the next request here is; the lowest of several is the place to go."""
        waiting = (self.in_flight + 1) / weight
        return waiting * max(UNKNOWN_MS, self.latency.value_ms(now_s)) if by_latency else waiting


def two_choices(costs: Sequence[float], first: float, second: float) -> int:
    """Return the cheaper of two different places drawn by two random numbers from 0 to 1 (below 1).

    Looking at two is nearly as good as looking at all, and no herd runs to the one that looks best.
    """
    count = len(costs)
    if count == 1:
        return 0
    one = min(count - 1, int(first * count))
    other = (one + 1 + min(count - 2, int(second * (count - 1)))) % count
    return one if costs[one] <= costs[other] else other


def by_affinity(key: bytes, names: Sequence[str], weights: Sequence[float]) -> list[int]:
    """Order targets for a key: always alike for the same key, shares by weight over many keys.

    Where one target goes, only its keys move (rendezvous hashing).
    """

    def score(index: int) -> float:
        digest = hashlib.blake2b(key + b"\0" + names[index].encode(), digest_size=8).digest()
        uniform = (int.from_bytes(digest, "big") + 0.5) / 2.0**64
        return -weights[index] / math.log(uniform)

    return sorted(range(len(names)), key=score, reverse=True)
