"""Revisions of the policies as they are remembered: texts, cases, and when they were put in force.

Owns the shapes that the folder of kept revisions and the admin API share. Knows no disk and no YAML.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Step(StrEnum):
    """What a revision became at some time."""

    IN_FORCE = "in force"
    CANARY = "canary"
    """In force for a share of the exchanges (``rollout``)."""
    TAKEN_BACK = "taken back"
    REPLACED = "replaced"
    """It was a canary, and other texts came."""


Texts = tuple[tuple[str, str], ...]
"""File name (without folder) and text, sorted by name."""


@dataclass(frozen=True, slots=True)
class Activation:
    """One time that a revision was put in force, or was not any more; ``at_ms`` is Unix time."""

    at_ms: int
    by: str
    """``folder`` for an edit that nobody announced, ``rollout`` for what its figures brought about, else the name of a
    person or an admin token."""
    why: str
    step: Step = Step.IN_FORCE


@dataclass(frozen=True, slots=True)
class Kept:
    """One revision. ``times`` is never empty; the last time is the last one."""

    revision: str
    files: Texts
    cases: Texts
    times: tuple[Activation, ...]

    @property
    def was_whole(self) -> bool:
        """True when it was in force for everybody at some time."""
        return any(time.step is Step.IN_FORCE for time in self.times)

    def summary(self) -> dict[str, Any]:
        """Return what a list of revisions shows."""
        last = self.times[-1]
        return {
            "revision": self.revision,
            "at_ms": last.at_ms,
            "by": last.by,
            "why": last.why,
            "step": last.step.value,
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
