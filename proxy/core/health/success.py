"""What the last seconds and the last answers were like: weighted failures and latencies, bounded.

Owns two small windows. Knows no breaker, no outcome and no clock.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple


class Tally(NamedTuple):
    """Attempts of a window; ``failed`` is weighted, so it need not be whole."""

    attempts: int
    failed: float
    retries: int


class SuccessWindow:
    """Attempts, weighted failures and retries of the last seconds, one bucket per second.

    Covers the current second and the ``seconds`` before it. A clock that steps back is held at the
    latest second seen.
    """

    __slots__ = ("_attempts", "_before", "_failed", "_head", "_retries", "_size", "_until_s", "attempts", "failed", "retries")  # fmt: skip

    def __init__(self, seconds: int) -> None:
        self._size = seconds + 1
        self._head = -1
        self._until_s = 0
        """When the current second is over."""
        self._forget()

    def count_success(self, now_s: float) -> None:
        """Count one attempt that went well."""
        if now_s >= self._until_s:
            self._advance(int(now_s))
        self.attempts += 1

    def count_failure(self, weight: float, now_s: float) -> None:
        """Count one attempt that failed; ``weight`` from 0 (harmless) to 1."""
        self.count_success(now_s)
        self._failed[self._head % self._size] += weight
        self.failed += weight

    def count_retry(self, now_s: float) -> None:
        """Count one repetition at the same target."""
        self._advance(int(now_s))
        self._retries[self._head % self._size] += 1
        self.retries += 1

    def tally(self, now_s: float) -> Tally:
        """Return the sums of the window as of ``now_s``."""
        self._advance(int(now_s))
        return Tally(self.attempts, self.failed, self.retries)

    def clear(self) -> None:
        """Forget what was counted."""
        self._forget()

    def _forget(self) -> None:
        self.attempts = 0
        self.retries = 0
        self.failed = 0.0
        self._before = 0
        """Attempts of the window that are older than the current second, whose own are written down when it is over."""
        self._attempts = [0] * self._size
        self._retries = [0] * self._size
        self._failed = [0.0] * self._size

    def _advance(self, second: int) -> None:
        head = self._head
        if second <= head:
            return
        self._head = second
        self._until_s = second + 1
        self._attempts[head % self._size] = self.attempts - self._before
        if not (self.attempts or self.retries):
            return
        if second - head >= self._size:
            self._forget()
            return
        for passed in range(head + 1, second + 1):
            index = passed % self._size
            self.attempts -= self._attempts[index]
            self.retries -= self._retries[index]
            self.failed -= self._failed[index]
            self._attempts[index] = self._retries[index] = 0
            self._failed[index] = 0.0
        self._before = self.attempts


class LatencyWindow:
    """Latencies of the last ``size`` answers that are no older than ``max_age_s``."""

    __slots__ = ("_max_age_s", "_seen", "add")

    def __init__(self, size: int = 256, max_age_s: float = 300.0) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=size)
        self._max_age_s = max_age_s
        self.add = self._seen.append
        """``add((now_s, latency_ms))``: the deque's own method, because every answer calls it."""

    def quantiles(self, now_s: float, *ratios: float) -> tuple[float | None, ...]:
        """Return the latency in milliseconds below which each ratio (0 to 1) of the answers lies."""
        oldest_s = now_s - self._max_age_s
        values = sorted(latency for at_s, latency in self._seen if at_s >= oldest_s)
        if not values:
            return (None,) * len(ratios)
        last = len(values) - 1
        return tuple(values[min(last, int(ratio * len(values)))] for ratio in ratios)
