"""Another limit on the same charges: what two revisions of a policy see of one budget while both are in force.

Owns its limit; the sums are those of the counter it looks at. So use is never counted twice and never forgotten, whichever
of the two revisions an exchange is decided by, and when one of them goes.
"""

from __future__ import annotations

from proxy.core.budget.calendar import CalendarCounter
from proxy.core.budget.window import WindowCounter


class LimitView:
    """The face of ``WindowCounter`` and ``CalendarCounter``, with a limit of its own."""

    __slots__ = ("base", "limit")

    def __init__(self, base: WindowCounter | CalendarCounter, limit: int) -> None:
        self.base = base
        self.limit = limit

    @property
    def used(self) -> int:
        """Sum of the charges as of the last call; what is added to it is charged."""
        return self.base.used

    @used.setter
    def used(self, value: int) -> None:
        self.base.used = value

    @property
    def until_s(self) -> float:
        """Before this ``advance`` changes nothing."""
        return self.base.until_s

    @property
    def leaves_s(self) -> float:
        """When a charge made now no longer counts."""
        return self.base.leaves_s

    def advance(self, now_s: float) -> None:
        """Let go of what has left the window."""
        self.base.advance(now_s)

    def fits(self, amount: int, now_s: float) -> bool:
        """True when ``amount`` more may be charged now."""
        self.base.advance(now_s)
        return self.base.used + amount <= self.limit

    def charge(self, amount: int) -> None:
        """Charge the present; ask ``fits`` first."""
        self.base.charge(amount)

    def correct(self, admitted_s: float, by: int, now_s: float) -> None:
        """Change a charge made at ``admitted_s`` by ``by``."""
        self.base.correct(admitted_s, by, now_s)

    def wait_s(self, amount: int, now_s: float) -> float:
        """Seconds until ``amount`` fits if nothing else is charged; 0 when it fits, inf when it never will."""
        theirs, self.base.limit = self.base.limit, self.limit
        try:
            return self.base.wait_s(amount, now_s)
        finally:
            self.base.limit = theirs

    def reset_s(self, now_s: float) -> float:
        """Seconds until nothing is charged any more."""
        return self.base.reset_s(now_s)

    def full_reset_s(self, now_s: float) -> float:
        """Seconds until a charge made just now no longer counts."""
        return self.base.full_reset_s(now_s)
