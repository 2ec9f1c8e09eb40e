"""Budgets are shown to whom they concern: all of them to a viewer, its own to an app with its caller key."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.sidecar_process import ROOT
from tests.support.simulator import Simulator
from tests.support.wire import Message, Sidecar, caller, chat, eventually, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

KEYS = {"shop": "rg-shop-key-Kq83hd", "desk": "rg-desk-key-Zm20xp"}
CONFIG = """
providers: {{sim: {{base_url: "{origin}/v1"}}, other: {{base_url: "{origin}/other/v1"}}}}
admin_tokens: [{{name: grafana, role: viewer, token: {{env: VIEWER}}}}]
callers:
  - {{name: shop-key, app: shop, sha256: "{shop}"}}
  - {{name: desk-key, app: desk, sha256: "{desk}"}}
"""
SHARED = """
version: 1
policy: shared
applies_to: {apps: ["*"]}
budgets:
  - {provider: sim, tokens_per_minute: 100000, requests_per_minute: 100, concurrent: 5, when_exhausted: refuse}
  - {id: each, provider: sim, per: [app], requests_per_hour: 50, when_exhausted: refuse}
  - {id: desk-only, provider: sim, app: desk, requests_per_hour: 7, when_exhausted: refuse}
  - {id: people, provider: sim, per: [user], requests_per_hour: 9, when_exhausted: refuse}
routes: [{name: all, match: {models: ["*"]}, chain: [{provider: sim}], retries: none}]
"""


@dataclass(slots=True)
class Desk:
    """A sidecar with two apps."""

    sidecar: Sidecar
    provider: Simulator

    def use(self, app: str, content: str = "hello") -> None:
        answer = self.sidecar.ask(chat(content, {"Authorization": f"Bearer {KEYS[app]}"}))
        assert 200 == answer.status, answer.body

    def budgets(self, token: str, query: str = "") -> Message:
        return self.sidecar.admin(f"/api/v1/budgets{query}", headers={"Authorization": f"Bearer {token}"})

    def seen(self, token: str, query: str = "") -> dict[tuple[str, str], dict[str, Any]]:
        """Return (budget, app it is for) -> dimension -> limit."""
        answer = self.budgets(token, query)
        assert 200 == answer.status, answer.body
        return {
            (row["budget"], row["for"].get("app", "")): {limit["dimension"]: limit for limit in row["limits"]}
            for row in answer.json()["budgets"]
        }


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with threaded_simulator() as provider:
        digests = {app: hashlib.sha256(key.encode()).hexdigest() for app, key in KEYS.items()}
        config = CONFIG.format(origin=provider.origin, **digests)
        folder = tmp_path_factory.mktemp("desk")
        with sidecar_for(folder, config, {"shared.yaml": SHARED}, env={"VIEWER": "viewer-token"}) as sidecar:
            yield Desk(sidecar, provider)


def test_viewer_sees_every_budget_with_what_is_used_held_and_left(desk: Desk) -> None:
    """One page answers "how much is left, and until when"."""
    desk.use("shop")
    desk.use("desk")
    seen = desk.seen("viewer-token")
    requests = seen["shared/sim", ""]["requests_per_minute"]

    assert {("shared/sim", ""), ("shared/each", "shop"), ("shared/each", "desk")} <= set(seen)
    assert (100, requests["used"]) == (requests["limit"], 100 - requests["remaining"])
    assert requests["used"] >= 2
    assert 50 < requests["reset_s"] <= 61
    assert 0 == requests["reserved"]
    assert {"kind": "memory"} == desk.budgets("viewer-token").json()["store"]


def test_running_exchange_is_shown_as_reserved(desk: Desk) -> None:
    """What is held now may still come back."""
    with caller(desk.sidecar.data_port) as wire:
        wire.send(chat("[[sim silence:for=1]]", {"Authorization": f"Bearer {KEYS['shop']}"}))
        eventually(lambda: desk.seen("viewer-token")["shared/sim", ""]["concurrent"]["reserved"] == 1, "not reserved")
        limits = desk.seen("viewer-token")["shared/sim", ""]
        assert limits["tokens_per_minute"]["reserved"] > 10
        assert 1 == limits["requests_per_minute"]["reserved"]


def test_app_sees_its_own_budgets_with_its_caller_key_and_no_others(desk: Desk) -> None:
    """Neither the share of another app, nor a budget of its own, nor the people of others, nor the store."""
    desk.use("shop")
    desk.use("desk")
    answer = desk.budgets(KEYS["shop"])

    assert {("shared/sim", ""), ("shared/each", "shop")} == set(desk.seen(KEYS["shop"]))
    assert {("shared/sim", ""), ("shared/each", "desk"), ("shared/desk-only", "")} == set(desk.seen(KEYS["desk"]))
    assert "store" not in answer.json()
    assert b"desk" not in answer.body


@pytest.mark.parametrize("path", ["/health", "/metrics", "/providers", "/api/v1/breakers", "/api/v1/audit/stats"])
def test_caller_key_opens_nothing_else(desk: Desk, path: str) -> None:
    """It is a key of the data port; here it shows what concerns its app."""
    answer = desk.sidecar.admin(path, headers={"Authorization": f"Bearer {KEYS['shop']}"})

    assert (403, "permission_denied") == (answer.status, answer.error["code"])


def test_wrong_key_is_refused_like_a_wrong_token(desk: Desk) -> None:
    """Nobody learns which of the two it was."""
    assert 401 == desk.budgets("rg-shop-key-wrong").status
    assert 401 == desk.sidecar.admin("/api/v1/budgets").status


def test_who_used_it_is_told_by_app_and_to_an_app_only_about_itself(desk: Desk) -> None:
    """The figures come from the audit, so they cover every sidecar that ships there."""
    desk.use("shop")
    desk.use("desk")

    def apps(token: str) -> dict[str, int]:
        answer = desk.budgets(token, "?who=10m&budget=shared%2Fsim")
        if answer.status == 503:  # the store has not written its first row yet
            return {}
        rows = answer.json()["budgets"]
        return {one["app"]: one["requests"] for one in rows[0]["used_by"]}

    eventually(lambda: {"shop", "desk"} <= set(apps("viewer-token")), "the audit does not know who")
    assert {"shop"} == set(apps(KEYS["shop"]))


@pytest.mark.parametrize(("query", "code"), [("?who=soon", "bad_request"), ("?whose=x", "unknown_parameter"), ("?who=99d", "bad_request")])  # fmt: skip
def test_question_that_makes_no_sense_is_refused(desk: Desk, query: str, code: str) -> None:
    """Nothing is ignored silently."""
    answer = desk.budgets("viewer-token", query)

    assert (400, code) == (answer.status, answer.error["code"])


def run_verb(desk: Desk, token: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "proxy",
        "budgets",
        "--url",
        f"http://127.0.0.1:{desk.sidecar.admin_port}",
        *options,
    ]
    env = {**os.environ, "READYGATE_TOKEN": token}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=30, check=False)


def test_verb_prints_a_table_or_json(desk: Desk, tmp_path: Path) -> None:
    """The same for people and for scripts; an app may use it with its key."""
    desk.use("shop")
    table = run_verb(desk, "viewer-token", "--who", "1h")
    own = run_verb(desk, KEYS["shop"], "--format", "json", "--budget", "shared/each")

    assert 0 == table.returncode, table.stderr
    assert "tokens_per_minute" in table.stdout
    assert "used by" in table.stdout
    assert [{"app": "shop"}] == [row["for"] for row in json.loads(own.stdout)["budgets"]]
    assert 1 == run_verb(desk, "wrong").returncode
