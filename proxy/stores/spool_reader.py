"""The reading side of the spool: frames become batches of rows, acknowledged segments disappear.

Owns the cursor, the batches handed out, and the BEGINs of earlier openings still waiting for their END.
Does not write frames; when long exchanges hold on to a segment it asks the writer to copy their BEGINs
forward. Rows that are still in memory are taken from there, everything else is read and checked again.

A segment goes when all of it has been read, no batch with its frames is unacknowledged, and no BEGIN in
it still needs it. There is no ledger: after a restart whatever segments are left are read again, and the
store's idempotence makes that harmless.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from proxy.core.audit.chain import Chain, seal_alone
from proxy.core.audit.frames import Frame, FrameType, scan
from proxy.core.audit.row import ID_BYTES, Row, Stamp, merge, read_end, read_gap, row_of, said_as_bound
from proxy.flow.audit_ports import Batch
from proxy.stores.chain_anchors import ChainAnchors
from proxy.stores.recent_rows import RecentRows
from proxy.stores.segment import Segment

_CHUNK_BYTES: Final = 256 * 1024
_LEAST_BYTES: Final = 16 * 1024
_QUARANTINE: Final = "quarantine"
_MAX_QUARANTINED: Final = 16
_FRAME_GUESS_BYTES: Final = 640
"""Read about as much as is wanted, not the whole chunk for a few frames."""
_BEGIN, _END, _GAP = int(FrameType.BEGIN), int(FrameType.END), int(FrameType.GAP)


class _OldBegin(NamedTuple):
    """A BEGIN of an earlier opening that was read and whose END was not."""

    segment: Segment
    seq: int
    payload: bytes


@dataclass(slots=True)
class _HandedOut:
    """What an unacknowledged batch holds on to."""

    segments: list[Segment] = field(default_factory=list)
    ended: list[Segment] = field(default_factory=list)
    """The segment of each BEGIN whose END is in the batch."""
    live_rows: int = 0
    old_rows: int = 0
    bytes: int = 0
    chains: dict[int, Chain] = field(default_factory=dict)
    """The chain of each epoch that is in the batch."""


class SegmentKeeper(Protocol):
    """What the reader asks of the writer."""

    def carry_forward(self, segment: Segment) -> bool:
        """Copy the BEGINs of open exchanges out of this segment; False when that cannot be now."""
        ...

    def may_remove(self, segment: Segment) -> bool:
        """False while copies made from this segment are not yet safe."""
        ...

    def removed(self, segment: Segment) -> None:
        """The file of this segment is gone."""
        ...


class SpoolReader:
    """Reads ``segments`` in order, those of earlier openings first; an unsealed one may still grow."""

    def __init__(
        self,
        segments: list[Segment],
        epoch: int,
        next_seq: int,
        keeper: SegmentKeeper,
        recent: RecentRows,
        anchors: ChainAnchors,
    ) -> None:
        self._segments = segments
        self._anchors = anchors
        self._chained: Segment | None = None
        self._chain = Chain("", 0, 0, 0, b"")
        self._recent = recent
        self._epoch = epoch
        self._keeper = keeper
        self._reading = 0
        self._begins: dict[str, _OldBegin] = {}
        self._orphans: list[str] = []
        self._is_replaying = bool(segments)
        self._handed_out: dict[int, _HandedOut] = {}
        self._next_token = 1
        self._is_collecting = False
        self.acknowledged_rows = 0
        self.recovered_rows = max(0, next_seq - segments[0].first_seq) // 2 if segments else 0
        """Rows of earlier openings still to be sent; until they have been read, half their frames."""
        self.damaged_stretches = 0
        self.unreadable_frames = 0
        self.interrupted_rows = 0

    def read_batch(self, max_rows: int) -> Batch:
        """Return the next rows, fewer when the spool holds fewer."""
        batch = Batch([], [], 0)
        held = _HandedOut()
        while len(batch.rows) < max_rows:
            segment = self._unfinished_segment()
            if segment is None:
                break
            before = segment.cursor
            if segment is not self._chained:
                self._chain, self._chained = self._anchors.reach(segment), segment
            held.chains[self._chain.epoch] = self._chain
            if before >= self._recent.begins_at(segment):
                self._take_recent(segment, max_rows - len(batch.rows), batch, held)
            else:
                for frame in self._read_frames(segment, max_rows - len(batch.rows)):
                    self._take(frame, segment, batch, held)
            batch.bytes += segment.cursor - before
            if segment not in held.segments:
                held.segments.append(segment)
        self._take_orphans(max_rows, batch, held)
        return self._hand_out(batch, held)

    def acknowledge(self, token: int) -> None:
        """Forget a batch; unknown tokens (already acknowledged) are ignored."""
        held = self._handed_out.pop(token, None)
        if held is not None:
            self._release(held)
            self.collect()

    def collect(self) -> None:
        """Remove every segment nobody needs any more."""
        if self._is_collecting:
            return
        self._is_collecting = True
        try:
            self._collect()
        finally:
            self._is_collecting = False

    def _collect(self) -> None:
        for index in range(len(self._segments) - 1, -1, -1):
            segment = self._segments[index]
            if not segment.is_sealed or segment.in_flight or segment.cursor < segment.data_end:
                continue
            if segment.pending and (segment.header.epoch != self._epoch or not self._keeper.carry_forward(segment)):
                continue
            if not self._keeper.may_remove(segment):
                continue
            with suppress(OSError):  # on a full disk the room matters more; the file is written at the next removal
                self._anchors.keep([other for other in self._segments if other is not segment])
            try:
                segment.delete()
            except OSError:
                continue  # stays listed and is tried again; sent rows on disk do no harm
            del self._segments[index]
            if index < self._reading:
                self._reading -= 1
            self._keeper.removed(segment)

    @property
    def waiting_rows(self) -> int:
        """Rows of interrupted exchanges that are known and not yet handed out; until all of it is read, those that may be."""
        return len(self._begins) if self._is_replaying else len(self._orphans)

    def has_finished(self, segment: Segment) -> bool:
        """True when nothing in this segment is needed any more."""
        return segment.cursor >= segment.data_end and not segment.in_flight and not segment.pending

    @property
    def unread_bytes(self) -> int:
        """Bytes the reader has not come to yet."""
        return sum(segment.data_end - segment.cursor for segment in self._segments[self._reading :])

    @property
    def handed_out_bytes(self) -> int:
        """Bytes of batches not yet acknowledged."""
        return sum(held.bytes for held in self._handed_out.values())

    def _hand_out(self, batch: Batch, held: _HandedOut) -> Batch:
        for segment in held.segments:
            segment.in_flight += 1
        if batch.is_empty:
            self._release(held)
            self.collect()
            return batch
        held.bytes = batch.bytes
        batch.chains = [chain.copy() for chain in held.chains.values()]
        batch.token = self._next_token
        self._next_token += 1
        self._handed_out[batch.token] = held
        return batch

    def _release(self, held: _HandedOut) -> None:
        for segment in held.segments:
            segment.in_flight -= 1
        for segment in held.ended:
            segment.pending -= 1
        self.acknowledged_rows += held.live_rows
        self.recovered_rows = max(0, self.recovered_rows - held.old_rows)
        if not self._is_replaying and not any(batch.old_rows for batch in self._handed_out.values()):
            self.recovered_rows = 0

    def _unfinished_segment(self) -> Segment | None:
        """Return the segment to read from, or None when everything written has been read."""
        while self._reading < len(self._segments):
            segment = self._segments[self._reading]
            if self._is_replaying and segment.header.epoch == self._epoch:
                self._end_replay()
            if segment.cursor < segment.data_end:
                return segment
            if self._reading + 1 >= len(self._segments):
                break
            if segment.is_sealed:
                segment.close()
            self._reading += 1
        if self._is_replaying and all(segment.is_sealed for segment in self._segments):
            self._end_replay()
        return None

    def _end_replay(self) -> None:
        """Everything of earlier openings has been read: what is still open was interrupted."""
        self._is_replaying = False
        self._orphans = list(self._begins)

    def _take_recent(self, segment: Segment, max_rows: int, batch: Batch, held: _HandedOut) -> None:
        """Take rows that never left memory, and move the cursor as if they had been read."""
        taken, end = self._recent.take(segment, max_rows)
        batch.rows += self._chain.bind_written(taken, segment.header.secret)
        held.live_rows += len(taken)
        # Behind the last row of the window there are only BEGINs of exchanges that run: not for the reader.
        segment.cursor = end if len(taken) == max_rows else segment.data_end

    def _read_frames(self, segment: Segment, max_frames: int) -> list[Frame]:
        """Read the next frames of a segment and move its cursor; damage is passed over and counted."""
        stop = max(segment.cursor, min(segment.data_end, self._recent.begins_at(segment)))
        wanted = min(_CHUNK_BYTES, max(_LEAST_BYTES, max_frames * _FRAME_GUESS_BYTES))
        data = segment.read(segment.cursor, min(wanted, stop - segment.cursor))
        is_final = segment.cursor + len(data) >= stop
        found = scan(data, is_final=is_final, max_frames=max_frames)
        if found.consumed == 0 and not is_final:
            data = segment.read(segment.cursor, stop - segment.cursor)
            is_final = True
            found = scan(data, is_final=True, max_frames=max_frames)
        damaged = found.damaged + (found.torn_bytes > 0)
        if damaged:
            self.damaged_stretches += damaged
            self._quarantine(segment)
        if is_final and len(found.frames) < max_frames:
            segment.cursor = stop
        else:
            segment.cursor += found.consumed
        return found.frames

    def _take(self, frame: Frame, segment: Segment, batch: Batch, held: _HandedOut) -> None:
        is_live = segment.header.epoch == self._epoch
        stamp = Stamp(segment.writer, segment.header.epoch, frame.seq)
        try:
            if frame.kind == _END:
                batch.rows += self._ended(frame, stamp, segment.header.secret)
                if is_live:
                    held.live_rows += 1
                else:
                    held.old_rows += 1
                    begin = self._begins.pop(batch.rows[-1].id, None)
                    if begin is not None:
                        held.ended.append(begin.segment)
            elif frame.kind == _BEGIN:
                if not is_live:
                    self._take_begin(frame, segment)
            elif frame.kind == _GAP:
                batch.gaps.append(self._chain.bind_gap(read_gap(frame.payload, stamp)))
            else:
                raise ValueError(f"frame type {frame.kind} is not known to this release")
        except ValueError:
            self.unreadable_frames += 1
            self._quarantine(segment)

    def _ended(self, frame: Frame, stamp: Stamp, secret: bytes) -> list[Row]:
        """Return the row of an END."""
        exchange_id, columns = read_end(frame.payload)
        if said_as_bound(frame.payload):
            return self._chain.bind_written([(exchange_id, frame.seq, frame.payload, columns)], secret)
        return [self._chain.bind(row_of(exchange_id, columns, stamp), secret)]

    def _take_begin(self, frame: Frame, segment: Segment) -> None:
        exchange_id = str(frame.payload[:ID_BYTES], "ascii")
        earlier = self._begins.get(exchange_id)
        if earlier is not None:
            if earlier.segment is segment:
                return
            earlier.segment.pending -= 1
        self._begins[exchange_id] = _OldBegin(segment, frame.seq, frame.payload)
        segment.pending += 1

    def _take_orphans(self, max_rows: int, batch: Batch, held: _HandedOut) -> None:
        """Turn BEGINs of earlier openings that never met their END into rows of interrupted exchanges."""
        while self._orphans and len(batch.rows) < max_rows:
            begin = self._begins.pop(self._orphans.pop(), None)
            if begin is None:
                continue
            held.ended.append(begin.segment)
            try:
                row = merge(begin.payload, None, Stamp(begin.segment.writer, begin.segment.header.epoch, begin.seq))
            except ValueError:
                self.unreadable_frames += 1
                self._quarantine(begin.segment)
                continue
            batch.rows.append(seal_alone(row, begin.segment.header.secret))
            held.old_rows += 1
            self.interrupted_rows += 1

    def _quarantine(self, segment: Segment) -> None:
        """Keep a second name for a damaged segment, so that it outlives its delivery; costs no disk now."""
        folder = segment.path.parent / _QUARANTINE
        try:
            folder.mkdir(exist_ok=True, mode=0o700)
            if len(os.listdir(folder)) < _MAX_QUARANTINED:
                os.link(segment.path, folder / segment.path.name)
        except OSError:
            return  # kept already, or a volume without links: the count above still tells
