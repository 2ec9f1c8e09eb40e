"""Content codings of answers that were not asked for: inflated within bounds, or recognised as unreadable.

Owns the bound on amplification. gzip and deflate are known; anything else stays as it is and says so.
"""

from __future__ import annotations

import zlib
from typing import Final

MAX_RATIO: Final = 200
FREE_BYTES: Final = 8 * 1024 * 1024
_STEP_BYTES: Final = 1024 * 1024
_KNOWN: Final = frozenset({b"gzip", b"x-gzip", b"deflate"})


class InflateTooLarge(Exception):
    """A compressed body grows beyond what an answer may be."""


def is_inflatable(coding: bytes) -> bool:
    """True for codings that ``Inflater`` reads."""
    return coding.strip().lower() in _KNOWN


class Inflater:
    """Inflates gzip (also of several members) and deflate, piece by piece."""

    def __init__(self, coding: bytes, max_bytes: int | None = None) -> None:
        self._is_gzip = coding.strip().lower() != b"deflate"
        self._max_bytes = max_bytes
        self._engine = zlib.decompressobj(31 if self._is_gzip else 15)
        self._is_first = True
        self._in_bytes = 0
        self._out_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """Return what these bytes inflate to.

        Raises:
            InflateTooLarge: beyond ``max_bytes``, or more than 200 times the input after the first 8 MiB.
            zlib.error: not what the coding says.
        """
        self._in_bytes += len(data)
        pieces: list[bytes] = []
        while data:
            if self._engine.eof:
                if not self._is_gzip:
                    break
                self._engine = zlib.decompressobj(31)
            pieces.append(self._inflate(data))
            data = self._engine.unconsumed_tail or self._engine.unused_data
        return b"".join(pieces)

    def flush(self) -> bytes:
        """Nothing is held."""
        return b""

    def _inflate(self, data: bytes) -> bytes:
        try:
            out = self._engine.decompress(data, _STEP_BYTES)
        except zlib.error:
            if self._is_gzip or not self._is_first:
                raise
            # "deflate" means zlib by the book and raw deflate in the wild.
            self._engine = zlib.decompressobj(-15)
            out = self._engine.decompress(data, _STEP_BYTES)
        self._is_first = False
        self._out_bytes += len(out)
        limit = self._max_bytes
        if limit is not None and self._out_bytes > limit:
            raise InflateTooLarge
        if self._out_bytes > FREE_BYTES and self._out_bytes > MAX_RATIO * self._in_bytes:
            raise InflateTooLarge
        return out
