"""``readygate test``: cases beside the policies decide whether an edit is what its author meant."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.cli import test as verb
from proxy.cli.check import find_problems

ROOT = Path(__file__).parents[3]
CONFIG = """
version: 1
providers:
  one: {base_url: "http://127.0.0.1:1/v1"}
  two: {base_url: "http://127.0.0.1:1/v1"}
"""
POLICY = """
version: 1
policy: p
redaction: {request: {default: restore, rules: [{types: [credit_card], action: block}]}}
budgets: [{provider: one, requests_per_minute: 5, when_exhausted: refuse}]
routes: [{name: r, match: {models: ["*"]}, chain: [{provider: one}, {provider: two}], retries: none}]
"""


def folder(tmp_path: Path, cases: str, policy: str = POLICY) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(policy)
    (tmp_path / "policies" / "p.cases.yaml").write_text("version: 1\ncases:\n" + cases)
    return tmp_path


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def play(at: Path, *arguments: str) -> Done:
    parser = argparse.ArgumentParser()
    verb.add_parser(parser.add_subparsers())
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = verb.run(parser.parse_args(["test", "-c", str(at / "config.yaml"), *arguments]))
    return Done(code, out.getvalue(), err.getvalue())


def test_every_case_of_the_repository_holds_and_every_rule_is_touched() -> None:
    """The sample policies do what their cases say, and no rule stands there untried."""
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "test", "-c", "config.yaml", "--require-coverage"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    assert ", 0 rules untouched" in done.stdout


def test_a_case_that_does_not_hold_says_where_and_what(tmp_path: Path) -> None:
    """File, line, what was expected and what came."""
    at = folder(tmp_path, "  - {name: wrong, request: {model: m, text: hi}, expect: {targets: [two:m], status: 200}}\n")
    done = play(at)

    assert 1 == done.returncode
    assert f"{at}/policies/p.cases.yaml:3:5: FAILED wrong" in done.stdout
    assert "targets: expected ['two:m'], got ['one:m']" in done.stdout


@pytest.mark.parametrize(
    ("given", "request_", "expected"),
    [
        ("{}", "text: 'card 4111 1111 1111 1111'", "{code: content_policy_violation, result: blocked, targets: []}"),
        ("{providers: {one: [{fails: ttfb_timeout}]}}", "text: hi", "{result: fallback, targets: [one:m, two:m]}"),
        ("{providers: {one: [{status: 500}, {status: 200}]}}", "text: hi", "{targets: [one:m, two:m], status: 200}"),
        ("{spent: [one]}", "text: hi", "{status: 429, result: rate_limited, targets: []}"),
        ("{open_breakers: ['one:*']}", "text: hi", "{targets: [two:m], skipped: ['one:breaker_open']}"),
        ("{providers: {one: [{text: yes}]}}".replace("yes", "'Ja.'"), "text: hi", "{answer: {contains: ['Ja.']}}"),
        ("{}", "text: ana@example.org, stream: true", "{sent: {lacks: [ana@]}, answer: {contains: [ana@example.org]}}"),
    ],
)
def test_decisions_are_those_of_the_running_sidecar(tmp_path: Path, given: str, request_: str, expected: str) -> None:
    """Blocks, fallbacks, spent budgets, open breakers, restoring: the real relay decides."""
    case = f"  - {{name: c, given: {given}, request: {{model: m, {request_}}}, expect: {expected}}}\n"
    done = play(folder(tmp_path, case))

    assert 0 == done.returncode, done.stdout + done.stderr


def test_waiting_costs_no_time(tmp_path: Path) -> None:
    """The pause before a second try passes on a virtual clock."""
    policy = POLICY.replace("retries: none", "retries: once").replace(", {provider: two}", "")
    case = (
        "  - {name: c, given: {providers: {one: [{status: 503}, {status: 200}]}},"
        " request: {model: m, text: hi}, expect: {status: 200, targets: [one:m, one:m]}}\n"
    )
    done = play(folder(tmp_path, case, policy), "--format", "json")

    assert 0 == done.returncode, done.stdout


def test_rules_no_case_touches_are_named_and_can_fail_the_run(tmp_path: Path) -> None:
    """A rule without a case is a rule nobody has tried."""
    at = folder(tmp_path, "  - {name: c, request: {model: m, text: hi}, expect: {status: 200}}\n")

    assert 0 == play(at).returncode
    done = play(at, "--require-coverage")
    assert 1 == done.returncode
    for part in ("link r[2] two:*", "budget one", "redaction rule [credit_card] block", "redaction default restore"):
        assert f"{part} of policy p: no case touches it" in done.stdout


def test_junit_report_holds_every_case(tmp_path: Path) -> None:
    """CI systems read JUnit."""
    cases = (
        "  - {name: good, request: {model: m, text: hi}, expect: {status: 200}}\n"
        "  - {name: 'bad <&>', request: {model: m, text: hi}, expect: {status: 404}}\n"
    )
    at = folder(tmp_path, cases)
    play(at, "--junit", str(at / "report.xml"))
    suite = ET.fromstring((at / "report.xml").read_text())  # noqa: S314 - our own report

    assert ("2", "1") == (suite.get("tests"), suite.get("failures"))
    failure = suite.findall("testcase")[1].find("failure")
    assert failure is not None
    assert "status: expected 404, got 200" == failure.get("message")


@pytest.mark.parametrize(
    ("cases", "complaint"),
    [
        ("  - {name: c, expct: {}}\n", "p.cases.yaml:3:15: error[unknown-key]: no key `expct`"),
        ("  - {name: c, columns: [request.text]}\n", "needs both `columns` and `rows`"),
        ("  - {name: c, columns: [request.text], rows: [[a, b]]}\n", "a row needs 1 values, one per column"),
        ("  - {name: c, columns: [request.txt], rows: [[a]]}\n", "did you mean `text`?"),
        ("  - {name: c, request: {path: /chat}}\n", "begins with /v1/"),
    ],
)
def test_a_mistake_in_a_case_file_is_told_with_its_place(tmp_path: Path, cases: str, complaint: str) -> None:
    """A case that is read wrongly would hold for the wrong reason."""
    done = play(folder(tmp_path, cases))

    assert 2 == done.returncode
    assert complaint in done.stderr


def test_only_some_cases_can_be_played(tmp_path: Path) -> None:
    """While one writes a case, one plays that one."""
    cases = (
        "  - {name: first, request: {model: m, text: hi}, expect: {status: 200}}\n"
        "  - {name: second, request: {model: m, text: hi}, expect: {status: 404}}\n"
    )
    done = play(folder(tmp_path, cases), "-k", "first", "--format", "json")

    assert 0 == done.returncode
    assert ["first"] == [case["name"] for case in json.loads(done.stdout)["cases"]]


def test_access_rules_are_played_and_counted_by_coverage(tmp_path: Path) -> None:
    """An allowlist that no case runs into is one that nobody has seen act."""
    policy = POLICY + "access: {models: [m], forbidden_params: [tools], providers: [one, two]}\n"
    case = "  - {name: not there, request: {model: x, text: hi}, expect: {code: model_not_found, result: blocked}}\n"
    done = play(folder(tmp_path, case, policy))

    assert 0 == done.returncode
    assert "access rule forbidden_params" in done.stdout
    assert "access rule models" not in done.stdout


@pytest.mark.parametrize(
    ("case", "place", "code", "hint"),
    [
        ("given: {spent: [groq]}, expect: {status: 200}", "3:31", "unknown-budget", "known: one, p/one"),
        ("given: {providers: {won: [{status: 503}]}}, expect: {status: 200}", "3:35", "unknown-provider", "`two`"),
        ('given: {open_breakers: ["one:m"]}, expect: {status: 200}', "3:39", "unknown-deployment", "`one:*`"),
        ("expect: {policy: q}", "3:32", "unknown-policy", "known: p"),
        ("expect: {route: rr}", "3:31", "unknown-route", "`r`"),
        ("expect: {findings: {emial: 1}}", "3:35", "unknown-type", "`email`"),
        ("expect: {row: {statuss: x}}", "3:30", "unknown-column", "`status`"),
        ("expect: {}", "3:5", "no-effect", "expects nothing"),
        ("request: {body: {a: 1}, text: hi}, expect: {status: 200}", "3:45", "unreachable-setting", "the body"),
        ("request: {groups: [eng]}, expect: {status: 200}", "3:5", "unreachable-setting", "jwt"),
    ],
)
def test_what_names_nothing_is_told_by_check_and_keeps_a_case_from_holding(
    tmp_path: Path, case: str, place: str, code: str, hint: str
) -> None:
    """A budget that is not spent, a provider that does not fail: the case would hold for the wrong reason."""
    at = folder(tmp_path, f"  - {{name: x, {case}}}\n")
    problems, _ = find_problems(at / "config.yaml")
    told = [str(problem) for problem in problems if problem.code == code]

    assert 1 == len(told), problems
    assert f"p.cases.yaml:{place}:" in told[0]
    assert hint in told[0]
    assert (2 if "error" in told[0] else 0) == play(at).returncode


def test_two_cases_of_one_name_are_told(tmp_path: Path) -> None:
    """A report that names one of them names neither."""
    case = "  - {name: x, expect: {status: 200}}\n"
    problems, _ = find_problems(folder(tmp_path, case * 2) / "config.yaml")

    assert 1 == [problem.code for problem in problems].count("duplicate-name")


def test_a_budget_counted_by_caller_key_can_be_spent_in_a_case(tmp_path: Path) -> None:
    """A case names the app; the key that the app has is the one whose counter is used up."""
    at = folder(
        tmp_path,
        "  - {name: x, request: {app: shop, text: hi}, given: {spent: [one-per-caller]}, expect: {status: 429}}\n",
    )
    (at / "config.yaml").write_text(CONFIG + f"callers: [{{name: shop-key, app: shop, sha256: {'a' * 64}}}]\n")
    (at / "policies" / "p.yaml").write_text(
        POLICY.replace("requests_per_minute: 5", "requests_per_minute: 5, per: [caller]")
    )

    assert 0 == play(at).returncode, play(at).stdout


@pytest.mark.parametrize(
    ("table", "place", "code"),
    [
        ("name: 7, columns: [request.text], rows: [[hi]]", "3:12", "wrong-type"),
        ("name: x, columns: [7], rows: [[hi]]", "3:25", "wrong-type"),
        ("name: x, request: 7, columns: [request.text], rows: [[hi]]", "3:24", "wrong-type"),
        ("name: x, columns: [request.text], rows: []", "3:46", "out-of-range"),
        ("name: x, columns: [request.text], rows: [[hi, 2]]", "3:47", "bad-value"),
    ],
)
def test_a_table_of_cases_is_read_as_strictly_as_a_case(tmp_path: Path, table: str, place: str, code: str) -> None:
    """What unfolding fills in must not paint over what was written."""
    problems, _ = find_problems(folder(tmp_path, f"  - {{{table}}}\n") / "config.yaml")

    assert [(place, code)] == [(f"{p.line}:{p.column}", p.code) for p in problems if p.is_error]
