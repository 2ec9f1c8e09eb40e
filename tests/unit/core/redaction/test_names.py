"""What is believed of a names service, how texts become questions, and how its findings join the others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
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


@given(PROSE)
def test_both_ways_of_counting_find_the_same(text: str) -> None:
    """Where the service counts UTF-16 units, too."""
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


@pytest.mark.parametrize(
    ("named", "kinds"),
    [((0, 3, "PERSON"), ["PERSON", "EMAIL"]), ((2, 6, "PERSON"), ["EMAIL"]), ((0, 3, "ADDRESS"), ["EMAIL"])],
)
def test_structured_findings_win_over_names(named: tuple[int, int, str], kinds: list[str]) -> None:
    """And types that policy does not ask for are not there."""
    detector = WithNames(_Emails(), {"Ana a@b.com": [Finding(*named, 0.9)]}, frozenset({"PERSON"}))

    assert kinds == [finding.kind for finding in detector.find("Ana a@b.com")]
    assert detector.may_contain(b"Ana a@b.com")
