"""How one limit is divided between the shared counter and the sidecars' private slices.

Owns the split and what happens to it in an outage. Pure numbers: it knows neither Redis nor rules.

The shared counter and the slices are disjoint, and each is a window of its own: so whatever the network does, the
sum of what they admit in any window is at most ``central + max_sidecars * slice``, which is the limit itself.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class OnOutage(StrEnum):
    """What a sidecar admits while the shared counter cannot be asked."""

    STRICT = "strict"
    """Its slice: the limit holds whatever is cut off from what."""
    BOOST = "boost"
    """Its slice, grown to an equal part of the whole limit once the outage lasts."""
    DENY = "deny"
    """Nothing."""
    ALLOW = "allow"
    """Everything."""


class Split(NamedTuple):
    """The parts of one limit."""

    central: int
    slice: int
    """What each sidecar may admit on its own."""
    boosted: int
    """What each may admit once a long outage has made ``boost`` act."""


class Shares(NamedTuple):
    """How limits are shared."""

    max_sidecars: int
    private_share: float
    on_outage: OnOutage = OnOutage.STRICT

    def split(self, limit: int) -> Split:
        """Divide a limit; the parts never add up to more than it."""
        own = int(limit * self.private_share) // self.max_sidecars
        return Split(limit - own * self.max_sidecars, own, limit // self.max_sidecars)


class Outage:
    """Whether the shared counter is asked at all: a breaker of three failures with one probe a second.

    The probe is the store's own heartbeat, never a request: while the breaker is open no caller waits for it.
    """

    FAILURES = 3

    __slots__ = ("_down_since_s", "_failures", "is_open", "reason")

    def __init__(self) -> None:
        self._failures = 0
        self._down_since_s: float | None = None
        self.is_open = False
        self.reason = ""

    def failed(self, reason: str, now_s: float) -> bool:
        """Take note of a command without an answer; True when this one opened the breaker."""
        self.reason = reason
        self._failures += 1
        if self._down_since_s is None:
            self._down_since_s = now_s
        if self.is_open or self._failures < self.FAILURES:
            return False
        self.is_open = True
        return True

    def worked(self) -> bool:
        """Take note of an answer; True when this one closed the breaker."""
        self._failures = 0
        self._down_since_s = None
        self.reason = ""
        was_open, self.is_open = self.is_open, False
        return was_open

    def lasted_s(self, now_s: float) -> float:
        """Seconds since the first failure of this outage; 0 when there is none."""
        return 0.0 if self._down_since_s is None else now_s - self._down_since_s
