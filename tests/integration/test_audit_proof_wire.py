"""Proof and erasure through the front doors: a sidecar that ran, its store, its admin API, the command line."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.stores.audit_keys import AuditKeys
from tests.support.simulator import refused_origin
from tests.support.wire import Sidecar, ask, chat, eventually, request, sidecar_for

pytestmark = pytest.mark.integration

POLICY = """
version: 1
policy: default
routes: [{name: dead, match: {models: ["*"]}, chain: [{provider: dead}], retries: none}]
"""
SECRETS = {"ADMIN": "admin-token-3", "AUDIT_KEY": "0123456789abcdef0123456789abcdef"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    """A sidecar that kept eight rows, erased one person over its API and has ended."""
    config = f'providers: {{dead: {{base_url: "{refused_origin()}/v1"}}}}\nadmin_token: {{env: ADMIN}}\n'
    config += "audit: {key: {env: AUDIT_KEY}, batch_wait: 10ms}\n"
    os.environ.update(SECRETS)
    with sidecar_for(tmp_path_factory.mktemp("proof"), config, POLICY, env=SECRETS) as running:
        for user in ("ana-7", "bob", "ana-7", "eve", "bob", "eve", "ana-7", "bob"):
            running.ask(chat(headers={"x-readygate-user": user}))
        eventually(lambda: len(rows_of(running)) == 8, "the rows to be stored")
        yield running
    for name in SECRETS:
        del os.environ[name]


def rows_of(sidecar: Sidecar) -> list[tuple[str, str]]:
    store = next(sidecar.folder.rglob("audit.db"), None)
    if store is None:
        return []
    with sqlite3.connect(store) as connection:
        try:
            return connection.execute("SELECT id, user_id FROM audit ORDER BY ts, id").fetchall()
        except sqlite3.OperationalError:
            return []


def people(sidecar: Sidecar, what: str, body: object, token: str = SECRETS["ADMIN"]) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {token}", "content-type": "application/json", "x-readygate-admin": "1"}
    answer = ask(
        sidecar.admin_port, request("POST", f"/api/v1/audit/people/{what}", json.dumps(body).encode(), headers)
    )
    return answer.status, answer.body


def test_person_is_handed_over_and_erased_by_an_admin_alone(ran: Sidecar) -> None:
    """What a person may ask for is one call away, and nobody learns from the log whom it was about."""
    assert 401 == people(ran, "erase", {"user": "ana-7"}, "guess")[0]
    assert 400 == people(ran, "erase", {"usr": "ana-7"})[0]
    status, body = people(ran, "export", {"user": "bob"})
    assert (200, 3) == (status, len(body.splitlines()))
    status, body = people(ran, "erase", {"user": "ana-7"})
    assert (200, 3) == (status, json.loads(body)["rows"])
    assert ["", "", "", "bob", "bob", "bob", "eve", "eve"] == sorted(user for _, user in rows_of(ran))
    assert "ana-7" not in ran.log()


def test_verify_says_whole_until_a_row_is_touched(
    ran: Sidecar, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command tells an untouched record from a touched one, in the store and in an export."""
    config = ["-c", str(ran.folder / "config.yaml")]
    export, packed = tmp_path / "export.jsonl", tmp_path / "export.jsonl.gz"
    assert 0 == main(["audit", "verify", *config, "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    assert (True, True, 8) == (found["is_whole"], found["has_trusted_key"], found["rows"])
    assert 0 == main(["audit", "export", *config, "--proof", "-o", str(export)])
    public = AuditKeys(SECRETS["AUDIT_KEY"].encode()).public.hex()
    offline = ["audit", "verify", "--file", str(export), "-c", str(tmp_path / "none.yaml"), "--public-key", public]
    assert 0 == main(offline)
    packed.write_bytes(gzip.compress(export.read_bytes() + b"a line of something else\n"))
    assert 0 == main([*offline[:3], str(packed), *offline[4:]])
    assert "1 lines are neither" in capsys.readouterr().err
    export.write_text(export.read_text().replace('"user_id":"bob"', '"user_id":"rob"', 1))
    capsys.readouterr()
    assert 1 == main(offline)
    said = capsys.readouterr().out
    writer, seq = told(ran)
    assert f"edited: writer {writer} epoch 1 sequence {seq}" in said


def told(sidecar: Sidecar) -> tuple[str, int]:
    with sqlite3.connect(next(sidecar.folder.rglob("audit.db"))) as connection:
        sql = "SELECT writer, seq FROM audit WHERE user_id = 'bob' ORDER BY ts, id LIMIT 1"
        found: tuple[str, int] = connection.execute(sql).fetchone()
        return found


def test_checkpoints_are_told_outside_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever empties the store cannot reach the log: its checkpoints say what should be there."""
    config = f'providers: {{dead: {{base_url: "{refused_origin()}/v1"}}}}\naudit: {{batch_wait: 10ms}}\n'
    with sidecar_for(tmp_path, config, POLICY) as running:
        for _ in range(3):
            running.ask(chat())
    log = tmp_path / "kept-elsewhere.jsonl"
    log.write_text(running.log())
    with sqlite3.connect(next(tmp_path.rglob("audit.db"))) as connection:
        connection.execute("DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)")
        connection.execute("DELETE FROM audit_checkpoints")
    verify = ["audit", "verify", "-c", str(tmp_path / "config.yaml")]

    assert 1 == main([*verify, "--checkpoints", str(log)])
    assert "truncated: writer" in capsys.readouterr().out


def test_erase_asks_before_it_acts(ran: Sidecar, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be undone is not done by a slip."""
    verb = ["audit", "erase", "-c", str(ran.folder / "config.yaml"), "--user", "eve"]
    assert 2 == main(verb)
    assert "--yes" in capsys.readouterr().err
    assert 0 == main([*verb, "--yes"])
    assert "2 rows" in capsys.readouterr().out
