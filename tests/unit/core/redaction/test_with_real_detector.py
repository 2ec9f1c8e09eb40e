"""The walk, the actions and the way back, with the detector that ships."""

import json
from dataclasses import replace

import orjson
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.dialect import Dialect
from proxy.core.redaction import AnswerRestorer, Detector, Redacted, RequestRedactor, Untouched, Vault
from proxy.core.redaction.detect import build_detector, kinds_of
from proxy.terms.redaction import Action, CustomType, DirectionPlan, RedactionPlan, Unscanned
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


def test_addresses_of_allowed_networks_are_left_alone() -> None:
    """The cluster's own addresses help the model and tell nobody anything."""
    plan = RedactionPlan(DirectionPlan(default=Action.RESTORE, allow_networks=("10.0.0.0/8", "fd00::/8")))
    text = "from 10.1.2.3 and 10.2.0.0/16 and fd12:3456:789a::1 to 203.0.113.7 and 11.1.2.3"
    verdict = RequestRedactor(plan, build_detector()).redact(chat(text), Dialect.CHAT)

    assert isinstance(verdict, Redacted)
    assert ["from 10.1.2.3 and 10.2.0.0/16 and fd12:3456:789a::1 to [IP-ADDRESS-1] and [IP-ADDRESS-2]"] == contents(
        verdict
    )


def test_names_and_own_types_are_replaced_where_a_rule_asks_for_them() -> None:
    """A default does not reach names; a rule does, under the keys of tool arguments too."""
    own = CustomType("EMPLOYEE_ID", "EMP-[0-9]{6}")
    request = DirectionPlan(default=Action.RESTORE, actions={"PERSON": Action.RESTORE})
    plan = RedactionPlan(request, custom=(own,))
    detector = build_detector(kinds_of(request), plan.custom)
    body = dumped({"messages": [
        {"role": "user", "content": "nome: Ana Maria Souza, crachá EMP-123456"},
        {"role": "assistant", "tool_calls": [{"function": {"arguments": '{"name": "Ana Maria Souza"}'}}]},
    ]})  # fmt: skip
    verdict = RequestRedactor(plan, detector).redact(body, Dialect.CHAT)

    assert isinstance(verdict, Redacted)
    assert {"PERSON": 1, "EMPLOYEE_ID": 1} == verdict.findings
    messages = verdict.document["messages"]
    assert "nome: [PERSON-1], crachá [EMPLOYEE-ID-1]" == messages[0]["content"]
    assert '{"name": "[PERSON-1]"}' == messages[1]["tool_calls"][0]["function"]["arguments"]


@given(st.integers(10**20, 10**30), st.sampled_from([1, -1]))
def test_integers_beyond_the_fast_parser_keep_every_digit(size: int, sign: int) -> None:
    """A rewritten body says what the caller wrote, also where the fast parser would round."""
    number = sign * size
    verdict = redacted(dumped({"seed": number, "messages": [{"role": "user", "content": "ana@example.com"}]}))
    assert number == json.loads(verdict.body)["seed"]

    answer = f'{{"seed": {number}, "choices": [{{"message": {{"content": "[EMAIL-1]"}}}}]}}'.encode()
    assert number == json.loads(AnswerRestorer(verdict.vault, Dialect.CHAT).whole(answer))["seed"]


PIECES = (
    "hello", "see [EMAIL-1]", TEXT, "ana.souza\\u0040example.com", "a\\/b ana@x.example.com", '{"cpf": 52998224725}',
    "data:image/png;base64," + "iVBORw0KGgoAAAANSUhEUg" * 5, "A" * 80, "max_tokens 300", "senha: Tr0ub4dor&3", "[[[[", "\u00e9 \uff3b",
)  # fmt: skip
PLANS = (
    RedactionPlan(request=DirectionPlan(default=Action.RESTORE)),
    RedactionPlan(request=DirectionPlan(default=Action.RESTORE), unscanned=Unscanned.REFUSE),
    RedactionPlan(request=DirectionPlan(default=Action.RESTORE), observe_only=True),
    RedactionPlan(
        request=DirectionPlan(default=Action.OBSERVE, actions={"EMAIL": Action.RESTORE, "CPF": Action.BLOCK})
    ),
)
WARM = [RequestRedactor(plan, DETECTOR) for plan in PLANS]


@given(
    plan=st.integers(0, len(PLANS) - 1),
    said=st.lists(st.sampled_from(PIECES), min_size=1, max_size=3),
    member=st.sampled_from(["content", "data", "id", "user", "mine", "file"]),
    is_twice=st.booleans(),
)
def test_verdict_is_the_same_whatever_the_requests_before_it_held(
    plan: int, said: list[str], member: str, is_twice: bool
) -> None:
    """After some requests with values the next one is read at once, without asking the gate."""
    body = chat(*said, stream=False).replace(b'"content"', b'"%b"' % member.encode(), 1)
    if is_twice:
        body = b'{"messages":[],' + body[1:]
    body = body.replace(b"\\\\u0040", b"\\u0040").replace(b"\\\\/", b"\\/")
    for _ in range(3):
        WARM[plan].redact(chat(TEXT), Dialect.CHAT, json.loads(chat(TEXT)))
    told = [
        redactor.redact(body, Dialect.CHAT, json.loads(body))
        for redactor in (RequestRedactor(PLANS[plan], DETECTOR), WARM[plan])
    ]
    seen = [replace(verdict, vault=Vault()) if isinstance(verdict, Redacted) else verdict for verdict in told]

    assert repr(seen[0]) == repr(seen[1])
    rows = [verdict.vault.rows() for verdict in told if isinstance(verdict, Redacted)]
    assert rows[:1] == rows[1:]


def test_tool_whose_schema_lists_several_types_does_not_stop_redaction() -> None:
    """A nullable parameter is ``["string", "null"]`` in every strict schema; a request with one is as good as any."""
    schema = {"type": "object", "properties": {"note": {"type": ["string", "null"]}}}
    tool = {"type": "function", "function": {"name": "note", "parameters": schema}}
    document = {"model": "m", "messages": [{"role": "user", "content": "I am ana@example.com"}], "tools": [tool]}

    verdict = REDACTOR.redact(orjson.dumps(document), Dialect.CHAT)

    assert isinstance(verdict, Redacted)
    assert {"EMAIL": 1} == verdict.sanitized
    assert [tool] == orjson.loads(verdict.body)["tools"]
