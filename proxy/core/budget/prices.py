"""What tokens cost: a table of prices by provider and model, and the sums made with it.

Owns the choice of a row and the arithmetic, in billionths of a US dollar. Knows no file: ``core/config/price_table``
reads one.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from proxy.terms.exchange import Usage

_MAX_KNOWN = 4096


class Price(NamedTuple):
    """Billionths of a US dollar for one token (which is thousandths of a dollar for a million of them)."""

    input: float
    output: float
    cached: float
    """Input that the provider had seen before."""
    reasoning: float
    """Output that is not shown."""

    def of(self, usage: Usage) -> int:
        """Return what an exchange cost."""
        cached = min(usage.cached_tokens, usage.input_tokens)
        reasoning = min(usage.reasoning_tokens, usage.output_tokens)
        return round(
            (usage.input_tokens - cached) * self.input
            + cached * self.cached
            + (usage.output_tokens - reasoning) * self.output
            + reasoning * self.reasoning
        )

    def at_most(self, input_tokens: int, output_tokens: int) -> int:
        """Bound what an exchange may cost."""
        return round(
            input_tokens * max(self.input, self.cached) + output_tokens * max(self.output, self.reasoning) + 0.5
        )


class PriceRow(NamedTuple):
    """One row of the table; None and globs match more than one name."""

    provider: str | None
    model: str
    price: Price


class PriceTable:
    """Prices in force. The most specific row counts: a named provider before any, an exact model before a glob."""

    def __init__(self, rows: tuple[PriceRow, ...] = (), revision: str = "") -> None:
        self.rows = rows
        self.revision = revision
        """What the table's author calls this state of it."""
        ranked = sorted(rows, key=_rank, reverse=True)
        self._rows = [(row.provider, _glob(row.model), row.price) for row in ranked]
        self._known: dict[tuple[str, str], Price | None] = {}

    @property
    def state(self) -> tuple[str, tuple[PriceRow, ...]]:
        """What the table says; equal tables say the same."""
        return self.revision, self.rows

    def find(self, provider: str, model: str) -> Price | None:
        """Return the price of a model at a provider, or None when the table has none."""
        key = (provider, model)
        if key in self._known:
            return self._known[key]
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        found = next((p for name, glob, p in self._rows if name in (None, provider) and glob.match(model)), None)
        self._known[key] = found
        return found


def _rank(row: PriceRow) -> tuple[bool, bool, int]:
    return (row.provider is not None, "*" not in row.model, len(row.model.replace("*", "")))


def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, re.split(r"\*+", pattern))) + r"\Z", re.DOTALL)
