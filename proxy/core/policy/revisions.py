"""Revisions of the policies as they are remembered: texts, cases, and when they were put in force.

Owns the shapes that the folder of kept revisions and the admin API share. Knows no disk and no YAML.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Texts = tuple[tuple[str, str], ...]
"""File name (without folder) and text, sorted by name."""


@dataclass(frozen=True, slots=True)
class Activation:
    """One time that a revision was put in force; ``at_ms`` is Unix time."""

    at_ms: int
    by: str
    """``folder`` for an edit that nobody announced, else the name of a person or an admin token."""
    why: str


@dataclass(frozen=True, slots=True)
class Kept:
    """One revision. ``times`` is never empty; the last time is the last one."""

    revision: str
    files: Texts
    cases: Texts
    times: tuple[Activation, ...]

    def summary(self) -> dict[str, Any]:
        """Return what a list of revisions shows."""
        last = self.times[-1]
        return {
            "revision": self.revision,
            "at_ms": last.at_ms,
            "by": last.by,
            "why": last.why,
            "times": len(self.times),
            "files": [name for name, _ in self.files],
            "cases": [name for name, _ in self.cases],
        }


@dataclass(frozen=True, slots=True)
class Pin:
    """A revision that stays in force for as long as the policy folder has this digest."""

    revision: str
    digest: str
    by: str
    why: str
