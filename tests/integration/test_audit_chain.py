"""The chain in real stores: whole after any replay, and every tampering named (AU-09, AU-15)."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.flow.audit_ports import Sink
from proxy.stores.audit_stores import make_sink
from tests.support.audit import TS_MS, typical_exchange
from tests.support.audit_proof import keep, open_spool, run_sql, ship, verified

ALL_ROWS = "SELECT * FROM audit ORDER BY id"


@pytest.fixture(params=["sqlite", "postgres", "pgbouncer"])
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


def owner_url(store_url: str) -> str:
    return store_url.removesuffix("?pgbouncer=true")


async def filled(tmp_path: Path, sink: Sink, rows: int = 450) -> None:
    """Ship the rows of one sidecar, several segments and a gap among them."""
    spool = open_spool(tmp_path / "spool")
    keep(spool, (typical_exchange(number, TS_MS + number) for number in range(1, rows // 2)))
    spool.gap(b'[2,1795300000000,3,"shed:audit_backpressure"]')
    keep(spool, (typical_exchange(number, TS_MS + number) for number in range(rows // 2, rows + 1)))
    await ship(spool, sink)
    spool.close()


async def test_untouched_store_is_whole(store_url: str, sink: Sink, tmp_path: Path) -> None:
    """The oracle must be silent when nothing is wrong, or nobody would listen to it."""
    await filled(tmp_path, sink)
    report = await verified(store_url)

    assert [] == report.findings
    assert (450, 1, 1, 3, 0) == (report.rows, report.chains, report.gaps, report.shed, report.uncovered)
    assert report.checkpoints >= 4


async def test_replay_of_a_copied_spool_changes_nothing(store_url: str, sink: Sink, tmp_path: Path) -> None:
    """A volume restored from a snapshot sends everything again: same rows, same hashes (AU-09)."""
    spool = open_spool(tmp_path / "spool")
    keep(spool, (typical_exchange(number, TS_MS + number) for number in range(1, 301)))
    shutil.copytree(tmp_path / "spool", tmp_path / "copy")
    await ship(spool, sink)
    spool.close()
    before = await run_sql(owner_url(store_url), ALL_ROWS)
    copy = open_spool(tmp_path / "copy")
    await ship(copy, sink)
    copy.close()

    assert before == await run_sql(owner_url(store_url), ALL_ROWS)
    assert [] == (await verified(store_url)).findings


async def test_chain_goes_on_where_sent_segments_are_gone(tmp_path: Path) -> None:
    """After a kill the first segments may have gone: the rest is bound as if nothing had happened."""
    store_url = f"sqlite:///{tmp_path}/audit.db"
    sink = make_sink(store_url)
    spool = open_spool(tmp_path / "spool")
    keep(spool, (typical_exchange(number, TS_MS + number) for number in range(1, 301)))
    await sink.open()
    for _ in range(2):  # two segments are sent and go
        batch = spool.read_batch(100)
        await sink.insert(batch.rows, batch.gaps)
        spool.acknowledge(batch.token)
    shutil.copytree(tmp_path / "spool", tmp_path / "killed")
    spool.close()
    after = open_spool(tmp_path / "killed")
    keep(after, (typical_exchange(number, TS_MS + number) for number in range(301, 401)))
    await ship(after, sink)
    after.close()
    await sink.close()
    report = await verified(store_url)

    assert [] == report.findings
    assert (400, 2) == (report.rows, report.chains)


async def test_interrupted_exchanges_are_listed_and_stand_alone(tmp_path: Path) -> None:
    """The row of a killed exchange has no END to bind; it is listed instead, and its deletion shows."""
    store_url = f"sqlite:///{tmp_path}/audit.db"
    sink = make_sink(store_url)
    spool = open_spool(tmp_path / "spool")
    keep(spool, (typical_exchange(number) for number in range(1, 20)))
    from proxy.core.audit.payload import encode_begin  # noqa: PLC0415 - the half of an exchange

    cut = typical_exchange(99)
    spool.begin(cut.id, encode_begin(cut))
    shutil.copytree(tmp_path / "spool", tmp_path / "killed")
    spool.close()
    after = open_spool(tmp_path / "killed")
    await ship(after, sink)
    after.close()
    await sink.close()

    assert [] == (await verified(store_url)).findings
    await run_sql(store_url, "DELETE FROM audit WHERE status = 'interrupted'")
    assert [("deleted", cut.id)] == [(f.what, f.row) for f in (await verified(store_url)).findings]


TAMPERINGS = {
    "edit": (("UPDATE audit SET tokens_out = 51 WHERE id = '{id}'",), "edited"),
    "edit-json": (("UPDATE audit SET findings = '{{}}' WHERE id = '{id}'",), "edited"),
    "edit-name": (("UPDATE audit SET user_id = 'somebody' WHERE id = '{id}'",), "edited"),
    "delete": (("DELETE FROM audit WHERE id = '{id}'",), "deleted"),
    "swap": (
        (
            "UPDATE audit SET seq = -1 WHERE seq = {seq}",
            "UPDATE audit SET seq = {seq} WHERE seq = {other}",
            "UPDATE audit SET seq = {other} WHERE seq = -1",
        ),
        "edited",
    ),
    "forge": (
        (
            "CREATE TABLE forged AS SELECT * FROM audit WHERE id = '{id}'",
            "UPDATE forged SET id = '01a20038-0100-7000-8000-0000000fffff', seq = seq + 1, app = 'never-was'",
            "INSERT INTO audit SELECT * FROM forged",
        ),
        "forged",
    ),
}


@pytest.mark.parametrize("store_url", ["sqlite", "postgres"], indirect=True)
@pytest.mark.parametrize("tampering", TAMPERINGS)
async def test_tampering_is_named_by_writer_and_sequence(
    tampering: str, store_url: str, sink: Sink, tmp_path: Path
) -> None:
    """A superuser changes one row: verifying says which, in all of these ways (AU-15)."""
    await filled(tmp_path, sink)
    url = owner_url(store_url)
    rows = await run_sql(url, "SELECT id, writer, seq FROM audit ORDER BY seq LIMIT 2 OFFSET 200")
    (row_id, writer, seq), (_, _, other) = rows
    statements, expected = TAMPERINGS[tampering]
    await run_sql(url, *(sql.format(id=row_id, seq=seq, other=other) for sql in statements), "SELECT 1")
    first = (await verified(store_url)).findings[0]

    named = {"delete": other, "forge": seq + 1, "swap": first.seq}.get(tampering, seq)
    if tampering == "swap":
        assert first.seq in {seq, other}
    else:
        assert expected == first.what
    assert (str(writer), named) == (first.writer, first.seq)


async def test_values_of_another_type_are_findings_and_no_failure(tmp_path: Path) -> None:
    """SQLite takes anything in any column: nobody may keep the record from being verified that way."""
    store_url = f"sqlite:///{tmp_path}/audit.db"
    sink = make_sink(store_url)
    await filled(tmp_path, sink)
    await sink.close()
    changes = (
        "seal = 'text' || seal",
        "seal = 7",
        "provider = x'ff00'",
        "cost_usd = 'much'",
        "hash = 'x'",
        "writer = x'00'",
    )
    for number, change in enumerate(changes):
        await run_sql(
            store_url, f"UPDATE audit SET {change} WHERE seq = (SELECT seq FROM audit LIMIT 1 OFFSET {30 * number})"
        )
    await run_sql(store_url, "UPDATE audit_checkpoints SET body = x'ff'")
    found = [finding.what for finding in (await verified(store_url)).findings]

    assert {"forged", "edited", "bad_signature"} <= set(found)
    assert len(changes) <= len(found)


async def test_cut_tail_is_found_by_its_checkpoint(store_url: str, sink: Sink, tmp_path: Path) -> None:
    """Deleting the newest rows breaks no link; the checkpoint that names one of them does not forget."""
    await filled(tmp_path, sink)
    await run_sql(owner_url(store_url), "DELETE FROM audit WHERE seq > 800", "SELECT 1")

    assert "truncated" in [finding.what for finding in (await verified(store_url)).findings]


async def test_chain_computed_anew_does_not_fit_its_checkpoints(tmp_path: Path) -> None:
    """Whoever may write the store can compute hashes, but not signatures."""
    store_url = f"sqlite:///{tmp_path}/audit.db"
    sink = make_sink(store_url)
    await filled(tmp_path, sink)
    await sink.close()
    await run_sql(store_url, "UPDATE audit SET tokens_out = 999 WHERE seq > 300 AND app = 'checkout'")
    await compute_anew(store_url)
    honest = await verified(store_url, keys=None)
    report = await verified(store_url)

    assert {"rewritten"} == {finding.what for finding in report.findings} == {f.what for f in honest.findings}


async def compute_anew(store_url: str) -> None:
    """Do what a patient forger does: bind every row again."""
    from proxy.core.audit.chain import Chain, gap_hash, hash_of, position_of  # noqa: PLC0415 - the forger's tools
    from proxy.stores.chain_scan import open_source  # noqa: PLC0415

    source = open_source(store_url)
    chains = await source.chains()
    rows = [row async for some in source.rows() for row in some]
    await source.close()
    items = sorted([*rows, *chains.gaps], key=lambda item: item.seq)
    before = Chain.begin(items[0].writer, items[0].epoch).hash
    statements = []
    for item in items:
        if item in chains.gaps:
            before = gap_hash(before, item.position, item)
            statements.append(f"UPDATE audit_gaps SET hash = x'{before.hex()}' WHERE seq = {item.seq}")
        else:
            assert position_of(item)
            before = hash_of(item, before)
            statements.append(f"UPDATE audit SET hash = x'{before.hex()}' WHERE seq = {item.seq}")
    await run_sql(store_url, *statements)


async def test_dead_letter_does_not_break_the_chain(database_url: str, tmp_path: Path) -> None:
    """A row the store refuses is excused by a signed record, so the chain goes on behind it."""
    sink = make_sink(database_url)
    spool = open_spool(tmp_path / "spool")
    keep(spool, (typical_exchange(number) for number in range(1, 60)))
    real = sink.insert

    async def refusing(rows, gaps=(), records=()):  # type: ignore[no-untyped-def]
        await real([row._replace(app="nul \x00") if row.id.endswith("1e") else row for row in rows], gaps, records)

    sink.insert = refusing  # type: ignore[method-assign]
    delivery = await ship(spool, sink)
    spool.close()
    await sink.close()
    report = await verified(database_url)

    assert 1 == delivery.state().dead_letters
    assert ([], 58) == (report.findings, report.rows)
