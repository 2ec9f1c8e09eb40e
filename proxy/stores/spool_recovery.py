"""What a spool directory holds when it is opened: its lock, its segments, where numbering goes on.

Owns the order of recovery; every step may be killed and repeated. Reads only the last segment, so a
large backlog does not delay the start: older segments are read when their rows are sent.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from proxy.core.audit.frames import HEADER_BYTES, SegmentHeader, decode_header, scan
from proxy.stores.segment import SUFFIX, Segment
from proxy.terms.errors import SpoolLocked, SpoolUnavailable

_LOCK: Final = "lock"


@dataclass(slots=True)
class Recovered:
    """The state of a spool directory before its new segment is made."""

    spool: bytes
    epoch: int
    """Number of this opening: one more than the highest found."""
    next_seq: int
    segments: list[Segment] = field(default_factory=list)
    torn_bytes: int = 0


def lock_directory(directory: Path) -> int:
    """Take the spool directory for this process and return the descriptor that holds it.

    The kernel lets go when the process ends, however it ends.

    Raises:
        SpoolLocked: Another process has it.
        SpoolUnavailable: The directory cannot be made or written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise SpoolUnavailable(f"spool directory {directory}: {exc.strerror}") from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        owner = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise SpoolLocked(f"spool directory {directory} is in use by process {owner}") from exc
    pid = f"{os.getpid()}\n".encode()
    os.ftruncate(fd, 0)
    os.pwrite(fd, pid, 0)
    return fd


def recover(directory: Path) -> Recovered:
    """Read what an earlier process left behind, cutting the torn tail of the last segment.

    Raises:
        SpoolUnavailable: The directory cannot be read.
    """
    try:
        return _recover(directory)
    except OSError as exc:
        raise SpoolUnavailable(f"spool directory {directory}: {exc.strerror}") from exc


def _recover(directory: Path) -> Recovered:
    segments = [segment for path in sorted(directory.glob(f"*{SUFFIX}")) if (segment := _open(path)) is not None]
    if not segments:
        return Recovered(spool=_new_identity(), epoch=1, next_seq=1)
    last = segments[-1]
    highest, torn_bytes = _trim(last)
    recovered = Recovered(
        spool=next((s.header.spool for s in reversed(segments) if s.header.epoch), None) or _new_identity(),
        epoch=max(segment.header.epoch for segment in segments) + 1,
        next_seq=max(highest, *(max(segment.first_seq, _number(segment.path)) for segment in segments)) + 1,
        torn_bytes=torn_bytes,
    )
    recovered.segments = segments
    return recovered


def _new_identity() -> bytes:
    return uuid.UUID(bytes=os.urandom(16), version=4).bytes


def _open(path: Path) -> Segment | None:
    """Return the segment in a file, or None (and no file) when nothing was ever written to it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
        header = decode_header(head)
        if header is not None:
            return Segment(path, header, fd=-1, data_end=size, start=header.size)
        if not head.strip(b"\x00") and not file.read().strip(b"\x00"):
            path.unlink()
            return None
    return Segment(path, SegmentHeader(bytes(16), 0, _number(path)), fd=-1, data_end=size, start=0)


def _number(path: Path) -> int:
    """Return the number in a segment's name, which a damaged header cannot change; 0 when there is none."""
    return int(path.stem) if path.stem.isascii() and path.stem.isdecimal() else 0


def _trim(segment: Segment) -> tuple[int, int]:
    """Cut everything after the last frame; return the highest number seen and the torn bytes cut off."""
    data = segment.read(0, segment.data_end)
    found = scan(data, segment.start, is_final=True)
    if found.consumed < segment.data_end:
        os.ftruncate(segment.fd, found.consumed)
        segment.data_end = found.consumed
    segment.close()
    return max((frame.seq for frame in found.frames), default=0), found.torn_bytes
