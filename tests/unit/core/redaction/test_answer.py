"""Answers of the model, whole: what it wrote itself is found before anything is put back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.core.redaction import AnswerRedactor, Marks
from proxy.core.redaction.detect import build_detector
from proxy.terms.errors import AnswerBlocked, RedactionFault
from proxy.terms.redaction import Action, DirectionPlan, Finding, RedactionPlan
from tests.unit.core.redaction.doubles import TinyDetector

DETECTOR = build_detector()
OBSERVE = DirectionPlan(default=Action.OBSERVE, actions={"CPF": Action.OFF})


class Broken(TinyDetector):
    def find(self, text: str, *, local: bool = False) -> list[Finding]:
        raise KeyError("ana@example.com")

    def live_start(self, text: str, *, is_hasty: bool = False) -> int:
        return len(text)


def redactor(plan: DirectionPlan, detector: Any = DETECTOR, **more: Any) -> AnswerRedactor:
    return AnswerRedactor(RedactionPlan(response=plan, **more), detector, hash_key=b"k")


def treated(document: Any, action: Action = Action.REDACT, **actions: Action) -> tuple[Any, Marks]:
    answers = redactor(DirectionPlan(default=action, actions=actions))
    marks = answers.marks()
    return json.loads(answers.whole(json.dumps(document).encode(), marks)), marks


def answer(content: str, **more: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "choices": [{"index": 0, "message": {"role": "assistant", "content": content, **more}}]}


def test_new_values_are_counted_once_each_and_placeholders_are_not() -> None:
    """What was put in by us is no finding about the model."""
    arguments = '{"to":"bob@y.org","card":4111111111111111}'
    document = answer(
        "[EMAIL-1] ana@x.com ana@x.com CPF 529.982.247-25",
        tool_calls=[{"id": "call_52998224725ab", "function": {"name": "f", "arguments": arguments}}],
    )
    document |= {"created": 1760000000, "usage": {"n": 11122233344}}
    answers = redactor(OBSERVE)
    marks = answers.marks()
    body = json.dumps(document).encode()

    assert body is answers.whole(body, marks)
    assert ({"EMAIL": 2, "CREDIT_CARD": 1}, {}) == marks.counts()


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (Action.REDACT, "mail [EMAIL_REDACTED]."),
        (Action.MASK, "mail ***@*.com."),
        (Action.OBSERVE, "mail ana@x.com."),
        (Action.OFF, "mail ana@x.com."),
    ],
)
def test_action_decides_what_the_caller_reads(action: Action, text: str) -> None:
    """The words of the policy file, on the way back."""
    document, _ = treated(answer("mail ana@x.com."), action)

    assert text == document["choices"][0]["message"]["content"]


def test_hash_is_stable_for_spellings_of_a_value() -> None:
    """A pseudonym lets an application join what it may not read."""
    document, _ = treated(answer("ana@x.com and ANA@X.com"), Action.HASH)
    first, _, second = document["choices"][0]["message"]["content"].split()

    assert first == second
    assert first.startswith("[EMAIL:")


def test_arguments_of_tool_calls_stay_json() -> None:
    """A number becomes a string, a text in a text keeps its quotes."""
    arguments = json.dumps({"cpf": 52998224725, "to": 'a "b" <ana@x.com>', "inner": json.dumps({"x": "bob@y.org"})})
    calls = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}}]
    document, _ = treated(answer("", tool_calls=calls))
    read = json.loads(document["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"])

    assert {"cpf": "[CPF_REDACTED]", "to": 'a "b" <[EMAIL_REDACTED]>', "inner": '{"x": "[EMAIL_REDACTED]"}'} == read


def test_what_stands_beside_a_changed_text_agrees_with_it() -> None:
    """Log probabilities would leak the value; offsets would point at the wrong words."""
    citation = {"type": "url_citation", "url_citation": {"start_index": 15, "end_index": 20, "url": "https://e.org"}}
    document = answer("mail ana@x.com (here)", annotations=[citation])
    document["choices"][0]["logprobs"] = {"content": [{"token": "ana@x.com"}]}
    read, _ = treated(document)
    message = read["choices"][0]["message"]
    at = message["annotations"][0]["url_citation"]

    assert "(here" == message["content"][at["start_index"] : at["end_index"]]
    assert read["choices"][0]["logprobs"] is None


def test_blocked_type_ends_the_answer() -> None:
    """Policy may say that such an answer must not arrive at all."""
    with pytest.raises(AnswerBlocked) as caught:
        treated(answer("card 4111 1111 1111 1111"), Action.REDACT, CREDIT_CARD=Action.BLOCK)

    assert "4111" not in str(caught.value)
    assert "CREDIT_CARD" == caught.value.kind


def test_blocked_type_is_only_replaced_in_an_error() -> None:
    """An error has to arrive; the value in it need not."""
    answers = redactor(DirectionPlan(default=Action.BLOCK))
    body = json.dumps({"error": {"message": "no user ana@x.com"}}).encode()

    assert b"no user [EMAIL_REDACTED]" in answers.whole(body, answers.marks(is_error=True))


def test_observing_policy_changes_nothing() -> None:
    """``mode: observe`` is for rollout."""
    answers = redactor(DirectionPlan(default=Action.BLOCK), observe_only=True)
    body = json.dumps(answer("ana@x.com")).encode()
    marks = answers.marks()

    assert answers.is_observing
    assert body is answers.whole(body, marks)
    assert {"EMAIL": 1} == marks.counts()[0]


@pytest.mark.parametrize(
    ("body", "read"),
    [(b"ana@x.com said", b"[EMAIL_REDACTED] said"), (b"", b""), (b"\xff ana@x.com", b"\xff [EMAIL_REDACTED]")],
)
def test_texts_that_are_no_json_are_read_as_text(body: bytes, read: bytes) -> None:
    """Transcripts come as plain text."""
    answers = redactor(DirectionPlan(default=Action.REDACT))

    assert read == answers.whole(body, answers.marks())


def test_allowed_and_doubtful_values_stay() -> None:
    """The same switches as for requests."""
    plan = DirectionPlan(Action.REDACT, {}, frozenset({"help@x.com"}), ("ORD-[0-9]+",), 0.99)
    answers = redactor(plan)
    body = json.dumps(answer("help@x.com ana@x.com")).encode()

    assert body is answers.whole(body, answers.marks())


def test_documents_of_any_shape_are_read() -> None:
    """Lists and bare strings are JSON too."""
    mark = "[EMAIL_REDACTED]"

    assert [mark] == treated(["ana@x.com"])[0]
    assert mark == treated("ana@x.com")[0]
    assert {"error": {"message": mark}} == treated({"error": {"message": "ana@x.com"}})[0]


@pytest.mark.parametrize("body", [b'{"a":"ana@example.com"}', b"[" * 300 + b'"ana@x.com"' + b"]" * 300])
def test_what_cannot_be_judged_is_a_fault_without_the_value(body: bytes) -> None:
    """Nothing of the answer may end in a log, and nothing unread may arrive."""
    detector = Broken() if body.startswith(b"{") else DETECTOR
    answers = redactor(DirectionPlan(default=Action.REDACT), detector)

    with pytest.raises(RedactionFault) as caught:
        answers.whole(body, answers.marks())
    assert "ana" not in str(caught.value)


def test_plan_that_cannot_act_is_refused() -> None:
    """There is nothing to put back into an answer's own words, and no pseudonym without a key."""
    with pytest.raises(ValueError, match="restore"):
        redactor(DirectionPlan(default=Action.RESTORE))
    with pytest.raises(ValueError, match="hash"):
        AnswerRedactor(RedactionPlan(response=DirectionPlan(default=Action.HASH)), DETECTOR)
