"""A yes or no that follows another only after it has lasted: what flaps does not move it.

Owns one answer and since when the other one has been asked for. Knows no clock.
"""

from __future__ import annotations


class Settled:
    """Begins with yes: nothing is known against it."""

    __slots__ = ("_other_since_s", "shown")

    def __init__(self) -> None:
        self.shown = True
        self._other_since_s: float | None = None

    def follow(self, is_well: bool, settle_s: float, now_s: float) -> bool:
        """Take how it is now and return the settled answer.

        Args:
            is_well: How it is.
            settle_s: The other answer has to have been the right one at every call for so long; 0: at once.
            now_s: Monotonic seconds.
        """
        if is_well is self.shown:
            self._other_since_s = None
            return self.shown
        if self._other_since_s is None:
            self._other_since_s = now_s
        if now_s - self._other_since_s >= settle_s:
            self.shown = is_well
            self._other_since_s = None
        return self.shown
