"""The YAML subset: what is refused, where, and that nothing makes the reader fall over."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.config import yaml_text
from proxy.core.config.yaml_text import MAX_PROBLEMS, canonical, parse_yaml

REFUSED = [
    ("a: &x 1\n", 1, 4, "anchor"),
    ("a: 1\nb: *x\n", 2, 4, "alias"),
    ("a: 1\nb: 2\na: 3\n", 3, 1, "duplicate-key"),
    ("a: {b: 1, c: 2, b: 3}\n", 1, 17, "duplicate-key"),
    ('a: 1\n"a": 2\n', 2, 1, "duplicate-key"),
    ("a:\n  <<: {b: 1}\n", 2, 3, "merge-key"),
    ("a: !!python/object/apply:os.system [ls]\n", 1, 4, "tag"),
    ("a: !!str 1\n", 1, 4, "tag"),
    ("a: !mine x\n", 1, 4, "tag"),
    ("a: 1\n---\nb: 1\n", 2, 1, "several-documents"),
    ("a: yes\n", 1, 4, "ambiguous-scalar"),
    ("a: No\n", 1, 4, "ambiguous-scalar"),
    ("a: ON\n", 1, 4, "ambiguous-scalar"),
    ("- off\n", 1, 3, "ambiguous-scalar"),
    ("on: 1\n", 1, 1, "ambiguous-scalar"),
    ("a: 010\n", 1, 4, "ambiguous-scalar"),
    ("a: 0o10\n", 1, 4, "ambiguous-scalar"),
    ("a: 0x1F\n", 1, 4, "ambiguous-scalar"),
    ("a: 1_000\n", 1, 4, "ambiguous-scalar"),
    ("a: 12:30:45\n", 1, 4, "ambiguous-scalar"),
    ("a: 12:30\n", 1, 4, "ambiguous-scalar"),
    ("a: 2024-10-21\n", 1, 4, "ambiguous-scalar"),
    ("a: .nan\n", 1, 4, "ambiguous-scalar"),
    ("a: -.INF\n", 1, 4, "ambiguous-scalar"),
    ("a: Infinity\n", 1, 4, "ambiguous-scalar"),
    ("a:\n\tb: 1\n", 2, 1, "yaml-syntax"),
    ("a: 'x\nb: 1\n", 1, 4, "yaml-syntax"),
    ("a: b: c\n", 1, 5, "yaml-syntax"),
    ("a: @x\n", 1, 4, "yaml-syntax"),
    ("? [a]\n: 1\n", 1, 3, "complex-key"),
    ("", 1, 1, "empty-file"),
    ("# nothing\n", 1, 1, "empty-file"),
    ("a: é\nb: \x07\n", 2, 4, "bad-character"),
    ("a: \ud800\n", 1, 4, "bad-character"),
    ("a: " + "[" * 40 + "\n", 1, 35, "too-deep"),
    ("a: " + "x" * (1024 * 1024) + "\n", 1, 1, "file-too-large"),
]


@pytest.mark.parametrize(("text", "line", "column", "code"), REFUSED, ids=[f"{c}-{t[:16]!r}" for t, _, _, c in REFUSED])
def test_what_the_subset_lacks_is_refused_at_its_place(text: str, line: int, column: int, code: str) -> None:
    """An author finds the place at once, and nothing is read in two ways (SE-06)."""
    _, problems = parse_yaml(text, "f.yaml")

    assert (line, column, code) in [(p.line, p.column, p.code) for p in problems]
    assert len(problems) == 1


@pytest.mark.parametrize(("text", "line", "column", "code"), REFUSED, ids=[f"{c}-{t[:16]!r}" for t, _, _, c in REFUSED])
def test_python_parser_finds_the_same_places(
    text: str, line: int, column: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without libyaml refuses the same files."""
    monkeypatch.setattr(yaml_text, "Loader", yaml.SafeLoader)

    _, problems = parse_yaml(text, "f.yaml")

    assert [code] == [p.code for p in problems]
    if code != "yaml-syntax":  # the two parsers notice some broken syntax a token apart
        assert [(line, column)] == [(p.line, p.column) for p in problems]


def test_all_problems_of_a_file_are_told_at_once() -> None:
    """Nobody has to fix a file one run at a time."""
    _, problems = parse_yaml("a: yes\nb: &x 1\na: 2\nc: !t 1\nd: 010\n", "f.yaml")

    assert [1, 2, 3, 4, 5] == [p.line for p in problems]


def test_alias_bomb_is_refused_and_stays_small() -> None:
    """The classic 306-byte bomb must not be walked (SE-06)."""
    bomb = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(8)
    )

    root, problems = parse_yaml(bomb, "f.yaml")

    assert {"anchor", "alias"} == {p.code for p in problems}
    assert len(str(canonical(root))) < 1000 if root is not None else True


def test_suggestion_tells_how_to_write_text_that_looks_like_something_else() -> None:
    """A bare `no` is the commonest surprise of YAML."""
    _, problems = parse_yaml("a: no\n", "f.yaml")

    assert 'write true or false, or "no" if it is text' == problems[0].suggestion


def test_bare_star_gets_advice_to_quote_it() -> None:
    """`models: [*]` is what everybody writes first."""
    _, problems = parse_yaml("models: [*]\n", "f.yaml")

    assert 'put text that starts with * or & in quotes, such as "*"' == problems[0].suggestion


def test_scalars_follow_the_core_schema() -> None:
    """Numbers, truth values and null are read as YAML 1.2 says; the rest is text."""
    root, problems = parse_yaml('a: [1, -2, 1.5, 1e3, true, False, null, ~, "1", v1.2, 1.2.3, 5m]\n', "f.yaml")

    assert [] == problems
    assert root is not None
    assert {"a": [1, -2, 1.5, 1000.0, True, False, None, None, "1", "v1.2", "1.2.3", "5m"]} == canonical(root)


def test_comments_and_layout_do_not_change_the_meaning() -> None:
    """The revision of a policy must not move with its comments."""
    one, _ = parse_yaml("a: 1\nb: [x, z]  # why\n", "f.yaml")
    other, _ = parse_yaml("# new\nb:\n  - x\n  - 'z'\na: 1\n", "f.yaml")

    assert one is not None
    assert other is not None
    assert canonical(one) == canonical(other)


def test_hopeless_file_gets_a_bounded_list() -> None:
    """A wrong file of a megabyte must not flood a terminal or a log (SE-06)."""
    _, problems = parse_yaml("a: b\n" * 10_000, "f.yaml")

    assert MAX_PROBLEMS + 1 == len(problems)


@given(st.text(alphabet=st.sampled_from(list("ab:-[]{}&*!|>'\"%@#?, \n\t<=~01.éx"))))
@settings(max_examples=300, deadline=None)
def test_any_text_becomes_a_tree_or_problems(text: str) -> None:
    """Whatever a half-written file holds, the reader answers."""
    root, problems = parse_yaml(text, "f.yaml")

    assert root is not None or problems
    assert all(p.line >= 1 and p.column >= 1 for p in problems)


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_unicode_becomes_a_tree_or_problems(text: str) -> None:
    """The same for any characters at all."""
    root, problems = parse_yaml(text, "f.yaml")

    assert root is not None or problems
