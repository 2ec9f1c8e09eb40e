"""Content codings: gzip, deflate and zstd, whole or flushed piece by piece.

Owns the coders. The zstd one stores without compressing, which every decoder must take and which
needs no library.
"""

from __future__ import annotations

import struct
import zlib
from typing import Protocol

CODINGS = ("gzip", "deflate", "zstd")


class Coder(Protocol):
    """One body being coded."""

    def whole(self, data: bytes) -> bytes:
        """Return a complete coded body."""

    def piece(self, data: bytes) -> bytes:
        """Return coded bytes from which the receiver can read all of ``data`` at once."""

    def end(self) -> bytes:
        """Return the closing bytes of a body sent piece by piece."""


class _ZlibCoder:
    def __init__(self, window_bits: int) -> None:
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, window_bits)

    def whole(self, data: bytes) -> bytes:
        return self._deflate.compress(data) + self._deflate.flush()

    def piece(self, data: bytes) -> bytes:
        return self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._deflate.flush()


class _ZstdCoder:
    """Frames of raw blocks (RFC 8878, sections 3.1.1.1 and 3.1.1.2), one frame a piece."""

    _BLOCK = 128 * 1024

    def whole(self, data: bytes) -> bytes:
        blocks = [data[i : i + self._BLOCK] for i in range(0, len(data), self._BLOCK)] or [b""]
        framed = [
            struct.pack("<I", (len(block) << 3) | (number == len(blocks) - 1))[:3] + block
            for number, block in enumerate(blocks)
        ]
        return b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data)) + b"".join(framed)

    def piece(self, data: bytes) -> bytes:
        return self.whole(data)

    def end(self) -> bytes:
        return b""


def coder_for(name: str) -> Coder | None:
    """Return a fresh coder; None for no coding. Any unknown name is sent as it is."""
    if name == "gzip":
        return _ZlibCoder(31)
    if name == "deflate":
        return _ZlibCoder(15)
    return _ZstdCoder() if name == "zstd" else None


def gzip_of_zeros(size: int) -> bytes:
    """Return a gzip member that inflates to ``size`` zero bytes."""
    return _ZlibCoder(31).whole(bytes(size))
