"""The restore drill: back the store up under load, lose it, bring it back, and measure what that costs.

``make restore-drill`` prints the figures: RPO is how much of the past is gone, RTO how long until rows flow again.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.support.audit_load import load_of
from tests.support.oracles import chain_problems, reconcile, rows_of_postgres
from tests.support.postgres import PostgresServer, find_binaries, free_port, with_database
from tests.support.simulator import Simulator
from tests.support.wire import Sidecar, eventually, sidecar_for, threaded_simulator

pytestmark = pytest.mark.faults
SCRIPTS = Path(__file__).resolve().parents[2] / "deploy" / "backup"
POLICY = """
version: 1
policy: default
routes: [{match: {models: ["*"]}, chain: [{provider: main}], retries: none}]
"""


@pytest.fixture
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


def config(provider: Simulator, store: str) -> str:
    return f"""
providers: {{main: {{base_url: "{provider.base_url}"}}}}
audit: {{store: {store}, spool: spool, batch_wait: 50ms}}
"""


def script(name: str, *arguments: object, dsn: str = "") -> str:
    """Run one of the scripts with the tools of the server at hand; return what it prints."""
    env = {**os.environ, "PATH": f"{find_binaries()}:{os.environ['PATH']}", "AUDIT_DSN": dsn}
    command = [str(SCRIPTS / name), *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert 0 == done.returncode, f"{name}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def run(url: str, *statements: str) -> list[Any]:
    """Run statements, each on its own; return what the last one gives."""

    async def work() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            found: list[Any] = []
            for statement in statements:
                found = [tuple(row) for row in await connection.fetch(statement)]
            return found
        finally:
            await connection.close()

    return asyncio.run(work())


def drained(sidecar: Sidecar) -> None:
    eventually(lambda: sidecar.metric("readygate_audit_waiting_rows") == 0, "rows still wait", 20)


def assert_chain_holds(folder: Path, url: str) -> None:
    os.environ["AUDIT_URL"] = url
    try:
        assert "" == chain_problems(folder / "config.yaml")
    finally:
        del os.environ["AUDIT_URL"]


@pytest.mark.slow
def test_dropped_database_comes_back_from_its_dump_under_load(
    tmp_path: Path, own_postgres: PostgresServer, provider: Simulator
) -> None:
    """Dump, go on, lose the database, restore: callers notice nothing, rows of the dump and after the loss are there."""
    url = with_database(own_postgres.url, "drill")
    run(own_postgres.url, "CREATE DATABASE drill")
    with sidecar_for(tmp_path, config(provider, "{env: AUDIT_URL}"), POLICY, env={"AUDIT_URL": url}) as sidecar:
        with load_of(lambda: sidecar.data_port, 60) as load:
            eventually(lambda: len(load.calls) > 60, "the load is too slow")
            dump = script("postgres-dump", tmp_path / "dumps", dsn=f"{url}?pgbouncer=true")
            dumped_s = time.monotonic()
            time.sleep(0.7)  # noqa: TID251
            run(own_postgres.url, "DROP DATABASE drill WITH (FORCE)")
            lost_s = time.monotonic()
            time.sleep(0.5)  # noqa: TID251
            run(own_postgres.url, "CREATE DATABASE drill")
            said = script("postgres-restore", dump, dsn=url)
            restored_s = time.monotonic() - lost_s
        drained(sidecar)
        rto_s = time.monotonic() - lost_s
        wrong = reconcile(
            load.calls, [entry.body.decode() for entry in provider.entries], rows := asyncio.run(rows_of_postgres(url))
        )
    gone = [line for line in wrong if line.startswith("I1: 0 rows")]
    stored = {row["conversation"] for row in rows}
    rpo_s = lost_s - min(
        [call.ended_s for call in load.calls if any(call.marker in line for line in gone)], default=lost_s
    )
    print(
        f"dump: {said}; {len(gone)} rows lost, RPO {rpo_s:.2f} s, RTO {rto_s:.2f} s, {restored_s - 0.5:.2f} s of it to restore"
    )

    assert all(call.is_whole and call.status == 200 for call in load.calls), "callers noticed"
    assert len(gone) == len(wrong), "something else than the rows since the dump is wrong"
    assert rpo_s < lost_s - dumped_s + 3, "more is gone than what came since the dump began"
    assert {call.marker for call in load.calls[-10:]} <= stored, "rows after the loss did not come"
    assert 5 == run(url, "SELECT count(*) FROM pg_views WHERE viewname LIKE 'audit%day'")[0][0]


def test_restored_dump_verifies_and_is_refused_by_a_database_in_use(
    tmp_path: Path, own_postgres: PostgresServer, provider: Simulator
) -> None:
    """Nothing is lost when nothing came after the dump: counts and chain agree; a restore never mixes two stores."""
    url = with_database(own_postgres.url, "drill")
    run(own_postgres.url, "CREATE DATABASE drill")
    with sidecar_for(tmp_path, config(provider, "{env: AUDIT_URL}"), POLICY, env={"AUDIT_URL": url}) as sidecar:
        with load_of(lambda: sidecar.data_port, 100) as load:
            eventually(lambda: len(load.calls) > 60, "the load is too slow")
        drained(sidecar)
    before = asyncio.run(rows_of_postgres(url))
    dump = script("postgres-dump", tmp_path / "dumps", dsn=url)
    with pytest.raises(AssertionError, match="has an audit table already"):
        script("postgres-restore", dump, dsn=url)
    run(own_postgres.url, "DROP DATABASE drill WITH (FORCE)", "CREATE DATABASE drill")
    script("postgres-restore", dump, dsn=url)

    assert len(load.calls) == len(before)
    assert before == asyncio.run(rows_of_postgres(url))
    assert_chain_holds(tmp_path, url)


@pytest.mark.slow
def test_lost_server_comes_back_to_its_last_archived_moment(
    tmp_path: Path, own_postgres: PostgresServer, provider: Simulator
) -> None:
    """Base backup and archived WAL: what is gone is what had not been archived, and the chain says where it ends."""
    archive = tmp_path / "archive"
    archive.mkdir(mode=0o777)
    run(
        own_postgres.url, "ALTER SYSTEM SET archive_mode = on", "ALTER SYSTEM SET archive_timeout = '1s'",
        f"ALTER SYSTEM SET archive_command = '{SCRIPTS / 'postgres-archive'} {archive} %p %f'",
    )  # fmt: skip
    own_postgres.stop()
    own_postgres.start()
    with (
        sidecar_for(
            tmp_path, config(provider, "{env: AUDIT_URL}"), POLICY, env={"AUDIT_URL": own_postgres.url}
        ) as sidecar,
        load_of(lambda: sidecar.data_port, 60) as load,
    ):
        eventually(lambda: len(load.calls) > 60, "the load is too slow")
        base = script("postgres-base", tmp_path / "bases", dsn=own_postgres.url)
        time.sleep(5)  # noqa: TID251
        kept = asyncio.run(rows_of_postgres(own_postgres.url))
        own_postgres.stop("immediate")
    lost_s = time.monotonic()
    (tmp_path / "again").mkdir()
    data = Path(script("postgres-point", base, archive, tmp_path / "again" / "data"))
    again = PostgresServer(data.parent, free_port())
    again.start()
    try:
        eventually(lambda: not run(again.url, "SELECT pg_is_in_recovery()")[0][0], "it does not open for writing", 20)
        rto_s = time.monotonic() - lost_s
        back = asyncio.run(rows_of_postgres(again.url))
        rpo_s = (kept[-1]["ts"] - back[-1]["ts"]).total_seconds()
        print(
            f"point in time: {len(back)} of {len(kept)} rows, RPO {rpo_s:.2f} s (archive_timeout 1 s), RTO {rto_s:.2f} s"
        )

        known = {row["id"]: row for row in kept}
        assert all(row == known[row["id"]] for row in back)
        assert rpo_s <= 4, "more is gone than the archive's lag explains"
        assert len(back) > 60
    finally:
        again.stop("immediate")
        own_postgres.start()  # what its fixture stops
        shutil.rmtree(data, ignore_errors=True)


@pytest.mark.slow
def test_sqlite_store_is_copied_while_rows_arrive_and_put_back(tmp_path: Path, provider: Simulator) -> None:
    """The embedded store: a copy under load is sound, and a sidecar goes on from it."""
    text = config(provider, '"sqlite:///audit.db"')
    copy = tmp_path / "copies" / "audit.db"
    with sidecar_for(tmp_path, text, POLICY) as sidecar:
        with load_of(lambda: sidecar.data_port, 100) as load:
            eventually(lambda: len(load.calls) > 80, "the load is too slow")
            script("sqlite-backup", tmp_path / "audit.db", copy)
        drained(sidecar)
    with closing(sqlite3.connect(copy)) as connection:
        copied = {row[0] for row in connection.execute("SELECT id FROM audit")}
    everything = {row["id"] for row in sidecar.rows()}
    for name in ("audit.db", "audit.db-wal", "audit.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    began_s = time.monotonic()
    shutil.copy(copy, tmp_path / "audit.db")
    shutil.rmtree(tmp_path / "policies")
    with sidecar_for(tmp_path, text, POLICY) as sidecar, load_of(lambda: sidecar.data_port, 50, first=900_000) as more:
        eventually(lambda: len(sidecar.rows()) > len(copied), "no row arrives")
        rto_s = time.monotonic() - began_s
    print(f"sqlite: copy of {len(copied)} rows, {len(everything - copied)} came after it; RTO {rto_s:.2f} s")

    assert 20 < len(copied) <= len(everything)
    assert copied <= everything
    assert copied <= {row["id"] for row in sidecar.rows()}
    assert more.calls
