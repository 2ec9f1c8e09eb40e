"""The admin API lets in whom it should, for what it should, and leaves a trace of every change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sidecar_process import ROOT
from tests.support.simulator import refused_origin
from tests.support.wire import Message, Sidecar, ask, chat, request, serving, sidecar_for, write_files

pytestmark = pytest.mark.integration

POLICY = """
version: 1
policy: default
routes: [{name: dead, match: {models: ["*"]}, chain: [{provider: dead}], retries: none}]
"""
TOKENS = {"VIEWER": "viewer-token-1", "OPERATOR": "operator-token-2", "ADMIN": "admin-token-3"}
ACCESS = """
admin_token: {env: ADMIN}
admin_tokens:
  - {name: grafana, role: viewer, token: {env: VIEWER}}
  - {name: oncall, role: operator, token: {env: OPERATOR}}
"""
BREAKERS = "/api/v1/breakers"
RESET = "/api/v1/breakers/dead%3A%2A/reset"
PROOF = {"x-readygate-admin": "1"}


def config() -> str:
    return f'providers: {{dead: {{base_url: "{refused_origin()}/v1"}}}}\n'


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with sidecar_for(tmp_path_factory.mktemp("guarded"), config() + ACCESS, POLICY, env=TOKENS) as running:
        yield running


@pytest.fixture(scope="module")
def unguarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with sidecar_for(tmp_path_factory.mktemp("unguarded"), config(), POLICY) as running:
        yield running


def call(
    sidecar: Sidecar, method: str, path: str, who: str = "", body: bytes = b"", headers: dict[str, str] | None = None
) -> Message:
    sent = {**({"Authorization": f"Bearer {TOKENS[who]}"} if who else {}), **(headers or {})}
    return ask(sidecar.admin_port, request(method, path, body, sent))


def open_breaker(sidecar: Sidecar) -> None:
    for _ in range(12):
        if sidecar.ask(chat()).error["code"] == "all_targets_unavailable":
            return
    raise AssertionError("the breaker did not open")


@pytest.mark.parametrize(
    ("who", "method", "path", "status"),
    [
        ("", "GET", BREAKERS, 401),
        ("VIEWER", "GET", BREAKERS, 200),
        ("OPERATOR", "GET", BREAKERS, 200),
        ("", "POST", RESET, 401),
        ("VIEWER", "POST", RESET, 403),
        ("OPERATOR", "POST", RESET, 200),
        ("ADMIN", "POST", RESET, 200),
        ("VIEWER", "GET", "/metrics", 200),
        ("VIEWER", "GET", "/health", 200),
        ("", "GET", "/", 200),
        ("", "GET", "/status.js", 200),
        ("", "GET", "/summary", 401),
    ],
)
def test_role_decides_what_a_token_may_do(guarded: Sidecar, who: str, method: str, path: str, status: int) -> None:
    """A dashboard's token must not be able to change anything."""
    answer = call(guarded, method, path, who, headers=PROOF)

    assert status == answer.status, answer.body
    assert "nosniff" == answer.get("x-content-type-options")
    if status >= 400:
        assert {"message", "type", "param", "code", "request_id"} == set(answer.error)
        assert answer.get("x-request-id") == answer.error["request_id"]


def test_reset_closes_the_breaker_and_names_the_actor(guarded: Sidecar) -> None:
    """The provider is well again and the operator knows before we do; the log says who decided."""
    open_breaker(guarded)
    before = call(guarded, "GET", BREAKERS, "VIEWER").json()["breakers"][0]

    answer = call(guarded, "POST", RESET, "OPERATOR", headers=PROOF)

    assert ("dead:*", "open") == (before["deployment"], before["state"])
    assert (200, "closed") == (answer.status, answer.json()["state"])
    writes = [json.loads(line) for line in guarded.log().splitlines() if '"admin_write"' in line]
    assert ("oncall", "operator", "POST", "/api/v1/breakers/dead:*/reset", 200) == tuple(
        writes[-1][name] for name in ("actor", "role", "method", "path", "status")
    )
    assert writes[-1]["id"] == answer.get("x-request-id")
    for token in TOKENS.values():
        assert token not in guarded.log()


def test_reset_of_an_unknown_breaker_is_404_and_leaves_its_trace(guarded: Sidecar) -> None:
    """A typo is told, not swallowed."""
    answer = call(guarded, "POST", "/api/v1/breakers/nobody/reset", "ADMIN", headers=PROOF)

    assert (404, "not_found") == (answer.status, answer.error["code"])
    assert '"path":"/api/v1/breakers/nobody/reset","status":404' in guarded.log()


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "code"),
    [
        ("GET", "/api/v1/nothing", b"", {}, 404, "not_found"),
        ("DELETE", BREAKERS, b"", PROOF, 405, "method_not_allowed"),
        ("GET", BREAKERS + "?limt=1", b"", {}, 400, "unknown_parameter"),
        ("POST", RESET, b"x" * (1024 * 1024 + 1), {"content-type": "application/json"}, 413, "request_too_large"),
        ("POST", RESET, b"{", {"content-type": "application/json"}, 400, "invalid_json"),
        ("POST", RESET, b"a=b", {"content-type": "text/plain", **PROOF}, 415, "unsupported_media_type"),
        ("POST", RESET, b"{}", {"content-type": "text/plain"}, 403, "proof_missing"),
        ("POST", RESET, b"", {}, 403, "proof_missing"),
        ("POST", RESET, b"", {**PROOF, "origin": "http://evil.example"}, 403, "foreign_origin"),
        ("POST", RESET, b"", {**PROOF, "sec-fetch-site": "cross-site"}, 403, "foreign_origin"),
    ],
)
def test_call_that_is_not_right_is_refused_in_the_one_shape(
    guarded: Sidecar, method: str, path: str, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    """Tools that speak to the API read one error shape, and a web page elsewhere cannot act through a browser."""
    answer = call(guarded, method, path, "ADMIN", body, headers)

    assert (status, code) == (answer.status, answer.error["code"])
    assert {"message", "type", "param", "code", "request_id"} == set(answer.error)
    if status == 405:
        assert "GET" == answer.get("allow")


def test_many_wrong_tokens_are_slowed_down(tmp_path: Path) -> None:
    """Guessing stops after ten tries, for a while, even for a right guess; probes go on."""
    with sidecar_for(tmp_path, config() + ACCESS, POLICY, env=TOKENS) as running:
        wrong = [
            ask(running.admin_port, request("GET", "/health", b"", {"Authorization": f"Bearer guess-{number}"}))
            for number in range(12)
        ]

        assert [401] * 10 + [429] * 2 == [answer.status for answer in wrong]
        assert int(wrong[-1].get("retry-after") or 0) >= 1
        assert 429 == call(running, "GET", "/health", "ADMIN").status
        assert [200, 200] == [running.status("/livez"), running.status("/readyz")]


def test_without_tokens_loopback_may_look_and_act_with_the_proof_header(unguarded: Sidecar) -> None:
    """A laptop needs no token; a page in its browser still cannot act."""
    assert 200 == call(unguarded, "GET", BREAKERS).status
    assert 403 == call(unguarded, "POST", RESET).status
    assert 403 == call(unguarded, "POST", RESET, body=b"{}", headers={"content-type": "application/json"}).status
    assert 200 == call(unguarded, "POST", RESET, headers=PROOF).status


def test_without_tokens_an_open_admin_port_only_shows(tmp_path: Path) -> None:
    """Where the kubelet can reach the port, so can the neighbours: they may look, as before, and nothing else."""
    write_files(tmp_path, config(), {"default.yaml": POLICY})
    file = tmp_path / "config.yaml"
    file.write_text(file.read_text().replace("admin: {port: 0}", "admin: {host: 0.0.0.0, port: 0}"))
    with serving(tmp_path) as running:
        assert 200 == call(running, "GET", BREAKERS).status
        assert (403, "permission_denied") == (
            (answer := call(running, "POST", RESET, headers=PROOF)).status,
            answer.error["code"],
        )


def verb(sidecar: Sidecar, *words: str, token: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proxy", *words, "--url", f"http://127.0.0.1:{sidecar.admin_port}"]
    env = {**os.environ, **({"READYGATE_TOKEN": token} if token else {})}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=30, check=False)


def test_breakers_verb_lists_and_resets(unguarded: Sidecar, guarded: Sidecar) -> None:
    """At three in the morning nobody remembers the header."""
    open_breaker(unguarded)
    listed = verb(unguarded, "breakers", "list")
    done = verb(unguarded, "breakers", "reset", "dead:*", "--format", "json")

    assert (1, True) == (listed.returncode, "dead:*" in listed.stdout)
    assert (0, "closed") == (done.returncode, json.loads(done.stdout)[0]["state"])
    assert 0 == verb(unguarded, "breakers", "list").returncode
    assert (1, True) == (
        (typo := verb(unguarded, "breakers", "reset", "ded:*")).returncode,
        "No breaker" in typo.stderr,
    )
    assert (1, True) == ((locked := verb(guarded, "breakers", "list")).returncode, "READYGATE_TOKEN" in locked.stderr)
    assert verb(guarded, "breakers", "list", token=TOKENS["VIEWER"]).returncode in (0, 1)
    assert 2 == subprocess.run(
        [sys.executable, "-m", "proxy", "breakers", "list", "--url", refused_origin()],
        cwd=ROOT, capture_output=True, timeout=30, check=False,
    ).returncode  # fmt: skip
