"""`readygate doctor` tells on one screen what is missing, what to do about it, and nothing secret; free checks watch on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sidecar_process import ROOT
from tests.support.simulator import Simulator, refused_origin
from tests.support.wire import chat, eventually, serving, sidecar_for, threaded_simulator, write_files

pytestmark = pytest.mark.integration

POLICY = """
version: 1
policy: default
routes: [{name: any, match: {models: ["*"]}, chain: [{provider: main}], retries: none}]
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


def doctor(folder: Path, *words: str, **env: str) -> tuple[int, dict[str, dict[str, str]], str]:
    command = [sys.executable, "-m", "proxy", "doctor", "-c", str(folder / "config.yaml"), "--format", "json", *words]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False
    )
    found = json.loads(done.stdout)["findings"] if done.returncode != 2 else []
    return done.returncode, {finding["name"]: finding for finding in found}, done.stdout + done.stderr


def test_everything_well_says_so(provider: Simulator, tmp_path: Path) -> None:
    """Exit code 0, and the provider was asked only for what is free."""
    provider.reset()
    config = f'providers: {{main: {{base_url: "{provider.base_url}", api_key: {{env: MAIN_KEY}}}}}}\n'
    write_files(tmp_path, config, {"default.yaml": POLICY})
    code, findings, text = doctor(tmp_path, MAIN_KEY="sk-canary-000001")

    assert 0 == code, text
    assert {"ok"} == {finding["state"] for finding in findings.values()}
    assert "answers 200" in findings["provider main"]["text"]
    assert [("GET", "/v1/models")] == [(entry.method, entry.target) for entry in provider.entries]
    assert "sk-canary" not in text
    assert not (tmp_path / "spool").exists(), "looking must not leave anything behind"


def test_what_is_missing_is_named_with_advice(provider: Simulator, tmp_path: Path) -> None:
    """A provider that is away, a key that is refused, a store that does not answer: each with what to do."""
    away = refused_origin()
    config = f"""
providers:
  main: {{base_url: "{away}/v1"}}
  locked: {{base_url: "{provider.origin}/locked/v1", api_key: {{env: LOCKED_KEY}}}}
  unset: {{base_url: "{provider.base_url}", api_key: {{env: UNSET_KEY_OF_A_TEST}}}}
audit: {{store: "postgresql://nobody@{away.rpartition("/")[2]}/none", spool: spool}}
"""
    provider.fault_for_provider("locked", "401")
    write_files(tmp_path, config, {"default.yaml": POLICY})
    code, findings, text = doctor(tmp_path, LOCKED_KEY="sk-canary-000002")
    provider.reset()

    assert 1 == code
    assert ("bad", True) == ((row := findings["provider main"])["state"], "nothing listens" in row["advice"])
    assert ("bad", True) == ((row := findings["provider locked"])["state"], "key" in row["advice"])
    assert "warn" == findings["provider unset"]["state"]
    assert ("bad", True) == ((row := findings["audit store"])["state"], bool(row["advice"]))
    assert "sk-canary" not in text


def test_broken_files_are_named_first(tmp_path: Path) -> None:
    """A config that cannot be read is exit 2; a policy with an error is a finding with its place."""
    write_files(tmp_path, 'providers: {main: {base_url: "http://127.0.0.1:9/v1"}}\n', {"default.yaml": "polcy: x\n"})
    code, findings, _ = doctor(tmp_path, "--offline")
    (tmp_path / "config.yaml").write_text("version: 1\nprovders: {}\n")
    broken, _, text = doctor(tmp_path)

    assert (1, "bad") == (code, findings["files"]["state"])
    assert "default.yaml:1:1" in findings["files"]["text"]
    assert (2, True) == (broken, "provders" in text)


def test_running_sidecar_is_recognised(provider: Simulator, tmp_path: Path) -> None:
    """Ports in use by a sidecar are not a fault; by another program they are."""
    config = f'providers: {{main: {{base_url: "{provider.base_url}"}}}}\n'
    write_files(tmp_path, config, {"default.yaml": POLICY})
    with serving(tmp_path) as sidecar:
        file = tmp_path / "config.yaml"
        text = file.read_text().replace("data: {port: 0}", f"data: {{port: {sidecar.data_port}}}")
        file.write_text(text.replace("admin: {port: 0}", f"admin: {{port: {sidecar.admin_port}}}"))
        _, own, _ = doctor(tmp_path, "--offline")
        file.write_text(
            file.read_text().replace(f"admin: {{port: {sidecar.admin_port}}}", f"admin: {{port: {provider.port}}}")
        )
        _, foreign, _ = doctor(tmp_path, "--offline")

    assert ["ok", "ok"] == [own["data port"]["state"], own["admin port"]["state"]]
    assert "a sidecar is running" in own["admin port"]["text"]
    assert "bad" == foreign["admin port"]["state"]


def test_free_checks_show_a_provider_that_is_away_and_invite_it_back(provider: Simulator, tmp_path: Path) -> None:
    """Without any traffic an operator sees the outage, and the breaker does not wait out its back-off."""
    provider.reset()
    config = f'providers: {{main: {{base_url: "{provider.base_url}", health_check: {{every: 1s, timeout: 500ms}}}}}}\n'
    with sidecar_for(tmp_path, config, POLICY) as sidecar:
        eventually(lambda: len(provider.entries) >= 1, "nobody asks", 4)
        provider.fault("503")
        eventually(lambda: sidecar.health()["components"]["provider:main"]["state"] == "failed", "not shown", 8)
        shown = sidecar.admin("/providers").json()["providers"]["main"]["check"]
        provider.fault("")
        eventually(lambda: sidecar.health()["components"]["provider:main"]["state"] == "ok", "not recovered", 5)

        assert ("upstream_5xx", 503) == (shown["outcome"], shown["http_status"])
        assert {("GET", "/v1/models")} == {(entry.method, entry.target) for entry in provider.entries}
        assert '"provider_check_failed"' in sidecar.log()
        assert '"provider_check_recovered"' in sidecar.log()
        assert 200 == sidecar.ask(chat()).status
