"""A store of a million rows: what an operator waits for. Query by user, by app and day, verify, erase, export.

Run: ``python -m loadtest.bench_audit_million [--rows 1000000] [--store sqlite]``. Rows come the real way, from a spool
by the delivery with its chain and checkpoints, over 20 days, 20 apps and 5,000 users, into a PostgreSQL of its
own (or ``TEST_DATABASE_URL``). Each question is asked three times; the middle time counts.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from loadtest.bench_audit import SystemClock, exchange
from proxy.cli.audit_verify import walk
from proxy.core.audit.query import RowFilter, parse_filter, parse_groups
from proxy.core.config.settings import WhenFull
from proxy.flow.audit_reading import pages
from proxy.flow.checkpoints import Checkpoints
from proxy.flow.delivery import Delivery, DeliveryPace
from proxy.flow.outbox import Outbox
from proxy.stores.audit_keys import HmacKeys, read_or_make_key
from proxy.stores.audit_reader import open_reader
from proxy.stores.audit_stores import make_sink
from proxy.stores.chain_scan import open_source
from proxy.stores.dead_letters import DeadLetterFile
from proxy.stores.people import open_people
from proxy.stores.spool import DiskSpool
from tests.support.postgres import fresh_database, postgres_url

_DAY_MS = 86_400_000
_DAYS = 20
_PART_ROWS = 20_000


class SpreadClock(SystemClock):
    """A clock that has come to a moment of the last twenty days: ids, and so rows, lie there."""

    def __init__(self, rows: int) -> None:
        self._began_ms = time.time_ns() // 1_000_000 - _DAYS * _DAY_MS
        self._step_ms = _DAYS * _DAY_MS / rows
        self.number = 0

    def unix_ms(self) -> int:
        return self._began_ms + round(self.number * self._step_ms)


async def fill(url: str, folder: Path, rows: int) -> float:
    """Ship this many rows; return the seconds that the shipping took."""
    clock = SpreadClock(rows)
    spool = DiskSpool(folder / "spool", max_bytes=1 << 30)
    outbox, sink = Outbox(spool, WhenFull.REFUSE, clock.unix_ms), make_sink(url)
    checkpoints = Checkpoints(HmacKeys(read_or_make_key(folder / "spool")), clock, lambda record: None)
    letters = DeadLetterFile(folder / "dead-letters.jsonl")
    delivery = Delivery(spool, sink, letters, clock, random.random, DeliveryPace(), checkpoints)
    shipping_s = 0.0
    while clock.number < rows:
        for _ in range(min(_PART_ROWS, rows - clock.number)):
            facts = exchange(clock, clock.number)
            outbox.begin(facts)
            outbox.end(facts)
            clock.number += 1
        began_s = time.perf_counter()
        assert await delivery.drain(300.0)
        shipping_s += time.perf_counter() - began_s
    assert delivery.state().delivered_rows == rows, delivery.state()
    await sink.close()
    spool.close()
    return shipping_s


async def middle_of_three(ask: Callable[[], Awaitable[str]]) -> tuple[float, str]:
    """Return the middle time of three in milliseconds, and what the last one said."""
    took_ms, said = [], ""
    for _ in range(3):
        began_s = time.perf_counter()
        said = await ask()
        took_ms.append((time.perf_counter() - began_s) * 1000)
    return statistics.median(took_ms), said


async def measure(url: str, folder: Path, rows: int) -> None:
    """Fill the store and print the figures."""
    shipping_s = await fill(url, folder, rows)
    show("filled from the spool", shipping_s * 1000, f"{rows / shipping_s:,.0f} rows/s, chained and signed")
    now = datetime.fromtimestamp(time.time_ns() / 1e9, UTC)
    day = f"{datetime.fromtimestamp(now.timestamp() - 5 * 86_400, UTC):%Y-%m-%d}"
    following = f"{datetime.fromtimestamp(now.timestamp() - 4 * 86_400, UTC):%Y-%m-%d}"
    reader = open_reader(url)

    def chosen(**asked: str) -> RowFilter:
        return parse_filter(asked, now)

    async def by_user() -> str:
        return f"{len(await reader.rows(chosen(user='user-77'), 500))} rows"

    async def newest() -> str:
        return f"{len(await reader.rows(RowFilter(), 100))} rows"

    async def by_app_and_day() -> str:
        sums = await reader.sums(chosen(app="app-7", since=day, until=following), parse_groups("provider,status"))
        return f"{sum(one['exchanges'] for one in sums):,} rows summed"

    async def everything() -> str:
        return f"{sum(one['exchanges'] for one in await reader.sums(RowFilter())):,} rows summed"

    questions = {
        "newest 100": newest, "one user": by_user, "one app, one day: sums, p50, p95": by_app_and_day,
        "sums, p50, p95 over everything": everything,
    }  # fmt: skip
    for name, ask in questions.items():
        show(name, *await middle_of_three(ask))
    began_s = time.perf_counter()
    exported = 0
    async for page in pages(reader, RowFilter(), oldest_first=True):
        exported += len(page)
        if exported >= 100_000:
            break
    took_s = time.perf_counter() - began_s
    show("export, the first 100,000", took_s * 1000, f"{exported / took_s:,.0f} rows/s")
    await reader.close()
    await prove_and_erase(url, rows)


async def prove_and_erase(url: str, rows: int) -> None:
    """Time the proof, an erasure, and the proof after it."""
    for when in ("verify", "verify after the erasure"):
        began_s = time.perf_counter()
        report = await walk(open_source(url), None, [], time.time_ns() // 1_000_000)
        assert not report.findings, report.findings[:3]
        took_s = time.perf_counter() - began_s
        show(when, took_s * 1000, f"{rows / took_s:,.0f} rows/s, nothing found")
        if when == "verify":
            began_s = time.perf_counter()
            done = await open_people(url).erase("user-77", before_ms=time.time_ns() // 1_000_000, actor="bench")
            show("erase one user", (time.perf_counter() - began_s) * 1000, f"{done.rows} rows")


def show(name: str, took_ms: float, said: str) -> None:
    """Print one line of the report."""
    print(f"  {name:<34} {took_ms:>10,.1f} ms   {said}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--store", choices=("postgres", "sqlite"), default="postgres")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="readygate-bench-million-"))
    try:
        with ExitStack() as stack:
            url = f"sqlite:///{folder / 'audit.db'}"
            if args.store == "postgres":
                url = stack.enter_context(fresh_database(stack.enter_context(postgres_url())))
            print(f"{args.rows:,} rows in {args.store}")
            asyncio.run(measure(url, folder, args.rows))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
