"""How much a stream holds back for the policy's own types, and that it is enough."""

from __future__ import annotations

import pytest

from proxy.core.redaction import AnswerRedactor
from proxy.core.redaction.detect import build_detector
from proxy.core.redaction.detect.reach import MAX_REACH, reach_of
from proxy.core.redaction.sieve import Sieve
from proxy.terms.redaction import Action, CustomType, DirectionPlan, RedactionPlan


@pytest.mark.parametrize(
    ("pattern", "reach"),
    [
        ("[0-9]{3}-[0-9]{3}", 0),
        (r"EMP-\d+", 0),
        (r"\b(?:AB|CD)\w{4}$", 0),
        ("a+?", 0),
        ("[0-9]{3} [0-9]{3}", 7),
        (r"AB\s?[0-9]{4}", 7),
        ("[ -~]{5}", 5),
        ("[^x]{3}", 3),
        ("x.y", 3),
        ('say "[a-z]{2}"', 8),
        (r"name: \w+", MAX_REACH),
        (r"\pL{3}", MAX_REACH),
        ("(a b|cd)", 3),
    ],
)
def test_reach_is_the_width_of_patterns_that_cross_blanks(pattern: str, reach: int) -> None:
    """A run without blanks is held back anyway; what goes beyond it has to be added."""
    assert reach == reach_of((CustomType("T", pattern),))


def test_widest_type_decides() -> None:
    """Terms of several words count, single words do not."""
    types = (
        CustomType("A", terms=("Bluebird",)),
        CustomType("B", terms=("Project Bluebird", "x y")),
        CustomType("C", "a b"),
    )

    assert (0, 16, 0) == (reach_of(types[:1]), reach_of(types), reach_of(()))


@pytest.mark.parametrize("text", ["on Project Bluebird we", "badge 123 456, ok", "Project Blue bird", "EMP-1234567."])
def test_types_of_the_policy_go_wherever_a_stream_is_cut(text: str) -> None:
    """The same text for every cut, in one piece and letter by letter."""
    types = (
        CustomType("CODE_NAME", terms=("Project Bluebird",)), CustomType("BADGE", "[0-9]{3} [0-9]{3}"), CustomType("EMPLOYEE", r"EMP-\d+")
    )  # fmt: skip
    plan = RedactionPlan(response=DirectionPlan(default=Action.REDACT), custom=types)
    answers = AnswerRedactor(plan, build_detector(custom=types))

    def sieved(*pieces: str) -> str:
        sieve = Sieve(answers.marks(), is_json=False)
        return "".join([sieve.feed(piece) for piece in pieces]) + sieve.finish()

    whole = sieved(text)
    assert whole == sieved(*text)
    assert {whole} == {sieved(text[:at], text[at:]) for at in range(len(text))}
    assert ("REDACTED" in whole) is ("Blue bird" not in text)
