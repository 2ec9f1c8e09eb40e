"""How a source of callers' keys is: the keys' file, or the key set of an issuer.

Owns what was last read well, when, and why the newest could not be used. The last good keys stay in force meanwhile, so nobody would
notice until they end: /health, metrics and the log have to say it. Knows no file and no key.
"""

from __future__ import annotations

from typing import Any, Final

_AT_LEAST_S: Final = 10.0
_STALE_AFTER: Final = 3.0
"""Usual times between two looks (of ten seconds at least: a busy machine is no issuer away), after which keys are stale."""


class KeySource:
    """One source; its reader tells it what came of each look."""

    def __init__(self, every_s: float | None = None) -> None:
        """``every_s``: how often it is looked at; None: only changes are told, so its age says nothing."""
        self._every_s = every_s
        self.keys = 0
        """Keys in force."""
        self.trouble = ""
        """Why the newest cannot be used; empty when it is in force."""
        self.refused = 0
        """Looks in a row, or edits, that could not be used; only ever rises."""
        self.good_at_s: float | None = None
        """Monotonic second of the last look that went well."""

    def good(self, keys: int, now_s: float) -> None:
        """The newest is in force."""
        self.keys, self.good_at_s, self.trouble = keys, now_s, ""

    def bad(self, trouble: str) -> None:
        """The newest cannot be used; what was good stays."""
        self.refused += 1
        self.trouble = trouble

    def age_s(self, now_s: float) -> float:
        """Seconds since the last look that went well; 0 before the first."""
        return 0.0 if self.good_at_s is None else max(0.0, now_s - self.good_at_s)

    def row(self, now_s: float) -> tuple[str, str, dict[str, Any]]:
        """Return state, reason and numbers for /health."""
        numbers: dict[str, Any] = {"keys": self.keys}
        if self._every_s is not None and self.good_at_s is not None:
            numbers["age_s"] = round(self.age_s(now_s), 1)
        if self.good_at_s is None:
            return "failed", f"no key is in force: {self.trouble or 'not read yet'}", numbers
        if self.trouble:
            return "degraded", f"the last good keys stay: {self.trouble}", numbers
        if self._every_s is not None and self.age_s(now_s) > _STALE_AFTER * max(self._every_s, _AT_LEAST_S):
            return "degraded", f"not refreshed for {self.age_s(now_s):.0f} s", numbers
        return "ok", "", numbers
