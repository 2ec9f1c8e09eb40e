"""The walk, the actions and the way back, with the detector that ships."""

import json

from proxy.core.dialect import Dialect
from proxy.core.redaction import AnswerRestorer, Detector, Redacted, RequestRedactor, Untouched
from proxy.core.redaction.detect import build_detector
from proxy.terms.redaction import Action, DirectionPlan, RedactionPlan
from tests.unit.core.redaction.doubles import chat, contents, dumped

DETECTOR: Detector = build_detector()
REDACTOR = RequestRedactor(RedactionPlan(request=DirectionPlan(default=Action.RESTORE)), DETECTOR)
TEXT = "I am ana.souza@example.com.br, CPF 529.982.247-25, card 4111 1111 1111 1111, phone +55 11 98765-4321."


def redacted(body: bytes) -> Redacted:
    verdict = REDACTOR.redact(body, Dialect.CHAT)
    assert isinstance(verdict, Redacted), verdict
    return verdict


def test_conversation_goes_out_without_values_and_the_echo_comes_back_whole() -> None:
    """The shortest story of the whole room."""
    verdict = redacted(chat(TEXT))
    assert {"EMAIL": 1, "CPF": 1, "CREDIT_CARD": 1, "PHONE": 1} == verdict.findings == verdict.sanitized
    assert ["I am [EMAIL-1], CPF [CPF-1], card [CREDIT-CARD-1], phone [PHONE-1]."] == contents(verdict)

    answer = json.dumps({"choices": [{"message": {"content": contents(verdict)[0]}}]}).encode()
    assert (
        TEXT
        == json.loads(AnswerRestorer(verdict.vault, Dialect.CHAT).whole(answer))["choices"][0]["message"]["content"]
    )


def test_our_stand_ins_are_no_findings() -> None:
    """Every turn brings the history back."""
    for action in (Action.RESTORE, Action.REDACT, Action.MASK, Action.HASH):
        plan = RedactionPlan(request=DirectionPlan(default=action))
        once = RequestRedactor(plan, DETECTOR, hash_key=b"k").redact(chat(TEXT), Dialect.CHAT)
        assert isinstance(once, Redacted)
        assert isinstance(REDACTOR.redact(once.body, Dialect.CHAT), Untouched), once.body


def test_escapes_and_arguments_hide_nothing() -> None:
    """JSON in JSON, letters as escapes, numbers as numbers under a name."""
    arguments = json.dumps({"to": "ana.souza@example.com", "cpf": 52998224725}).replace("@", "\\u0040")
    verdict = redacted(dumped({"messages": [{"role": "assistant", "content": None, "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}}]}]}))  # fmt: skip
    made = verdict.document["messages"][0]["tool_calls"][0]["function"]["arguments"]

    assert {"to": "[EMAIL-1]", "cpf": "[CPF-1]"} == json.loads(made)


def test_ordinary_prose_is_untouched() -> None:
    """Most requests hold nothing."""
    body = chat("Summarise chapter 3 of the 2024 report in 5 bullet points, version 1.2.3, order 12345.")

    assert isinstance(REDACTOR.redact(body, Dialect.CHAT), Untouched)
