"""What a row of the tables says: a kind of value, its shapes, its check, the words that announce it.

Owns the row types and the indexes built from them. Knows no automaton and no text.
"""

from __future__ import annotations

from typing import NamedTuple

from proxy.terms.redaction import CustomType

__all__ = ["CustomType", "Kind"]


class Kind(NamedTuple):
    """One type of value.

    Shapes are written with ``0`` for a digit and ``A`` for a letter; every other character stands for itself.
    ``strong`` shapes are reported wherever they stand and pass ``check``; ``soft`` ones too, unless the nearest
    label names something else; ``counts`` (numbers of digits, any single separators) and ``labelled`` shapes only
    after one of ``labels``. ``source`` says where the rules were taken from.
    """

    name: str
    title: str
    countries: str
    priority: int
    example: str
    source: str
    check: str = ""
    """Name of the validator."""
    loose: str = ""
    """Validator used instead beside a label; empty: the same."""
    labels: tuple[str, ...] = ()
    strong: tuple[str, ...] = ()
    soft: tuple[str, ...] = ()
    labelled: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    found_by: str = "shape"
    """``shape``: the shape tables; anything else names the family whose code finds it."""

    @property
    def mode(self) -> str:
        """``strong`` when it may be reported without a label, else ``label``."""
        return "strong" if self.strong or self.soft or self.found_by not in ("shape", "label") else "label"
