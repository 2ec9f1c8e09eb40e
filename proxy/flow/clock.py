"""Time and identity for one process.

Owns the randomness that ids are made of, drawn in blocks because one system call per exchange would cost
more than the id. The functions that read the clock and the dice are handed in by app.
"""

from __future__ import annotations

from collections.abc import Callable

_BLOCK_IDS = 256
_TAIL_BYTES = 10
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class SystemClock:
    """Implements ``flow.ports.Clock``."""

    __slots__ = ("_random_bytes", "_stamp", "_stamp_ms", "_tails", "_unix_s", "monotonic_s")

    def __init__(
        self,
        monotonic_s: Callable[[], float],
        unix_s: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.monotonic_s = monotonic_s
        self._unix_s = unix_s
        self._random_bytes = random_bytes
        self._tails: list[str] = []
        self._stamp_ms = -1
        self._stamp = ""

    def unix_ms(self) -> int:
        """Milliseconds since 1970."""
        return int(self._unix_s() * 1000.0)

    def new_id(self) -> str:
        """Return a UUIDv7: 48 bits of milliseconds, 74 random bits (RFC 9562 section 5.7)."""
        if not self._tails:
            self._tails = self._fresh_tails()
        stamp_ms = int(self._unix_s() * 1000.0)
        if stamp_ms != self._stamp_ms:
            self._stamp_ms, self._stamp = stamp_ms, stamp_ms.to_bytes(6, "big").hex("-", -4) + "-7"
        return self._stamp + self._tails.pop()

    def _fresh_tails(self) -> list[str]:
        """Return the random parts of the next ids, with variant and dashes in place; made in one go, that is cheaper."""
        block = self._random_bytes(_BLOCK_IDS * _TAIL_BYTES).hex()
        step = 2 * _TAIL_BYTES
        tails = [block[at : at + step] for at in range(0, len(block), step)]
        return [f"{tail[:3]}-{_VARIANT[tail[3]]}{tail[4:7]}-{tail[7:19]}" for tail in tails]
