"""What the audit costs: microseconds on the request path, rows a second into PostgreSQL and SQLite.

Run: ``python -m loadtest.bench_audit [--rows 40000]``. Starts a PostgreSQL of its own (or uses
``TEST_DATABASE_URL``). The COPY-only line is the ceiling of the same run: the same rows, decoded already,
copied into a table of the same columns without an index; read the others as ratios to it. "Just spooled" is
the ordinary case, rows still in memory; "backlog" is read from the disk, as after an outage or a restart.
"Late" is how long the event loop kept a timer waiting meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg

from proxy.core.audit.row import Row
from proxy.core.config.settings import WhenFull
from proxy.flow.audit_ports import Sink
from proxy.flow.delivery import Delivery, DeliveryPace
from proxy.flow.outbox import Outbox
from proxy.stores.dead_letters import DeadLetterFile
from proxy.stores.postgres_sink import PostgresSink, record_of
from proxy.stores.spool import DiskSpool
from proxy.stores.sqlite_sink import SqliteSink
from proxy.terms.exchange import AttemptFacts, ExchangeFacts, Usage
from proxy.terms.outcomes import Outcome
from tests.support.postgres import fresh_database, postgres_url

_SPOOL_BYTES = 4 << 30
_RECENT_ROWS = 8000
"""About what the spool keeps in memory."""


class SystemClock:
    """The clock of this bench."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def unix_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def stamp(self) -> tuple[str, int]:
        now_ms = self.unix_ms()
        stamp = f"{now_ms:012x}"
        dice = random.getrandbits(74)
        tail = f"7{dice >> 62:03x}-8{dice >> 50 & 0xFFF:03x}-{dice & 0xFFFFFFFFFFFF:012x}"
        return f"{stamp[:8]}-{stamp[8:]}-{tail}", now_ms


def exchange(clock: SystemClock, number: int) -> ExchangeFacts:
    """Return a typical finished chat exchange."""
    exchange_id, ts_ms = clock.stamp()
    facts = ExchangeFacts(
        id=exchange_id, ts_ms=ts_ms, method="POST", path="/v1/chat/completions",
        app=f"app-{number % 20}", user=f"user-{number % 5000}", conversation=f"conversation-{number % 900}",
        route="fast", policy="default", policy_revision="9f31ab20", provider="openai", model_asked="fast",
        model_served="gpt-4o-mini", http_status=200, request_bytes=1100, response_bytes=800,
        usage=Usage(100, 50), cost_usd=0.000125, latency_ms=512.25, first_token_ms=200.125, upstream_ms=510.0,
        findings={"EMAIL": 1}, sanitized={"EMAIL": 1}, budget={"requests_left": 29},
    )  # fmt: skip
    facts.attempts.append(AttemptFacts("openai", "gpt-4o-mini", 0.5, Outcome.OK, 200, 511.0))
    return facts


def fill(spool: DiskSpool, clock: SystemClock, rows: int) -> float:
    """Append exchanges and return the CPU microseconds of one begin and end, writes included."""
    outbox = Outbox(spool, WhenFull.REFUSE, clock.unix_ms)
    exchanges = [exchange(clock, number) for number in range(rows)]
    best_s, slice_rows = float("inf"), max(1, rows // 5)
    for start in range(0, rows, slice_rows):
        part = exchanges[start : start + slice_rows]
        started_s = time.process_time()
        for facts in part:
            outbox.begin(facts)
            outbox.end(facts)
        best_s = min(best_s, (time.process_time() - started_s) / len(part))
    return best_s * 1e6


async def ship(spool: DiskSpool, sink: Sink, clock: SystemClock, folder: Path, batch_rows: int) -> str:
    """Deliver everything in the spool; return rows a second, our CPU a row, and what the event loop felt."""
    letters = DeadLetterFile(folder / "dead-letters.jsonl")
    delivery = Delivery(spool, sink, letters, clock, random.random, DeliveryPace(max_rows=batch_rows))
    await sink.open()
    late_ms: list[float] = []
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch_loop(late_ms), name="watch-loop")
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        assert await delivery.drain(300.0)
        took_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
        watching.cancel()
    rows = delivery.state().delivered_rows
    await sink.close()
    return f"{rows / took_s:>7,.0f} rows/s, {cpu_s / rows * 1e6:4.1f} us CPU of ours a row, late {max(late_ms):.0f} ms"


async def watch_loop(late_ms: list[float]) -> None:
    """Note how late a timer of 2 ms comes back, until cancelled."""
    while True:
        asked_s = time.perf_counter()
        await asyncio.sleep(0.002)
        late_ms.append((time.perf_counter() - asked_s - 0.002) * 1000)


async def copy_only(url: str, spool: DiskSpool, batch_rows: int) -> float:
    """Return the rows a second of COPY alone; reads the spool without acknowledging it."""
    rows: list[tuple[Any, ...]] = []
    while not (batch := spool.read_batch(5000)).is_empty:
        rows += map(record_of, batch.rows)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE TABLE ceiling (LIKE audit)")
        started_s = time.perf_counter()
        for start in range(0, len(rows), batch_rows):
            part = rows[start : start + batch_rows]
            await connection.copy_records_to_table("ceiling", records=part, columns=list(Row._fields))
        return len(rows) / (time.perf_counter() - started_s)
    finally:
        await connection.execute("DROP TABLE ceiling")
        await connection.close()


async def measure(url: str, folder: Path, rows: int, batch_rows: int) -> list[tuple[str, str]]:
    """Run everything once and return the lines of the report."""
    clock = SystemClock()
    sink = PostgresSink(url)
    await sink.open()
    await sink.close()
    make: dict[str, Callable[[], Sink]] = {
        "PostgreSQL": lambda: PostgresSink(url),
        "as behind PgBouncer": lambda: PostgresSink(url + "?pgbouncer=true"),
        "SQLite": lambda: SqliteSink(folder / "audit.db"),
    }
    lines: list[tuple[str, str]] = []
    for name, make_sink in make.items():
        home = folder / name.replace(" ", "-")
        spool = DiskSpool(home, max_bytes=_SPOOL_BYTES)
        cost_us = fill(spool, clock, min(rows, _RECENT_ROWS))
        if not lines:
            lines.append(("begin + end into the spool", f"{cost_us:.1f} us CPU"))
        lines.append((f"{name}, just spooled", await ship(spool, make_sink(), clock, folder, batch_rows)))
        fill(spool, clock, rows)
        spool.close()
        spool = DiskSpool(home, max_bytes=_SPOOL_BYTES)
        if len(lines) == 2:
            lines.append(("COPY only, no index (ceiling)", f"{await copy_only(url, spool, batch_rows):>7,.0f} rows/s"))
            spool.close()
            spool = DiskSpool(home, max_bytes=_SPOOL_BYTES)
        lines.append((f"{name}, backlog", await ship(spool, make_sink(), clock, folder, batch_rows)))
        spool.close()
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--batch-rows", type=int, default=1000)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="readygate-bench-audit-"))
    try:
        with postgres_url() as server, fresh_database(server) as url:
            lines = asyncio.run(measure(url, folder, args.rows, args.batch_rows))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{args.rows} rows, batches of {args.batch_rows}")
    for name, figure in lines:
        print(f"  {name:<34} {figure}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
