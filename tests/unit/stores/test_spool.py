"""The spool on a real disk: order, recovery, locking, bounded room, segments that go when they may."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.core.audit.frames import encode_frame, scan
from proxy.core.audit.payload import encode_begin, encode_end, encode_gap, finish
from proxy.core.audit.row import Row
from proxy.flow.audit_ports import Condition
from proxy.stores.group_commit import GroupCommit
from proxy.stores.segment import Segment
from proxy.stores.spool import END_ROOM, DiskSpool
from proxy.terms.errors import SpoolFull, SpoolLocked, SpoolUnavailable
from tests.support.audit import exchange_id, typical_exchange

MIB = 1024 * 1024
SOURCE = {"is_mixed": False}


@pytest.fixture(params=["memory", "mixed"], autouse=True)
def rows_come_from(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run everything twice: rows kept in memory for shipping, and every third one on disk only."""
    monkeypatch.setitem(SOURCE, "is_mixed", request.param == "mixed")


def open_spool(folder: Path, max_bytes: int = 64 * MIB, segment_bytes: int = 16 * MIB) -> DiskSpool:
    return DiskSpool(folder, max_bytes=max_bytes, segment_bytes=segment_bytes)


def abandon(spool: DiskSpool) -> None:
    """Let go of the directory as a killed process does: nothing is flushed, nothing is cut."""
    for segment in spool._segments:
        segment.close()
    os.close(spool._lock_fd)


def begin(spool: DiskSpool, number: int) -> None:
    facts = typical_exchange(number)
    spool.begin(facts.id, encode_begin(facts))


def end(spool: DiskSpool, number: int) -> None:
    facts = typical_exchange(number)
    payload, columns = finish(facts)
    spool.end(facts.id, payload, None if SOURCE["is_mixed"] and number % 3 == 0 else columns)


def whole(spool: DiskSpool, number: int) -> None:
    begin(spool, number)
    end(spool, number)


def read_all(spool: DiskSpool, *, acknowledge: bool = True, max_rows: int = 100) -> list[Row]:
    rows: list[Row] = []
    while not (batch := spool.read_batch(max_rows)).is_empty:
        rows += batch.rows
        if acknowledge:
            spool.acknowledge(batch.token)
    return rows


def fill_up(spool: DiskSpool) -> int:
    """Append whole exchanges until one is refused, and return its number."""
    for number in range(1, 100_000):
        try:
            whole(spool, number)
        except SpoolFull:
            return number
    raise AssertionError("the spool never filled up")


def segments(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.seg"))


def numbers(rows: list[Row]) -> list[int]:
    return [int(row.id[-12:], 16) for row in rows]


def test_rows_come_out_in_the_order_their_exchanges_ended(tmp_path: Path) -> None:
    """Interleaved exchanges are the normal case."""
    spool = open_spool(tmp_path)
    for number in (1, 2, 3):
        begin(spool, number)
    for number in (2, 3, 1):
        end(spool, number)

    assert [2, 3, 1] == numbers(read_all(spool))
    assert 0 == spool.state().pending_rows


def test_unfinished_exchange_is_not_sent_while_its_process_lives(tmp_path: Path) -> None:
    """A long stream is not interrupted just because delivery looked."""
    spool = open_spool(tmp_path)
    begin(spool, 1)
    whole(spool, 2)

    assert [2] == numbers(read_all(spool))
    end(spool, 1)
    assert ["success"] == [row.status for row in read_all(spool)]


def test_everything_appended_is_there_after_a_kill(tmp_path: Path) -> None:
    """A completed write survives the process (AU-02)."""
    spool = open_spool(tmp_path)
    for number in range(1, 40):
        whole(spool, number)
    begin(spool, 40)
    abandon(spool)
    rows = read_all(open_spool(tmp_path))

    assert list(range(1, 41)) == sorted(numbers(rows))
    assert ["interrupted"] == [row.status for row in rows if row.id == exchange_id(40)]
    assert 39 == sum(row.status == "success" for row in rows)


def test_unacknowledged_rows_come_again_and_acknowledged_ones_may(tmp_path: Path) -> None:
    """Delivery is at least once; only whole segments are forgotten."""
    spool = open_spool(tmp_path)
    for number in range(1, 11):
        whole(spool, number)
    spool.acknowledge(spool.read_batch(5).token)
    spool.read_batch(5)
    abandon(spool)

    assert set(range(6, 11)) <= set(numbers(read_all(open_spool(tmp_path))))


def test_numbering_goes_on_and_the_epoch_rises_with_each_opening(tmp_path: Path) -> None:
    """(writer, epoch, seq) names a frame for ever; gaps can only be seen if it never repeats."""
    stamps = []
    for number in range(1, 5):
        spool = open_spool(tmp_path)
        whole(spool, number)
        stamps += [(row.writer, row.epoch, row.seq) for row in read_all(spool)]
        spool.close()

    assert 1 == len({writer for writer, _, _ in stamps})
    assert [1, 2, 3, 4] == [epoch for _, epoch, _ in stamps]
    assert sorted({seq for _, _, seq in stamps}) == [seq for _, _, seq in stamps]


def test_second_process_is_refused_and_told_whose_spool_it_is(tmp_path: Path) -> None:
    """Two writers would destroy each other's rows (AU-24)."""
    spool = open_spool(tmp_path)
    with pytest.raises(SpoolLocked, match=f"process {os.getpid()}"):
        open_spool(tmp_path)
    spool.close()
    open_spool(tmp_path).close()


def test_segments_rotate_and_go_once_acknowledged(tmp_path: Path) -> None:
    """Disk is given back file by file, and never before the rows are in the store."""
    spool = open_spool(tmp_path, segment_bytes=64 * 1024)
    for number in range(1, 400):
        whole(spool, number)
    before = segments(tmp_path)
    batches = []
    while not (batch := spool.read_batch(50)).is_empty:
        batches.append(batch)

    assert len(before) > 3
    assert before == segments(tmp_path)
    for batch in reversed(batches):
        spool.acknowledge(batch.token)
    assert 1 == len(segments(tmp_path))
    assert spool.state().used_bytes < 64 * 1024


def test_long_exchange_does_not_pin_its_segment(tmp_path: Path) -> None:
    """A websocket open for hours must not keep gigabytes of delivered rows on disk; its own row stays safe."""
    spool = open_spool(tmp_path, segment_bytes=64 * 1024)
    begin(spool, 1)
    for number in range(2, 500):
        whole(spool, number)
    read_all(spool)

    assert len(segments(tmp_path)) <= 2
    abandon(spool)
    recovered = read_all(again := open_spool(tmp_path, segment_bytes=64 * 1024))
    assert [(1, "interrupted")] == [
        pair for pair in zip(numbers(recovered), (row.status for row in recovered), strict=True) if pair[0] == 1
    ]
    again.close()


def test_long_exchange_carried_forward_still_ends_as_success(tmp_path: Path) -> None:
    """Moving a BEGIN must not make a second row, nor an interrupted one."""
    spool = open_spool(tmp_path, segment_bytes=64 * 1024)
    begin(spool, 1)
    for number in range(2, 500):
        whole(spool, number)
    read_all(spool)
    end(spool, 1)
    rows = read_all(spool)
    for number in range(500, 700):
        whole(spool, number)
    read_all(spool)

    assert [(1, "success")] == list(zip(numbers(rows), (row.status for row in rows), strict=True))
    assert 1 == len(segments(tmp_path))
    abandon(spool)
    assert 1 not in numbers(read_all(open_spool(tmp_path, segment_bytes=64 * 1024)))


def test_limit_refuses_new_exchanges_and_lets_open_ones_end(tmp_path: Path) -> None:
    """Backpressure comes before any upstream call; in-flight exchanges always fit (AU-06)."""
    spool = open_spool(tmp_path, max_bytes=MIB)
    started: list[int] = []
    for number in range(1, 10_000):
        try:
            begin(spool, number)
        except SpoolFull:
            break
        started.append(number)
    full = spool.state()
    for number in started:
        end(spool, number)

    assert Condition.DEGRADED is full.condition
    assert spool.state().used_bytes <= MIB
    assert started == numbers(read_all(spool))


def test_full_spool_takes_rows_again_once_some_were_delivered(tmp_path: Path) -> None:
    """It heals by itself, and nothing was deleted to make room."""
    spool = open_spool(tmp_path, max_bytes=MIB)
    number = fill_up(spool)
    full = spool.state()
    kept = read_all(spool)
    whole(spool, number)

    assert list(range(1, number)) == numbers(kept)
    assert Condition.DEGRADED is full.condition
    assert spool.state().used_bytes < full.used_bytes / 2


def test_eighty_percent_is_degraded(tmp_path: Path) -> None:
    """Operators hear of a filling disk before callers do."""
    spool = open_spool(tmp_path, max_bytes=MIB)
    number = 0
    while spool.state().used_bytes < 0.7 * MIB:
        whole(spool, number := number + 1)
    assert Condition.OK is spool.state().condition
    while spool.state().used_bytes < 0.8 * MIB:
        whole(spool, number := number + 1)
    assert (Condition.DEGRADED, "nearly_full") == (spool.state().condition, spool.state().reason)


def test_full_spool_still_takes_two_gap_records(tmp_path: Path) -> None:
    """That rows are missing must be on disk exactly when there is no room for rows."""
    spool = open_spool(tmp_path, max_bytes=MIB)
    fill_up(spool)
    spool.gap(encode_gap(1, None, "shed:audit_backpressure"))
    spool.gap(encode_gap(1, 3, "shed:audit_backpressure"))
    gaps = []
    while not (batch := spool.read_batch(1000)).is_empty:
        gaps += batch.gaps

    assert [None, 3] == [gap.shed for gap in gaps]


def test_single_rows_need_no_begin(tmp_path: Path) -> None:
    """An exchange refused before any upstream call is one frame."""
    spool = open_spool(tmp_path)
    facts = typical_exchange(1, status="blocked")
    spool.single(encode_end(facts))

    assert ["blocked"] == [row.status for row in read_all(spool)]
    assert (0, 0) == (spool.state().open_exchanges, spool.state().reserved_bytes)


def test_room_of_an_end_is_set_aside_and_given_back(tmp_path: Path) -> None:
    """Admission is by bytes, not by hope."""
    spool = open_spool(tmp_path)
    begin(spool, 1)
    begin(spool, 2)

    assert 2 * END_ROOM == spool.state().reserved_bytes
    end(spool, 1)
    end(spool, 2)
    assert 0 == spool.state().reserved_bytes


def test_truncated_at_every_byte_of_the_last_frames_recovers_the_exact_prefix(tmp_path: Path) -> None:
    """A torn tail costs what it tore, is counted, and never stops a start (AU-07)."""
    spool = open_spool(tmp_path / "spool")
    for number in range(1, 6):
        whole(spool, number)
    path, data_end = spool._segments[-1].path, spool._segments[-1].data_end
    spool.close()
    original = path.read_bytes()
    frames = scan(original, spool._segments[-1].start, is_final=True).frames
    for cut in range(frames[-4].end, data_end + 1):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        (folder / path.name).write_bytes(original[:cut])
        kept = [frame for frame in frames if frame.end <= cut]
        recovered = open_spool(folder)
        rows = read_all(recovered)
        begins = {bytes(frame.payload[:36]).decode() for frame in kept if frame.kind == 1}

        assert begins == {row.id for row in rows}
        assert sum(frame.kind == 2 for frame in kept) == sum(row.status == "success" for row in rows)
        assert len(original[kept[-1].end : cut].rstrip(b"\0")) == recovered.state().torn_bytes
        recovered.close()
        shutil.rmtree(folder)


def test_damage_in_the_middle_is_passed_over_counted_and_quarantined(tmp_path: Path) -> None:
    """One bad block must not hold back the rows behind it; the evidence is kept."""
    spool = open_spool(tmp_path)
    for number in range(1, 21):
        whole(spool, number)
    path = spool._segments[-1].path
    abandon(spool)
    data = bytearray(path.read_bytes())
    hit = data.index(exchange_id(10).encode()) + 50
    data[hit : hit + 30] = os.urandom(30)
    path.write_bytes(data)
    again = open_spool(tmp_path)
    rows = read_all(again)

    assert set(range(1, 21)) == set(numbers(rows))
    assert 1 == again.state().damaged_stretches
    assert [path.name] == [kept.name for kept in (tmp_path / "quarantine").iterdir()]


def test_segment_of_zeros_or_without_a_byte_is_a_crash_at_birth(tmp_path: Path) -> None:
    """A kill between create and first write leaves an empty or zeroed file (AU-18)."""
    spool = open_spool(tmp_path)
    whole(spool, 1)
    abandon(spool)
    (tmp_path / "00000000000000000500.seg").write_bytes(b"")
    (tmp_path / "00000000000000000600.seg").write_bytes(bytes(4096))
    again = open_spool(tmp_path)

    assert [1] == numbers(read_all(again))
    assert 0 == again.state().torn_bytes


def test_segment_with_a_broken_header_is_read_for_its_frames(tmp_path: Path) -> None:
    """Even without knowing whose it was, a row is worth more than a clean log."""
    spool = open_spool(tmp_path)
    whole(spool, 1)
    path = spool._segments[-1].path
    abandon(spool)
    data = bytearray(path.read_bytes())
    data[3] ^= 0xFF
    path.write_bytes(data)

    assert [1] == numbers(read_all(open_spool(tmp_path)))


def test_header_that_names_another_number_does_not_stop_the_start(tmp_path: Path) -> None:
    """A disk that returns an old block as a header must not make two segments claim one file name."""
    first = open_spool(tmp_path)
    whole(first, 1)
    old = first._segments[-1].path.read_bytes()
    abandon(first)
    for number in (40, 41, 42):
        (tmp_path / f"{number:020d}.seg").write_bytes(old)
    again = open_spool(tmp_path)

    assert {1} == set(numbers(read_all(again)))
    whole(again, 2)
    assert [2] == numbers(read_all(again))


def test_frame_of_a_later_release_is_counted_and_passed_over(tmp_path: Path) -> None:
    """After a downgrade the spool still starts and ships what it understands."""
    spool = open_spool(tmp_path)
    whole(spool, 1)
    assert spool._active is not None
    spool._active.write(encode_frame(2, 900, exchange_id(7).encode() + b"[99]"))
    spool._active.write(encode_frame(9, 901, b"what is this"))
    whole(spool, 2)
    abandon(spool)
    again = open_spool(tmp_path)

    assert [1, 2] == numbers(read_all(again))
    assert 2 == again.state().unreadable_frames


def test_copied_old_spool_gives_the_same_rows_again(tmp_path: Path) -> None:
    """Restoring a backup of the spool repeats rows bit for bit; the store's upsert does the rest (AU-09)."""
    spool = open_spool(tmp_path / "a")
    for number in range(1, 30):
        whole(spool, number)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first = read_all(spool)

    assert first == read_all(open_spool(tmp_path / "b"))


def test_killed_recovery_can_be_repeated(tmp_path: Path) -> None:
    """Restart loops must not eat rows."""
    spool = open_spool(tmp_path)
    for number in range(1, 10):
        whole(spool, number)
    begin(spool, 10)
    abandon(spool)
    for _ in range(5):
        abandon(open_spool(tmp_path))
    rows = read_all(open_spool(tmp_path))

    assert list(range(1, 11)) == sorted(numbers(rows))


def test_idle_restarts_leave_no_files_behind(tmp_path: Path) -> None:
    """A crash loop at night must not fill the volume with empty segments."""
    for _ in range(10):
        spool = open_spool(tmp_path)
        read_all(spool)
        spool.close()

    assert len(segments(tmp_path)) <= 2


def test_backlog_larger_than_the_window_comes_from_disk_and_memory_in_order(tmp_path: Path) -> None:
    """A store that was away leaves more rows than memory keeps; the reader changes over without a hole."""
    spool = open_spool(tmp_path, segment_bytes=64 * 1024)
    spool._recent._max_rows = 100
    for number in range(1, 501):
        whole(spool, number)
    first = read_all(spool, max_rows=33)
    for number in range(501, 551):
        whole(spool, number)

    assert list(range(1, 551)) == numbers(first + read_all(spool, max_rows=7))
    assert 0 == spool.state().pending_rows
    assert 1 == len(segments(tmp_path))


def test_row_is_the_same_from_memory_and_from_disk(tmp_path: Path) -> None:
    """What is shipped at once and what is shipped after a restart must not differ in any column."""
    spool = open_spool(tmp_path)
    for number in range(1, 6):
        whole(spool, number)
    from_memory = spool.read_batch(10).rows
    abandon(spool)

    assert from_memory == read_all(open_spool(tmp_path))


def test_gap_between_rows_is_not_lost_to_the_window(tmp_path: Path) -> None:
    """Rows in memory must not hide a record that lies between them on disk."""
    spool = open_spool(tmp_path)
    whole(spool, 1)
    spool.gap(encode_gap(5, 2, "shed:audit_backpressure"))
    whole(spool, 2)
    batch = spool.read_batch(10)

    assert ([1, 2], [2]) == (numbers(batch.rows), [gap.shed for gap in batch.gaps])


def test_sync_thread_that_died_is_told(tmp_path: Path) -> None:
    """Liveness asks the spool; without a thread of its own it is always alive."""
    plain, syncs = open_spool(tmp_path / "a"), GroupCommit()
    synced = DiskSpool(tmp_path / "b", max_bytes=MIB, syncs=syncs)
    assert (True, True) == (plain.is_alive, synced.is_alive)

    syncs._thread = threading.Thread(target=lambda: None)
    assert not synced.is_alive
    syncs._thread = None
    synced.close()


def failing_writes(monkeypatch: pytest.MonkeyPatch, code: int) -> Callable[[bool], None]:
    """Make segment writes fail while switched on."""
    real, real_create, state = Segment.write, Segment.create, {"on": False}

    def write(self: Segment, data: bytes) -> None:
        if state["on"]:
            raise OSError(code, os.strerror(code))
        real(self, data)

    def create(*arguments: object) -> Segment:
        if state["on"]:
            raise OSError(code, os.strerror(code))
        return real_create(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Segment, "write", write)
    monkeypatch.setattr(Segment, "create", create)
    return lambda is_on: state.update(on=is_on)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_failing_disk_refuses_begins_and_keeps_ends_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """An exchange that was let in gets its row even if the disk fails meanwhile; new ones are refused."""
    now = [0.0]
    spool = DiskSpool(tmp_path, max_bytes=64 * MIB, now_s=lambda: now[0])
    begin(spool, 1)
    switch = failing_writes(monkeypatch, code)
    switch(True)
    end(spool, 1)
    with pytest.raises(SpoolUnavailable):
        begin(spool, 2)
    assert spool.state().condition is not Condition.OK
    switch(False)
    now[0] = 2.0
    whole(spool, 3)

    assert [1, 3] == numbers(read_all(spool))
    now[0] = 20.0
    assert Condition.OK is spool.state().condition


def test_one_failed_sync_moves_frames_and_a_second_closes_the_spool(tmp_path: Path) -> None:
    """After a failed sync the file lies; only a new file, synced, may be believed (AU-11)."""
    failures = [OSError(errno.EIO, "I/O error")]

    def sync(fd: int) -> None:
        if failures:
            raise failures.pop()
        os.fdatasync(fd)

    now = [0.0]
    syncs = GroupCommit(sync)
    spool = DiskSpool(tmp_path, max_bytes=64 * MIB, syncs=syncs, now_s=lambda: now[0])
    whole(spool, 1)
    first = spool._active
    syncs.sync_now()
    assert spool._active is not first
    assert (Condition.DEGRADED, "sync_failed") == (spool.state().condition, spool.state().reason)

    whole(spool, 2)
    failures += [OSError(errno.EIO, "I/O error")] * 2
    with pytest.raises(SpoolUnavailable):
        syncs.sync_now()
    assert Condition.FAILED is spool.state().condition
    with pytest.raises(SpoolUnavailable):
        begin(spool, 3)

    now[0] = 2.0
    with pytest.raises(SpoolUnavailable):
        begin(spool, 3)
    syncs.sync_now()
    begin(spool, 3)
    end(spool, 3)
    assert {1, 2, 3} == set(numbers(read_all(spool)))
    spool.close()


async def safe(spool: DiskSpool, exchange_id: str = "") -> None:
    waiter = spool.waiter(exchange_id)
    if waiter is not None:
        await waiter


async def test_durable_waits_for_a_sync_and_shares_it(tmp_path: Path) -> None:
    """Group commit: many exchanges, few syncs (AU-25)."""
    import asyncio  # noqa: PLC0415
    import time  # noqa: PLC0415

    def slow(fd: int) -> None:
        time.sleep(0.02)  # noqa: TID251 - this is the disk, in its own thread
        os.fdatasync(fd)

    syncs = GroupCommit(slow)
    spool = DiskSpool(tmp_path, max_bytes=64 * MIB, syncs=syncs)

    async def exchange(number: int) -> None:
        begin(spool, number)
        await safe(spool)
        end(spool, number)
        await safe(spool)

    async with asyncio.TaskGroup() as group:
        for number in range(1, 101):
            group.create_task(exchange(number))

    assert syncs.synced == syncs.appended == 200
    assert syncs.syncs <= 6
    spool.close()


async def test_begin_is_safe_before_what_was_appended_later(tmp_path: Path) -> None:
    """The first byte of an answer waits for its own BEGIN, not for everybody's rows of the meantime (AU-25)."""
    import asyncio  # noqa: PLC0415
    import threading  # noqa: PLC0415

    gate = threading.Semaphore(0)
    spool = DiskSpool(tmp_path, max_bytes=64 * MIB, syncs=GroupCommit(lambda fd: gate.acquire() and os.fdatasync(fd)))
    facts = typical_exchange(1)
    begin(spool, 1)
    first = spool.waiter(facts.id)
    assert first is not None
    begin(spool, 2)
    everything = spool.waiter()
    assert everything is not None
    gate.release()
    await asyncio.wait_for(first, 5)  # noqa: TID251

    assert not everything.done()
    assert spool.waiter(facts.id) is None
    gate.release(5)
    await everything
    spool.close()


async def test_durable_raises_when_the_disk_refuses_twice(tmp_path: Path) -> None:
    """The answer's tail must not be sent when its row is not safe."""

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "I/O error")

    spool = DiskSpool(tmp_path, max_bytes=64 * MIB, syncs=GroupCommit(broken))
    whole(spool, 1)
    with pytest.raises(SpoolUnavailable):
        await safe(spool)
    assert Condition.FAILED is spool.state().condition
    with pytest.raises(SpoolUnavailable):
        spool.close()
