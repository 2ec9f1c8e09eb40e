"""`readygate keys` beside a running sidecar: keys come, go and are replaced without a restart."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.refusals import check
from tests.support.sidecar_process import ROOT
from tests.support.simulator import Simulator
from tests.support.wire import Sidecar, caller, chat, eventually, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

POLICY = "version: 1\npolicy: p\nroutes: [{match: {models: ['*']}, chain: [{provider: main}], retries: none}]\n"


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = f'providers: {{main: {{base_url: "{provider.base_url}"}}}}\ncallers_file: callers.yaml'
    with sidecar_for(tmp_path_factory.mktemp("keys"), config, POLICY) as running:
        yield running


def keys(folder: Path, *arguments: str, code: int = 0) -> Any:
    command = [sys.executable, "-m", "proxy", "keys", *arguments, "-c", str(folder / "config.yaml"), "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert code == done.returncode, done.stderr
    return json.loads(done.stdout) if done.stdout else None


def status(sidecar: Sidecar, key: str) -> int:
    return sidecar.ask(chat(headers={"Authorization": f"Bearer {key}"})).status


def test_key_lives_from_creation_over_rotation_to_revocation(sidecar: Sidecar) -> None:
    """The whole life of a key while the process runs, also on a connection that stays open."""
    first = keys(sidecar.folder, "create", "shop-prod", "--app", "shop")["key"]
    eventually(lambda: status(sidecar, first) == 200, "the new key does not work")
    keys(sidecar.folder, "create", "shop-prod", "--app", "shop", code=1)
    second = keys(sidecar.folder, "rotate", "shop-prod", "--overlap", "1h")["key"]
    eventually(lambda: status(sidecar, second) == 200, "the rotated key does not work")
    assert 200 == status(sidecar, first)
    keys(sidecar.folder, "revoke", "shop-prod", "--id", keys(sidecar.folder, "list")[0]["id"])
    with caller(sidecar.data_port) as wire:

        def on_this_connection() -> int:
            wire.send(chat(headers={"Authorization": f"Bearer {first}"}))
            return wire.message().status

        eventually(lambda: on_this_connection() == 401, "the revoked key still works")

    assert 200 == status(sidecar, second)
    text = (sidecar.folder / "callers.yaml").read_text()
    assert first not in text
    assert second not in text
    shown = keys(sidecar.folder, "list")
    assert ["revoked", "active"] == [row["state"] for row in shown]
    assert all(row["id"] not in ("", None) and len(row["id"]) == 8 for row in shown)
    assert "sha256" not in str(shown)


def test_every_key_that_opens_nothing_gets_the_same_answer(sidecar: Sidecar, provider: Simulator) -> None:
    """Wrong, cut, expired and foreign keys cannot be told apart, and nothing of them comes back (SE-09)."""
    good = keys(sidecar.folder, "create", "cut", "--app", "shop")["key"]
    short = keys(sidecar.folder, "create", "short", "--app", "shop", "--expires", "1s")["key"]
    eventually(lambda: status(sidecar, good) == 200, "the new key does not work")
    eventually(lambda: status(sidecar, short) == 401, "the key does not end")
    provider.reset()
    answers = [
        sidecar.ask(chat(headers={"Authorization": f"Bearer {key}"}))
        for key in ("wrong", good[:-1], good + "x", short, "sk-" + "a" * 48)
    ]

    messages = {check(answer, 401, "invalid_api_key", "client", "no")["message"] for answer in answers}
    assert {"The API key is missing or not valid here."} == messages
    assert [] == provider.entries
    assert good[:-1] not in sidecar.log() + str(sidecar.rows())


def test_broken_file_keeps_the_last_good_keys(sidecar: Sidecar) -> None:
    """A slip of an editor must not lock every app out; the log names the line."""
    good = keys(sidecar.folder, "create", "steady", "--app", "shop")["key"]
    eventually(lambda: status(sidecar, good) == 200, "the new key does not work")
    path = sidecar.folder / "callers.yaml"
    text = path.read_text()
    path.write_text(text.replace("keys:", "kyes:"))
    eventually(lambda: "callers_refused" in sidecar.log(), "the mistake was not told")

    assert 200 == status(sidecar, good)
    path.write_text(text)


def test_trouble_of_the_keys_file_is_in_health_metrics_and_doctor(provider: Simulator, tmp_path: Path) -> None:
    """The last good keys stay, so nobody would notice that an edit never acted."""
    config = f'providers: {{main: {{base_url: "{provider.base_url}"}}}}\ncallers_file: callers.yaml'

    def seen() -> tuple[str, int, float]:
        row = running.admin("/health").json()["components"]["caller_keys"]
        return row["state"], row["keys"], running.metric("readygate_component_ok", component="caller_keys")

    def doctor() -> dict[str, str]:
        command = [
            sys.executable,
            "-m",
            "proxy",
            "doctor",
            "--offline",
            "-c",
            str(tmp_path / "config.yaml"),
            "--format",
            "json",
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        found: dict[str, str] = next(one for one in json.loads(done.stdout)["findings"] if one["name"] == "caller keys")
        return found

    with sidecar_for(tmp_path, config, POLICY) as running:
        assert ("failed", 0, 0.0) == seen()
        assert ("bad", True) == (doctor()["state"], "cannot be read" in doctor()["text"])
        key = keys(tmp_path, "create", "shop-prod", "--app", "shop")["key"]
        eventually(lambda: seen() == ("ok", 1, 1.0), "the key is not in force")
        assert ("ok", "1 open the data port") == (doctor()["state"], doctor()["text"])
        good = (tmp_path / "callers.yaml").read_text()
        (tmp_path / "callers.yaml").write_text(good.replace("app:", "ap:"))
        eventually(lambda: seen() == ("degraded", 1, 0.0), "nobody says so")
        reason = running.admin("/health").json()["components"]["caller_keys"]["reason"]
        assert ("callers.yaml:" in reason, "did you mean `app`" in reason) == (True, True)
        assert 200 == status(running, key)
        assert 1.0 <= running.metric("readygate_caller_key_source_refused_total", source="caller_keys")
        (tmp_path / "callers.yaml").write_text(good)
        eventually(lambda: seen() == ("ok", 1, 1.0), "the trouble does not end")
        keys(tmp_path, "rotate", "shop-prod", "--overlap", "1h")
        assert ("warn", True) == (doctor()["state"], "end within a week: shop-prod" in doctor()["text"])
        keys(tmp_path, "revoke", "shop-prod")

    assert ("bad", "readygate keys create") == (doctor()["state"], doctor()["advice"])
