"""Old rows go by policy and age, whole months at once, and the rest still proves itself (AU-13)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from proxy.core.audit.pruning import Ages
from proxy.flow.audit_ports import Sink
from proxy.flow.retention import prune_all
from proxy.stores.audit_stores import make_sink
from proxy.stores.retention import open_pruner
from tests.support.audit import TS_MS, typical_exchange
from tests.support.audit_proof import KEYS, keep, open_spool, run_sql, ship, verified

DAY_MS = 86_400_000
NOW_MS = TS_MS + 100 * DAY_MS


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/audit.db"
    url: str = request.getfixturevalue("database_url")
    return url


@pytest.fixture
async def sink(store_url: str) -> AsyncIterator[Sink]:
    sink = make_sink(store_url)
    yield sink
    await sink.close()


async def filled(tmp_path: Path, sink: Sink, days: int = 100, per_day: int = 12) -> None:
    """Keep a hundred days of rows of two policies, taking turns in one chain."""
    spool = open_spool(tmp_path / "spool")
    keep(
        spool,
        (
            typical_exchange(n, TS_MS + n * DAY_MS // per_day, policy=("short", "long")[n % 2])
            for n in range(days * per_day)
        ),
    )
    await ship(spool, sink)
    spool.close()


def day_s(days: float) -> float:
    return days * 86_400


async def test_each_policy_keeps_its_rows_as_long_as_it_says(store_url: str, sink: Sink, tmp_path: Path) -> None:
    """Seven days of one, sixty of the other; verifying finds nothing missing that should be there."""
    await filled(tmp_path, sink)
    ages = Ages({"short": day_s(7), "long": day_s(60)}, day_s(60))
    rows = await prune_all(open_pruner(store_url, KEYS), ages, lambda: NOW_MS, "a test")
    left = dict(await run_sql(store_url, "SELECT policy, count(*) FROM audit GROUP BY policy"))
    report = await verified(store_url)

    assert {"short": 42, "long": 360} == left
    assert 1200 - 402 == rows
    assert [] == report.findings
    assert [("a test", "retention")] == await run_sql(store_url, "SELECT actor, action FROM audit_actions")
    again = await prune_all(open_pruner(store_url, KEYS), ages, lambda: NOW_MS, "a test")
    assert 0 == again


async def test_old_chain_shrinks_to_one_record(store_url: str, sink: Sink, tmp_path: Path) -> None:
    """Years of pruning must not leave a record a row; and a row deleted by somebody else still shows."""
    await filled(tmp_path, sink)
    ages = Ages({"short": day_s(30), "long": day_s(30)}, None)
    for days in (40, 20, 0):
        await prune_all(open_pruner(store_url, KEYS), ages, lambda days=days: NOW_MS - days * DAY_MS, "a test")
    kinds = dict(await run_sql(store_url, "SELECT kind, count(*) FROM audit_checkpoints GROUP BY kind"))

    assert 1 == kinds["skipped"]
    assert 5 >= kinds["checkpoint"]
    assert [] == (await verified(store_url)).findings
    await run_sql(store_url, "DELETE FROM audit WHERE ts = (SELECT min(ts) FROM audit)", "SELECT 1")
    assert ["deleted"] == [finding.what for finding in (await verified(store_url)).findings]


async def test_record_of_another_key_is_not_taken_over(store_url: str, sink: Sink, tmp_path: Path) -> None:
    """A forged excuse must not be joined with a real one and come out signed."""
    await filled(tmp_path, sink, days=10)
    await run_sql(
        store_url,
        "DELETE FROM audit WHERE seq = (SELECT seq FROM audit ORDER BY seq LIMIT 1 OFFSET 19)",
        """INSERT INTO audit_checkpoints SELECT writer, epoch, 40, 'skipped', ts,
           '{"kind":"skipped","writer":"' || writer || '","epoch":1,"seq":40,"first_position":20,"position":20,"hash":""}',
           key, signature FROM audit_checkpoints LIMIT 1""",
        "SELECT 1",
    )
    ages = Ages({"short": day_s(95), "long": day_s(95)}, None)
    await prune_all(open_pruner(store_url, KEYS), ages, lambda: NOW_MS, "a test")

    assert {"bad_signature", "deleted"} <= {finding.what for finding in (await verified(store_url)).findings}


async def test_months_are_dropped_while_rows_arrive(database_url: str, tmp_path: Path) -> None:
    """No insert waits a second for it, and the months that stay are byte for byte the same (AU-13)."""
    sink = make_sink(database_url)
    await sink.open()
    connection = await asyncpg.connect(database_url)
    for month, until in (("2026m11", "2026-12-01"), ("2026m12", "2027-01-01"), ("2027m01", "2027-02-01")):
        if await connection.fetchval("SELECT to_regclass($1)", f"audit_y{month}") is None:
            since = f"{month.replace('m', '-')}-01"
            await connection.execute(
                f"CREATE TABLE audit_y{month} PARTITION OF audit "
                f"FOR VALUES FROM ('{since}T00:00Z') TO ('{until}T00:00Z')"
            )
    await filled(tmp_path, sink, days=70, per_day=20)
    digest = "SELECT md5(string_agg(audit::text, ',' ORDER BY id)) FROM audit WHERE ts >= '2027-01-01T00:00Z'"
    before = await connection.fetchval(digest + " AND app = 'checkout'")
    is_pruned, waits_s = asyncio.Event(), []
    arriving = open_spool(tmp_path / "arriving")
    keep(arriving, (typical_exchange(n, NOW_MS + n, app="new") for n in range(1, 1500)))

    async def insert() -> None:
        while not is_pruned.is_set() and not (batch := arriving.read_batch(20)).is_empty:
            started_s = time.monotonic()
            await sink.insert(batch.rows)
            waits_s.append(time.monotonic() - started_s)
            arriving.acknowledge(batch.token)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(insert(), name="insert")
        ages = Ages({"short": day_s(61), "long": day_s(61)}, day_s(61))  # 2026-12-31
        await prune_all(open_pruner(database_url, KEYS), ages, lambda: NOW_MS, "a test")
        is_pruned.set()
    names = [name for (name,) in await connection.fetch("SELECT relname FROM pg_class WHERE relname ~ '^audit_y2026'")]
    after = await connection.fetchval(digest + " AND app = 'checkout'")
    await connection.close()
    arriving.close()
    await sink.close()

    assert 1.0 > max(waits_s)
    assert "audit_y2026m11" not in names
    assert before == after
    assert [] == (await verified(database_url)).findings


async def test_month_whose_lock_is_held_waits_its_turn(database_url: str, tmp_path: Path) -> None:
    """A long report reads the table: dropping is put off, nothing queues up behind it."""
    sink = make_sink(database_url)
    await sink.open()
    reader = await asyncpg.connect(database_url)
    transaction = reader.transaction()
    await transaction.start()
    await reader.fetch("SELECT count(*) FROM audit")
    ages = Ages({"short": day_s(1)}, day_s(1))
    far_ms = NOW_MS + 300 * DAY_MS
    started_s = time.monotonic()
    assert 0 == await prune_all(open_pruner(database_url, KEYS), ages, lambda: far_ms, "a test")
    took_s = time.monotonic() - started_s
    await transaction.rollback()
    await reader.close()
    assert 1 <= await prune_all(open_pruner(database_url, KEYS), ages, lambda: far_ms, "a test")
    await sink.close()

    assert took_s < 5.0


async def test_lone_rows_leave_their_list_when_they_are_too_old(tmp_path: Path) -> None:
    """The list of interrupted exchanges forgets those that retention took."""
    import shutil  # noqa: PLC0415

    from proxy.core.audit.payload import encode_begin  # noqa: PLC0415 - the half of an exchange

    store_url = f"sqlite:///{tmp_path}/audit.db"
    sink = make_sink(store_url)
    spool = open_spool(tmp_path / "spool")
    for number, ts_ms in ((1, TS_MS), (2, NOW_MS)):
        cut = typical_exchange(number, ts_ms, policy="short")
        spool.begin(cut.id, encode_begin(cut))
    shutil.copytree(tmp_path / "spool", tmp_path / "killed")
    spool.close()
    after = open_spool(tmp_path / "killed")
    await ship(after, sink)
    after.close()
    await sink.close()
    rows = await prune_all(open_pruner(store_url, KEYS), Ages({"short": day_s(7)}, None), lambda: NOW_MS, "a test")

    assert 1 == rows
    assert [] == (await verified(store_url)).findings


def test_rows_of_unknown_policies_stay_as_long_as_the_longest() -> None:
    """A policy that was renamed yesterday must not take its rows with it."""
    assert (60.0, 60.0, True) == (
        (ages := Ages.of({"a": 30.0, "b": 60.0})).others, ages.longest, ages.delete_anything,
    )  # fmt: skip
    assert (None, None, True) == ((ages := Ages.of({"a": 30.0, "b": None})).others, ages.longest, ages.delete_anything)
    assert not Ages.of({}).delete_anything
