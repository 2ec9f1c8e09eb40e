"""A person can be erased: rows there, rows to come, nothing else, and the record still proves itself (AU-14)."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.core.audit.chain import is_erased
from proxy.flow.audit_ports import Sink
from proxy.stores.audit_stores import make_sink
from proxy.stores.chain_scan import open_source
from proxy.stores.people import open_people
from tests.support.audit import TS_MS, typical_exchange
from tests.support.audit_proof import keep, open_spool, run_sql, ship, verified

ERASED_AT_MS = TS_MS + 1_000_000


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/audit.db"
    url: str = request.getfixturevalue("database_url")
    return url + ("?pgbouncer=true" if request.param == "pgbouncer" else "")


@pytest.fixture
async def sink(store_url: str) -> AsyncIterator[Sink]:
    sink = make_sink(store_url)
    yield sink
    await sink.close()


async def names(store_url: str) -> list[str]:
    rows = await run_sql(store_url.removesuffix("?pgbouncer=true"), "SELECT user_id FROM audit ORDER BY ts, id")
    return [name for (name,) in rows]


async def test_erased_person_is_in_no_row_and_the_chain_is_whole(store_url: str, sink: Sink, tmp_path: Path) -> None:
    """0 rows of the subject, all others as they were, nothing broken (AU-14)."""
    spool = open_spool(tmp_path / "spool")
    keep(
        spool, (typical_exchange(n, TS_MS + n, error_message=f"of {n}", groups=("b", f"a-{n}")) for n in range(1, 601))
    )
    await ship(spool, sink)
    spool.close()
    others = "SELECT * FROM audit WHERE user_id NOT IN ('user-7', '') ORDER BY id"
    url = store_url.removesuffix("?pgbouncer=true")
    before = await run_sql(url, others)
    done = await open_people(store_url).erase("user-7", before_ms=ERASED_AT_MS, actor="a test")
    after = await run_sql(url, others)
    left = await run_sql(
        url, "SELECT user_id, conversation, error_message, caller_groups FROM audit WHERE user_id = ''"
    )
    report = await verified(store_url)

    assert 12 == done.rows == len(left) == report.erased
    assert {("", "", "", "[]")} == set(left)
    assert before == after
    assert [] == report.findings
    actions = await run_sql(url, "SELECT actor, action FROM audit_actions")
    assert [("a test", "erase")] == actions


@pytest.mark.parametrize("store_url", ["sqlite", "postgres", "pgbouncer"], indirect=True)
async def test_late_rows_of_an_erased_person_come_without_a_name(store_url: str, sink: Sink, tmp_path: Path) -> None:
    """A spool that was away during the erasure, and one that is replayed, must not bring the name back."""
    spool = open_spool(tmp_path / "spool")
    keep(spool, (typical_exchange(n, TS_MS + n) for n in range(1, 101)))
    shutil.copytree(tmp_path / "spool", tmp_path / "copy")
    await ship(spool, sink)
    await open_people(store_url).erase("user-7", before_ms=ERASED_AT_MS, actor="a test")
    keep(spool, (typical_exchange(n, TS_MS + n) for n in range(101, 201)))  # began before, arrives now
    keep(spool, [typical_exchange(207, ERASED_AT_MS + 1)])  # the same person, later
    await ship(spool, sink)
    spool.close()
    copy = open_spool(tmp_path / "copy")
    await ship(copy, sink)
    copy.close()
    found = await names(store_url)
    report = await verified(store_url)

    assert 1 == found.count("user-7")
    assert (4, 201, []) == (report.erased, report.rows, report.findings)


async def test_erasing_between_inserts_misses_no_row(database_url: str, tmp_path: Path) -> None:
    """An insert under way when the erasure begins is either found by it or meets the tombstone."""
    sink = make_sink(database_url)
    await sink.open()
    spool = open_spool(tmp_path / "spool")
    keep(spool, (typical_exchange(n, TS_MS + n, user="ana") for n in range(1, 1201)))

    async def insert_all() -> None:
        while not (batch := spool.read_batch(50)).is_empty:
            await sink.insert(batch.rows, batch.gaps)
            spool.acknowledge(batch.token)

    inserting = asyncio.create_task(insert_all())  # noqa: TID251 - awaited below
    await asyncio.sleep(0.05)
    await open_people(database_url).erase("ana", before_ms=ERASED_AT_MS, actor="a test")
    await inserting
    spool.close()
    await sink.close()

    assert 0 == (await names(database_url)).count("ana")
    assert 1200 == len(await names(database_url))


async def test_erasing_twice_and_nobody_is_harmless(store_url: str, sink: Sink, tmp_path: Path) -> None:
    """A run that was cut short is run again; a name nobody had leaves a tombstone and nothing else."""
    spool = open_spool(tmp_path / "spool")
    keep(spool, (typical_exchange(n) for n in range(1, 60)))
    await ship(spool, sink)
    spool.close()
    people = open_people(store_url)
    counts = [
        (await people.erase(user, before_ms=ERASED_AT_MS, actor="x")).rows for user in ("user-7", "user-7", "nobody")
    ]

    assert [2, 0, 0] == counts
    assert [] == (await verified(store_url)).findings


async def test_erased_row_keeps_nothing_to_guess_with(tmp_path: Path) -> None:
    """With the salt gone no list of names can be tried against the commitment."""
    store_url = f"sqlite:///{tmp_path}/audit.db"
    sink = make_sink(store_url)
    spool = open_spool(tmp_path / "spool")
    keep(spool, [typical_exchange(7)])
    await ship(spool, sink)
    spool.close()
    await open_people(store_url).erase("user-7", before_ms=ERASED_AT_MS, actor="x")
    await sink.close()
    source = open_source(store_url)
    await source.chains()
    rows = [row async for some in source.rows() for row in some]
    await source.close()

    assert [True] == [is_erased(row) for row in rows]
    assert b"user-7" not in b"".join(path.read_bytes() for path in tmp_path.glob("audit.db*"))


async def test_handed_over_rows_are_all_of_one_person(store_url: str, sink: Sink, tmp_path: Path) -> None:
    """A person gets what is theirs, and the record says that it was handed over."""
    spool = open_spool(tmp_path / "spool")
    keep(spool, (typical_exchange(n, TS_MS + n) for n in range(1, 120)))
    await ship(spool, sink)
    spool.close()
    pages = [page async for page in open_people(store_url).rows("user-7", actor="an auditor", now_ms=TS_MS)]
    rows = [row for page in pages for row in page]

    assert ([{"user-7"}], 3) == ([{row["user_id"] for row in rows}], len(rows))
    url = store_url.removesuffix("?pgbouncer=true")
    assert [("an auditor", "export")] == await run_sql(url, "SELECT actor, action FROM audit_actions")
