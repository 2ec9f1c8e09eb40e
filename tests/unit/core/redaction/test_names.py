"""What is believed of a names service, how texts become questions, and how its findings join the others."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from proxy.core.redaction.names import Implausible, Question, WithNames, pieces, questions, read_answer, select
from proxy.terms.redaction import Finding
from tests.support.names_service import honest, in_utf16

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 60) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
ROW = st.fixed_dictionaries(
    {
        "entity_type": st.sampled_from(["PERSON", "LOCATION", "DATE_TIME"]) | ANYTHING,
        "start": st.integers(-2, 40) | ANYTHING,
        "end": st.integers(-2, 60) | ANYTHING,
        "score": st.floats(0, 1) | ANYTHING,
    }
)


@given(ANYTHING | st.lists(ROW, max_size=5), st.text(max_size=40))
def test_any_answer_is_refused_or_yields_findings_inside_the_text(answer: Any, text: str) -> None:
    """Disjoint, in order, and of types of ours."""
    try:
        found = read_answer(answer, text)
    except Implausible:
        return
    last = 0
    for finding in found:
        assert last <= finding.start < finding.end <= len(text)
        assert finding.kind in {"PERSON", "ADDRESS"}
        last = finding.end


PROSE = st.lists(st.sampled_from(["Ana Silva", "Zoë", "😀", "word", "ação", "🏳️‍🌈"]), min_size=1, max_size=8).map(
    " ".join
)


def _are_words(text: str, start: int, end: int) -> bool:
    return end <= len(text) and text[max(0, start - 1) : start] in ("", " ") and text[end : end + 1] in ("", " ")


@given(PROSE)
@example("\U0001f600 \U0001f3f3\ufe0f\u200d\U0001f308 Ana Silva \U0001f600 word")
def test_both_ways_of_counting_find_the_same(text: str) -> None:
    """Where the service counts UTF-16 units, too, unless what it says makes sense in characters as well."""
    assume(not all(_are_words(text, row["start"], row["end"]) for row in in_utf16(text)) or text.isascii())

    assert read_answer(honest(text), text) == read_answer(in_utf16(text), text)


@given(st.lists(st.text("ab 😀\n", min_size=1, max_size=9000), unique=True, max_size=12))
def test_every_text_is_in_one_question_and_gets_its_own_findings(texts: list[str]) -> None:
    """A finding over everything is everything of each part."""
    asked = questions(texts)

    assert texts == [part for question in asked for part in question.parts]
    for question in asked:
        shares = question.share([Finding(0, len(question.text), "PERSON", 0.9)])
        assert {part: [Finding(0, len(part), "PERSON", 0.9)] for part in question.parts} == shares


@given(st.lists(st.sampled_from(["word", "\n", ". ", " ", "x" * 5000]), max_size=60).map("".join))
def test_pieces_are_the_text(text: str) -> None:
    """In order, none of them long, none empty but for an empty text."""
    cut = pieces(text)

    assert text == "".join(piece for _, piece in cut)
    assert all(text.startswith(piece, at) and len(piece) <= 4096 for at, piece in cut)
    assert all(piece for _, piece in cut) or not text


@given(st.lists(st.text(min_size=1, max_size=60), unique=True, max_size=8), st.integers(0, 200))
def test_selection_asks_about_no_more_than_the_limit_and_counts_the_rest(texts: list[str], limit: int) -> None:
    """What is asked and what is cut are all there is."""
    chosen = select(texts, limit)
    asked_bytes = sum(len(text.encode()) for text in chosen.asked)

    assert limit >= asked_bytes
    assert sum(len(text.encode()) for text in texts) == asked_bytes + chosen.cut_bytes
    assert all(text.startswith(head) for text, head in chosen.shortened.items())


def test_finding_over_a_seam_is_clipped_to_both_sides() -> None:
    """Nothing of it is lost."""
    shares = Question("ab\n\ncd", ("ab", "cd")).share([Finding(1, 5, "PERSON", 0.9)])

    assert {"ab": [Finding(1, 2, "PERSON", 0.9)], "cd": [Finding(0, 1, "PERSON", 0.9)]} == shares


class _Emails:
    def find(self, text: str) -> list[Finding]:
        return [Finding(4, 11, "EMAIL", 0.9)]

    def find_labelled(self, text: str, label: str) -> list[Finding]:
        return self.find(text)

    def may_contain(self, raw: bytes) -> bool:
        return False

    def is_silent(self, raw: bytes) -> bool:
        return True


@pytest.mark.parametrize(
    ("named", "kinds"),
    [((0, 3, "PERSON"), ["PERSON", "EMAIL"]), ((2, 6, "PERSON"), ["PERSON", "EMAIL"]), ((0, 3, "ADDRESS"), ["EMAIL"])],
)
def test_structured_findings_win_over_names(named: tuple[int, int, str], kinds: list[str]) -> None:
    """And types that policy does not ask for are not there."""
    detector = WithNames(_Emails(), {"Ana a@b.com": [Finding(*named, 0.9)]}, frozenset({"PERSON"}))

    assert kinds == [finding.kind for finding in detector.find("Ana a@b.com")]
    assert detector.may_contain(b"Ana a@b.com")


class _Knows:
    """A detector that finds what it was told to."""

    def __init__(self, *found: Finding) -> None:
        self._found = list(found)

    def find(self, text: str) -> list[Finding]:
        return list(self._found)

    def find_labelled(self, text: str, label: str) -> list[Finding]:
        return self.find(text)

    def may_contain(self, raw: bytes) -> bool:
        return bool(self._found)

    def is_silent(self, raw: bytes) -> bool:
        return not self._found


def _joined(text: str, own: list[tuple[str, str]], named: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return what is found together, as (value, type)."""
    spans = [
        [Finding(at := text.index(value), at + len(value), kind, 0.9) for value, kind in given]
        for given in (own, named)
    ]
    detector = WithNames(_Knows(*spans[0]), {text: spans[1]}, frozenset({"PERSON", "ADDRESS"}))
    return [(text[f.start : f.end], f.kind) for f in detector.find(text)]


@pytest.mark.parametrize(
    ("text", "own", "named", "expected"),
    [
        ("Ana Lima ana@x.com", ["ana@x.com"], "Ana Lima ana@x.com", ["Ana Lima", "ana@x.com"]),
        ("ana@x.com, Ana Lima", ["ana@x.com"], "ana@x.com, Ana Lima", ["ana@x.com", "Ana Lima"]),
        ("Ana a@x.com Lima b@x.com!", ["a@x.com", "b@x.com"], "Ana a@x.com Lima b@x.com!", ["Ana", "a@x.com", "Lima", "b@x.com"]),
        ("<ana@x.com>.", ["ana@x.com"], "<ana@x.com>.", ["ana@x.com"]),
        ("to ana@x.com", ["ana@x.com"], "ana", ["ana@x.com"]),
        ("Rua Um 7, ana@x", ["ana@x"], "7, ana", ["7", "ana@x"]),
    ],
)  # fmt: skip
def test_rest_of_a_name_beside_a_value_is_still_found(
    text: str, own: list[str], named: str, expected: list[str]
) -> None:
    """A model draws its names too wide; what the stronger value does not cover is still somebody's name."""
    assert expected == [value for value, _ in _joined(text, [(v, "EMAIL") for v in own], [(named, "PERSON")])]


@given(st.data())
def test_whatever_overlaps_nothing_of_a_name_is_left_and_no_value_is_cut(data: st.DataObject) -> None:
    """Letters and digits under any span of the service stay under some finding; the detector's own stand as they were."""
    text = data.draw(st.text("ab1 ,.", min_size=1, max_size=30))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    own = [Finding(a, b, "EMAIL", 0.9) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    named = [Finding(a, b, "PERSON", 0.8) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    found = WithNames(_Knows(*own), {text: named}, frozenset({"PERSON"})).find(text)

    assert own == [f for f in found if f.kind == "EMAIL"]
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))
    covered = {i for f in found for i in range(f.start, f.end)}
    assert {i for f in named for i in range(f.start, f.end) if text[i].isalnum()} <= covered
