"""A candidate decides the same traffic without effect, and its report is what acting then does."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from proxy.cli import policy as verb
from proxy.core.routing.problems import Code
from tests.support.wire import Sidecar, chat, eventually, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

LIVE = """version: 1
policy: default
redaction: {request: {rules: [{types: [credit_card], action: restore}]}}
routes: [{name: any, match: {models: ["gpt-*"]}, chain: [{provider: one}], retries: none}]
"""
NEXT = """version: 1
policy: default
redaction: {request: {rules: [{types: [credit_card], action: mask}, {types: [email], action: block}]}}
routes: [{name: any, match: {models: ["gpt-*", "new"]}, chain: [{provider: one}], retries: none}]
"""
SENT = (
    ("gpt-4o", "nothing at all"),
    ("gpt-4o", "write to ana.souza@example.com"),
    ("gpt-4o", "card 4111 1111 1111 1111"),
    ("new", "hello"),
)


def report(sidecar: Sidecar) -> dict[str, object]:
    document: dict[str, object] = sidecar.admin("/api/v1/policy/shadow").json()
    return document


def test_the_shadow_changes_nothing_and_tells_what_acting_would(tmp_path: Path) -> None:
    """Also types that only the candidate looks for: its own redactor reads what was sent."""
    with threaded_simulator() as provider:
        config = f'providers: {{one: {{base_url: "{provider.base_url}"}}}}\nshadow: next/\n'
        (tmp_path / "next").mkdir()
        (tmp_path / "next" / "default.yaml").write_text(NEXT)
        with sidecar_for(tmp_path, config, LIVE) as sidecar:
            eventually(lambda: bool(report(sidecar)["revision"]), "the candidate is not compared")
            before = [sidecar.ask(chat(text, model=model)).status for model, text in SENT]
            eventually(lambda: report(sidecar)["exchanges"] == len(SENT), "not all are compared")
            found = report(sidecar)
            code = verb.run(_arguments(sidecar))
            (tmp_path / "next" / "default.yaml").write_text(NEXT.replace("routes:", "routs:"))
            eventually(lambda: "did you mean" in str(report(sidecar)["trouble"]), "the trouble is not told")
            (tmp_path / "policies" / "default.yaml").write_text(NEXT)
            eventually(lambda: sidecar.ask(chat(model="new")).status == 200, "the candidate is not in force")
            after = [sidecar.ask(chat(text, model=model)).status for model, text in SENT]

    assert [200, 200, 200, 404] == before
    assert [200, 400, 200, 200] == after
    changes = found["changes"]
    assert isinstance(changes, list)
    assert {
        ("refused", "", Code.CONTENT_POLICY_VIOLATION),
        ("redaction", "restore", "mask"),
        ("admitted", Code.MODEL_NOT_FOUND, ""),
    } == {(one["what"], one["before"], one["after"]) for one in changes}
    assert (3, 0, 1) == (found["changed"], found["dropped"], code)
    assert "ana.souza" not in json.dumps(found)


def _arguments(sidecar: Sidecar) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    verb.add_parser(parser.add_subparsers())
    return parser.parse_args(["policy", "shadow", "--url", f"http://127.0.0.1:{sidecar.admin_port}"])
