"""From the spool into a real PostgreSQL through outages, cuts, replays and poison: one row per exchange."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from proxy.core.audit.payload import encode_begin, encode_end
from proxy.core.config.settings import WhenFull
from proxy.flow.audit_ports import Condition, Sink
from proxy.flow.delivery import Delivery, DeliveryPace
from proxy.flow.outbox import KEPT, Outbox, Refused
from proxy.stores.dead_letters import DeadLetterFile
from proxy.stores.postgres_sink import PostgresSink
from proxy.stores.spool import DiskSpool
from tests.support.audit import SetClock, exchange_id, typical_exchange
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.integration
MIB = 1 << 20
REPOSITORY = Path(__file__).resolve().parents[2]


class RealClock(SetClock):
    """Monotonic time of the loop."""

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()


def deliver_to(spool: DiskSpool, sink: Sink, folder: Path, max_rows: int = 100) -> Delivery:
    pace = DeliveryPace(max_rows=max_rows, max_age_s=0.02, look_every_s=0.01, first_backoff_s=0.05, max_backoff_s=0.3)
    return Delivery(spool, sink, DeadLetterFile(folder / "dead-letters.jsonl"), RealClock(), random.random, pace)


def append(spool: DiskSpool, numbers: range, **changes: Any) -> None:
    for number in numbers:
        facts = typical_exchange(number, **changes)
        spool.begin(facts.id, encode_begin(facts))
        spool.end(facts.id, encode_end(facts))


async def stored(url: str) -> dict[str, tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return {str(row["id"]): tuple(row) for row in await connection.fetch("SELECT * FROM audit")}
    finally:
        await connection.close()


async def duplicates(url: str) -> int:
    """Oracle O2: ids that occur more than once."""
    connection = await asyncpg.connect(url)
    try:
        sql = "SELECT count(*) FROM (SELECT id FROM audit GROUP BY id HAVING count(*) > 1) AS twice"
        return int(await connection.fetchval(sql))
    finally:
        await connection.close()


async def test_database_outage_costs_no_row_and_no_waiting(own_postgres: PostgresServer, tmp_path: Path) -> None:
    """The database may be away for hours; appending goes on and everything arrives later (AU-04)."""
    spool, sink = DiskSpool(tmp_path / "spool", max_bytes=64 * MIB), PostgresSink(own_postgres.url)
    delivery = deliver_to(spool, sink, tmp_path)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(delivery.run())
        append(spool, range(1, 201))
        await until(lambda: delivery.state().delivered_rows == 200)
        await asyncio.to_thread(own_postgres.stop, "immediate")
        for number in range(201, 801):
            append(spool, range(number, number + 1))
            await asyncio.sleep(0.001)
        away = delivery.state()
        lag = away.lag.rows
        condition = away.condition
        await asyncio.to_thread(own_postgres.start)
        await until(lambda: delivery.state().delivered_rows == 800)
        task.cancel()
    rows = await stored(own_postgres.url)
    await sink.close()

    assert (600, Condition.DEGRADED) == (lag, condition)
    assert {exchange_id(number) for number in range(1, 801)} == set(rows)


class CuttingProxy:
    """A TCP proxy that can swallow the database's answer to a finished COPY or COMMIT and hang up."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition("@")[2].partition("/")[0].partition(":")
        self._target = (host, int(port))
        self.cuts_left = 0

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer, is_answer=False))
                group.create_task(self._pump(far_reader, writer, is_answer=True))
        except* ConnectionError:
            pass
        finally:
            writer.close()
            far_writer.close()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_answer: bool) -> None:
        while data := await source.read(65536):
            if (
                is_answer
                and self.cuts_left
                and (b"C\x00\x00\x00\x0dCOPY" in data or b"COPY 1" in data or b"COMMIT" in data)
            ):
                self.cuts_left -= 1
                raise ConnectionResetError
            target.write(data)
            await target.drain()
        raise ConnectionResetError


@pytest.mark.parametrize("suffix", ["", "?pgbouncer=true"])
async def test_cut_after_commit_neither_loses_nor_doubles(database_url: str, tmp_path: Path, suffix: str) -> None:
    """When the answer to COMMIT is lost nobody knows the outcome; sending again must be right either way (AU-08)."""
    proxy = CuttingProxy(database_url)
    port = await proxy.start()
    through = f"postgresql://postgres@127.0.0.1:{port}/{database_url.rsplit('/', 1)[1]}{suffix}"
    spool, sink = DiskSpool(tmp_path / "spool", max_bytes=64 * MIB), PostgresSink(through)
    delivery = deliver_to(spool, sink, tmp_path)
    append(spool, range(1, 501))
    await sink.open()
    proxy.cuts_left = 3

    assert await delivery.drain(20.0)
    assert 0 == proxy.cuts_left
    assert {exchange_id(number) for number in range(1, 501)} == set(await stored(database_url))
    assert 0 == await duplicates(database_url)
    assert delivery.state().failed_batches >= 3
    await sink.close()
    await proxy.stop()


async def test_replayed_spool_changes_nothing(database_url: str, tmp_path: Path) -> None:
    """A restored backup of the spool repeats every row; the table stays as it is, byte for byte (AU-09)."""
    spool = DiskSpool(tmp_path / "spool", max_bytes=64 * MIB)
    append(spool, range(1, 301))
    open_facts = typical_exchange(301)
    spool.begin(open_facts.id, encode_begin(open_facts))
    shutil.copytree(tmp_path / "spool", tmp_path / "copy")
    spool.end(open_facts.id, encode_end(open_facts))
    sink = PostgresSink(database_url)
    assert await deliver_to(spool, sink, tmp_path).drain(20.0)
    before = await stored(database_url)
    assert await deliver_to(DiskSpool(tmp_path / "copy", max_bytes=64 * MIB), sink, tmp_path).drain(20.0)
    await sink.close()

    assert 301 == len(before)
    assert before == await stored(database_url)


@pytest.mark.parametrize("suffix", ["", "?pgbouncer=true"])
async def test_batch_on_its_way_never_holds_the_loop(database_url: str, tmp_path: Path, suffix: str) -> None:
    """A backlog of a thousand rows is read and encoded in slices: callers have their turn in between."""
    spool, sink = DiskSpool(tmp_path / "spool", max_bytes=64 * MIB), PostgresSink(database_url + suffix)
    append(spool, range(1, 3001))
    spool.close()
    spool = DiskSpool(tmp_path / "spool", max_bytes=64 * MIB)
    delivery = deliver_to(spool, sink, tmp_path, max_rows=1000)
    await sink.open()
    held_ms: list[float] = []

    async def watch() -> None:
        while True:
            began_s = time.thread_time()
            await asyncio.sleep(0)
            held_ms.append((time.thread_time() - began_s) * 1000)

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        assert await delivery.drain(20.0)
        watching.cancel()
    await sink.close()

    assert 3000 == len(await stored(database_url))
    assert sorted(held_ms)[-4] < 6.0, f"CPU milliseconds between two turns: {sorted(held_ms)[-6:]}"


async def test_poison_from_callers_ships_escaped_with_its_neighbours(database_url: str, tmp_path: Path) -> None:
    """NUL, JSON NUL, lone surrogates and a mebibyte of model name all become storable rows (AU-10)."""
    spool, sink = DiskSpool(tmp_path / "spool", max_bytes=64 * MIB), PostgresSink(database_url)
    append(spool, range(1, 50))
    append(spool, range(50, 51), app="nul\x00", notes=["\x00"], findings={"A\x00": 1})
    append(spool, range(51, 52), user="lone\ud800", model_asked="\udfff")
    append(spool, range(52, 53), model_asked="m" * MIB, user="u" * MIB)
    append(spool, range(53, 54), error_message="\\u0000 typed by a person", conversation="\\x00")
    append(spool, range(54, 100))
    delivery = deliver_to(spool, sink, tmp_path)

    assert await delivery.drain(20.0)
    assert {exchange_id(number) for number in range(1, 100)} == set(await stored(database_url))
    assert (0, 1) == (delivery.state().dead_letters, delivery.state().delivered_batches)
    await sink.close()


async def test_row_the_database_refuses_is_buried_and_counted(database_url: str, tmp_path: Path) -> None:
    """Should something unstorable come through after all, one row goes to the dead letters, not the batch."""
    spool, sink = DiskSpool(tmp_path / "spool", max_bytes=64 * MIB), PostgresSink(database_url)
    append(spool, range(1, 51))
    append(spool, range(51, 52), http_status=2**40)
    append(spool, range(52, 101))
    delivery = deliver_to(spool, sink, tmp_path)

    assert await delivery.drain(20.0)
    assert 99 == len(await stored(database_url))
    assert 1 == delivery.state().dead_letters
    assert exchange_id(51) in (tmp_path / "dead-letters.jsonl").read_text()
    await sink.close()


async def test_killed_writer_is_delivered_completely(database_url: str, tmp_path: Path) -> None:
    """Kill, restart, drain: every exchange the writer had begun has exactly one row (AU-02, O1, O2)."""
    folder = tmp_path / "spool"
    command = [
        sys.executable,
        "-m",
        "tests.support.spool_writer",
        str(folder),
        "1",
        "--die-at",
        "333",
        "--die",
        "torn-write",
    ]
    done = subprocess.run(command, capture_output=True, cwd=REPOSITORY, check=False, timeout=30)
    words = [line.split() for line in done.stdout.decode().splitlines()]
    handed_out = {int(number) for word, number in words if word == "d"}
    begun = {int(number) for word, number in words if word == "b"}
    sink = PostgresSink(database_url)
    spool = DiskSpool(folder, max_bytes=8 * MIB)
    assert await deliver_to(spool, sink, tmp_path).drain(20.0)
    rows = await stored(database_url)
    await sink.close()

    assert {exchange_id(number) for number in begun - handed_out} <= set(rows)
    assert set(rows) <= {exchange_id(number) for number in begun | {max(begun) + 1}}
    assert 0 == await duplicates(database_url)


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "volume"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a tmpfs needs root: sudo make test-faults")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("limit", [MIB, 1 << 30], ids=["limit-of-ours", "limit-of-the-volume"])
async def test_full_volume_refuses_keeps_and_heals(
    small_volume: Path, database_url: str, tmp_path: Path, limit: int
) -> None:
    """503 before any upstream call, open exchanges end with rows, nothing is deleted, and it heals (AU-06)."""
    spool = DiskSpool(small_volume / "spool", max_bytes=limit)
    outbox = Outbox(spool, WhenFull.REFUSE, SetClock().unix_ms)
    running = [typical_exchange(number) for number in range(10_000, 10_020)]
    assert all(outbox.begin(facts) is KEPT for facts in running)
    number = 0
    while outbox.begin(facts := typical_exchange(number := number + 1)) is KEPT:
        outbox.end(facts)
        assert number < 5000
    assert Refused("audit_backpressure") == outbox.begin(typical_exchange(20_000))
    for facts in running:
        outbox.end(facts)
    full = outbox.state()
    sink = PostgresSink(database_url)
    assert await deliver_to(spool, sink, tmp_path).drain(20.0)
    rows = await stored(database_url)
    await sink.close()

    assert Condition.DEGRADED is full.condition
    assert {exchange_id(n) for n in range(1, number)} | {facts.id for facts in running} == set(rows)
    assert KEPT is outbox.begin(typical_exchange(30_000))


async def until(is_true: Any) -> None:
    async with asyncio.timeout(20):
        while not is_true():  # noqa: ASYNC110 - what is awaited happens in another process
            await asyncio.sleep(0.01)
