"""A policy for a route of another policy acts on real requests, and row, headers and `explain` agree about it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sidecar_process import ROOT
from tests.support.simulator import Simulator
from tests.support.wire import Sidecar, chat, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

REST = """version: 1
policy: rest
redaction: {request: {default: restore}}
routes:
  - {name: fast, match: {models: ["fast"]}, chain: [{provider: main}], retries: none}
  - {name: any, match: {models: ["*"]}, chain: [{provider: main}], retries: none}
"""
CAREFUL = """version: 1
policy: careful
applies_to: {routes: [fast]}
redaction: {request: {default: block}}
access: {forbidden_params: [logit_bias]}
budgets: [{route: fast, requests_per_minute: 2, when_exhausted: refuse}]
"""
CASES = """version: 1
cases:
  - {name: blocked there, request: {model: fast, text: mail ana@example.org}, expect: {code: content_policy_violation, policy: careful, route: fast}}
  - {name: served elsewhere, request: {model: gpt-4o, text: mail ana@example.org}, expect: {status: 200, policy: rest, targets: ["main:gpt-4o"]}}
  - {name: a plain word is served, request: {model: fast, text: hello}, expect: {status: 200, policy: careful, route: fast, targets: ["main:fast"]}}
  - {name: a parameter, request: {body: {model: fast, messages: [], logit_bias: {}}}, expect: {code: permission_denied}}
  - {name: spent, request: {model: fast, text: hello}, given: {spent: [fast]}, expect: {status: 429}}
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    folder: Path = tmp_path_factory.mktemp("routes")
    config = f'providers: {{main: {{base_url: "{provider.base_url}"}}}}\n'
    with sidecar_for(folder, config, {"rest.yaml": REST, "careful.yaml": CAREFUL}) as running:
        yield running


def verb(sidecar: Sidecar, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "proxy", *words, "-c", str(sidecar.folder / "config.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_route_is_asked_and_the_policy_for_it_decides(sidecar: Sidecar) -> None:
    """Redaction, parameters and the budget are the deciding policy's; row and `explain` name it and the route."""
    mail = "write to ana@example.org"
    answers = [sidecar.ask(chat(mail, model=model)) for model in ("fast", "gpt-4o")]
    rows = [sidecar.row(answer.get("x-readygate-id")) for answer in answers]
    refused = sidecar.ask(chat("hi", model="fast", logit_bias={}))
    statuses = [sidecar.ask(chat("hi", model="fast")).status for _ in range(3)]

    assert [("careful", "fast", "content_policy_violation"), ("rest", "any", "")] == [
        (row["policy"], row["route"], row["error_code"]) for row in rows
    ]
    assert (403, [200, 200, 429]) == (refused.status, statuses)
    code, told = verb(sidecar, "explain", "--request-id", rows[0]["id"])
    assert 0 == code
    assert "policy careful: apps [*] routes [fast]   route rest/fast: decides in its place" in told


def test_cases_cover_a_policy_for_routes_and_the_routes_it_decides_for(sidecar: Sidecar, tmp_path: Path) -> None:
    """`readygate test` plays them as any other, and the route's chain counts as touched."""
    folder = tmp_path / "policies"
    folder.mkdir()
    for name, text in {"rest.yaml": REST, "careful.yaml": CAREFUL, "careful.cases.yaml": CASES}.items():
        (folder / name).write_text(text)
    code, told = verb(sidecar, "test", "--policies", str(folder), "--require-coverage")

    assert 0 == code, told
