"""What `replay` says would change is what changes when the policies in question act on the same traffic."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.sidecar_process import ROOT
from tests.support.wire import Sidecar, caller, chat, eventually, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

NOW = """version: 1
policy: default
MODE
redaction: {request: {default: restore, rules: [{types: [credit_card], action: block}, {types: [ip_address], action: observe}]}}
routes:
  - {name: any, match: {models: ["gpt-*", "old"]}, chain: [{provider: one}], retries: none}
  - {name: side, match: {models: ["side"]}, chain: [{provider: one}], retries: none}
"""
NEXT = """version: 1
policy: default
redaction: {request: {default: restore, rules: [{types: [email], action: block}, {types: [ip_address], action: mask}]}}
access: {models: ["gpt-*", "side", "new"], forbidden_params: [logit_bias]}
routes:
  - {name: any, match: {models: ["gpt-*", "new", "old"]}, chain: [{provider: one}], retries: none}
  - {name: aside, match: {models: ["side"]}, chain: [{provider: two}], retries: none}
"""
TEXTS = (
    "nothing at all",
    "write to ana.souza@example.com",
    "from 203.0.113.77 today",
    "card 4111 1111 1111 1111",
    "CPF 529.982.247-25, from 203.0.113.77",
)
MODELS = ("gpt-4o", "side", "old", "new", "gpt-none")
APPS = ("shop", "till", "mail")


def traffic(count: int) -> list[bytes]:
    """Every text with every model; what is refused before it is read holds nothing, for nobody can replay what was not read."""
    return [
        chat(TEXTS[0 if model == "new" else n % 5], headers={"x-readygate-app": APPS[n % 3]}, model=model)
        for n in range(count)
        for model in [MODELS[n // 5 % 5]]
    ]


def play(sidecar: Sidecar, requests: list[bytes]) -> list[dict[str, Any]]:
    """Send them one after the other; return their rows in that order."""
    ids = []
    with caller(sidecar.data_port) as wire:
        for data in requests:
            wire.send(data)
            ids.append(str(wire.message().get("x-readygate-id")))
    eventually(lambda: len(sidecar.rows("id >= ?", ids[0])) >= len(ids), "rows are missing", 60)
    rows = {row["id"]: row for row in sidecar.rows("id >= ?", ids[0])}
    return [rows[one] for one in ids]


def replay(sidecar: Sidecar, *words: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "proxy", "replay", "-c", str(sidecar.folder / "config.yaml"), "--format", "json"]
    done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def seen(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What really differs between two rows of the same request, without the code under test."""
    codes = [row["error_code"] if row["http_status"] >= 400 else "" for row in (before, after)]
    if any(codes):
        kind = "refusal" if all(codes) else "refused" if codes[1] else "admitted"
        return [] if codes[0] == codes[1] else [kind]
    found = ["route"] if before["route"] != after["route"] else []
    found += ["target"] if before["provider"] != after["provider"] else []
    replaced = [set(json.loads(row["sanitized"])) for row in (before, after)]
    return found + ["redaction"] * len(replaced[0] ^ replaced[1])


def put_in_force(sidecar: Sidecar, text: str) -> None:
    before = sidecar.ask(chat()).get("x-readygate-policy")
    (sidecar.folder / "policies" / "default.yaml").write_text(text)
    eventually(lambda: sidecar.ask(chat()).get("x-readygate-policy") != before, "the edit is not in force")


@pytest.mark.parametrize("count", [75, pytest.param(10_000, marks=pytest.mark.slow)])
def test_the_list_of_changes_is_what_acting_then_does(tmp_path: Path, count: int) -> None:
    """Replay, then put the same policies in force and send the same requests again: the lists are equal."""
    with threaded_simulator() as provider:
        url = provider.base_url
        config = f'providers: {{one: {{base_url: "{url}"}}, two: {{base_url: "{url}"}}}}\n'
        (tmp_path / "next").mkdir()
        (tmp_path / "next" / "default.yaml").write_text(NEXT)
        with sidecar_for(tmp_path, config, NOW.replace("MODE\n", "")) as sidecar:
            before = play(sidecar, traffic(count))
            code, report = replay(sidecar, "--policies", str(tmp_path / "next"))
            put_in_force(sidecar, NEXT)
            after = play(sidecar, traffic(count))

    really = Counter((a["app"], what) for a, b in zip(before, after, strict=True) for what in seen(a, b))
    said: Counter[tuple[str, str]] = Counter()
    for one in report["changes"]:
        said[one["app"], one["what"]] += one["count"]
    assert (1, count, 0) == (code, report["exchanges"], report["by_row_alone"])
    assert really == said
    assert {"refused", "admitted", "route", "target", "redaction"} <= {what for _, what in said}
    assert sum(bool(seen(a, b)) for a, b in zip(before, after, strict=True)) == report["changed"]


@pytest.mark.parametrize("count", [75, pytest.param(10_000, marks=pytest.mark.slow)])
def test_what_observing_reports_is_what_enforcing_does(tmp_path: Path, count: int) -> None:
    """`mode: observe`, `replay --enforce`, then the same policy without it: the lists are equal."""
    with threaded_simulator() as provider:
        config = f'providers: {{one: {{base_url: "{provider.base_url}"}}}}\n'
        with sidecar_for(tmp_path, config, NOW.replace("MODE", "mode: observe")) as sidecar:
            before = play(sidecar, traffic(count))
            assert (0, 0) == (replay(sidecar)[0], replay(sidecar)[1]["changed"])
            _, report = replay(sidecar, "--enforce", "--revision", before[0]["policy_revision"])
            put_in_force(sidecar, NOW.replace("MODE\n", ""))
            after = play(sidecar, traffic(count))

    said = Counter(
        {what: sum(c["count"] for c in report["changes"] if c["what"] == what) for what in ("refused", "redaction")}
    )
    really = Counter(what for a, b in zip(before, after, strict=True) for what in seen(a, b))
    assert really == said
    assert len(said) == 2
