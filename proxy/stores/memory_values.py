"""Values of conversations between their turns, in this process: for one sidecar without a shared store.

Owns its bounds. What it holds never leaves memory and ends with the process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_MAX_BYTES: Final = 32 << 20


class MemoryValues:
    """Satisfies ``flow.kept_values.ValueStore``; the history that was written longest ago goes first."""

    def __init__(self, now_s: Callable[[], float], max_bytes: int = _MAX_BYTES) -> None:
        self._now_s = now_s
        self._max_bytes = max_bytes
        self._used = 0
        self._held: dict[str, tuple[float, list[bytes]]] = {}

    async def read(self, history: str) -> list[bytes]:
        """Return everything kept under a name."""
        until_s, blobs = self._held.get(history, (0.0, []))
        return list(blobs) if until_s > self._now_s() else []

    async def write(self, history: str, rows: bytes, keep_s: float) -> None:
        """Add to what is kept under a name, and keep all of it for so long from now."""
        until_s, blobs = self._held.pop(history, (0.0, []))
        if until_s <= self._now_s():
            self._used -= sum(map(len, blobs))
            blobs = []
        if rows not in blobs:
            blobs.append(rows)
            self._used += len(rows)
        self._held[history] = (self._now_s() + keep_s, blobs)
        while self._used > self._max_bytes:
            self._drop(next(iter(self._held)))

    def _drop(self, history: str) -> None:
        _, blobs = self._held.pop(history)
        self._used -= sum(map(len, blobs))

    async def close(self) -> None:
        """Forget everything."""
        self._held.clear()
        self._used = 0
