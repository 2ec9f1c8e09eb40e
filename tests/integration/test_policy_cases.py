"""A running sidecar plays the cases beside the policies before an edit takes effect."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.sidecar_process import SidecarProcess, running_sidecar, wait_until

pytestmark = pytest.mark.integration

CONFIG = """
providers: {one: {base_url: "http://127.0.0.1:1/v1"}}
audit: {store: "sqlite:///audit.db", spool: spool}
"""
POLICY = """version: 1
policy: p
redaction: {{request: {{default: restore, rules: [{{types: [credit_card], action: {action}}}]}}}}
routes: [{{name: r, match: {{models: ["*"]}}, chain: [{{provider: one}}]}}]
"""
CASES = """version: 1
cases:
  - {name: a card never leaves, request: {model: m, text: "card 4111 1111 1111 1111"}, expect: {result: blocked}}
"""


@contextmanager
def sidecar(folder: Path, config: str = CONFIG) -> Iterator[SidecarProcess]:
    policies = {"p.yaml": POLICY.format(action="block"), "p.cases.yaml": CASES}
    with running_sidecar(folder, config, policies) as running:
        yield running


def health(running: SidecarProcess) -> dict[str, Any]:
    with urllib.request.urlopen(f"{running.admin_url}/health", timeout=5) as answer:
        document: dict[str, Any] = json.load(answer)
    return document


def test_an_edit_whose_cases_fail_is_not_put_in_force(tmp_path: Path) -> None:
    """The last good policies stay; health and log say which case, where; the corrected edit heals it."""
    with sidecar(tmp_path) as running:
        policy = tmp_path / "policies" / "p.yaml"
        policy.write_text(POLICY.format(action="observe"))

        wait_until(
            lambda: "p.cases.yaml:3:5" in json.dumps(health(running)["components"]["policy"]),
            8,
            "the edit was not noticed",
        )
        assert "degraded" == health(running)["components"]["policy"]["state"]
        assert "a card never leaves: result: expected 'blocked'" in running.log()

        policy.write_text(POLICY.format(action="block") + "mode: enforce\n")
        wait_until(lambda: health(running)["components"]["policy"]["state"] == "ok", 8, "the edit was not noticed")


def test_an_edited_case_is_noticed_like_an_edited_policy(tmp_path: Path) -> None:
    """Cases are part of the folder: a new expectation that does not hold shows within seconds."""
    with sidecar(tmp_path) as running:
        (tmp_path / "policies" / "p.cases.yaml").write_text(CASES.replace("blocked", "success"))

        wait_until(
            lambda: health(running)["components"]["policy"]["state"] == "degraded", 8, "the edit was not noticed"
        )


def test_cases_may_only_warn(tmp_path: Path) -> None:
    """With `policy_cases: warn` the edit is taken and the log says which case does not hold."""
    with sidecar(tmp_path, CONFIG + "policy_cases: warn\n") as running:
        before = health(running)["components"]["policy"]
        (tmp_path / "policies" / "p.yaml").write_text(POLICY.format(action="observe"))

        wait_until(lambda: running.log().count('"policy_in_force"') == 2, 8, "the edit was not noticed")
        assert "ok" == health(running)["components"]["policy"]["state"] == before["state"]
        assert "policy_case_failed" in running.log()
