"""Files beside the policies that are followed while the process runs: prices, and caller keys.

Owns when they are read and what is said of them; prices in force belong to ``Pricing``, keys in force to ``CallerBook``.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from proxy.app.policy_texts import LOOK_EVERY_S
from proxy.core.config.caller_keys import CallerKeysResult
from proxy.core.config.price_table import PriceResult
from proxy.flow.callers import CallerBook
from proxy.flow.key_source import KeySource
from proxy.flow.ports import Clock, Witness
from proxy.flow.pricing import Pricing
from proxy.sources.caller_keys import read_caller_keys, watch_caller_keys
from proxy.sources.files import read_prices, watch_prices


@dataclass(slots=True)
class PriceFile:
    """The price table and its file."""

    path: Path
    pricing: Pricing
    witness: Witness

    def load(self) -> None:
        """Read the table for the first time; what is wrong with it is said, and nothing has a price then."""
        self._accept(read_prices(self.path))

    async def watch(self) -> None:
        """Follow the file for ever."""
        async for result in watch_prices(self.path, LOOK_EVERY_S):
            self._accept(result)

    def _accept(self, result: PriceResult) -> None:
        if result.table is None:
            self.witness.notice("prices_refused", problems=[str(p) for p in result.problems if p.is_error][:5])
        else:
            self.pricing.accept(result.table)
            self.witness.notice("prices_in_force", revision=result.table.revision, rows=len(result.table.rows))


@dataclass(slots=True)
class CallersFile:
    """The caller keys and their file."""

    path: Path
    callers: CallerBook
    source: KeySource
    witness: Witness
    clock: Clock
    _last: CallerKeysResult | None = None

    async def load(self) -> None:
        """Learn before the first request who may call."""
        self._accept(await asyncio.to_thread(read_caller_keys, self.path))

    async def watch(self) -> None:
        """Follow the file for ever."""
        async for result in watch_caller_keys(self.path, LOOK_EVERY_S, self._last):
            self._accept(result)

    def _accept(self, result: CallerKeysResult) -> None:
        """Put caller keys in force; when something is wrong with their file the last good ones stay."""
        self._last = result
        if result.keys is None:
            problems = [str(p) for p in result.problems if p.is_error][:5]
            self.source.bad(problems[0])
            self.witness.notice("callers_refused", problems=problems)
        else:
            self.callers.accept(key.as_caller() for key in result.keys)
            self.source.good(len(result.keys), self.clock.monotonic_s())
            self.witness.notice("callers_in_force", keys=len(result.keys))
