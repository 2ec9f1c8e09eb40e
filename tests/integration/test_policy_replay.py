"""What `replay` says would change is what changes when the policies in question act on the same traffic."""

from __future__ import annotations

import contextlib
import json
import sqlite3
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
    eventually(lambda: len(sidecar.rows("id >= ?", min(ids))) >= len(ids), "rows are missing", 60)
    rows = {row["id"]: row for row in sidecar.rows("id >= ?", min(ids))}
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


BUDGETS = """version: 2
policy: default
audit: {content: CONTENT}
budgets:
  - {id: small, provider: one, route: any, requests_per_day: FIRST, per: [app], when_exhausted: next}
  - {id: words, provider: two, tokens_per_day: SECOND, when_exhausted: next}
  - {id: side, route: side, requests_per_day: THIRD, when_exhausted: refuse}
  - {id: few, app: mail, requests_per_day: FEW, when_exhausted: refuse}
  - {id: dear, app: till, route: any, cost_per_day_usd: COST, when_exhausted: refuse}
routes:
  - {name: any, match: {models: ["gpt-*"]}, chain: [{provider: one}, {provider: two, model: gpt-other}], retries: none}
  - {name: side, match: {models: ["side"]}, chain: [{provider: one}], retries: none}
"""
PRICES = """version: 1
revision: "t"
prices: [{provider: one, model: "*", input: 10, output: 20}, {provider: two, model: "*", input: 10, output: 20}]
"""
KEY = "READYGATE_AUDIT_KEY"
AUDIT = f"audit: {{store: 'sqlite:///audit.db', spool: spool, batch_wait: 20ms, key: {{env: {KEY}}}}}\n"


def limits(content: str, **numbers: float) -> str:
    text = BUDGETS.replace("CONTENT", content)
    for word, value in numbers.items():
        text = text.replace(word, str(value))
    return text


def spending(count: int) -> list[bytes]:
    """Answers of named and of assumed length, in turn; a budget of tokens holds them to what they may become."""
    asked: list[bytes] = []
    for n in range(count):
        model = "side" if n % 4 == 3 else "gpt-4o"
        more = {"max_tokens": 40} if n % 3 else {}
        asked.append(chat(TEXTS[n % 2] * (1 + n % 5), headers={"x-readygate-app": APPS[n % 3]}, model=model, **more))
    return asked


@pytest.mark.parametrize("count", [60, pytest.param(2_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("content", ["full", pytest.param("none", marks=pytest.mark.slow)])
def test_other_budgets_are_played_in_the_order_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, content: str
) -> None:
    """Requests, tokens and cost; next and refuse: what replay lists is what a sidecar with these limits then does.

    What tokens are held is known from the words; without them the play is exact for requests.
    """
    monkeypatch.setenv(KEY, "k" * 40)
    (tmp_path / "next").mkdir()
    now = limits(content, FIRST=count // 6, SECOND=10**6, THIRD=count // 10, FEW=10**6, COST=10)
    words = (60 * count, 0.0002 * count) if content == "full" else (10**6, 10)
    then = limits(content, FIRST=count // 12, SECOND=words[0], THIRD=count // 6, FEW=count // 4, COST=words[1])
    (tmp_path / "next" / "default.yaml").write_text(then)
    found = {}
    with threaded_simulator() as provider:
        url = provider.base_url
        config = f'providers: {{one: {{base_url: "{url}"}}, two: {{base_url: "{url}"}}}}\nprices: prices.yaml\n{AUDIT}'
        for name, text in {"now": now, "then": then}.items():
            folder = tmp_path / name
            folder.mkdir()
            (folder / "prices.yaml").write_text(PRICES)
            with sidecar_for(folder, config, text) as sidecar:
                found[name] = play(sidecar, spending(count))
                if name == "now":
                    more = ["--content"] if content == "full" else []
                    same = replay(sidecar, *more)
                    code, report = replay(sidecar, "--policies", str(tmp_path / "next"), *more)

    pairs = list(zip(found["now"], found["then"], strict=True))
    really = Counter((a["app"], what) for a, b in pairs for what in seen(a, b))
    said: Counter[tuple[str, str]] = Counter()
    for one in report["changes"]:
        said[one["app"], one["what"]] += one["count"]
    assert (0, 0, 0) == (same[0], same[1]["changed"], same[1]["budgets"]["unsure"])
    assert really == said
    assert {"refused", "admitted", "target"} <= {what for _, what in said}
    assert (1, 0) == (code, report["budgets"]["unsure"])
    assert ({"read": count, "unreadable": 0} if content == "full" else None) == report["content"]
    assert (report["budgets"]["estimated"] == 0) is (content == "full")


LOOSE = """version: 2
policy: default
audit: {content: CONTENT}
redaction: {request: {default: ignore, rules: [{types: [email], action: restore}]}}
routes: [{name: any, match: {models: ["*"]}, chain: [{provider: one}], retries: none}]
"""
TIGHT = """version: 2
policy: default
access: {forbidden_params: [logit_bias]}
redaction:
  request: {default: mask, rules: [{types: [cpf], action: block}, {types: [email], action: restore}]}
  response: {default: redact}
routes: [{name: any, match: {models: ["*"]}, chain: [{provider: one}], retries: none}]
"""


@pytest.mark.parametrize("content", [pytest.param("full", marks=pytest.mark.slow), "redacted"])
def test_kept_words_are_read_again_by_the_policies_in_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """Types that nobody looked for then, and parameters that nobody limited, are found in the words, and in nothing else."""
    monkeypatch.setenv(KEY, "k" * 40)
    (tmp_path / "next").mkdir()
    (tmp_path / "next" / "default.yaml").write_text(TIGHT)
    sent = [chat(text, headers={"x-readygate-user": "ana"}) for text in TEXTS] + [chat("hello", logit_bias={})]
    with threaded_simulator() as provider:
        config = f'providers: {{one: {{base_url: "{provider.base_url}"}}}}\n{AUDIT}'
        with sidecar_for(tmp_path, config, LOOSE.replace("CONTENT", content)) as sidecar:
            before = play(sidecar, sent)
            eventually(lambda: replay(sidecar, "--content")[1]["content"]["read"] == len(sent), "words are missing")
            blind = replay(sidecar, "--policies", str(tmp_path / "next"))[1]
            _, report = replay(sidecar, "--policies", str(tmp_path / "next"), "--content")
            put_in_force(sidecar, TIGHT)
            after = play(sidecar, sent)
            with contextlib.closing(sqlite3.connect(sidecar.folder / "audit.db")) as connection:
                noted = connection.execute("SELECT detail FROM audit_actions").fetchall()

    really = Counter(what for a, b in zip(before, after, strict=True) for what in seen(a, b))
    said = Counter({one["what"]: 0 for one in report["changes"]})
    for one in report["changes"]:
        said[one["what"]] += one["count"]
    answers = said.pop("answer", 0)
    assert really == said
    assert {"refused": 2, "redaction": 2} == dict(really)
    assert (0, len(sent)) == (report["partly_known"], blind["partly_known"])
    assert (len(sent), 0) == (report["content"]["read"], blind["changed"])
    assert answers == sum(bool(json.loads(row["response_findings"])) for row in after if row["http_status"] == 200)
    assert any("replay since" in str(detail) for (detail,) in noted)
