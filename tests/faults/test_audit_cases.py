"""The audit's promises through a whole sidecar with real PostgreSQL: whatever breaks, both journals agree with the rows.

The short versions run always; those of full length (30 kills, 60 s without a database) are slow.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
import pytest

from tests.support.audit_load import Load, load_of, percentile
from tests.support.disk_faults import Disk
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.oracles import Call, chain_problems, main, reconcile, rows_of_postgres, write_calls
from tests.support.postgres import PostgresServer
from tests.support.simulator import Simulator
from tests.support.wire import (
    Sidecar,
    ask,
    chat,
    eventually,
    serving,
    sidecar_for,
    threaded_simulator,
    write_files,
)

pytestmark = pytest.mark.faults

POLICY = """
version: 1
policy: default
redaction: {request: {default: "off", rules: [{types: [credit_card], action: block}]}}
routes:
  - {name: plain, match: {models: ["gpt-4o-mini"]}, chain: [{provider: main}], retries: once}
  - {name: broken, match: {models: ["broken"]}, chain: [{provider: errors}], retries: none}
  - name: chain
    match: {models: ["chain"]}
    chain: [{provider: errors, model: always-503}, {provider: main, model: gpt-4o-mini}]
    retries: none
"""
MIXED = ("plain", "plain", "stream", "stream", "chain", "leaver", "blocked", "error")


def config(provider: Simulator, audit: str = "") -> str:
    """Return config.yaml with the store in ``AUDIT_URL``; ``audit`` is more of the audit section."""
    return f"""
providers:
  main: {{base_url: "{provider.base_url}"}}
  errors: {{base_url: "{provider.origin}/errors/v1"}}
audit: {{store: {{env: AUDIT_URL}}, batch_wait: 50ms{audit or ", spool: spool"}}}
"""


@pytest.fixture
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        simulator.fault_for_model("always-503", "503")
        yield simulator


@pytest.fixture
def proxy(database_url: str) -> Iterator[FaultProxy]:
    """A line to the database that goes wrong on command."""
    with fault_proxy(port_of(database_url)) as line:
        yield line


def through(url: str, proxy: FaultProxy) -> str:
    """Return the URL of the same database by way of a fault proxy."""
    head, _, rest = url.partition("@")
    return f"{head}@127.0.0.1:{proxy.port}/{rest.partition('/')[2]}"


def port_of(url: str) -> int:
    return int(url.rpartition("@")[2].partition("/")[0].partition(":")[2])


def drained(sidecar: Sidecar, within_s: float = 20.0) -> None:
    """Wait until nothing waits in the spool."""
    eventually(lambda: sidecar.metric("readygate_audit_waiting_rows") == 0, "rows still wait", within_s)
    eventually(lambda: sidecar.metric("readygate_audit_waiting_bytes") == 0, "bytes still wait", within_s)


def judge(load: Load | list[Call], provider: Simulator, url: str, folder: Path) -> list[dict[str, Any]]:
    """Hold rows to both journals (O1, O2) and to their chain (O3); return them."""
    calls = load.calls if isinstance(load, Load) else load
    rows = asyncio.run(rows_of_postgres(url))
    problems = reconcile(calls, [entry.body.decode() for entry in provider.entries], rows)

    assert [] == problems[:5], f"{len(problems)} disagreements over {len(calls)} calls"
    os.environ["AUDIT_URL"] = url
    try:
        assert "" == chain_problems(folder / "config.yaml")
    finally:
        del os.environ["AUDIT_URL"]
    return rows


# ---------------------------------------------------------------- load, kills, restarts


@pytest.mark.slow
def test_thousand_mixed_requests_agree_with_both_journals(
    tmp_path: Path, database_url: str, provider: Simulator
) -> None:
    """Nothing breaks, and still every kind of end has its row (AU-01)."""
    with (
        sidecar_for(tmp_path, config(provider), POLICY, env={"AUDIT_URL": database_url}) as sidecar,
    ):
        with load_of(lambda: sidecar.data_port, 80, MIXED) as load:
            eventually(lambda: len(load.calls) >= 1000, "the load is too slow", 40)
        drained(sidecar)
        rows = judge(load, provider, database_url, tmp_path)

    assert len(rows) >= 1000


def killed_over_and_over(
    folder: Path, url: str, provider: Simulator, kills: int, seed: int
) -> tuple[Load, list[dict[str, Any]]]:
    """Kill a loaded sidecar at random instants, start it again each time, and judge after the last drain."""
    dice = random.Random(seed)
    port = 0
    write_files(folder, config(provider), {"default.yaml": POLICY})
    with load_of(lambda: port, 50, MIXED, seed) as load:
        for _ in range(kills):
            with serving(folder, {"AUDIT_URL": url}) as sidecar:
                port = sidecar.data_port
                time.sleep(dice.uniform(0.05, 0.9))  # noqa: TID251 - no event loop here
                sidecar.process.kill()
                assert -signal.SIGKILL == sidecar.wait()
        with serving(folder, {"AUDIT_URL": url}) as sidecar:
            port = sidecar.data_port
            time.sleep(0.3)  # noqa: TID251
            load.stop()
            drained(sidecar)
            rows = judge(load, provider, url, folder)
    write_calls(load.calls, folder / "calls.jsonl")
    lines = [json.dumps(entry.as_dict()) + "\n" for entry in provider.entries]
    (folder / "provider.jsonl").write_text("".join(lines))
    return load, rows


def test_three_kills_under_load_lose_no_row(tmp_path: Path, database_url: str, provider: Simulator) -> None:
    """The short form of the promise, judged by the oracles as commands as well (AU-02, LC-13)."""
    load, rows = killed_over_and_over(tmp_path, database_url, provider, kills=3, seed=11)
    files = ["--calls", str(tmp_path / "calls.jsonl"), "--provider", str(tmp_path / "provider.jsonl")]

    assert 0 == main(["O1", *files, "--store", database_url])
    assert 0 == main(["O2", "--store", database_url])
    assert len([call for call in load.calls if call.is_whole]) > 20
    write_calls([*load.calls[:-1], Call("mark-999999-end", "plain", bytes=9, status=200)], tmp_path / "calls.jsonl")
    assert 1 == main(["O1", *files, "--store", database_url]), "the oracle does not see a missing row"
    assert "interrupted" in {row["status"] for row in rows}


@pytest.mark.slow
def test_thirty_kills_at_random_instants_under_load_lose_no_row(
    tmp_path: Path, database_url: str, provider: Simulator
) -> None:
    """Restart after restart on one spool, streams and plain answers cut anywhere (AU-02)."""
    load, rows = killed_over_and_over(tmp_path, database_url, provider, kills=30, seed=20261121)
    cut = sum(row["status"] == "interrupted" for row in rows)
    print(
        f"{len(load.calls)} calls, {sum(call.is_whole for call in load.calls)} whole, {len(rows)} rows, {cut} interrupted"
    )

    assert cut >= 30


@pytest.mark.slow
@pytest.mark.parametrize("where", ["unlink 2", "unlinked 2", "created 3"])
def test_kill_around_the_segments_of_the_spool_restarts_cleanly(
    tmp_path: Path, database_url: str, provider: Simulator, where: str
) -> None:
    """Between commit and unlink, after unlink, between create and first write (AU-18)."""
    disk = Disk(tmp_path / "hook", f"die {where}")
    env = {"AUDIT_URL": database_url, **disk.env()}
    port = 0
    write_files(tmp_path, config(provider, ", spool: spool, spool_max: 1MiB"), {"default.yaml": POLICY})
    with load_of(lambda: port, 300, ("bare",)) as load:
        with serving(tmp_path, env) as sidecar:
            port = sidecar.data_port
            assert -signal.SIGKILL == sidecar.wait()
        disk.set("")
        with serving(tmp_path, env) as sidecar:
            port = sidecar.data_port
            load.stop()
            drained(sidecar)
            judge(load, provider, database_url, tmp_path)

    assert "died" in [sync.word for sync in disk.syncs()]


def test_kill_in_the_middle_of_a_drain_leaves_the_rest_to_the_next_start(
    tmp_path: Path, database_url: str, provider: Simulator, proxy: FaultProxy
) -> None:
    """The kubelet's patience ends while rows are being shipped to a slow database (AU-27, LC-04)."""
    env = {"AUDIT_URL": through(database_url, proxy)}
    write_files(tmp_path, config(provider), {"default.yaml": POLICY})
    with serving(tmp_path, env) as sidecar:
        drained(sidecar)
        proxy.black_hole()
        with load_of(lambda: sidecar.data_port, 150) as load:
            eventually(lambda: len(load.calls) >= 150, "the load is too slow")
        waiting = sidecar.metric("readygate_audit_waiting_rows")
        sidecar.signal(signal.SIGTERM)
        time.sleep(0.4)  # noqa: TID251
        assert sidecar.process.poll() is None, "it did not wait for its rows at all"
        sidecar.process.kill()
        sidecar.wait()
    proxy.heal()
    with serving(tmp_path, env) as sidecar:
        drained(sidecar)
        judge(load, provider, database_url, tmp_path)

    assert waiting >= 100


# ---------------------------------------------------------------- the database is away, slow, or hangs up


def outage(folder: Path, server: PostgresServer, provider: Simulator, seconds: float, rate: float) -> str:
    """Stop the database for so long under load and start it again; return the figures."""
    with (
        sidecar_for(folder, config(provider), POLICY, env={"AUDIT_URL": server.url}) as sidecar,
    ):
        drained(sidecar)
        with load_of(lambda: sidecar.data_port, rate, ("plain", "stream")) as load:
            time.sleep(0.5)  # noqa: TID251
            server.stop("immediate")
            time.sleep(seconds)  # noqa: TID251
            assert 200 == sidecar.status("/readyz"), "the pod would be taken out of service"
            assert "degraded" == sidecar.health()["components"]["audit_store"]["state"]
            waiting = sidecar.metric("readygate_audit_waiting_rows")
            shown = [sidecar.metric(f"readygate_audit_waiting_{unit}") for unit in ("rows", "bytes", "seconds")]
            delivered = sidecar.metric("readygate_audit_rows_delivered_total")
            server.start()
            eventually(
                lambda: sidecar.metric("readygate_audit_rows_delivered_total") > delivered, "nothing is delivered", 25
            )
            began_s = time.monotonic()
            eventually(lambda: sidecar.metric("readygate_audit_waiting_rows") < rate, "it does not catch up", 20)
            took_s = max(time.monotonic() - began_s, 0.01)
        drained(sidecar)
        judge(load, provider, server.url, folder)
    refused = [call for call in load.calls if call.status != 200 or not call.is_whole]

    assert [] == refused[:3], f"{len(refused)} of {len(load.calls)} callers noticed"
    assert waiting >= 0.8 * rate * seconds
    assert all(value > 0 for value in shown), f"lag in rows, bytes and seconds: {shown}"
    assert waiting / took_s >= 10 * rate, f"{waiting} rows in {took_s:.2f} s is less than ten times {rate}/s"
    return f"{seconds} s without a database at {rate}/s: {waiting:.0f} rows waited, gone {took_s:.2f} s after the first batch"


def test_database_stopped_for_a_moment_is_noticed_by_nobody(
    tmp_path: Path, own_postgres: PostgresServer, provider: Simulator
) -> None:
    """Callers go on, health says degraded and ready, and the rows arrive ten times faster than they came (AU-04)."""
    print(outage(tmp_path, own_postgres, provider, 2.5, 60))


@pytest.mark.slow
def test_database_stopped_for_a_minute_is_noticed_by_nobody(
    tmp_path: Path, own_postgres: PostgresServer, provider: Simulator
) -> None:
    """The same for as long as a failover takes (AU-04)."""
    print(outage(tmp_path, own_postgres, provider, 60, 50))


def delivered(sidecar: Sidecar) -> float:
    return sidecar.metric("readygate_audit_rows_delivered_total")


def latencies_with_delay(
    folder: Path, url: str, provider: Simulator, proxy: FaultProxy, rounds: int, seconds: float
) -> tuple[list[list[float]], list[list[float]], float]:
    """Return caller latencies by turn, without and with 500 ms of database delay, and the rows of a slow batch."""
    plain: list[list[float]] = []
    slow: list[list[float]] = []
    with sidecar_for(folder, config(provider), POLICY, env={"AUDIT_URL": through(url, proxy)}) as sidecar:
        drained(sidecar)
        calls: list[Call] = []
        batch = 0.0
        for _ in range(rounds):
            for target, delay_s in ((plain, 0.0), (slow, 0.25)):
                proxy.delay(delay_s)
                before = delivered(sidecar)
                with load_of(lambda: sidecar.data_port, 60, ("steady",), seed=len(calls)) as load:
                    time.sleep(seconds)  # noqa: TID251
                target.append(load.whole_ms("steady"))
                assert all(call.is_whole for call in load.calls)
                calls += load.calls
                if delay_s:
                    jumps = [before]
                    while jumps[-1] < len(calls):
                        assert len(jumps) < 600, "the slow database does not get its rows"
                        time.sleep(0.05)  # noqa: TID251
                        jumps.append(delivered(sidecar))
                    batch = max(later - earlier for earlier, later in pairwise(jumps))
        proxy.heal()
        drained(sidecar)
        assert len(calls) == len(asyncio.run(rows_of_postgres(url)))
    return plain, slow, batch


@pytest.mark.slow
def test_slow_database_does_not_slow_callers(
    tmp_path: Path, database_url: str, provider: Simulator, proxy: FaultProxy
) -> None:
    """Half a second a statement is the shipper's problem alone (AU-05)."""
    plain, slow, batch = latencies_with_delay(tmp_path, database_url, provider, proxy, rounds=1, seconds=2.5)

    assert percentile(slow[0], 0.9) < percentile(plain[0], 0.9) + 100, "callers wait for the database"
    assert batch > 20, "batches do not grow: at 60/s there are 3 rows each 50 ms"


@pytest.mark.slow
def test_slow_database_leaves_the_tail_of_latency_where_it_was(
    tmp_path: Path, database_url: str, provider: Simulator, proxy: FaultProxy
) -> None:
    """p99 within a tenth, over turns with and without the delay (AU-05)."""
    plain, slow, _ = latencies_with_delay(tmp_path, database_url, provider, proxy, rounds=6, seconds=6)
    without, added = (median([percentile(one, 0.99) for one in turns]) for turns in (plain, slow))
    print(f"p99 of a turn, the middle of 6: without delay {without:.1f} ms, with 500 ms of it {added:.1f} ms")

    assert added <= without * 1.10


def test_database_that_hangs_up_after_commit_gets_each_row_once(
    tmp_path: Path, database_url: str, provider: Simulator, proxy: FaultProxy
) -> None:
    """It did the work and nobody heard of it: sent again, and there once (AU-08)."""
    with sidecar_for(tmp_path, config(provider), POLICY, env={"AUDIT_URL": through(database_url, proxy)}) as sidecar:
        drained(sidecar)
        with load_of(lambda: sidecar.data_port, 80) as load:
            for cut in range(1, 5):
                proxy.drop_replies(1)
                eventually(lambda cut=cut: proxy.counts.replies_dropped >= cut, "no reply was dropped")  # type: ignore[misc]
                proxy.cut()
                time.sleep(0.15)  # noqa: TID251
            proxy.heal()
        drained(sidecar)
        judge(load, provider, database_url, tmp_path)


@pytest.mark.slow
def test_spool_restored_from_a_copy_changes_nothing(
    tmp_path: Path, database_url: str, provider: Simulator, proxy: FaultProxy
) -> None:
    """Somebody restores a volume: every row comes again, the table stays as it was (AU-09)."""
    env = {"AUDIT_URL": through(database_url, proxy)}
    write_files(tmp_path, config(provider), {"default.yaml": POLICY})
    proxy.refuse()
    with serving(tmp_path, env) as sidecar:
        with load_of(lambda: sidecar.data_port, 100, MIXED) as load:
            eventually(lambda: len(load.calls) >= 80, "the load is too slow")
        sidecar.process.kill()
        sidecar.wait()
    shutil.copytree(tmp_path / "spool", tmp_path / "copy")
    proxy.heal()
    with serving(tmp_path, env) as sidecar:
        drained(sidecar)
        before = judge(load, provider, database_url, tmp_path)
    shutil.rmtree(tmp_path / "spool")
    shutil.copytree(tmp_path / "copy", tmp_path / "spool")
    with serving(tmp_path, env) as sidecar:
        eventually(lambda: sidecar.metric("readygate_audit_rows_delivered_total") >= len(before), "nothing is replayed")
        drained(sidecar)

    assert before == asyncio.run(rows_of_postgres(database_url))


# ---------------------------------------------------------------- the disk


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """A volume of one MiB; without root, a folder that the spool's own limit bounds."""
    folder = tmp_path / "volume"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    is_mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    yield folder
    if is_mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["1MiB", "1GiB"], ids=["limit-of-ours", "limit-of-the-volume"])
def test_full_spool_refuses_before_any_provider_and_heals(
    tmp_path: Path, small_volume: Path, database_url: str, provider: Simulator, proxy: FaultProxy, limit: str
) -> None:
    """No database, no disk left: 503, running streams end with their rows, nothing is deleted, then all arrives (AU-06)."""
    if limit == "1GiB" and not os.path.ismount(small_volume):
        pytest.skip("mounting a tmpfs needs root: sudo make test-faults")
    proxy.refuse()
    audit = f", spool: '{small_volume / 'spool'}', spool_max: {limit}"
    env = {"AUDIT_URL": through(database_url, proxy)}
    with sidecar_for(tmp_path, config(provider, audit), POLICY, env=env) as sidecar:
        with (
            load_of(lambda: sidecar.data_port, 15, ("lasting",)) as streams,
            load_of(lambda: sidecar.data_port, 400, ("bare",), first=500_000) as load,
        ):
            eventually(lambda: any(call.code == "audit_backpressure" for call in load.calls), "never full", 20)
            time.sleep(0.2)  # noqa: TID251
        refused = [call for call in load.calls + streams.calls if call.code]
        assert {(503, "audit_backpressure")} == {(call.status, call.code) for call in refused}
        proxy.heal()
        drained(sidecar, 30)
        judge(streams.calls + load.calls, provider, database_url, tmp_path)
        assert 200 == sidecar.ask(chat("hello again")).status
        drained(sidecar)
        assert len(refused) == asyncio.run(_shed(database_url)), "the gap records miscount what is missing"

    assert len([call for call in streams.calls if call.is_whole and call.status == 200]) >= 5


async def _shed(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT sum(shed) FROM audit_gaps"))
    finally:
        await connection.close()


def test_sync_that_fails_once_is_repaired_before_anybody_hears_the_end(
    tmp_path: Path, database_url: str, provider: Simulator
) -> None:
    """EIO: records are safe elsewhere before the tail of an answer leaves; lasting EIO refuses before a provider (AU-11)."""
    disk = Disk(tmp_path / "hook", "eio-at 30\nslow-at 31 0.3")
    text = config(provider, ", spool: spool, durability: fsync")
    with sidecar_for(tmp_path, text, POLICY, env={"AUDIT_URL": database_url, **disk.env()}) as sidecar:
        with load_of(lambda: sidecar.data_port, 60) as load:
            eventually(lambda: "eio" in [sync.word for sync in disk.syncs()], "no sync failed", 10)
            time.sleep(0.8)  # noqa: TID251
            health = sidecar.health()["components"]["spool"]
        failed = next(sync for sync in disk.syncs() if sync.word == "eio")
        repaired = next(sync for sync in disk.syncs() if sync.word == "ok" and sync.began_s > failed.began_s)
        early = [
            call for call in load.calls if failed.ended_s + 0.05 < call.ended_s < repaired.ended_s and call.is_whole
        ]
        assert (0.3, []) == (pytest.approx(repaired.ended_s - repaired.began_s, abs=0.2), early)
        assert ("degraded", "sync_failed") == (health["state"], health["reason"])
        assert all(call.is_whole for call in load.calls)

        disk.set("eio")
        answers = [ask(sidecar.data_port, chat(f"echo: mark-{900_000 + n} hello")) for n in range(6)]
        assert (503, "audit_unavailable") == (answers[-1].status, answers[-1].error["code"])
        asked = provider.journal.request_count
        assert 503 == sidecar.ask(chat("nobody may see this")).status
        assert asked == provider.journal.request_count
        disk.set("")
        eventually(lambda: sidecar.ask(chat("back again")).status == 200, "it does not heal", 10)
        drained(sidecar)

    kept = {row["conversation"] for row in asyncio.run(rows_of_postgres(database_url))}
    assert {call.marker for call in load.calls} <= kept


@pytest.mark.slow
def test_slow_disk_keeps_its_throughput_by_group_commit(tmp_path: Path, database_url: str, provider: Simulator) -> None:
    """300 ms a sync: as many exchanges as ever, first bytes as before, ends at most two syncs later (AU-25)."""
    disk = Disk(tmp_path / "hook", "delay 0.3")
    text = config(provider, ", spool: spool, durability: fsync")
    with sidecar_for(tmp_path, text, POLICY, env={"AUDIT_URL": database_url, **disk.env()}) as sidecar:
        began_s = time.monotonic()
        with load_of(lambda: sidecar.data_port, 60, ("late",)) as load:
            time.sleep(3)  # noqa: TID251
        took_s = time.monotonic() - began_s
        drained(sidecar)
        judge(load, provider, database_url, tmp_path)
    syncs = [sync for sync in disk.syncs() if began_s < sync.began_s < began_s + took_s]

    assert all(call.is_whole for call in load.calls)
    assert len(syncs) <= took_s / 0.3 + 2, "syncs are not shared"
    assert percentile(load.first_bytes_ms(), 0.5) < 700 + 100, "the provider's own second hides the BEGIN's sync"
    assert percentile(load.whole_ms("late"), 0.5) < 700 + 2 * 300 + 100


# ---------------------------------------------------------------- callers


def test_caller_that_leaves_in_the_middle_of_a_stream_ends_it_everywhere(
    tmp_path: Path, database_url: str, provider: Simulator
) -> None:
    """The provider is let go within a second, and the row says what had been used by then (AU-12, UF-21)."""
    with (
        sidecar_for(tmp_path, config(provider), POLICY, env={"AUDIT_URL": database_url}) as sidecar,
    ):
        with load_of(lambda: sidecar.data_port, 40, ("departing",)) as load:
            eventually(lambda: len(load.calls) >= 20, "the load is too slow")
        left_s = max(call.ended_s for call in load.calls)
        eventually(lambda: all(entry.is_ended for entry in provider.entries), "the provider is still talking", 1.0)
        drained(sidecar)
        rows = judge(load, provider, database_url, tmp_path)
        late = [entry.ended_s - left_s for entry in provider.entries]

    assert max(late) <= 1.0
    assert {("cancelled", "client_cancelled")} == {(row["status"], row["outcome"]) for row in rows}
    assert all(0 < row["tokens_out"] < 400 and row["tokens_estimated"] for row in rows), "partial usage"


def test_poison_from_callers_reaches_the_store_escaped(tmp_path: Path, database_url: str, provider: Simulator) -> None:
    """NUL, half a character and a mebibyte of model name stop neither their neighbours nor themselves (AU-10)."""
    with (
        sidecar_for(tmp_path, config(provider), POLICY, env={"AUDIT_URL": database_url}) as sidecar,
    ):
        poison = [
            chat("x", {"x-readygate-conversation": "poison-1"}, model="gpt\x00mini"),
            chat("x", {"x-readygate-conversation": "poison-2"}, model="\ud800"),
            chat("x", {"x-readygate-conversation": "poison-3"}, model="m" * (1 << 20)),
            chat("x", {"x-readygate-conversation": "poison-4"}, user="u\x00" * 1000),
            chat("x", {"x-readygate-conversation": "poison-5\\u0000", "x-readygate-user": "\xff\xfe"}),
        ]
        with load_of(lambda: sidecar.data_port, 60, ("plain",)) as load:
            statuses = [ask(sidecar.data_port, data).status for data in poison]
        drained(sidecar)
        rows = asyncio.run(rows_of_postgres(database_url))
        dead = sidecar.metric("readygate_audit_dead_letters_total")

    assert all(400 <= status < 500 or status == 200 for status in statuses), statuses
    assert (0, len(load.calls) + len(poison)) == (dead, len(rows))
