"""Time and identity for one process.

Owns the randomness that ids are made of, drawn in blocks because one system call per exchange would cost
more than the id. The functions that read the clock and the dice are handed in by app.
"""

from __future__ import annotations

from collections.abc import Callable
from math import floor

_BLOCK_IDS = 256
_TAIL = b"000-0000-000000000000 "
_TAIL_DIGITS = _TAIL.count(b"0")
_VARIANT_COLUMN = _TAIL.index(b"-") + 1
_VARIANTS = bytes.maketrans(b"0123456789abcdef", b"89ab" * 4)


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

    def stamp(self) -> tuple[str, int]:
        """Return a UUIDv7, 48 bits of milliseconds and 74 random bits (RFC 9562 section 5.7), and its millisecond."""
        tails = self._tails
        if not tails:
            tails = self._tails = self._fresh_tails()
        now_ms = floor(self._unix_s() * 1000.0)
        if now_ms != self._stamp_ms:
            self._stamp_ms, self._stamp = now_ms, now_ms.to_bytes(6, "big").hex("-", -4) + "-7"
        return self._stamp + tails.pop(), now_ms

    def _fresh_tails(self) -> list[str]:
        """Return the random parts of the next ids, with variant and dashes in place, made in one go.

        The ids stand in one block of text, which is filled a column at a time: a string for each id would cost more
        than all the rest of it.
        """
        digits = self._random_bytes(_BLOCK_IDS * _TAIL_DIGITS // 2).hex().encode("ascii")
        block = bytearray(_TAIL * _BLOCK_IDS)
        columns = [column for column, digit in enumerate(_TAIL) if digit == _TAIL[0]]
        for number, column in enumerate(columns):
            block[column :: len(_TAIL)] = digits[number * _BLOCK_IDS : (number + 1) * _BLOCK_IDS]
        block[_VARIANT_COLUMN :: len(_TAIL)] = block[_VARIANT_COLUMN :: len(_TAIL)].translate(_VARIANTS)
        return block.decode("ascii").split()
