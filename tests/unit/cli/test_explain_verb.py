"""``readygate explain``: why a request is treated as it is, before it is sent and long after."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cli import explain as verb
from proxy.core.config.load import parse_settings
from proxy.core.policy.applies import Subject
from proxy.core.policy.load import parse_policies
from proxy.core.policy.model import NoRoute
from proxy.core.policy.trail import trail_of
from tests.support.sidecar_process import running_sidecar, wait_until

PROVIDERS = 'providers: {one: {base_url: "http://127.0.0.1:1/v1"}, two: {base_url: "http://127.0.0.1:1/v1"}}\n'
SHOP = """version: 1
policy: shop
applies_to: {apps: ["shop-*", "till"]}
redaction: {request: {default: restore, rules: [{types: [credit_card], action: block}]}}
routes:
  - {name: fast, match: {models: ["fast"]}, chain: [{provider: one}, {provider: two}]}
  - {name: files, match: {paths: ["/files*"]}, chain: [{provider: one}]}
  - {name: gpt, match: {models: ["gpt-*"]}, chain: [{provider: one}]}
"""
REST = """version: 1
policy: rest
routes: [{name: any, match: {models: ["*"]}, chain: [{provider: two}]}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text("version: 1\n" + PROVIDERS)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "shop.yaml").write_text(SHOP)
    (tmp_path / "policies" / "rest.yaml").write_text(REST)
    return tmp_path


def explain(folder: Path, *arguments: str) -> tuple[int, str, str]:
    parser = argparse.ArgumentParser()
    verb.add_parser(parser.add_subparsers())
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = verb.run(parser.parse_args(["explain", "-c", str(folder / "config.yaml"), *arguments]))
    return code, out.getvalue(), err.getvalue()


def ask(folder: Path, text: str, model: str = "fast") -> str:
    path = folder / "request.json"
    path.write_text(json.dumps({"model": model, "messages": [{"role": "user", "content": text}]}))
    return str(path)


def test_a_request_file_is_explained_from_caller_to_answer(folder: Path) -> None:
    """Rules with their inputs, findings with their places, whom it would ask."""
    code, out, _ = explain(folder, ask(folder, "mail ana@example.org"), "--app", "shop-web", "--format", "json")
    story = json.loads(out)

    assert 0 == code
    assert [
        ("policy rest: apps [*]", "fits, but less specifically"),
        ("policy shop: apps [shop-*, till]", "applies"),
        ("route fast: models [fast]", "takes it"),
    ] == [(step["rule"], step["verdict"]) for step in story["steps"]]
    assert [{"type": "email", "at": "messages[0].content", "action": "restore"}] == story["redaction"]
    assert ["one:fast"] == [attempt["deployment"] for attempt in story["attempts"]]
    assert "ana@example.org" not in out


def test_a_blocked_request_says_what_blocks_it(folder: Path) -> None:
    """Exit code 1, the code, the type and the place; never the value."""
    code, out, _ = explain(folder, ask(folder, "card 4111 1111 1111 1111"), "--app", "till")

    assert 1 == code
    assert "type=credit_card  at=messages[0].content  action=block" in out
    assert "code=content_policy_violation" in out
    assert "4111" not in out


def test_a_model_no_route_takes_is_told_with_every_pattern_that_was_tried(folder: Path) -> None:
    """The question behind most tickets: why model_not_found?"""
    code, out, _ = explain(folder, ask(folder, "hi", "claude"), "--app", "till")

    assert 1 == code
    assert "route gpt: models [gpt-*]   model 'claude', path /chat/completions: no: another model" in out
    assert "no route   model 'claude', path /chat/completions: refused: model_not_found" in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "one of the two"),
        (["nowhere.json"], "No such file"),
        (["x", "--request-id", "y"], "one of the two"),
        (["--request-id", "abc"], "x-readygate-id"),
        (["config.yaml", "--path", "chat"], "such as /v1/chat/completions"),
        (["empty.json"], "a request body is JSON"),
        (["config.yaml", "--header", "x"], "NAME:VALUE"),
    ],
)
def test_wrong_usage_is_a_plain_message(folder: Path, arguments: list[str], complaint: str) -> None:
    """No traceback for a typing mistake."""
    (folder / "empty.json").write_text("")
    known = [str(folder / one) if one in ("empty.json", "config.yaml") else one for one in arguments]
    code, _, err = explain(folder, *known)

    assert 2 == code
    assert complaint in err


@given(
    app=st.sampled_from(["", "till", "shop-web", "shop-", "other", "tills"]),
    model=st.sampled_from([None, "fast", "gpt-4o", "gpt-", "claude", "*"]),
    path=st.sampled_from(["/chat/completions", "/files", "/files/x", "/audio"]),
)
def test_the_told_choice_is_the_choice_made(app: str, model: str | None, path: str) -> None:
    """An explanation that differs from the decision would be worse than none."""
    settings = parse_settings("version: 1\n" + PROVIDERS, "config.yaml", Path("/")).settings
    assert settings is not None
    policies = parse_policies([("shop.yaml", SHOP), ("rest.yaml", REST)], settings, frozenset({"CREDIT_CARD"})).policies
    assert policies is not None
    steps = trail_of(policies, Subject(app, model=model or "", path=path), model)
    chosen = policies.select(app, model, path)

    if isinstance(chosen, NoRoute):
        assert not steps[-1].is_taken
    else:
        assert steps[-1].is_taken
        assert steps[-1].rule.startswith(f"route {chosen.name}:")
        assert any(step.is_taken and step.rule.startswith(f"policy {chosen.policy}:") for step in steps)


@pytest.mark.integration
def test_a_past_exchange_is_told_from_its_row(tmp_path: Path) -> None:
    """What the row says and what explain says agree; unknown ids are a finding, not a crash."""
    config = PROVIDERS + 'audit: {store: "sqlite:///audit.db", spool: spool, batch_wait: 10ms}\n'
    with running_sidecar(tmp_path, config, {"shop.yaml": SHOP, "rest.yaml": REST}) as sidecar:
        body = json.dumps({"model": "fast", "messages": [{"role": "user", "content": "mail ana@example.org"}]})
        request = urllib.request.Request(
            f"{sidecar.base_url}/chat/completions",
            body.encode(),
            {"content-type": "application/json", "x-readygate-app": "till"},
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        exchange_id = refused.value.headers["x-readygate-id"]
        wait_until(lambda: explain(tmp_path, "--request-id", exchange_id)[0] == 0, 10, "no row")
    _, out, _ = explain(tmp_path, "--request-id", exchange_id, "--format", "json")
    story: dict[str, Any] = json.loads(out)

    assert not re.search(r"=\d+\.\d{9,}", explain(tmp_path, "--request-id", exchange_id)[1])
    assert "route fast: models [fast]" == story["steps"][-1]["rule"]
    assert [{"type": "email", "values": 1, "replaced": 1}] == story["redaction"]
    assert ["one", "two"] == list(dict.fromkeys(attempt["provider"] for attempt in story["attempts"]))
    assert refused.value.code == story["result"]["http_status"]
    assert 1 == explain(tmp_path, "--request-id", "01a1fe41-3e95-7b71-9af1-e0688cd28f34")[0]
    # A month later the folder says something else, or nothing that can be used: the history has what decided.
    for text in (SHOP.replace("name: fast, ", "name: swift, "), SHOP.replace("routes", "routs")):
        (tmp_path / "policies" / "shop.yaml").write_text(text)
        later = json.loads(explain(tmp_path, "--request-id", exchange_id, "--format", "json")[1])
        assert story == later
    for kept in (tmp_path / "spool" / "policies").glob("*.json"):
        kept.unlink()
    _, out, _ = explain(tmp_path, "--request-id", exchange_id)
    assert "are not kept here: its rules cannot be shown" in out
    assert "policy shop, route fast" in out


def test_access_rules_are_told_with_their_verdicts(folder: Path) -> None:
    """Which rule refused, and which let pass, in the order they count."""
    policy = folder / "policies" / "rest.yaml"
    policy.write_text(REST + "access: {paths: ['/chat*'], models: [m], forbidden_params: [tools]}\n")
    (folder / "r.json").write_text('{"model": "m", "messages": [], "tools": []}')
    code, text, _ = explain(folder, str(folder / "r.json"), "--format", "json")

    assert 1 == code
    told = {step["rule"]: step["verdict"] for step in json.loads(text)["steps"]}
    assert ("allowed", "allowed", "refused: permission_denied") == tuple(
        told[f"access.{key}"] for key in ("paths", "models", "forbidden_params")
    )


@pytest.mark.parametrize("body", ["{", "[]", '"x"', "null", "\ufeff{}"])
def test_a_body_that_is_no_request_is_explained_as_it_is_decided(folder: Path, body: str) -> None:
    """What the sidecar would refuse or pass, without a traceback."""
    (folder / "r.json").write_text(body)
    code, out, err = explain(folder, str(folder / "r.json"), "--app", "till")

    assert (code in (0, 1), "") == (True, err)
    assert "answer" in out


def test_a_policy_for_a_header_is_explained_with_that_header(folder: Path) -> None:
    """Otherwise it could only be explained after it had acted."""
    other = REST.replace("policy: rest", 'policy: risk\napplies_to: {headers: {x-team: "risk-*"}}')
    (folder / "policies" / "risk.yaml").write_text(other)
    _, out, _ = explain(folder, ask(folder, "hi"), "--header", "X-Team: risk-eu")

    assert "> policy risk: apps [*] header x-team: risk-*" in out
