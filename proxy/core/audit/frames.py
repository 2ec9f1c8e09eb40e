"""The bytes of the spool: segment headers, frames, and the scan that reads them back.

Owns the format and nothing else: bytes in, bytes out. A segment is a header and frames::

    header  8s magic | u8 version | u8 checksum kind | 16s spool uuid | u64 epoch | u64 first seq | 16s secret | u32 crc
    frame   u32 payload length | u32 crc(seq, type, payload) | u64 seq | u8 type | payload

all little-endian. The checksum is CRC-32 (``zlib``, 0.3 us for a row) and the header says so: Python has
no CRC-32C of its own, a dependency for it would buy nothing but a better polynomial, and a later kind
can be told apart by the header's byte.

Zeros after the last frame are room set aside on disk, never data: a frame has type >= 1.
"""

from __future__ import annotations

import re
import struct
import zlib
from enum import IntEnum
from typing import Final, NamedTuple

MAX_PAYLOAD_BYTES: Final = 64 * 1024
"""A longer length is damage; checked before anything is allocated for it."""

_MAGIC: Final = b"RGSPOOL\n"
_FORMAT: Final = 2
_CRC32: Final = 1
_HEADER = struct.Struct("<8sBB16sQQ16s")
_HEADER_1 = struct.Struct("<8sBB16sQQ")
"""Of the first release: the same without a secret."""
_CRC = struct.Struct("<I")
_HEAD = struct.Struct("<IIQB")
_SEALED = struct.Struct("<QB")
_LEAD = struct.Struct("<II")
HEADER_BYTES: Final = _HEADER.size + _CRC.size
FRAME_OVERHEAD: Final = _HEAD.size
_pack_head, _unpack_head, _pack_sealed, _crc32 = _HEAD.pack, _HEAD.unpack_from, _SEALED.pack, zlib.crc32

_PLAUSIBLE = re.compile(rb"\x00\x00[\x01-\x03]", re.DOTALL)
"""The end of a frame's head: a sequence number below 2**48, then its type."""


class FrameType(IntEnum):
    """What a frame holds."""

    BEGIN = 1
    END = 2
    GAP = 3


class SegmentHeader(NamedTuple):
    """Who wrote a segment: spool identity (16 bytes), opening number, first sequence number."""

    spool: bytes
    epoch: int
    first_seq: int
    secret: bytes = bytes(16)
    """The salts of its rows are made from it. It goes when the segment goes."""
    size: int = HEADER_BYTES
    """Where its frames begin."""


class Frame(NamedTuple):
    """One frame read back; ``end`` is the offset just after it in the bytes scanned."""

    kind: int
    seq: int
    payload: bytes
    end: int


class Scan(NamedTuple):
    """What a stretch of bytes held.

    ``consumed`` is where to go on: after the last frame, or after damage that was passed over.
    ``damaged`` counts stretches that were not frames and had a valid frame after them.
    ``torn_bytes`` is what follows ``consumed`` and is neither a frame nor all zeros (only when
    ``is_final``: otherwise the rest may simply not have been read yet).
    """

    frames: list[Frame]
    consumed: int
    damaged: int
    torn_bytes: int


def encode_header(header: SegmentHeader) -> bytes:
    """Return the bytes that open a segment."""
    body = _HEADER.pack(_MAGIC, _FORMAT, _CRC32, header.spool, header.epoch, header.first_seq, header.secret)
    return body + _CRC.pack(zlib.crc32(body))


def decode_header(data: bytes) -> SegmentHeader | None:
    """Return the header that opens ``data``, or None when it is short, damaged or of an unknown format."""
    for version, layout in ((_FORMAT, _HEADER), (1, _HEADER_1)):
        size = layout.size + _CRC.size
        if len(data) < size or data[: len(_MAGIC) + 2] != _MAGIC + bytes((version, _CRC32)):
            continue
        body = data[: layout.size]
        if _CRC.unpack_from(data, layout.size)[0] != zlib.crc32(body):
            return None
        spool, epoch, first_seq, *secret = layout.unpack(body)[3:]
        return SegmentHeader(spool, epoch, first_seq, secret[0] if secret else bytes(16), size)
    return None


def encode_frame(kind: int, seq: int, payload: bytes) -> bytes:
    """Return one frame; ``payload`` is at most ``MAX_PAYLOAD_BYTES``."""
    return _pack_head(len(payload), _crc32(payload, _crc32(_pack_sealed(seq, kind))), seq, kind) + payload


def scan(data: bytes, start: int = 0, *, is_final: bool, max_frames: int = 1 << 62) -> Scan:
    """Read frames from ``data[start:]``, passing over damage that valid frames follow.

    Args:
        data: Part of a segment, beginning (at ``start``) on a frame boundary.
        start: Where to begin; every offset in the answer counts from the start of ``data``.
        is_final: True when nothing follows ``data`` in the segment: what is left over is then a torn
            tail or set-aside zeros, not the first half of a frame still to be read.
        max_frames: Stop after this many frames.
    """
    frames: list[Frame] = []
    position, damaged = start, 0
    while len(frames) < max_frames:
        frame = _frame_at(data, position)
        if frame is not None:
            frames.append(frame)
            position = frame[3]
            continue
        if not is_final and _may_continue(data, position):
            break
        found = _resync(data, position)
        if found is None:
            break
        damaged += 1
        position = found
    rest = data[position:]
    torn = len(rest.rstrip(b"\x00")) if is_final and len(frames) < max_frames else 0
    return Scan(frames, position, damaged, torn)


def _frame_at(data: bytes, position: int) -> Frame | None:
    begin = position + FRAME_OVERHEAD
    if len(data) < begin:
        return None
    length, crc, seq, kind = _unpack_head(data, position)
    end = begin + length
    if kind == 0 or length > MAX_PAYLOAD_BYTES or end > len(data):
        return None
    payload = data[begin:end]
    if _crc32(payload, _crc32(data[position + _LEAD.size : begin])) != crc:
        return None
    return tuple.__new__(Frame, (kind, seq, payload, end))


def _may_continue(data: bytes, position: int) -> bool:
    """Say whether the bytes at ``position`` could be a frame of which the end has not been read."""
    left = len(data) - position
    if left < FRAME_OVERHEAD:
        return True
    length: int
    kind: int
    length, _, _, kind = _HEAD.unpack_from(data, position)
    return kind != 0 and length <= MAX_PAYLOAD_BYTES and left < FRAME_OVERHEAD + length


def _resync(data: bytes, position: int) -> int | None:
    """Return the offset of the next valid frame after ``position``, or None."""
    for match in _PLAUSIBLE.finditer(data, position + FRAME_OVERHEAD - 2):
        candidate = match.end() - FRAME_OVERHEAD
        if candidate > position and _frame_at(data, candidate) is not None:
            return candidate
    return None
