"""A spool on a disk that forgets: acked is within recovered, recovered within written (SO-04).

The disk is modelled as the ALICE paper has it: what was synced stays; of what was written after the last
sync, a power cut keeps any subset of pages, the others are zeros. Only ``durability: fsync`` promises anything.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from proxy.core.audit.payload import encode_begin, finish
from proxy.core.audit.row import Row
from proxy.core.audit.verify import Finding, Verifier
from proxy.stores.group_commit import GroupCommit
from proxy.stores.spool import DiskSpool
from tests.support.audit import typical_exchange

pytestmark = pytest.mark.faults
PAGE = 512  # smaller than real pages, so that frames straddle them more often

steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 0)),
        st.tuples(st.just("end"), st.integers(0, 30)),
        st.tuples(st.just("sync"), st.integers(0, 0)),
        st.tuples(st.just("ship"), st.integers(1, 5)),
        st.tuples(st.just("kill"), st.integers(0, 0)),
        st.tuples(st.just("power"), st.integers(0, 2**32 - 1)),
    ),
    max_size=60,
)


class ForgetfulDisk:
    """Remembers, per file, what the last sync made safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._safe: dict[str, bytes] = {}

    def fdatasync(self, fd: int) -> None:
        name = os.readlink(f"/proc/self/fd/{fd}")
        self._safe[name] = os.pread(fd, os.fstat(fd).st_size, 0)

    def cut_power(self, dice: int) -> None:
        """Keep every synced byte and an arbitrary choice of the pages written since."""
        for path in sorted(self._folder.glob("*.seg")):
            safe = self._safe.get(str(path), b"")
            written = path.read_bytes()
            image = bytearray(written)
            for start in range(0, len(written), PAGE):
                page = slice(start, min(start + PAGE, len(written)))
                if written[page] != safe[page]:
                    dice = (dice * 6364136223846793005 + 1442695040888963407) % 2**64
                    if dice >> 40 & 1:
                        image[page] = safe[page].ljust(page.stop - page.start, b"\0")
            path.write_bytes(image)


class Rig:
    """One spool over many lives, beside what a naive model knows of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = ForgetfulDisk(folder)
        self.next = 1
        self.running: list[int] = []
        self.unsafe_begin: set[int] = set()
        self.unsafe_end: set[int] = set()
        self.written_begin: set[int] = set()
        self.written_end: set[int] = set()
        self.safe_begin: set[int] = set()
        self.safe_end: set[int] = set()
        self.stored: dict[int, tuple[int, str]] = {}
        self.rows: dict[str, Row] = {}
        self.has_lost_power = False
        self.open()

    def open(self) -> None:
        self.syncs = GroupCommit(self.disk.fdatasync)
        self.spool = DiskSpool(self.folder, max_bytes=1 << 20, segment_bytes=64 * 1024, syncs=self.syncs)

    def begin(self) -> None:
        facts = typical_exchange(self.next)
        self.spool.begin(facts.id, encode_begin(facts))
        self.written_begin.add(self.next)
        self.unsafe_begin.add(self.next)
        self.running.append(self.next)
        self.next += 1

    def end(self, choice: int) -> None:
        if self.running:
            number = self.running.pop(choice % len(self.running))
            facts = typical_exchange(number)
            payload, columns = finish(facts)
            self.spool.end(facts.id, payload, columns if choice % 3 else None)  # now and then from disk only
            self.written_end.add(number)
            self.unsafe_end.add(number)

    def sync(self) -> None:
        self.syncs.sync_now()
        self.safe_begin |= self.unsafe_begin
        self.safe_end |= self.unsafe_end

    def ship(self, rows: int) -> None:
        batch = self.spool.read_batch(rows)
        ends = []
        for row in batch.rows:
            number = int(row.id[-12:], 16)
            if row.id not in self.rows or self.rows[row.id].seq < row.seq:
                self.rows[row.id] = row
            known = self.stored.get(number)
            if known is None or known[0] < row.seq:
                self.stored[number] = (row.seq, row.status)
            if row.status == "success":
                ends.append(row.seq)
        assert ends == sorted(ends)
        self.spool.acknowledge(batch.token)

    def restart(self) -> None:
        for segment in self.spool._segments:
            segment.close()
        for fd in self.syncs._dirty.values():
            os.close(fd)
        os.close(self.spool._lock_fd)
        self.running, self.unsafe_begin, self.unsafe_end = [], set(), set()
        self.open()

    def check(self) -> None:
        """Deliver everything and compare with what was promised."""
        while self.spool.state().pending_bytes or self.spool.state().pending_rows:
            before = len(self.stored)
            self.ship(1000)
            if len(self.stored) == before and not self.spool.state().pending_bytes:
                break
        finished = {number for number, (_, status) in self.stored.items() if status == "success"}

        assert self.safe_begin - set(self.running) <= set(self.stored)
        assert self.safe_end <= finished
        assert set(self.stored) <= self.written_begin
        assert finished <= self.written_end
        if not self.has_lost_power:  # pages that are gone were perhaps bound already
            assert [] == self.findings()

    def findings(self) -> list[Finding]:
        """Walk the chains of what was stored."""
        verifier = Verifier(None, unsigned_before_ms=0)
        for row in sorted(self.rows.values(), key=lambda row: (row.writer, row.epoch, row.seq)):
            verifier.feed(row)
        return verifier.finish().findings


@given(steps)
@example([("begin", 0), ("begin", 0), ("end", 0), ("sync", 0), ("kill", 0), ("ship", 1)])
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_acked_rows_are_recovered_and_nothing_is_invented(plan: list[tuple[str, int]]) -> None:
    """Any order of appends, syncs, deliveries, kills and power cuts keeps the promise and the order of ends (SO-04)."""
    run_plan(plan)


@pytest.mark.slow
@given(steps)
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_acked_rows_are_recovered_in_two_thousand_runs(plan: list[tuple[str, int]]) -> None:
    """The same, as often as the case catalogue asks (SO-04)."""
    run_plan(plan)


def run_plan(plan: list[tuple[str, int]]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="readygate-model-"))
    try:
        rig = Rig(folder)
        for step, number in plan:
            if step == "begin":
                rig.begin()
            elif step == "end":
                rig.end(number)
            elif step == "sync":
                rig.sync()
            elif step == "ship":
                rig.ship(number)
            elif step == "kill":
                rig.restart()
            else:
                rig.disk.cut_power(number)
                rig.has_lost_power = True
                rig.restart()
        rig.check()
        rig.spool.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
