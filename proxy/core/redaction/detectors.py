"""What looks for values, as the walks over documents know it.

Knows no pattern: ``detect`` makes the real one, ``seen`` and ``names`` stand before it.
"""

from __future__ import annotations

from typing import Protocol

from proxy.terms.redaction import Finding


class Detector(Protocol):
    """What looks for values; ``proxy.core.redaction.detect.build_detector`` makes the real one."""

    def find(self, text: str) -> list[Finding]:
        """Return disjoint findings in order of their start."""
        ...

    def find_labelled(self, text: str, label: str) -> list[Finding]:
        """The same for a text that stands under a name (a JSON key, a column)."""
        ...

    def may_contain(self, raw: bytes) -> bool:
        """Tell whether anything could be found in these bytes; False is a promise."""
        ...

    def is_silent(self, raw: bytes) -> bool:
        """Tell of a body sooner; True promises that nothing can be found in it, and nothing is hidden or unreadable."""
        ...


class Blind:
    """Finds nothing: for walks that only count what cannot be read."""

    def find(self, text: str) -> list[Finding]:
        return []

    def find_labelled(self, text: str, label: str) -> list[Finding]:
        return []

    def may_contain(self, raw: bytes) -> bool:
        return False

    def is_silent(self, raw: bytes) -> bool:
        return False
