"""The life of a policy at a running sidecar: history, differences, and the way back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sidecar_process import ROOT
from tests.support.simulator import Simulator
from tests.support.wire import Sidecar, ask, chat, eventually, request, serving, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

POLICY = """version: 1
policy: default
redaction: {request: {default: ACTION}}
routes: [{name: any, match: {models: ["*"]}, chain: [{provider: one}], retries: none}]
"""
MAIL = "write to ana.souza@example.com"
PROOF = {"x-readygate-admin": "1", "content-type": "application/json"}


def config(provider: Simulator) -> str:
    return f'providers: {{one: {{base_url: "{provider.base_url}"}}}}\n'


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as running:
        yield running


def revision_of(sidecar: Sidecar) -> str:
    return str(sidecar.ask(chat()).get("x-readygate-policy"))


def edit(sidecar: Sidecar, action: str) -> str:
    """Change the policy and return the revision that comes of it."""
    before = revision_of(sidecar)
    (sidecar.folder / "policies" / "default.yaml").write_text(POLICY.replace("ACTION", action))
    eventually(lambda: revision_of(sidecar) != before, "the edit is not in force")
    return revision_of(sidecar)


def verb(sidecar: Sidecar, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "proxy", "policy", *words, "-c", str(sidecar.folder / "config.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout + done.stderr


def test_an_edit_is_listed_compared_and_taken_back(tmp_path: Path, provider: Simulator) -> None:
    """A bad policy is undone with one command, and the list says by whom and why."""
    with sidecar_for(tmp_path, config(provider), POLICY.replace("ACTION", "observe")) as sidecar:
        first = revision_of(sidecar)
        second = edit(sidecar, "block")
        assert 400 == sidecar.ask(chat(MAIL)).status

        code, text = verb(sidecar, "diff", first[:6])
        assert (1, True) == (code, '~ default.redaction.request.default: "observe" -> "block"' in text)
        assert 0 == verb(sidecar, "rollback", first, "--why", "too strict")[0]
        eventually(lambda: revision_of(sidecar) == first, "the rollback is not in force")

        assert 200 == sidecar.ask(chat(MAIL)).status
        listed = json.loads(verb(sidecar, "history", "--format", "json")[1])["revisions"]
        assert [(first, "too strict"), (second, "")] == [(one["revision"], one["why"]) for one in listed]


def test_a_pin_outlives_a_restart_and_ends_with_the_next_edit(tmp_path: Path, provider: Simulator) -> None:
    """A folder that cannot be written (a ConfigMap) still has a way back."""
    with sidecar_for(tmp_path, config(provider), POLICY.replace("ACTION", "observe")) as sidecar:
        first = revision_of(sidecar)
        edit(sidecar, "block")
        body = json.dumps({"revision": first, "why": "too strict"}).encode()
        answer = ask(sidecar.admin_port, request("POST", "/api/v1/policy/pin", body, PROOF))
        assert (200, first) == (answer.status, answer.json()["pin"]["revision"])
        assert first == revision_of(sidecar)
    with serving(tmp_path) as sidecar:
        assert first == revision_of(sidecar)
        assert edit(sidecar, "redact") != first
        assert sidecar.admin("/api/v1/policy").json()["pin"] is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"revision": "f" * 12}, 404),
        ({"revision": "../../config"}, 404),
        ({"revison": "f" * 12}, 400),
        ({"revision": 3}, 400),
    ],
)
def test_a_pin_that_names_no_kept_revision_is_refused(sidecar: Sidecar, body: dict[str, object], status: int) -> None:
    """What is pinned was in force before, and nothing else can be."""
    answer = ask(sidecar.admin_port, request("POST", "/api/v1/policy/pin", json.dumps(body).encode(), PROOF))

    assert status == answer.status


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory, provider: Simulator) -> Iterator[Sidecar]:
    folder = tmp_path_factory.mktemp("life")
    with sidecar_for(folder, config(provider), POLICY.replace("ACTION", "observe")) as running:
        yield running


def test_the_verb_pins_and_a_call_follows_the_folder_again(sidecar: Sidecar) -> None:
    """`rollback --pin` leaves the files alone and asks the sidecar; the way forward is one call, too."""
    first = revision_of(sidecar)
    second = edit(sidecar, "block")

    code, text = verb(sidecar, "rollback", first, "--pin", "--url", f"http://127.0.0.1:{sidecar.admin_port}")

    assert (0, True) == (code, "is pinned" in text)
    assert first == revision_of(sidecar)
    assert "default: block" in (sidecar.folder / "policies" / "default.yaml").read_text()
    assert "policy_pinned" in sidecar.log()
    assert 200 == ask(sidecar.admin_port, request("DELETE", "/api/v1/policy/pin", headers=PROOF)).status
    assert second == revision_of(sidecar)


def test_a_file_of_an_older_version_acts_and_is_upgraded_under_the_same_revision(
    tmp_path: Path, provider: Simulator
) -> None:
    """An upgrade of the language is no edit: nothing changes for anybody, and the comments are still there."""
    old = POLICY.replace("ACTION", '"off", rules: [{types: [email], action: block}]').replace("}}\n", "}}  # mine\n")
    with sidecar_for(tmp_path, config(provider), old) as sidecar:
        before = revision_of(sidecar)
        refused = sidecar.ask(chat(MAIL)).status
        shown, written, again = verb(sidecar, "upgrade"), verb(sidecar, "upgrade", "--write"), verb(sidecar, "upgrade")
        text = (sidecar.folder / "policies" / "default.yaml").read_text()
        compared = verb(sidecar, "diff", before)
        edit(sidecar, "observe")  # the watcher has looked
        history = json.loads(verb(sidecar, "history", "--format", "json")[1])["revisions"]

    assert (400, 1, 0, 0) == (refused, shown[0], written[0], again[0])
    assert "+redaction: {request: {default: ignore, rules" in shown[1]
    assert old.replace("version: 1", "version: 2").replace('"off"', "ignore") == text
    assert (0, True) == (compared[0], "the same in meaning" in compared[1])
    assert before == history[1]["revision"]
    assert 2 == len(history)
