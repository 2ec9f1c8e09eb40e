"""Counting what the model itself wrote, before anything is put back."""

import json

import pytest

from proxy.core.redaction import AnswerObserver
from proxy.terms.errors import RedactionFault
from proxy.terms.redaction import Action, DirectionPlan, Finding
from tests.unit.core.redaction.doubles import TinyDetector

OBSERVE = DirectionPlan(default=Action.OBSERVE, actions={"CPF": Action.OFF})


class Broken(TinyDetector):
    def find(self, text: str) -> list[Finding]:
        raise KeyError("ana@example.com")


def counted(document: object, plan: DirectionPlan = OBSERVE) -> dict[str, int]:
    return AnswerObserver(plan, TinyDetector()).count(json.dumps(document).encode())


def test_new_values_are_counted_once_each_and_placeholders_are_not() -> None:
    """What was put in by us is no finding about the model."""
    message = {"content": "[EMAIL-1] ana@x.com ana@x.com 529.982.247-25", "tool_calls": [
        {"id": "call_52998224725ab", "function": {"name": "f", "arguments": '{"to":"bob@y.org","n":4111111111111111}'}}]}  # fmt: skip

    assert {"EMAIL": 2, "CREDIT_CARD": 1} == counted(
        {
            "id": "chatcmpl-1",
            "created": 1760000000,
            "choices": [{"index": 0, "message": message}],
            "usage": {"n": 11122233344},
        }
    )


@pytest.mark.parametrize("body", [b"", b"not json 123", b'{"a":"b"}', b"[" * 5000 + b"1234" + b"]" * 5000, b"\xff123"])
def test_what_cannot_be_read_counts_nothing(body: bytes) -> None:
    """Answers are not refused for being odd; requests are."""
    assert {} == AnswerObserver(OBSERVE, TinyDetector()).count(body)


def test_documents_of_any_shape_are_read() -> None:
    """Lists and bare strings are JSON too."""
    assert (
        {"EMAIL": 1} == counted(["ana@x.com"]) == counted("ana@x.com") == counted({"error": {"message": "ana@x.com"}})
    )


def test_broken_detector_is_a_fault_without_the_value() -> None:
    """Nothing of the answer may end in a log."""
    with pytest.raises(RedactionFault) as caught:
        AnswerObserver(OBSERVE, Broken()).count(b'{"a":"ana@example.com"}')

    assert "ana" not in str(caught.value)
