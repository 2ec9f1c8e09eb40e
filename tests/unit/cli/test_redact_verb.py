"""``readygate redact``: output and exit codes."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import pytest

from proxy.cli import main

CONFIG = 'version: 1\nproviders: {local: {base_url: "http://127.0.0.1:1/v1"}}\n'
POLICY = """version: 1
policy: p
redaction:
  request:
    default: mask
    rules:
      - {types: [credit_card], action: block}
      - {types: [ip_address], action: "off"}
  types: [{name: badge, terms: ["Blue Badge"]}]
routes: [{match: {models: ["*"]}, chain: [{provider: local}]}]
"""
TEXT = "write to ana@example.com, cpf 529.982.247-25\n"


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(POLICY)
    return str(tmp_path / "config.yaml")


class Terminal:
    """The verb with a text on standard input."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, text: str, *arguments: str) -> tuple[int, str, str]:
        """Return exit code, output and messages."""
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        code = main(["redact", *arguments])
        out, err = self._capsys.readouterr()
        return code, out, err


@pytest.fixture
def redact(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(monkeypatch, capsys)


def test_text_comes_out_as_it_would_leave(redact: Terminal) -> None:
    """A filter: text in, text out, nothing else."""
    assert (0, "write to [EMAIL-1], cpf [CPF-1]\n", "") == redact(TEXT)
    assert (0, "nothing here", "") == redact("nothing here")


def test_explain_says_where_and_why(redact: Terminal) -> None:
    """A policy author must see what made a finding before trusting it or allowing it away."""
    code, out, _ = redact(TEXT, "--explain", "--restore")

    assert 0 == code
    table = [line.split() for line in out.splitlines()[1:4]]
    assert ["email", "messages.0.content", "9-24", "0.95", "restore", "[EMAIL-1]", "form"] == table[1]
    assert ["cpf", "messages.0.content", "30-44", "0.95", "restore", "[CPF-1]", "form", "and", "check", "cpf"] == table[
        2
    ]
    assert "restored 2 placeholders: identical" in out


def test_diff_shows_both_sides_with_and_without_color(redact: Terminal) -> None:
    """People read colours, pipes read brackets."""
    assert "write to [-ana@example.com-]{+[EMAIL-1]+}, cpf" in redact(TEXT, "--diff")[1]
    assert "\x1b[31;9mana@example.com\x1b[0m\x1b[32m[EMAIL-1]\x1b[0m" in redact(TEXT, "--diff", "--color", "always")[1]


def test_json_is_redacted_field_by_field(redact: Terminal) -> None:
    """Requests are documents; keys and structure stay."""
    request = {"messages": [{"role": "user", "content": "hi ana@example.com"}], "max_tokens": 5}
    code, out, _ = redact(json.dumps(request), "--format", "json")
    shown = json.loads(out)

    assert 0 == code
    assert {"messages": [{"role": "user", "content": "hi [EMAIL-1]"}], "max_tokens": 5} == shown["redacted"]
    assert [("email", "messages.0.content", 3, 18)] == [
        (f["type"], f["where"], f["start"], f["end"]) for f in shown["findings"]
    ]
    assert "ana@example.com" not in json.dumps(shown["findings"])


def test_policy_decides_what_happens(redact: Terminal, config: str) -> None:
    """The same plan the sidecar would use: actions, own types, types switched off."""
    code, out, _ = redact("ana@example.com 203.0.113.7 Blue Badge", "-c", config)

    assert (0, "********mple.com 203.0.113.7".split()[1]) == (code, out.split()[1])
    assert "ana" not in out
    assert "Blue" not in out


def test_text_the_policy_blocks_is_not_printed(redact: Terminal, config: str) -> None:
    """Exit code 1 and the types, never the value."""
    code, out, err = redact("card 4111 1111 1111 1111", "-c", config)

    assert (1, "") == (code, out)
    assert "blocked: credit_card at messages[0].content" in err


def test_check_fails_only_when_something_is_found(redact: Terminal) -> None:
    """For commit hooks."""
    assert 1 == redact(TEXT, "--check")[0]
    assert (0, "nothing found\n", "") == redact("nothing here", "--check")


def test_what_cannot_be_read_gives_two(redact: Terminal, tmp_path: Path) -> None:
    """Wrong usage is no finding."""
    assert 2 == redact("", str(tmp_path / "away.txt"))[0]
    assert 2 == redact("{nope", "--as", "json")[0]
    assert 2 == redact("x", "-c", str(tmp_path / "config.yaml"))[0]


def test_large_text_full_of_values_takes_no_longer_per_value(redact: Terminal) -> None:
    """The text is searched once for all of its values, not once for each."""
    begun_s = time.monotonic()
    code, out, _ = redact("lorem ipsum ana5@example.com 12-3 " * 4000, "--explain")

    assert (0, 4001) == (code, out.count("\nemail ") + 1)
    assert time.monotonic() - begun_s < 15, "minutes, where each value searched the text again"


def test_json_comes_out_with_its_digits_and_escapes(redact: Terminal) -> None:
    """What no fast parser takes is shown all the same."""
    text = '{"a": "ana@example.com \\ud83d", "b": 123456789012345678901234567890}'
    _, out, _ = redact(text, "--restore")
    shown, _, last = out.rstrip().rpartition("\n")

    assert {"a": "[EMAIL-1] \ud83d", "b": 123456789012345678901234567890} == json.loads(shown)
    assert "restored 1 placeholders: identical" == last
    assert 2 == redact('{"a":' + "[" * 900 + "1" + "]" * 900 + "}")[0]


def test_name_of_a_member_is_shown_as_one(redact: Terminal) -> None:
    """An empty place tells nobody where to look."""
    _, out, _ = redact('{"metadata": {"ana@example.com": 1}}', "--check")

    assert "metadata (a key)" in out
