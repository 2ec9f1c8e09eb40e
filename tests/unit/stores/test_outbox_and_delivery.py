"""Outbox and delivery over the disk spool and its twin: admission, gaps, back-off, dead letters, drain."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from proxy.core.audit.records import Record
from proxy.core.audit.row import Gap, Row
from proxy.core.config.settings import WhenFull
from proxy.flow.audit_ports import Condition, Spool
from proxy.flow.delivery import Delivery, DeliveryPace
from proxy.flow.outbox import KEPT, Outbox, Refused, Shed
from proxy.stores.dead_letters import DeadLetterFile
from proxy.stores.memory import MemoryDeadLetters, MemorySink, MemorySpool
from proxy.stores.spool import DiskSpool
from proxy.terms.errors import RowRefused, SinkUnavailable, SpoolFull, SpoolUnavailable
from tests.support.audit import SetClock, exchange_id, typical_exchange


class RunningClock(SetClock):
    """Monotonic time as it passes."""

    def monotonic_s(self) -> float:
        return time.monotonic()


PACE = DeliveryPace(max_rows=50, max_age_s=0.02, look_every_s=0.005, first_backoff_s=0.01, max_backoff_s=0.05)


@pytest.fixture(params=["disk", "memory"])
def spool(request: pytest.FixtureRequest, tmp_path: Path) -> Spool:
    if request.param == "memory":
        return MemorySpool(max_bytes=1 << 20)
    return DiskSpool(tmp_path / "spool", max_bytes=1 << 20)


def outbox_of(spool: Spool, when_full: WhenFull = WhenFull.REFUSE) -> Outbox:
    return Outbox(spool, when_full, SetClock().unix_ms)


def delivery_of(spool: Spool, sink: MemorySink, letters: MemoryDeadLetters | None = None) -> Delivery:
    return Delivery(spool, sink, letters or MemoryDeadLetters(), RunningClock(), lambda: 0.5, PACE)


def fill(outbox: Outbox) -> int:
    """Begin and end exchanges until one is not kept; return how many were."""
    for number in range(1, 100_000):
        facts = typical_exchange(number)
        if outbox.begin(facts) is not KEPT:
            return number - 1
        outbox.end(facts)
    raise AssertionError("the spool never filled up")


def test_kept_exchange_becomes_one_row(spool: Spool) -> None:
    """One exchange, one row."""
    outbox = outbox_of(spool)
    facts = typical_exchange(1)

    assert KEPT is outbox.begin(facts)
    outbox.end(facts)
    assert [facts.id] == [row.id for row in spool.read_batch(10).rows]
    assert 1 == outbox.state().kept_rows


def test_full_spool_refuses_with_backpressure_and_open_exchanges_still_end(spool: Spool) -> None:
    """503 before any upstream call; what was let in gets its row (AU-06)."""
    outbox = outbox_of(spool)
    running = typical_exchange(900_000)
    outbox.begin(running)
    fill(outbox)

    assert Refused("audit_backpressure") == outbox.begin(typical_exchange(900_001))
    outbox.end(running)
    rows = [row.id for row in spool.read_batch(100_000).rows]
    assert running.id in rows


def test_shed_rows_are_counted_and_leave_a_gap_record(spool: Spool) -> None:
    """Losing rows on purpose is allowed only aloud."""
    outbox = outbox_of(spool, WhenFull.SHED)
    kept = fill(outbox)
    number = 800_000
    while outbox.state().shed_rows < 3:  # an END alone still fits where a BEGIN with its reserve does not
        facts = typical_exchange(number := number + 1)
        assert Shed("audit_backpressure") == outbox.begin(facts)
        outbox.end(facts)
    shed = outbox.state()
    gaps: list[Gap] = []
    while not (batch := spool.read_batch(100)).is_empty:
        gaps += batch.gaps
        spool.acknowledge(batch.token)
    assert KEPT is outbox.begin(typical_exchange(1_000_000))
    gaps += spool.read_batch(100).gaps

    assert kept + (number - 800_000) == shed.kept_rows + shed.shed_rows
    assert Condition.DEGRADED is shed.condition
    assert [(None, "shed:audit_backpressure"), (3, "shed:audit_backpressure")] == [(g.shed, g.reason) for g in gaps]


def test_row_whose_begin_was_shed_is_kept_when_room_came_back(spool: Spool) -> None:
    """An END tells the whole story: no reason to lose it for want of its BEGIN."""
    outbox = outbox_of(spool, WhenFull.SHED)
    fill(outbox)
    late = typical_exchange(700_000)
    outbox.begin(late)
    while not (batch := spool.read_batch(100)).is_empty:
        spool.acknowledge(batch.token)
    outbox.end(late)

    assert [late.id] == [row.id for row in spool.read_batch(10).rows]
    assert 0 == outbox.state().shed_rows


def test_failing_disk_is_unavailable_not_backpressure() -> None:
    """Operators act differently on a full disk and on a broken one."""
    spool = MemorySpool()
    spool.failure = SpoolUnavailable("broken")
    outbox = outbox_of(spool)

    assert Refused("audit_unavailable") == outbox.begin(typical_exchange(1))
    assert Refused("audit_unavailable") == outbox.single(typical_exchange(2))
    assert Condition.FAILED is outbox.state().condition


def test_gap_that_could_not_be_written_is_written_when_the_disk_returns() -> None:
    """The count survives in memory until the disk takes it."""
    spool = MemorySpool()
    outbox = outbox_of(spool, WhenFull.SHED)
    spool.failure = SpoolFull()
    outbox.single(typical_exchange(1))
    spool.failure = None
    outbox.single(typical_exchange(2))

    assert [1] == [gap.shed for gap in spool.read_batch(10).gaps]


def test_large_row_is_cut_to_the_room_it_has(spool: Spool) -> None:
    """An END larger than its reserve must not push out the END of another exchange."""
    outbox = outbox_of(spool)
    running = [typical_exchange(number) for number in range(500_000, 500_020)]
    for facts in running:
        assert KEPT is outbox.begin(facts)
    fill(outbox)
    for facts in running:
        facts.error_message = "e" * 9000
        facts.notes = ["n" * 300] * 20
        outbox.end(facts)
    rows = {row.id: row for row in spool.read_batch(100_000).rows}

    assert {facts.id for facts in running} <= set(rows)
    assert all("cut" in rows[facts.id].flags for facts in running)
    assert spool.state().used_bytes <= spool.state().limit_bytes


async def test_rows_reach_the_store_and_leave_the_spool(spool: Spool) -> None:
    """The plain story of a row."""
    outbox, sink = outbox_of(spool), MemorySink()
    for number in range(1, 121):
        facts = typical_exchange(number)
        outbox.begin(facts)
        outbox.end(facts)
    delivery = delivery_of(spool, sink)

    assert await delivery.drain(5.0)
    assert {exchange_id(number) for number in range(1, 121)} == set(sink.rows)
    assert [50, 50, 20] == sink.batches
    assert (0, 120) == (delivery.state().lag.rows, delivery.state().delivered_rows)


async def test_store_away_keeps_rows_and_says_so_then_catches_up(spool: Spool) -> None:
    """Callers never notice a database outage; operators do."""
    outbox, sink = outbox_of(spool), MemorySink()
    sink.failure = SinkUnavailable("connection refused")
    delivery = delivery_of(spool, sink)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(delivery.run())
        for number in range(1, 31):
            facts = typical_exchange(number)
            outbox.begin(facts)
            outbox.end(facts)
        await asyncio.sleep(0.1)
        away = (delivery.state().condition, delivery.state().reason, delivery.state().lag.rows)
        sink.failure = None
        async with asyncio.timeout(5):
            while len(sink.rows) < 30:  # noqa: ASYNC110 - the sink is a plain twin without events
                await asyncio.sleep(0.01)
        task.cancel()

    assert (Condition.DEGRADED, "connection refused", 30) == away
    assert Condition.OK is delivery.state().condition


class PoisonedSink(MemorySink):
    """Refuses any batch that holds one of these ids."""

    def __init__(self, poison: set[str]) -> None:
        super().__init__()
        self.poison = poison

    async def insert(self, rows: Sequence[Row], gaps: Sequence[Gap] = (), records: Sequence[Record] = ()) -> None:
        if any(row.id in self.poison for row in rows):
            raise RowRefused("22P05")
        await super().insert(rows, gaps)


async def test_poison_rows_are_buried_and_their_neighbours_ship(spool: Spool) -> None:
    """One row a store will never take must not hold back the others (AU-10)."""
    outbox, sink, letters = outbox_of(spool), PoisonedSink({exchange_id(7), exchange_id(33)}), MemoryDeadLetters()
    for number in range(1, 51):
        facts = typical_exchange(number)
        outbox.begin(facts)
        outbox.end(facts)
    delivery = delivery_of(spool, sink, letters)

    assert await delivery.drain(5.0)
    assert 48 == len(sink.rows)
    assert [(exchange_id(7), "22P05"), (exchange_id(33), "22P05")] == [(row.id, why) for row, why in letters.kept]
    assert (2, 48, 0) == (
        delivery.state().dead_letters, delivery.state().delivered_rows, delivery.state().lag.rows,
    )  # fmt: skip


async def test_drain_gives_up_at_its_deadline_and_keeps_the_rows(tmp_path: Path) -> None:
    """A pod must go when it is told to; the rest waits in the spool for the next start (AU-27, LC-04)."""
    spool, sink = DiskSpool(tmp_path, max_bytes=1 << 20), MemorySink()
    sink.failure = SinkUnavailable("away")
    outbox = outbox_of(spool)
    for number in range(1, 6):
        facts = typical_exchange(number)
        outbox.begin(facts)
        outbox.end(facts)

    assert not await delivery_of(spool, sink).drain(0.05)
    spool.close()
    again = DiskSpool(tmp_path, max_bytes=1 << 20)
    sink.failure = None
    assert await delivery_of(again, sink).drain(5.0)
    assert 5 == len(sink.rows)


async def test_rows_taken_in_hand_by_a_cancelled_run_are_sent_by_drain(spool: Spool) -> None:
    """Shutdown cancels the loop mid-batch; that batch must not be forgotten."""

    class SlowSink(MemorySink):
        async def insert(self, rows: Sequence[Row], gaps: Sequence[Gap] = (), records: Sequence[Record] = ()) -> None:
            await asyncio.sleep(0.05)
            await super().insert(rows, gaps)

    outbox, sink = outbox_of(spool), SlowSink()
    for number in range(1, 201):
        facts = typical_exchange(number)
        outbox.begin(facts)
        outbox.end(facts)
    delivery = delivery_of(spool, sink)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(delivery.run())
        await asyncio.sleep(0.02)
        task.cancel()

    assert await delivery.drain(5.0)
    assert 200 == len(sink.rows)


async def test_interrupted_exchanges_of_a_killed_process_are_delivered_when_nothing_else_is(tmp_path: Path) -> None:
    """A sidecar killed with one open stream and restarted into silence still owes that row."""
    first = DiskSpool(tmp_path, max_bytes=1 << 20)
    outbox_of(first).begin(typical_exchange(1))
    first._active.close()  # type: ignore[union-attr]
    os.close(first._lock_fd)
    sink = MemorySink()
    delivery = delivery_of(DiskSpool(tmp_path, max_bytes=1 << 20), sink)

    assert await delivery.drain(5.0)
    assert ["interrupted"] == [row.status for row in sink.rows.values()]


async def test_full_dead_letter_file_keeps_the_batch_and_says_so(tmp_path: Path) -> None:
    """A store that refuses row after row is broken; dropping rows quietly would hide it."""
    poison = {exchange_id(number) for number in range(1, 6)}
    spool, sink = DiskSpool(tmp_path / "spool", max_bytes=1 << 20), PoisonedSink(poison)
    letters = DeadLetterFile(tmp_path / "dead-letters.jsonl", max_bytes=3000)
    outbox = outbox_of(spool)
    for number in range(1, 11):
        facts = typical_exchange(number)
        outbox.begin(facts)
        outbox.end(facts)
    delivery = Delivery(spool, sink, letters, RunningClock(), lambda: 0.5, PACE)
    await sink.open()

    assert 0 == await delivery.deliver_once()
    assert (Condition.DEGRADED, 10) == (delivery.state().condition, delivery.state().lag.rows)
    assert "dead-letters.jsonl is full (3000 bytes): move it away" == delivery.state().reason
    assert 3000 >= (tmp_path / "dead-letters.jsonl").stat().st_size

    (tmp_path / "dead-letters.jsonl").rename(tmp_path / "looked-at.jsonl")
    sink.poison = {exchange_id(1)}
    assert await delivery.drain(5.0)
    assert {exchange_id(number) for number in range(2, 11)} == set(sink.rows)


def test_dead_letter_is_one_json_line(tmp_path: Path) -> None:
    """An operator repairs and re-inserts it by hand; it must be readable."""
    import orjson  # noqa: PLC0415

    from proxy.core.audit.payload import encode_end  # noqa: PLC0415
    from proxy.core.audit.row import Stamp, merge  # noqa: PLC0415

    row = merge(None, encode_end(typical_exchange(1)), Stamp("w", 1, 2))
    letters = DeadLetterFile(tmp_path / "dead.jsonl")
    letters.keep(row, "22P05")
    letters.keep(row, "22P05")
    lines = [orjson.loads(line) for line in (tmp_path / "dead.jsonl").read_bytes().splitlines()]

    assert [("22P05", row.id)] * 2 == [(line["reason"], line["row"]["id"]) for line in lines]
