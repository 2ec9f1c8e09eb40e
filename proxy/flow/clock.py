"""Time and identity for one process.

Owns the randomness that ids are made of, drawn in blocks because one system call per exchange would cost
more than the id. The functions that read the clock and the dice are handed in by app.py.
"""

from __future__ import annotations

from collections.abc import Callable

_BLOCK_BYTES = 10 * 256
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class SystemClock:
    """Implements ``flow.ports.Clock``."""

    __slots__ = ("_at", "_block", "_random_bytes", "_unix_s", "monotonic_s")

    def __init__(
        self,
        monotonic_s: Callable[[], float],
        unix_s: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.monotonic_s = monotonic_s
        self._unix_s = unix_s
        self._random_bytes = random_bytes
        self._block = ""
        self._at = 0

    def unix_ms(self) -> int:
        """Milliseconds since 1970."""
        return int(self._unix_s() * 1000.0)

    def new_id(self) -> str:
        """Return a UUIDv7: 48 bits of milliseconds, 74 random bits (RFC 9562 section 5.7)."""
        at = self._at
        if at >= len(self._block):
            self._block = self._random_bytes(_BLOCK_BYTES).hex()
            at = 0
        self._at = at + 20
        tail = self._block[at : at + 20]
        stamp = f"{int(self._unix_s() * 1000.0):012x}"
        return f"{stamp[:8]}-{stamp[8:]}-7{tail[:3]}-{_VARIANT[tail[3]]}{tail[4:7]}-{tail[7:19]}"
