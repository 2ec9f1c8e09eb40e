"""One file of the spool: made with its room set aside, written at its end, read from anywhere.

Owns the file descriptor and where the data ends. Does not know what frames mean or when to delete.
Room is set aside with ``posix_fallocate`` in steps, so that "no space left" is met when an exchange is
admitted and never when it ends; what is set aside reads as zeros and is cut off when the file is sealed.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import UUID

from proxy.core.audit.frames import HEADER_BYTES, SegmentHeader, encode_header

SUFFIX: Final = ".seg"
_ROOM_STEP: Final = 256 * 1024
_NO_FALLOCATE: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


def segment_path(directory: Path, first_seq: int) -> Path:
    """Return the file name of the segment whose first frame has this number."""
    return directory / f"{first_seq:020d}{SUFFIX}"


class Segment:
    """One segment file. ``data_end`` is where the next frame goes, ``room_end`` what is set aside on disk."""

    __slots__ = (
        "cursor", "data_end", "fd", "first_seq", "header", "in_flight", "is_new", "is_sealed", "path",
        "pending", "room_end", "start", "sync_mark",
        "writer",
    )  # fmt: skip

    def __init__(self, path: Path, header: SegmentHeader, *, fd: int, data_end: int, start: int) -> None:
        self.path = path
        self.header = header
        self.first_seq = header.first_seq
        self.writer = str(UUID(bytes=header.spool))
        self.fd = fd
        """Negative when the file is not open."""
        self.start = start
        self.data_end = data_end
        self.room_end = data_end
        self.is_sealed = True
        self.is_new = False
        """True until the file and its directory entry have been synced once."""
        self.cursor = start
        """How far the reader has come."""
        self.in_flight = 0
        """Batches handed out and not acknowledged that hold frames of this segment."""
        self.pending = 0
        """BEGINs read from this segment whose END has not been acknowledged."""
        self.sync_mark = 0
        """How many frames must have been synced before this file may go (copies were made from it)."""

    @classmethod
    def create(cls, directory: Path, header: SegmentHeader, room_bytes: int, max_bytes: int) -> Segment:
        """Make a segment with at least ``room_bytes`` set aside after its header.

        Raises:
            OSError: Nothing is left behind.
        """
        path = segment_path(directory, header.first_seq)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        segment = cls(path, header, fd=fd, data_end=HEADER_BYTES, start=HEADER_BYTES)
        segment.is_sealed = False
        segment.is_new = True
        try:
            segment.make_room(HEADER_BYTES + room_bytes, max_bytes)
            _write_all(fd, encode_header(header), 0)
        except OSError:
            segment.delete()
            raise
        return segment

    def make_room(self, least_end: int, most_end: int) -> None:
        """Set aside disk up to ``least_end`` at least, and in steps up to ``most_end`` when there is plenty.

        Raises:
            OSError: The volume has no room for ``least_end``.
        """
        wanted = max(least_end, min(self.room_end + _ROOM_STEP, most_end))
        for end in (wanted, least_end):
            try:
                os.posix_fallocate(self.fd, 0, end)
            except OSError as exc:
                if exc.errno in _NO_FALLOCATE:
                    self.room_end = end
                    return
                if end == least_end:
                    raise
                continue
            self.room_end = end
            return

    def write(self, data: bytes) -> None:
        """Append ``data`` in one write; on an error nothing counts as written."""
        end, size = self.data_end, len(data)
        written = os.pwrite(self.fd, data, end)
        if written != size:
            _write_all(self.fd, data[written:], end + written)
        self.data_end = end + size

    def read(self, offset: int, max_bytes: int) -> bytes:
        """Return up to ``max_bytes`` of data from ``offset``."""
        if self.fd < 0:
            self.fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        return os.pread(self.fd, min(max_bytes, self.data_end - offset), offset)

    def seal(self) -> None:
        """No more frames: give back the room that was set aside, as far as a failing disk lets us."""
        self.is_sealed = True
        self.room_end = self.data_end
        with suppress(OSError):  # what is left behind the data is zeros or half a frame; readers stop at data_end
            os.ftruncate(self.fd, self.data_end)

    def close(self) -> None:
        """Close the file; reading opens it again."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def delete(self) -> None:
        """Remove the file. Its name goes at once; its blocks are freed by a thread, which may take 50 ms."""
        fd = self.fd
        if fd < 0:
            with suppress(FileNotFoundError):
                fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.path.unlink(missing_ok=True)
        except OSError:
            self.fd = fd
            raise
        self.fd = -1
        if fd >= 0:
            threading.Thread(target=os.close, args=(fd,), name="spool-free", daemon=True).start()


def _write_all(fd: int, data: bytes, offset: int) -> None:
    """Write every byte; a short write is followed by another, which meets the error that cut the first."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        if written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = view[written:]
        offset += written
