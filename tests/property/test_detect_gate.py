"""The gate never closes on a body one of whose strings holds a finding."""

from __future__ import annotations

import json

import orjson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.core.redaction import fields
from proxy.core.redaction.detect import DEFAULT_KINDS, accounts, build_detector, secrets
from proxy.core.redaction.detect.catalog import build_catalog
from proxy.core.redaction.detect.tables import issuers

DETECTOR = build_detector()
FORMS = (
    *accounts.shape_patterns(build_catalog(DEFAULT_KINDS)),
    *secrets.union_patterns(),
    *((form.head + form.tail).encode() for form in issuers.FORMS),
)

VALUES = (
    "529.982.247-25", "52998224725", "11.222.333/0001-81", "12.ABC.345/01DE-35", "ana@example.com", "josé@café.com.br", "+55 11 98765-4321",
    "(415) 555-0132", "4111 1111 1111 1111", "GB82 WEST 1234 5698 7654 32", "536-22-8726", "ABCPD1234Z", "12345678Z", "X1234567L",
    "131052-308T", "AB 12 34 56 C", "203.0.113.7", "10.0.0.1", "fe80::1", "::ffff:10.0.0.1", "00:1A:2B:3C:4D:5E", "1990-05-03", "3.5.1990",
    "May 3, 1990", "3 de março de 1990", "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", "AKIAQ7ZTP3WX5KDLM2NB", "Summer299!", "Xk9$mPq2vL",
    "https://ana:s3cretPw@db/app", "https://hooks.slack.com/services/T01ABCDEF/B01ABCDEF/abcdefGHIJ1234567890mnop",
    "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
    "121000358", "987654321", "１１９８７６５４３２１", "529\u200b982\u200b247\u200b25", "ana%40example.com", "962233916/68", "8f14e45fceea167a5a36dedd4bea2543",
    "123e4567-e89b-42d3-a456-426614174000", "S1234567D", "DE136695976", "86095742719", "08/10/95", "529\\.982\\.247\\-25", "ana\\_lima@example.com", "4111+1111+1111+1111", "+1 (415)\u00a0555\u20110132",
)  # fmt: skip
LABELS = (
    "cpf", "CPF: ", "phone=", "born ", "dob\n", "nascido em ", "né le ", "password: ", "senha\t", "token ", "api_key = ", "\\n", "\n", "\t", '"', "\\", "/",
    "é", "ß", "日", "生年月日", "身份证号", "номер", " ", ", ", ": ", "pix ", "routing number ", "name,password\nana,", "a|phone|b\n", "😀", "\u0001", "x", "_", "-", "(", ")", "1", ".",
    "passport no ", "INSERT INTO t (a, senha) VALUES ('x', '", "contraseña ", "\u2028", "%20", "</td><td>",
    "пароль: ", "密码是", "パスワード「", "」", " is my password", " (token)", " é a minha CNH", " is my date of birth", "**Password:** ", "token for x: ", "| senha | ", " |",
    '"cnh", "value": "', "Телефон ", "هاتف: ", "clave CURP: ", "ż", "host:",
)  # fmt: skip
PIECES = st.lists(
    st.one_of(st.sampled_from(VALUES), st.sampled_from(LABELS), st.text(max_size=4)), min_size=1, max_size=6
)


def _bodies(text: str) -> list[bytes]:
    document = {"messages": [{"role": "user", "content": text}]}
    nested = {"function": {"arguments": json.dumps({"q": text})}}
    nested_raw = {"function": {"arguments": json.dumps({"q": {"a": [text]}}, ensure_ascii=False)}}
    return [
        json.dumps(document).encode(),
        json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass"),
        json.dumps(nested).encode(),
        json.dumps(nested_raw, ensure_ascii=False).encode("utf-8", "surrogatepass"),
        json.dumps(document).replace("/", "\\/").encode(),
        orjson.dumps(document),
    ]


@settings(max_examples=400, deadline=None)
@given(PIECES)
@example(["api_key = ", "536-22-8726", "12345678Z", "\U00010000"])
@example(["my date of birth", "1990-05-03"])
def test_finding_in_any_string_opens_the_gate(pieces: list[str]) -> None:
    """A closed gate forwards the bytes unread, so it must be right in every encoding a client may use."""
    text = "".join(pieces).encode("utf-8", "replace").decode()
    if not DETECTOR.find(text):
        return

    assert [] == [body for body in _bodies(text) if not DETECTOR.may_contain(body)]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(VALUES),
    st.sampled_from(("cpf", "phoneNumber", "password", "dob", "api_key", "senha_db", "routing_number", "ssn")),
)
def test_finding_under_a_key_opens_the_gate(value: str, key: str) -> None:
    """The walk searches each string under the label of its key; the key stands in the same body."""
    if not DETECTOR.find_labelled(value, key):
        return

    assert DETECTOR.may_contain(json.dumps({"a": {key: value}}).encode())
    assert DETECTOR.may_contain(json.dumps({"arguments": json.dumps({key: value})}).encode())


BODY_PIECES = st.one_of(
    st.sampled_from(VALUES),
    st.sampled_from(LABELS),
    st.sampled_from(
        ("max_tokens", '","', '"max_tokens"', '"max_completion_tokens":', '"max_output_tokens"', "tokens", '"', ":", "auth",
         "login(", "pass", "my_", "image", '"file"', ";base64,", "plain words ", "2026", "\\/", "\\n",
         '\\"', "\\t", "\\\\", "\\u0041", "\\b", "%41", "%", "\u201c", "\u00ad", "é", "É ", "日", '\\"max_tokens\\"', '\\"file\\"')
    ),
    st.text(alphabet='aA0 -.:_"', max_size=6),
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(st.lists(BODY_PIECES, max_size=6))
@example(['"max_tokens"', 'max_tokens"'])
@example(['"max_tokens"', 'auth"', ":"])
def test_silent_body_holds_nothing_that_gate_or_second_look_would_stop_at(pieces: list[str]) -> None:
    """What one search calls silent leaves as it is, whatever stands around the names of token limits."""
    body = "".join(pieces).encode("utf-8", "replace")
    if not DETECTOR.is_silent(body):
        return

    assert not DETECTOR.may_contain(body)
    assert not fields.needs_second_look(body)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(FORMS).flatmap(st.from_regex), st.sampled_from((b" ", b'"', b"(", b"")))
def test_no_form_of_a_value_is_silent(value: bytes, beside: bytes) -> None:
    """The signs of a form are cut from it: whatever has the form shows the sign."""
    assert not DETECTOR.is_silent((beside + value + beside).decode("latin-1").encode())


def test_common_request_is_silent() -> None:
    """A test of the signs that never came out silent would hold for no reason, and cost every request a second search."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Compare the two editions, please."}]}

    assert DETECTOR.is_silent(orjson.dumps({"max_tokens": 300, **body, "max_completion_tokens": 1}))
    assert not DETECTOR.is_silent(orjson.dumps({**body, "tokens": 1}))
