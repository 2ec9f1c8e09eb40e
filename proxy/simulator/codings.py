"""Content codings: gzip, deflate and zstd, whole or flushed piece by piece.

Owns the coders. The zstd one stores without compressing, which every decoder must take and which
needs no library.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
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


@lru_cache(maxsize=4)
def gzip_bomb(mebibytes: int) -> tuple[bytes, bytes, bytes]:
    """Return head, block and tail of one gzip member: head, then ``mebibytes`` times the block, then the tail."""
    zeros = bytes(1024 * 1024)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = deflate.compress(zeros) + deflate.flush(zlib.Z_FULL_FLUSH)  # after a full flush the next block is the same
    crc = 0
    for _ in range(mebibytes):
        crc = zlib.crc32(zeros, crc)
    head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    return head, block, b"\x03\x00" + struct.pack("<II", crc, (mebibytes << 20) & 0xFFFFFFFF)
