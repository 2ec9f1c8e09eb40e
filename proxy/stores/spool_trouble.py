"""What has gone wrong with a spool lately: a disk that failed, a sync that did, a row that was refused.

Owns when each was, and what the spool's condition comes to. Knows no file: the spool says what it met.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.flow.audit_ports import Condition

_DEGRADED_RATIO: Final = 0.8
_RETRY_S: Final = 1.0
_SYNC_TROUBLE_S: Final = 60.0
_REFUSAL_SHOWN_S: Final = 5.0
_SYNC: Final = "sync: "


class SpoolTrouble:
    """The troubles of one spool; ``failure`` closes it for new exchanges until the disk works again."""

    __slots__ = ("_failed_at_s", "_now_s", "_refused_at_s", "_sync_failed_at_s", "failure", "sync_failures")

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self.failure = ""
        """Why nothing can be kept; empty while all is well."""
        self.sync_failures = 0
        self._failed_at_s = 0.0
        self._sync_failed_at_s = float("-inf")
        self._refused_at_s = float("-inf")

    def failed(self, reason: str) -> None:
        """The disk takes nothing."""
        self.failure = reason
        self._failed_at_s = self._now_s()

    def refused(self) -> None:
        """There was no room for a row."""
        self._refused_at_s = self._now_s()

    def sync_failed(self, reason: str, *, is_final: bool) -> None:
        """Count a failed sync; the second in a row is a failure."""
        self.sync_failures += 1
        self._sync_failed_at_s = self._now_s()
        if is_final:
            self.failed(f"{_SYNC}{reason}")

    def sync_worked(self) -> None:
        """What could not be synced is safe now."""
        if self.is_of_syncs:
            self.failure = ""

    @property
    def is_of_syncs(self) -> bool:
        """True when it is a sync that failed, and no write."""
        return self.failure.startswith(_SYNC)

    def may_try_again(self) -> bool:
        """Say whether the disk may be tried again, at most once a second; counts as the try."""
        if self._now_s() - self._failed_at_s < _RETRY_S:
            return False
        self._failed_at_s = self._now_s()
        return True

    def condition(self, used_ratio: float, *, has_waiting: bool, has_room: bool) -> tuple[Condition, str]:
        """Return how the spool is, and why.

        Args:
            used_ratio: Of its limit, with what is set aside.
            has_waiting: Rows wait in memory for the disk.
            has_room: The volume had room for a segment.
        """
        if self.failure:
            return Condition.FAILED, self.failure
        if has_waiting:
            return Condition.DEGRADED, "rows_in_memory"
        if used_ratio >= _DEGRADED_RATIO or not has_room:
            return Condition.DEGRADED, "nearly_full" if used_ratio >= _DEGRADED_RATIO else "volume_full"
        if self._now_s() - self._refused_at_s < _REFUSAL_SHOWN_S:
            return Condition.DEGRADED, "full"
        if self._now_s() - self._sync_failed_at_s < _SYNC_TROUBLE_S:
            return Condition.DEGRADED, "sync_failed"
        return Condition.OK, ""
