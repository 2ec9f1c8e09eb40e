"""A policy file of an older version means what it meant, is told about at its own lines, and is rewritten with its comments."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.config.language import CannotRewrite, Language, Rename, Reword, Step, rewritten
from proxy.core.config.load import parse_settings
from proxy.core.config.problem import Mark, Problem
from proxy.core.config.yaml_text import Map, canonical, parse_yaml
from proxy.core.policy.cases import parse_cases
from proxy.core.policy.load import PolicyResult, parse_policies
from proxy.core.policy.meaning import changes_between
from proxy.core.policy.versions import upgraded
from proxy.core.redaction.detect import KNOWN_KINDS

SAMPLES = Path(__file__).parent / "samples"
OLD = (SAMPLES / "full_policy_version_1.yaml").read_text()
NEW = OLD.replace("version: 1", "version: 2").replace("output_cap:", "max_output_tokens:").replace('"off"', "ignore")
CONFIG = """version: 1
providers: {openai: {base_url: "http://h/v1"}, groq: {base_url: "http://h/v1"}, azure: {base_url: "http://h/v1"}}
prices: prices.yaml
audit: {key: {env: K}}
callers_file: callers.yaml
jwt: {issuer: x, audience: [gate], jwks: {file: keys.json}, claims: {app: azp, groups: groups}}
"""
SMALL = """version: 1
policy: a
redaction: {request: {default: "off", rules: [{types: [email], action: block}]}}
routes: [{match: {models: ["*"]}, output_cap: 500, chain: [{provider: openai}]}]
"""


def load(*texts: str) -> PolicyResult:
    known = parse_settings(CONFIG, "config.yaml", Path("/")).settings
    assert known is not None
    return parse_policies([(f"p{n}.yaml", text) for n, text in enumerate(texts)], known, KNOWN_KINDS)


def told(problem: Problem) -> tuple[int, int, str, str]:
    return problem.line, problem.column, problem.code, problem.message


def test_an_old_file_means_what_the_same_file_means_in_the_current_version() -> None:
    """The sample with every key, as it was when the version was raised: the same plans under the same revision."""
    old, new = load(OLD), load(NEW)

    assert old.policies is not None
    assert new.policies is not None
    assert new.policies.revision == old.policies.revision
    assert new.policies.policies == old.policies.policies
    assert [] == changes_between([("a", OLD)], [("a", NEW)], None)


def test_rewriting_the_old_file_gives_the_new_one() -> None:
    """Comments, layout and order stay; only the words that changed change."""
    assert (NEW, 1) == upgraded(OLD, "f")
    assert (NEW, 2) == upgraded(NEW, "f")


def test_an_old_file_is_told_about_at_its_own_lines_in_its_own_words() -> None:
    """Who wrote `output_cap` does not know of another name."""
    result = load(SMALL.replace("500", "zero").replace("block", "blok"))

    assert [
        (3, 72, "unknown-value", "`redaction.request.rules[0].action` expects one of restore, redact, mask, hash, block, observe, ignore, got 'blok'"),
        (4, 47, "wrong-type", "`routes[0].output_cap` expects a whole number from 1 to 10000000, got text"),
    ] == [told(problem) for problem in result.problems]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        (SMALL.replace("version: 1", "version: 2"), (3, 32, "unsupported"), "`ignore` since version 2"),
        (SMALL.replace("version: 1", "version: 2"), (4, 35, "unknown-key"), "max_output_tokens"),
        (SMALL.replace("500", "500, max_output_tokens: 7"), (4, 35, "duplicate-key"), "delete one"),
        (SMALL.replace("version: 1\n", ""), (1, 1, "missing-key"), "version: 2"),
        (SMALL.replace("version: 1", "version: 0"), (1, 10, "out-of-range"), "1 to 2"),
        (SMALL.replace("version: 1", "version: '1'"), (1, 10, "wrong-type"), "without quotes"),
        (SMALL.replace("version: 1", "version: true"), (1, 10, "wrong-type"), "whole number"),
        (SMALL.replace("version: 1", "version: 1.0"), (1, 10, "wrong-type"), "whole number"),
    ],
)
def test_words_of_another_version_are_told_apart(text: str, place: tuple[int, int, str], hint: str) -> None:
    """A file says in which language it is written, and that one counts."""
    result = load(text)

    assert result.policies is None
    assert hint in {(p.line, p.column, p.code): p.message + p.suggestion for p in result.problems}[place]


def test_a_file_of_a_newer_version_is_told_as_that_and_nothing_else() -> None:
    """After a downgrade nobody wants a list of keys that this release does not know."""
    newer = SMALL.replace("version: 1", "version: 3").replace("policy: a", "policy: b\nquotas: []")
    result = load(SMALL, newer)
    _, problems = parse_cases([("c", "version: 2\ncases: nothing\n")])
    config = parse_settings("version: 9\nwhat: ever\n", "config.yaml", Path("/"))

    assert [("p1.yaml", 1, 10, "version-too-new")] == [(p.file, p.line, p.column, p.code) for p in result.problems]
    assert "written in version 3" in result.problems[0].message
    assert "reads versions 1 to 2" in result.problems[0].message
    assert (["version-too-new"], ["version-too-new"]) == ([p.code for p in problems], [p.code for p in config.problems])


def test_files_of_several_versions_are_one_set() -> None:
    """A base in one version, a policy in another: each file is read by its own."""
    base = 'version: 1\nbase: company\nredaction: {request: {default: "off", rules: [{types: [cpf], action: "off"}]}}\n'
    mine = "version: 2\npolicy: a\nextends: company\nredaction: {request: {rules: [{types: [email], action: mask}]}}\noverlays: {dev: {redaction: {response: {default: ignore}}}}\nroutes: [{match: {models: [x]}, max_output_tokens: 4, chain: [{provider: openai}]}]\n"
    result = load(base, mine)

    assert result.policies is not None, result.problems
    assert "ignore" == result.policies.policies[0].routes[0].redaction.request.default


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("head", ["", "\ufeff", "# é ü 🙂\u2028# more\n"])
def test_text_around_the_words_stays_byte_for_byte(quote: str, ending: str, head: str) -> None:
    """Whoever wrote the file keeps comments, quotes, line ends and odd characters."""
    text = head + SMALL.replace('"off"', f"{quote}off{quote} ").replace("openai}]}]", "openai}]}]  # output_cap is off")
    text = text.replace("\n", ending)
    made = upgraded(text, "f").text

    expected = text.replace("version: 1", "version: 2").replace(f"{quote}off{quote}", "ignore")
    assert expected.replace("output_cap: 500", "max_output_tokens: 500") == made


@pytest.mark.parametrize(
    "text",
    ["a: [", "policy: a\n", "version: 7\npolicy: a\n", SMALL.replace("500", "500, max_output_tokens: 7"), "- 1\n"],
)
def test_what_a_person_has_to_look_at_is_not_rewritten(text: str) -> None:
    """A tool that guesses is worse than one that stops."""
    with pytest.raises(CannotRewrite):
        upgraded(text, "f")


ACTIONS = st.sampled_from(['"off"', "'off'", "block", "observe", "restore"])
POLICIES = st.builds(
    lambda default, action, cap, own: (
        f"version: 1\npolicy: a\nredaction:\n  request:\n    default: {default}  # off\n"
        f"    rules:\n      - {{types: [email], action: {action}}}\n"
        f"routes:\n  - match: {{models: ['*']}}\n    {'output_cap: 9' if cap else 'retries: none'}\n"
        f"    redaction: {{request: {{default: {own}}}}}\n    chain: [{{provider: openai}}]\n"
    ),
    ACTIONS,
    ACTIONS,
    st.booleans(),
    ACTIONS,
)


@settings(deadline=None, max_examples=60)
@given(POLICIES)
def test_every_upgraded_file_means_the_same_and_needs_no_second_time(text: str) -> None:
    """What the loader does to the tree and what the verb does to the text are the same edits."""
    made = upgraded(text, "f").text
    old, new = load(text), load(made)

    assert (made, 2) == upgraded(made, "f")
    assert (old.policies is None) == (new.policies is None)
    if old.policies is not None and new.policies is not None:
        assert (old.policies.revision, old.policies.policies) == (new.policies.revision, new.policies.policies)
    assert [(p.line, p.code) for p in old.problems] == [(p.line, p.code) for p in new.problems]


def _three(root: Map) -> list[Rename | Reword]:
    entry = root.entries["colour"]
    return [Rename(entry.mark, "colour", "shade"), Reword(entry.node.mark, "dark", "dim")]


def _two(root: Map) -> list[Rename | Reword]:
    entry = root.entries["color"]
    return [Rename(entry.mark, "color", "colour"), Reword(entry.node.mark, "black", "dark")]


def test_steps_follow_one_another_and_the_text_is_written_once() -> None:
    """A file two versions behind goes through both steps, with one edit at each place in the end."""
    language = Language((Step("colour", _two), Step("shade", _three)))
    text = 'version: 1\n"color": black  # color\n'
    root, problems = parse_yaml(text, "f")
    assert isinstance(root, Map)
    tree, edits = language.read(root, problems)
    made = rewritten(text, edits)

    assert ("version: 3\nshade: dim  # color\n", []) == (made, problems)
    assert {"version": 3, "shade": "dim"} == canonical(tree)
    assert Mark("f", 2, 1) == tree.entries["shade"].mark
