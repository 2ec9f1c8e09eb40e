"""``readygate check``: output and exit codes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from proxy.cli import check

ROOT = Path(__file__).parents[3]
CONFIG = 'version: 1\nproviders: {local: {base_url: "http://127.0.0.1:1/v1"}}\n'
POLICY = 'version: 2\npolicy: p\nroutes: [{match: {models: ["*"]}, chain: [{provider: local}]}]\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(POLICY)
    return tmp_path


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    check.add_parser(parser.add_subparsers())
    args = parser.parse_args(["check", *arguments])
    return int(args.run(args))


def test_good_files_give_zero(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to say is said in one line."""
    assert 0 == run("-c", str(folder / "config.yaml"))
    assert f"{folder}/config.yaml: good\n" == capsys.readouterr().out


def test_files_of_the_repository_pass_without_any_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A newcomer without keys sees which are missing, and no error."""
    for name in ("OPENAI", "GROQ", "CEREBRAS", "GEMINI", "OPENROUTER", "AZURE_OPENAI"):
        monkeypatch.delenv(f"{name}_API_KEY", raising=False)

    assert 0 == run("-c", str(ROOT / "config.yaml"), "--format", "json")
    found = json.loads(capsys.readouterr().out)
    assert (0, 6) == (found["errors"], found["lints"])
    assert {"unset-secret"} == {problem["code"] for problem in found["problems"]}


def test_every_problem_is_printed_with_its_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Editors and people jump to file:line:column."""
    (folder / "policies" / "p.yaml").write_text(POLICY + "mode: x\naudt: {}\n")

    assert 1 == run("-c", str(folder / "config.yaml"))
    lines = capsys.readouterr().out.splitlines()
    assert [
        f"{folder}/policies/p.yaml:4:7: error[unknown-value]: `mode` expects one of enforce, observe, got 'x'",
        f"{folder}/policies/p.yaml:5:1: error[unknown-key]: no key `audt` at the top of the file (did you mean `audit`?)",
        f"{folder}/config.yaml: 2 errors",
    ] == lines


def test_json_holds_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For CI."""
    (folder / "config.yaml").write_text(CONFIG + "lgo: {}\n")

    assert 1 == run("-c", str(folder / "config.yaml"), "--format", "json")
    assert {
        "errors": 1,
        "lints": 0,
        "problems": [
            {
                "file": f"{folder}/config.yaml",
                "line": 3,
                "column": 1,
                "severity": "error",
                "code": "unknown-key",
                "message": "no key `lgo` at the top of the file",
                "suggestion": "did you mean `log`?",
            }
        ],
    } == json.loads(capsys.readouterr().out)


def test_missing_config_gives_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong -c is a usage error, not a finding."""
    assert 2 == run("-c", str(tmp_path / "config.yaml"))
    assert "error[missing-file]: there is no such config file" in capsys.readouterr().out


def test_missing_policy_folder_is_a_finding(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a policy nothing may pass, so serve would not become ready."""
    (folder / "policies").rename(folder / "away")

    assert 1 == run("-c", str(folder / "config.yaml"))
    assert "missing-folder" in capsys.readouterr().out


def test_strict_lets_lints_fail(folder: Path) -> None:
    """For pipelines that want no loose ends."""
    (folder / "policies" / "old.yml").write_text("x")

    assert 0 == run("-c", str(folder / "config.yaml"))
    assert 1 == run("-c", str(folder / "config.yaml"), "--strict")


def test_type_that_fires_on_everyday_text_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pattern of five digits would redact order numbers and prices; the author learns it before the users do."""
    types = """redaction:
  request: {default: restore}
  types:
    - {name: broad, pattern: "[0-9]{5}", examples: {match: ["12345"]}}
    - {name: narrow, pattern: "EMP-[0-9]{5}", examples: {match: ["EMP-12345"]}}
"""
    (folder / "policies" / "p.yaml").write_text(POLICY + types)

    assert 0 == run("-c", str(folder / "config.yaml"))
    out = capsys.readouterr().out
    assert "p.yaml:7:30: lint[broad-type]: type broad fires on " in out
    assert "narrow" not in out


def test_github_format_annotates_the_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pull request shows the mistake where it stands; separators inside a message cannot end it."""
    (folder / "policies" / "p.yaml").write_text(POLICY + "mode: 'a,b:c%d'\n")

    assert 1 == run("-c", str(folder / "config.yaml"), "--format", "github")
    assert (
        f"::error file={folder}/policies/p.yaml,line=4,col=7,title=unknown-value::"
        "`mode` expects one of enforce, observe, got 'a,b:c%25d'\n"
    ) == capsys.readouterr().out


def test_sarif_format_carries_place_level_and_rule(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Code hosts read SARIF: every problem is one result of a declared rule."""
    (folder / "policies" / "p.yaml").write_text(POLICY + "audt: {}\n")

    assert 1 == run("-c", str(folder / "config.yaml"), "--format", "sarif")
    log = json.loads(capsys.readouterr().out)
    (result,) = log["runs"][0]["results"]
    assert ("2.1.0", "unknown-key", "error") == (log["version"], result["ruleId"], result["level"])
    assert {"startLine": 4, "startColumn": 1} == result["locations"][0]["physicalLocation"]["region"]
    assert [{"id": "unknown-key"}] == log["runs"][0]["tool"]["driver"]["rules"]


def test_a_file_of_an_older_version_is_good_and_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no mistake, also with --strict; but nobody else would say that there is a newer language."""
    (folder / "policies" / "p.yaml").write_text(POLICY.replace("version: 2", "version: 1"))

    assert 0 == run("-c", str(folder / "config.yaml"), "--strict")
    told = capsys.readouterr().out.splitlines()
    assert f"{folder}/config.yaml: good" == told[0]
    assert "1 policy file in an older version of the language: `readygate policy upgrade`" == told[1]
