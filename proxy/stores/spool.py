"""The audit spool: an append-only queue on disk between the request path and the audit store.

Owns the segments of one directory, the bytes they may use, and the promise that a row whose BEGIN was
accepted can be written to its end. Knows frames and numbers, not what rows say. All methods run on the
event loop's thread and finish with one ``pwrite``; only the sync happens elsewhere (``group_commit``).

Room is counted in bytes: a BEGIN is accepted only when its own frame, the END of every open exchange and
two gap records fit below the limit and onto the volume.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from proxy.core.audit.frames import FRAME_OVERHEAD, HEADER_BYTES, FrameType, SegmentHeader, encode_frame
from proxy.core.audit.row import ID_BYTES, RESERVED_BYTES, Columns
from proxy.flow.audit_ports import Batch, SpoolState
from proxy.stores.chain_anchors import ChainAnchors
from proxy.stores.group_commit import GroupCommit
from proxy.stores.recent_rows import RecentRows
from proxy.stores.segment import Segment
from proxy.stores.spool_reader import SpoolReader
from proxy.stores.spool_recovery import lock_directory, recover
from proxy.stores.spool_trouble import SpoolTrouble
from proxy.terms.errors import SpoolFull, SpoolUnavailable

SEGMENT_BYTES: Final = 16 * 1024 * 1024
END_ROOM: Final = RESERVED_BYTES + FRAME_OVERHEAD
"""Bytes set aside for the END of one open exchange."""
_BEGIN_ROOM: Final = FRAME_OVERHEAD + END_ROOM

_LEAST_SEGMENT: Final = 64 * 1024
_GAP_ROOM: Final = 512
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_BEGIN, _END, _GAP = int(FrameType.BEGIN), int(FrameType.END), int(FrameType.GAP)


_OpenBegin = tuple[Segment, int, bytes]
"""The BEGIN of an exchange that runs: the segment that keeps it, its number, its payload."""
_Stranded = tuple[bytes, _OpenBegin | None]
"""The frame of an END no disk would take yet, and the BEGIN that is kept until one does."""


class DiskSpool:
    """The spool of one sidecar; satisfies ``flow.audit_ports.Spool``."""

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        syncs: GroupCommit | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Lock the directory and recover what is in it.

        Args:
            directory: Made when missing. Its volume is what the durability promise is about.
            max_bytes: Hard limit of all segments together.
            syncs: Given for ``durability: fsync``; without it a completed write is the promise.
            segment_bytes: Upper bound of one segment; smaller when ``max_bytes`` is small.
            now_s: Monotonic seconds, for the pace of retries on a failing disk.

        Raises:
            SpoolLocked: Another process owns the directory.
            SpoolUnavailable: The directory cannot be read or written.
        """
        self._directory = directory
        self._max_bytes = max(max_bytes, 2 * _LEAST_SEGMENT)
        self._segment_bytes = min(segment_bytes, max(_LEAST_SEGMENT, max_bytes // 4))
        self._syncs = syncs
        self._open: dict[str, _OpenBegin] = {}
        self._marks: dict[str, int] = {}
        """How many frames must be synced before the BEGIN of an open exchange is safe; empty without syncs."""
        self._reserved = 0
        self._stranded: list[_Stranded] = []
        self._trouble = SpoolTrouble(now_s)
        self._appended_rows = 0
        self._active: Segment | None = None
        self._lock_fd = lock_directory(directory)
        found = recover(directory)
        self._spool, self._epoch, self._seq = found.spool, found.epoch, found.next_seq
        self._torn_bytes = found.torn_bytes
        self._segments = found.segments
        self._used = sum(segment.data_end for segment in found.segments)
        self._recent = RecentRows()
        anchors = ChainAnchors(directory, is_synced=syncs is not None)
        self._reader = SpoolReader(self._segments, self._epoch, self._seq, self, self._recent, anchors)
        if syncs is not None:
            syncs.bind(directory, self)
        self._open_first_segment()

    # -- the request path --------------------------------------------------------------------------

    def begin(self, exchange_id: str, payload: bytes) -> None:
        """Append a BEGIN and set aside room for its END; see the Protocol."""
        segment = self._admit(len(payload) + _BEGIN_ROOM)
        seq = self._seq
        segment = self._write(segment, encode_frame(_BEGIN, seq, payload))
        self._seq += 1
        segment.pending += 1
        self._open[exchange_id] = (segment, seq, payload)
        self._reserved += END_ROOM
        if self._syncs is not None:
            self._marks[exchange_id] = self._syncs.appended

    def end(self, exchange_id: str, payload: bytes, columns: Columns | None = None) -> None:
        """Append the END of an open exchange; see the Protocol."""
        seq = self._seq
        self._seq = seq + 1
        frame = encode_frame(_END, seq, payload)
        begin = self._open.pop(exchange_id, None)
        if self._marks:
            self._marks.pop(exchange_id, None)
        if begin is not None:
            self._reserved -= END_ROOM
        self._appended_rows += 1
        segment = self._active
        if segment is None or self._stranded:
            self._stranded.append((frame, begin))
            return
        try:
            segment = self._write(segment, frame)
        except SpoolUnavailable:
            self._stranded.append((frame, begin))
            return
        self._recent.add(segment, exchange_id, seq, payload, columns)
        if begin is not None:
            self._release(begin[0], segment)

    def single(self, payload: bytes, columns: Columns | None = None) -> None:
        """Append an END without a BEGIN; see the Protocol."""
        active = self._admit(len(payload) + FRAME_OVERHEAD)
        seq = self._seq
        segment = self._write(active, encode_frame(_END, seq, payload))
        self._recent.add(segment, str(payload[:ID_BYTES], "ascii"), seq, payload, columns)
        self._seq += 1
        self._appended_rows += 1

    def gap(self, payload: bytes) -> None:
        """Append a GAP; see the Protocol."""
        if self._trouble.failure or self._stranded:
            self._revive()
        if self._active is None:
            raise SpoolFull("no segment could be made")
        self._recent.restart(self._write(self._active, encode_frame(_GAP, self._seq, payload)))
        self._seq += 1

    def is_open(self, exchange_id: str) -> bool:
        """True between ``begin`` and ``end``."""
        return exchange_id in self._open

    def has_room(self, extra_bytes: int) -> bool:
        """True when an END may be this much larger than what was set aside for it."""
        try:
            self._admit(extra_bytes)
        except SpoolUnavailable:
            return False
        return True

    @property
    def is_alive(self) -> bool:
        """False when the thread that syncs has died; always true for ``durability: write``."""
        return self._syncs is None or self._syncs.is_alive

    def waiter(self, exchange_id: str = "") -> asyncio.Future[None] | None:
        """Return what is done when the promise of the configured durability is kept; see the Protocol."""
        if self._syncs is None:
            return None
        return self._syncs.waiter(self._marks.get(exchange_id))

    # -- the delivery ------------------------------------------------------------------------------

    def read_batch(self, max_rows: int) -> Batch:
        """Return the next rows; see the Protocol.

        Raises:
            OSError: The disk cannot be read.
        """
        if self._stranded:
            self._try_revive()
        return self._reader.read_batch(max_rows)

    def acknowledge(self, token: int) -> None:
        """The rows of this batch are in the store."""
        self._reader.acknowledge(token)

    def state(self) -> SpoolState:
        """Return how the spool is; costs a few additions, for health and metrics."""
        used_ratio = (self._used + self._reserved) / self._max_bytes
        condition, reason = self._trouble.condition(
            used_ratio, has_waiting=bool(self._stranded), has_room=self._active is not None
        )
        reader = self._reader
        pending = self._appended_rows - len(self._stranded) - reader.acknowledged_rows
        pending += reader.recovered_rows + reader.waiting_rows
        return SpoolState(
            condition=condition,
            reason=reason,
            used_bytes=self._used,
            reserved_bytes=self._reserved,
            limit_bytes=self._max_bytes,
            segments=len(self._segments),
            open_exchanges=len(self._open),
            pending_rows=max(0, pending) + len(self._stranded),
            pending_bytes=reader.unread_bytes + reader.handed_out_bytes,
            appended_rows=self._appended_rows,
            torn_bytes=self._torn_bytes,
            damaged_stretches=reader.damaged_stretches,
            unreadable_frames=reader.unreadable_frames,
            sync_failures=self._trouble.sync_failures,
        )

    def close(self) -> None:
        """Make everything safe, close the files and let go of the directory."""
        try:
            if self._syncs is not None:
                self._syncs.close()
        finally:
            self._let_go()

    # -- what the reader and group commit ask ------------------------------------------------------

    def carry_forward(self, segment: Segment) -> bool:
        """Copy the BEGINs of open exchanges out of a segment into the active one, numbers unchanged."""
        if self._trouble.failure:
            return False
        waiting = {key: begin for key, begin in self._open.items() if begin[0] is segment}
        if len(waiting) != segment.pending:
            return False
        frames = {key: encode_frame(_BEGIN, seq, payload) for key, (_, seq, payload) in waiting.items()}
        try:
            active = self._admit(sum(map(len, frames.values())))
            for key, frame in frames.items():
                active = self._write(active, frame)
                self._pin(key, active)
        except SpoolUnavailable:
            return False
        if self._syncs is not None:
            segment.sync_mark = self._syncs.appended
        return True

    def may_remove(self, segment: Segment) -> bool:
        """False while copies made from this segment are not yet synced."""
        return self._syncs is None or self._syncs.synced >= segment.sync_mark

    def removed(self, segment: Segment) -> None:
        """Give the bytes of a removed segment back."""
        self._used -= segment.data_end

    def move(self, frames: list[bytes]) -> Segment:
        """Write frames again, into a new segment, after their file could not be synced."""
        size = sum(len(frame) for frame in frames)
        active = self._rotate(size + self._reserved + _GAP_ROOM)
        for frame in frames:
            active.write(frame)
        for frame in frames:
            key = str(frame[FRAME_OVERHEAD : FRAME_OVERHEAD + ID_BYTES], "ascii", "replace")
            if frame[FRAME_OVERHEAD - 1] == _BEGIN and key in self._open:
                self._pin(key, active)
        self._recent.restart(active)
        self._used += size
        self._appended_rows += sum(frame[FRAME_OVERHEAD - 1] == _END for frame in frames)
        return active

    def sync_failed(self, reason: str, *, is_final: bool) -> None:
        """Count a failed sync; the second in a row closes the spool for new exchanges."""
        self._trouble.sync_failed(reason, is_final=is_final)

    def sync_worked(self) -> None:
        """A sync worked: what had failed is safe now."""
        self._trouble.sync_worked()

    # -- inside ------------------------------------------------------------------------------------

    def _pin(self, exchange_id: str, segment: Segment) -> None:
        """From now on the BEGIN of this open exchange is kept in this segment."""
        kept_in, seq, payload = self._open[exchange_id]
        kept_in.pending -= 1
        segment.pending += 1
        self._open[exchange_id] = (segment, seq, payload)

    def _release(self, kept_in: Segment, segment: Segment) -> None:
        """The END was written to ``segment``: its BEGIN is needed no more once that is as safe as it was."""
        kept_in.pending -= 1
        if self._syncs is not None and kept_in is not segment:
            kept_in.sync_mark = self._syncs.appended

    def _admit(self, size: int) -> Segment:
        """Return the segment that takes ``size`` more bytes beside everything set aside, or raise."""
        if self._trouble.failure or self._stranded:
            self._revive()
        wanted = self._reserved + size + _GAP_ROOM
        if self._used + wanted > self._max_bytes:
            self._trouble.refused()
            raise SpoolFull(f"the audit spool holds {self._used} of {self._max_bytes} bytes")
        active = self._active
        if active is not None and active.data_end + wanted <= active.room_end:
            return active
        try:
            return self._make_room(wanted)
        except OSError as exc:
            raise self._fault(exc) from exc

    def _make_room(self, wanted: int) -> Segment:
        """Set aside more of the volume, in this segment or the next."""
        if HEADER_BYTES + wanted > self._segment_bytes:
            self._trouble.refused()
            raise SpoolFull(f"{len(self._open)} open exchanges are all one segment can end")
        active = self._active
        if active is None or active.data_end + wanted > self._segment_bytes:
            return self._rotate(wanted)
        try:
            active.make_room(active.data_end + wanted, self._segment_bytes)
        except OSError as exc:
            if exc.errno not in _NO_SPACE or self._open or not self._reader.has_finished(active):
                raise
            return self._start_over(active, wanted)
        return active

    def _start_over(self, active: Segment, wanted: int) -> Segment:
        """On a full volume, trade a segment nobody needs any more for a new one."""
        active.seal()
        self._active = None
        self._reader.collect()
        return self._rotate(wanted)

    def _rotate(self, room_bytes: int) -> Segment:
        """Seal the active segment and go on in a new one. Raises OSError, leaving things as they were."""
        old = self._active
        self._seq += 1  # never the name of a file that an earlier failure may have left behind
        header = SegmentHeader(self._spool, self._epoch, self._seq, os.urandom(16))
        new = Segment.create(self._directory, header, room_bytes, self._segment_bytes)
        if old is None:
            self._recent.restart(new)
        else:
            old.seal()
        self._segments.append(new)
        self._used += HEADER_BYTES
        self._active = new
        return new

    def _write(self, segment: Segment, frame: bytes) -> Segment:
        """Append a frame, on a disk error once more in a new segment; return the one that has it.

        Raises:
            SpoolFull, SpoolUnavailable: It is nowhere on disk.
        """
        try:
            segment.write(frame)
        except OSError as exc:
            if exc.errno in _NO_SPACE:
                raise self._fault(exc) from exc
            try:
                segment = self._rotate(self._reserved + len(frame) + _GAP_ROOM)
                segment.write(frame)
            except OSError as second:
                self._trouble.failed(f"write: {second.strerror}")
                raise self._fault(second) from second
        self._used += len(frame)
        if self._syncs is not None:
            self._syncs.note(segment, frame)
        return segment

    def _fault(self, exc: OSError) -> SpoolUnavailable:
        if exc.errno in _NO_SPACE:
            self._trouble.refused()
            return SpoolFull(f"no space left for the audit spool in {self._directory}")
        return SpoolUnavailable(f"audit spool in {self._directory}: {exc.strerror}")

    def _revive(self) -> None:
        """Try the disk again, at most once a second.

        Raises:
            SpoolUnavailable: It still fails, or it is too soon to ask.
        """
        if self._trouble.may_try_again():
            self._try_revive()
        if self._trouble.failure or self._stranded:
            raise SpoolUnavailable(f"the audit spool failed: {self._trouble.failure or 'rows wait in memory'}")

    def _try_revive(self) -> None:
        """Write what waits in memory to a new segment, and sync again what could not be synced."""
        if self._trouble.is_of_syncs and self._syncs is not None:
            self._syncs.retry()
            return
        try:
            size = sum(len(frame) for frame, _ in self._stranded)
            active = self._rotate(size + self._reserved + _GAP_ROOM)
        except OSError as exc:
            self._trouble.failed(f"write: {exc.strerror}")
            return
        waiting, self._stranded = self._stranded, []
        for index, (frame, begin) in enumerate(waiting):
            try:
                active = self._write(active, frame)
            except SpoolUnavailable:
                self._stranded = waiting[index:]
                break
            if begin is not None:
                self._release(begin[0], active)
        else:
            self._trouble.failure = ""
        self._recent.restart(active)

    def _open_first_segment(self) -> None:
        """Start the segment of this opening; on a full volume the backlog must still be sent first."""
        try:
            self._rotate(_GAP_ROOM)
        except OSError as exc:
            if exc.errno not in _NO_SPACE:
                self._let_go()
                raise self._fault(exc) from exc

    def _let_go(self) -> None:
        active = self._active
        if active is not None and not active.is_sealed:
            if not self._open and self._reader.has_finished(active):
                active.data_end = active.start  # all of it was sent: nothing to send again at the next start
            active.seal()
        for segment in self._segments:
            segment.close()
        os.close(self._lock_fd)
