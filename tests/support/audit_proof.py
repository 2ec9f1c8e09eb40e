"""A spool, a delivery that signs, and the walk that verifies: for tests about chain, erasure and retention."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import asyncpg

from proxy.cli.audit_verify import walk
from proxy.core.audit.verify import Report
from proxy.core.config.settings import WhenFull
from proxy.flow.audit_ports import Sink
from proxy.flow.checkpoints import Checkpoints
from proxy.flow.delivery import Delivery, DeliveryPace
from proxy.flow.outbox import Outbox
from proxy.stores.audit_keys import HmacKeys, TrustedKeys
from proxy.stores.chain_scan import open_source
from proxy.stores.memory import MemoryDeadLetters
from proxy.stores.spool import DiskSpool
from proxy.terms.exchange import ExchangeFacts

KEYS = HmacKeys(b"a key for tests")


class RealClock:
    """The clock of this machine."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def unix_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def stamp(self) -> tuple[str, int]:
        raise NotImplementedError


def open_spool(folder: Path) -> DiskSpool:
    """Return a spool with small segments, so that some hundred rows fill several."""
    return DiskSpool(folder, max_bytes=64 << 20, segment_bytes=64 * 1024)


def keep(spool: DiskSpool, exchanges: Iterable[ExchangeFacts]) -> None:
    """Begin and end exchanges."""
    outbox = Outbox(spool, WhenFull.REFUSE, RealClock().unix_ms)
    for facts in exchanges:
        outbox.begin(facts)
        outbox.end(facts)


async def ship(spool: DiskSpool, sink: Sink, every_rows: int = 100) -> Delivery:
    """Deliver everything, signed."""
    checkpoints = Checkpoints(KEYS, RealClock(), every_rows=every_rows)
    pace = DeliveryPace(max_rows=100)
    delivery = Delivery(spool, sink, MemoryDeadLetters(), RealClock(), lambda: 0.5, pace, checkpoints)
    await sink.open()
    assert await delivery.drain(30.0)
    return delivery


async def verified(store_url: str, *, keys: HmacKeys | None = KEYS) -> Report:
    """Walk the chains of a store."""
    trusted = None if keys is None else TrustedKeys(own=[keys])
    return await walk(open_source(store_url), trusted, [], RealClock().unix_ms())


async def run_sql(store_url: str, *statements: str) -> list[Any]:
    """Run SQL as whoever owns the store; return what the last statement gave."""
    if store_url.startswith("sqlite:"):
        return await asyncio.to_thread(_run_sqlite, store_url, statements)
    connection = await asyncpg.connect(store_url)
    try:
        for sql in statements[:-1]:
            await connection.execute(sql)
        return [tuple(row) for row in await connection.fetch(statements[-1])]
    finally:
        await connection.close()


def _run_sqlite(store_url: str, statements: Iterable[str]) -> list[Any]:
    import sqlite3  # noqa: PLC0415 - beside its only use

    connection = sqlite3.connect(store_url.removeprefix("sqlite:///"))
    try:
        found: list[Any] = []
        for sql in statements:
            found = connection.execute(sql).fetchall()
        connection.commit()
        return found
    finally:
        connection.close()
