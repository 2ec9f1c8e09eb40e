"""How late the event loop is: a beat that should come every quarter of a second, and what it says when it does not.

Owns the beats' arithmetic. Knows no thread and no probe: whoever publishes the beat is given it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from proxy.flow.ports import Witness

BEAT_EVERY_S: Final = 0.25
STALL_FROM_S: Final = 0.1
"""A beat that is so late is counted as a stall."""
TOLD_FROM_S: Final = 1.0
"""A stall this long is logged and shown for a minute."""
REMEMBERED_S: Final = 60.0


class Heartbeat:
    """Owner of the loop's lag, in seconds."""

    def __init__(self, now_s: Callable[[], float], beat: Callable[[], None], witness: Witness) -> None:
        """Take the monotonic clock and what is called at every beat."""
        self._now_s = now_s
        self._beat = beat
        self._witness = witness
        self._late: deque[tuple[float, float]] = deque(maxlen=1024)
        self.lag_s = 0.0
        """How late the last beat was."""
        self.stalls = 0
        self.stalled_s = 0.0
        """Time lost in stalls, in all."""

    def worst_s(self) -> float:
        """The longest stall of the last minute, 0 when there was none."""
        oldest_s = self._now_s() - REMEMBERED_S
        return max((late_s for at_s, late_s in self._late if at_s >= oldest_s), default=0.0)

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            due_s = self._now_s() + BEAT_EVERY_S
            await asyncio.sleep(BEAT_EVERY_S)
            self._note(max(0.0, self._now_s() - due_s))
            self._beat()

    def _note(self, lag_s: float) -> None:
        self.lag_s = lag_s
        if lag_s < STALL_FROM_S:
            return
        self.stalls += 1
        self.stalled_s += lag_s
        self._late.append((self._now_s(), lag_s))
        if lag_s >= TOLD_FROM_S:
            self._witness.notice("loop_stalled", seconds=round(lag_s, 2))
