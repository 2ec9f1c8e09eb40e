"""Streamed answers: new findings go while they come, in every lane, however they are cut."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from proxy.core.dialect import Dialect
from proxy.core.redaction import AnswerRedactor, StreamObserver, StreamRestorer, Vault
from proxy.core.redaction.detect import build_detector
from proxy.core.redaction.judge import MAX_HOLD
from proxy.core.redaction.sieve import Sieve
from proxy.terms.errors import AnswerBlocked
from proxy.terms.redaction import Action, DirectionPlan, RedactionPlan, StreamMode
from tests.unit.core.redaction.doubles import vault_of
from tests.unit.core.redaction.streams import DONE, arguments, chunk, documents, event, texts

DETECTOR = build_detector()
JWT = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (
    b'{"alg":"HS256","typ":"JWT"}', b'{"sub":"1234567890","name":"' + b"Jon" * 200 + b'"}', b"\x9c\x01\x88signature-bytes-here"))  # fmt: skip
PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\n"
    + "\n".join(f"MIIEpQIBAAKCAQEA3Tz2mr7SZiAMfQyuvBjM9Oi{n:02}Z1BjP5CE4Wm" for n in range(50))
    + "\n-----END RSA PRIVATE KEY-----"
)
ENTITIES = {
    "e-mail": ("write to ana.silva@example.com now", "write to [EMAIL_REDACTED] now"),
    "e-mail of two levels": ("ana@empresa.com.br, then", "[EMAIL_REDACTED], then"),
    "card": ("card 4111 1111 1111 1111 ok", "card [CREDIT_CARD_REDACTED] ok"),
    "cpf": ("o CPF 529.982.247-25.", "o CPF [CPF_REDACTED]."),
    "phone with brackets": ("call (11) 98765-4321 today", "call [PHONE_REDACTED] today"),
    "phone with plus": ("call +55 11 98765-4321 today", "call [PHONE_REDACTED] today"),
    "iban": ("to DE89 3704 0044 0532 0130 00 please", "to [IBAN_REDACTED] please"),
    "jwt": (f"token {JWT} end", "token [JWT_REDACTED] end"),
    "label and value": ("the password: hunter2!Xy and", "the password: [PASSWORD_REDACTED] and"),
    "at the end": ("mail ana@x.com", "mail [EMAIL_REDACTED]"),
}
LOOK_ALIKES = ["on 2026-11-21", "in 1234", "v1.2.3", "a lone +", "a lone (", "an @", "DE", "eyJhbGciOi", "-----BEGIN"]


def redactor(action: Action = Action.REDACT, mode: StreamMode = StreamMode.STRICT, **actions: Action) -> AnswerRedactor:
    plan = RedactionPlan(response=DirectionPlan(default=action, actions=actions), stream_mode=mode)
    return AnswerRedactor(plan, DETECTOR, hash_key=b"k")


def sieved(*pieces: str, is_json: bool = False, answers: AnswerRedactor | None = None) -> str:
    sieve = Sieve((answers or redactor()).marks(), is_json=is_json)
    return "".join([sieve.feed(piece) for piece in pieces]) + sieve.finish()


def streamed(
    *pieces: bytes, vault: Vault | None = None, answers: AnswerRedactor | None = None, dialect: Dialect = Dialect.CHAT
) -> bytes:
    restorer = StreamRestorer(vault or Vault(), dialect, (answers or redactor()).marks())
    return b"".join([restorer.feed(piece) for piece in pieces]) + restorer.finish()


@pytest.mark.parametrize(("text", "read"), ENTITIES.values(), ids=ENTITIES)
def test_value_goes_wherever_it_is_cut(text: str, read: str) -> None:
    """Tokens end in the middle of anything."""
    assert read == sieved(text)
    assert read == sieved(*text)
    for at in range(1, len(text)):
        assert read == sieved(text[:at], text[at:])


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_what_only_looks_like_a_beginning_comes_out_at_the_end(text: str) -> None:
    """Nothing is lost because it could have become something."""
    assert text == sieved(*text)


@pytest.mark.parametrize("end", ["", "\n-----END"])
@pytest.mark.parametrize("size", [1, 7, 60])
def test_private_key_is_swallowed_to_its_end(size: int, end: str) -> None:
    """Fifty deltas of a key, or a key that never ends: one mark, and no line of it."""
    text = f"key:\n{PEM}\nthat was it" if not end else "key:\n" + PEM.replace("\n-----END RSA PRIVATE KEY-----", end)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    sieve = Sieve(redactor().marks(), is_json=False)
    out, held = "", 0
    for piece in pieces:
        out += sieve.feed(piece)
        held = max(held, len(sieve._held))
    out += sieve.finish()

    assert "key:\n[PRIVATE_KEY_REDACTED]" + ("\nthat was it" if not end else "") == out
    assert held <= MAX_HOLD + size


def test_stated_bound_of_what_is_held_is_kept() -> None:
    """A stream without blanks must not fill the memory."""
    sieve = Sieve(redactor().marks(), is_json=False)
    held = 0
    for _ in range(3000):
        sieve.feed("abc/")
        held = max(held, len(sieve._held))

    assert held <= MAX_HOLD


@pytest.mark.parametrize(
    ("source", "read"),
    [
        ('{"cpf": 52998224725, "n": 1}', {"cpf": "[CPF_REDACTED]", "n": 1}),
        ('{"to":"\\u0061na\\u0040x.com","s":"\\ud83d\\ude00 \\" \\\\"}', {"to": "[EMAIL_REDACTED]", "s": '😀 " \\'}),
        ('{"a":"{\\"b\\":\\"bob@y.org\\"}"}', {"a": '{"b":"[EMAIL_REDACTED]"}'}),
        ('{"a":"{\\"b\\":\\"{\\\\\\"c\\\\\\":\\\\\\"bob@y.org\\\\\\"}\\"}"}', {"a": '{"b":"{\\"c\\":\\"[EMAIL_REDACTED]\\"}"}'}),
        ('{"password":"hunter2!Xy","x":["y"]}', {"password": "[PASSWORD_REDACTED]", "x": ["y"]}),
        ('{"ana@x.com":true}', {"[EMAIL_REDACTED]": True}),
        ('{"key":"' + PEM.replace("\n", "\\n") + '"}', {"key": "[PRIVATE_KEY_REDACTED]"}),
        ("{}", {}),
    ],
    ids=["number", "escapes", "nested", "nested twice", "name is the label", "name", "key", "empty"],
)  # fmt: skip
def test_arguments_stay_json_wherever_they_are_cut(source: str, read: Any) -> None:
    """An SDK parses what the deltas make together."""
    assert read == json.loads(sieved(source, is_json=True))
    assert read == json.loads(sieved(*source, is_json=True))


@pytest.mark.parametrize(
    "source", ['{"a": ana@x.com', "ana@x.com", '{"a":"b"} ana@x.com', '{"a":"ana@x.com', "[1, oops ana@x.com"]
)
def test_arguments_that_never_become_json_are_read_as_text(source: str) -> None:
    """Models break off and make mistakes; what they wrote is still read."""
    read = source.replace("ana@x.com", "[EMAIL_REDACTED]")

    assert read == sieved(source, is_json=True) == sieved(*source, is_json=True)


def test_plain_arguments_keep_their_spelling() -> None:
    """Escapes, white space and order are the model's own."""
    source = '{ "a" : "\\u00e9\\/\\n", "b":[1 , 2.50,-0,1e400 ,null],"c":{} }'

    assert source == sieved(*source, is_json=True)


def test_new_findings_go_before_values_come_back() -> None:
    """The order of redaction.md 8.1: a value that was put back is never looked at again."""
    vault = vault_of("ana@x.com")
    stream = [chunk({"content": piece}) for piece in ("[EMA", "IL-1] wr", "ote to bob@", "y.org.")]
    out = streamed(*stream, chunk({}, "stop"), DONE, vault=vault)

    assert {(0, "content"): "ana@x.com wrote to [EMAIL_REDACTED]."} == texts(out)


def test_lanes_do_not_meet() -> None:
    """Three choices, two tool calls and two kinds of words in one stream, interleaved."""
    stream: list[bytes] = []
    for at, (left, right) in enumerate(zip("ana@x.com", "bob@y.org", strict=True)):
        stream += [chunk({"content": left, "reasoning_content": right}, index=n) for n in range(3)]
        stream += [arguments(right if at else '"' + right, 0), arguments(left if at else '["' + left, 1)]
    stream += [chunk({}, "stop", index=n) for n in (1, 0, 2)]
    read = texts(streamed(*stream, DONE))

    assert {"[EMAIL_REDACTED]"} == {read[n, name] for n in range(3) for name in ("content", "reasoning_content")}
    assert '["[EMAIL_REDACTED]' == read[0, "tool_calls", 1]


def test_words_before_a_tool_call_are_all_out_when_it_begins() -> None:
    """An application shows the sentence while the model writes the call."""
    call = {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": ""}}]}
    restorer = StreamRestorer(Vault(), Dialect.CHAT, redactor().marks())
    out = restorer.feed(chunk({"content": "I will look it up"})) + restorer.feed(chunk(call))

    assert "I will look it up" == texts(out)[0, "content"]
    assert "call_1" == documents(out)[-1]["choices"][0]["delta"]["tool_calls"][0]["id"]


def test_held_words_come_before_the_finish() -> None:
    """An SDK stops reading a choice at its finish reason."""
    out = documents(streamed(chunk({"content": "bye Ana"}), chunk({}, "stop"), DONE))
    reasons = [document["choices"][0]["finish_reason"] for document in out]
    words = "".join(document["choices"][0]["delta"].get("content", "") for document in out[:-1])

    assert [None] * (len(out) - 1) + ["stop"] == reasons
    assert "bye Ana" == words
    assert all(document["choices"] for document in out)


def test_responses_events_and_their_repeats_agree() -> None:
    """``.done`` and ``response.completed`` repeat the text; they must say what the deltas said."""
    text = "password: hunter2!Xy for ana@x.com, card 4111 1111 1111 1111"
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"id": "msg_1", "type": "message", "content": [part]}
    stream = [
        event({"type": "response.output_text.delta", **place, "delta": text[at : at + 3]}, "response.output_text.delta")
        for at in range(0, len(text), 3)
    ]
    stream += [
        event({"type": "response.output_text.done", **place, "text": text}),
        event({"type": "response.output_item.done", "output_index": 0, "item": item}),
        event({"type": "response.completed", "response": {"id": "resp_1", "output": [item]}}),
    ]
    read = documents(streamed(*stream, dialect=Dialect.RESPONSES))
    said = "".join(document["delta"] for document in read if document["type"].endswith(".delta"))
    expected = "password: [PASSWORD_REDACTED] for [EMAIL_REDACTED], card [CREDIT_CARD_REDACTED]"

    assert expected == said == read[-3]["text"]
    assert expected == read[-2]["item"]["content"][0]["text"] == read[-1]["response"]["output"][0]["content"][0]["text"]


def test_annotations_follow_their_text() -> None:
    """A citation's offsets count in the text as the application has it."""
    vault = vault_of("a.very.long.address@example.com")
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    text = "bob@y.org says [EMAIL-1] (here)."
    at = text.index("(here")
    note = {"type": "url_citation", "start_index": at, "end_index": at + 5}
    out = streamed(
        event({"type": "response.output_text.delta", **place, "delta": text}),
        event({"type": "response.output_text.annotation.added", **place, "annotation": note}),
        event({"type": "response.output_text.done", **place, "text": text}),
        vault=vault,
        dialect=Dialect.RESPONSES,
    )
    read = documents(out)
    moved = next(document["annotation"] for document in read if "annotation" in document)

    assert "(here" == read[-1]["text"][moved["start_index"] : moved["end_index"]]


def test_log_probabilities_of_changed_words_go() -> None:
    """They spell the value token by token."""
    lost = {"content": [{"token": "ana@x.com"}]}
    out = streamed(chunk({"content": "ana@x.com "}, logprobs=lost), chunk({}, "stop"))

    assert b"ana@x" not in out


def test_usage_and_role_events_keep_their_place() -> None:
    """What carries no words goes on as it came."""
    role, usage = chunk({"role": "assistant", "content": ""}), event({"id": "c1", "choices": [], "usage": {"n": 1}})
    out = streamed(role, chunk({"content": "ana@x.com"}), chunk({}, "stop"), usage, DONE)

    assert out.startswith(role)
    assert out.endswith(usage + DONE)


def test_blocked_value_ends_the_stream_and_nothing_of_it_came() -> None:
    """What was held when the block came is not given out by the end either."""
    restorer = StreamRestorer(Vault(), Dialect.CHAT, redactor(CREDIT_CARD=Action.BLOCK).marks())
    out = restorer.feed(chunk({"content": "card 4111 1111"}))
    with pytest.raises(AnswerBlocked):
        restorer.feed(chunk({"content": " 1111 1111, ok. And more"}))

    assert b"4111" not in out + restorer.finish(broken=True)


def test_cut_stream_is_judged_to_its_end() -> None:
    """The error event follows what was held, and what was held may be a value."""
    restorer = StreamRestorer(Vault(), Dialect.CHAT, redactor().marks())
    out = restorer.feed(chunk({"content": "mail ana@x.com"})) + restorer.finish(broken=True)

    assert {(0, "content"): "mail [EMAIL_REDACTED]"} == texts(out)


def test_observer_counts_and_changes_nothing() -> None:
    """Rolling a policy out must be invisible."""
    marks = redactor(Action.OBSERVE).marks()
    observer = StreamObserver(Dialect.CHAT, marks)
    pieces = [chunk({"content": piece}) for piece in ("mail an", "a@x.com, ", "bob@y.org")] + [chunk({}, "stop"), DONE]

    assert pieces == [observer.feed(piece) for piece in pieces]
    assert b"" == observer.finish()
    assert ({"EMAIL": 2}, {}) == marks.counts()


def test_low_latency_lets_plain_words_go_at_once() -> None:
    """Opted in: words are not held, what shows itself as a value still goes."""
    answers = redactor(mode=StreamMode.LOW_LATENCY)
    sieve = Sieve(answers.marks(), is_json=False)

    assert "Dear Ana" == sieve.feed("Dear Ana")
    assert ", call [PHONE_REDACTED]." == sieve.feed(", call +55 11 98765") + sieve.feed("-4321.") + sieve.finish()
    assert "mail [EMAIL_REDACTED] ok" == sieved("mail ", "ana7@x.com ok", answers=answers)
    assert "mail ana[EMAIL_REDACTED] ok" == sieved("mail ", "ana", "@x.com ok", answers=answers)


def test_buffered_text_is_judged_as_a_whole() -> None:
    """Labels behind a value and headers of tables count then."""
    answers = redactor(mode=StreamMode.BUFFER)
    sieve = Sieve(answers.marks(), is_json=False)
    text = "name,cpf\nAna,52998224725\n"

    assert "" == "".join(sieve.feed(character) for character in text)
    assert "name,cpf\nAna,[CPF_REDACTED]\n" == sieve.finish()


@pytest.mark.parametrize(
    "odd",
    [
        {"delta": {"content": ["[EMAIL-1] and bob@x.org", {"text": "x"}]}},
        {"delta": {"content": [["[EMAIL-1] and bob@x.org"]]}},
        {"delta": "[EMAIL-1] and bob@x.org"},
        {"delta": {}, "transcript": "[EMAIL-1] and bob@x.org"},
        {"delta": {}, "alternatives": ["[EMAIL-1] and bob@x.org"]},
    ],
)
def test_words_in_an_odd_place_of_a_choice_are_treated_too(odd: dict[str, Any]) -> None:
    """Providers add members; none of them may carry a new finding past policy or keep a placeholder."""
    stream = event({"choices": [{"index": 0, "finish_reason": None, **odd}]}) + DONE
    restorer = StreamRestorer(vault_of("ana@x.org"), Dialect.CHAT, redactor().marks())
    read = restorer.feed(stream) + restorer.finish()

    assert b"ana@x.org and [EMAIL_REDACTED]" in read
    assert b"bob@x.org" not in read
