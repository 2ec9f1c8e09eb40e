"""Reading a request body: its facts, what is refused, and changing nothing but the model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.dialect import Dialect
from proxy.core.routing.problems import Problem
from proxy.flow.intake import ModelRenamer, Request, model_in_multipart, read_json, rename_model, with_model


def read(body: bytes | dict[str, Any], dialect: Dialect = Dialect.CHAT) -> Request:
    result = read_json(body if isinstance(body, bytes) else json.dumps(body).encode(), dialect)
    assert isinstance(result, Request)
    return result


def refused(body: bytes, dialect: Dialect = Dialect.CHAT) -> Problem:
    result = read_json(body, dialect)
    assert isinstance(result, Problem)
    return result


def test_facts_of_a_chat_request() -> None:
    """What routing, budgets and the row need."""
    request = read({"model": "m", "stream": True, "messages": [{}, {}], "max_tokens": 9, "n": 3, "user": "u"})

    assert ("m", True, 2, 9, 3, "u") == (
        request.model, request.is_stream, request.messages, request.max_tokens, request.choices, request.user,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"max_completion_tokens": 5, "max_tokens": 9}, 5),
        ({"max_output_tokens": 7}, 7),
        ({"max_tokens": 0}, None),
        ({"max_tokens": -3}, None),
        ({"max_tokens": "9"}, None),
        ({}, None),
    ],
)
def test_largest_answer_is_read_from_any_of_its_names(document: dict[str, Any], expected: int | None) -> None:
    """OpenAI renamed it twice; nonsense counts as not said."""
    assert expected == read(document).max_tokens


@pytest.mark.parametrize(
    "document",
    [{"model": 7}, {"stream": "true"}, {"stream": 1}, {"n": 0}, {"n": 10_000}, {"messages": "text"}, {"user": {}}],
)
def test_odd_types_are_read_as_not_said(document: dict[str, Any]) -> None:
    """The provider will complain; we pass it on and do not crash."""
    request = read(document)

    assert (None, False, 1, "") == (request.model, request.is_stream, request.choices, request.user)


@pytest.mark.parametrize(
    "body", [b"", b" ", b"{", b"{}x", b"\xef\xbb\xbf{}", b"{\x00}", b"\xff\xfe{\x00}\x00", b"[" * 100_000]
)
def test_unreadable_body_is_refused_where_json_is_expected(body: bytes) -> None:
    """The message names the trouble and repeats nothing."""
    refusal = refused(body)

    assert (400, "body_unreadable") == (refusal.status, refusal.code)


@pytest.mark.parametrize(
    "body", [b'{"model":"m","x":NaN}', b'{"model":"m","x":-Infinity}', b'{"model":"m","x":"\\ud83d"}']
)
def test_json_that_only_some_parsers_take_is_read_and_stays_as_it_is(body: bytes) -> None:
    """Clients in JavaScript and Python send these; what nothing changes is the provider's to judge."""
    request = read(body)

    assert (body, "m") == (request.body, request.model)


@pytest.mark.parametrize("body", [b"", b"binary\xff", b"[1,2]", b'"text"', b"{"])
def test_unreadable_body_passes_where_anything_may_come(body: bytes) -> None:
    """Unknown paths have their own formats."""
    assert body == read(body, Dialect.OTHER).body


DECIDING = ("model", "messages", "stream", "input", "prompt", "tools")


def _twice(key: str, second: str) -> Problem | Request:
    return read_json(f'{{"model":"m","{key}":"a","{second}":"b"}}'.encode(), Dialect.CHAT)


@pytest.mark.parametrize("key", DECIDING)
def test_deciding_key_twice_under_an_escape_is_refused(key: str) -> None:
    """Providers differ in which of the two they obey, so policy could be shown one and they the other (HT-12)."""
    result = _twice(key, f"\\u{ord(key[0]):04x}{key[1:]}")

    assert isinstance(result, Problem)
    assert "body_unreadable" == result.code


@pytest.mark.parametrize("key", DECIDING)
def test_deciding_key_twice_is_refused(key: str) -> None:
    """The same in plain spelling: ``stream`` true and false is answered as the provider likes, not as we read it."""
    assert isinstance(_twice(key, key), Problem)


def test_repeated_key_further_down_or_unknown_passes() -> None:
    """Only what decides is worth a refusal."""
    body = b'{"model":"m","x":1,"x":2,"messages":[{"model":"inner","model":"again"}]}'

    assert "m" == read(body).model


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--b', "whisper-1"),
        (b"--b\r\ncontent-disposition: form-data; name=model\r\nContent-Type: text/plain\r\n\r\nw\r\n", "w"),
        (b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nmodel\r\n', None),
        (b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nhalf', None),
        (b'name="model"\r\n\r\n\xff\r\n', None),
    ],
)
def test_model_of_an_upload(body: bytes, model: str | None) -> None:
    """Routes for audio and images need it before the file has come."""
    assert model == model_in_multipart(body)


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)


@given(old=names, new=names, text=st.text(max_size=20), spaced=st.booleans())
def test_only_the_model_changes(old: str, new: str, text: str, spaced: bool) -> None:
    """Whatever the names hold, the document is the same but for the model."""
    document = {"a": 1, "messages": [{"content": text, "x": '"model": "inner"'}], "model": old, "z": [1.5]}
    body = json.dumps(document, ensure_ascii=False, separators=None if spaced else (",", ":")).encode(
        "utf-8", "surrogatepass"
    )
    if "\\ud" in body.decode("utf-8", "replace") or any("\ud800" <= c <= "\udfff" for c in text):
        return

    changed = with_model(body, json.loads(body), new)

    assert {**document, "model": new} == json.loads(changed)


def test_every_other_byte_stays() -> None:
    """Big integers and white space survive an alias."""
    body = b'{ "seed":123456789012345678901234567890 , "model" :  "fast","t":1.0e2}'

    assert body.replace(b'"fast"', b'"gpt-4o"') == with_model(body, json.loads(body), "gpt-4o")


def test_nested_model_key_is_not_mistaken_for_the_real_one() -> None:
    """The top-level key is the one that routes."""
    body = b'{"tools":[{"model":"inner"}],"model":"fast"}'

    assert {"tools": [{"model": "inner"}], "model": "new"} == json.loads(with_model(body, json.loads(body), "new"))


def test_answer_gets_the_asked_name_back_and_keeps_its_text() -> None:
    """A model key inside text is text."""
    body = b'{"id":"x","model":"gpt-4o-mini-2024","choices":[{"message":{"content":"say \\"model\\":\\"gpt-4o-mini-2024\\""}}]}'

    assert body.replace(b'"model":"gpt-4o-mini-2024"', b'"model":"fast"', 1) == rename_model(body, "fast")


def test_every_event_of_a_stream_is_renamed() -> None:
    """Also when the provider changes the name in mid-stream, and when an event has none."""
    renamer = ModelRenamer('my "fast"')
    out = [
        renamer.feed(e)
        for e in (
            b'data: {"model":"a"}\n\n',
            b": ping\n\n",
            b'data: {"model":"a"}\n\ndata: {"model":"a"}\n\n',
            b'data: {"model": "b"}\n\n',
        )
    ]

    assert [
        b'data: {"model":"my \\"fast\\""}\n\n', b": ping\n\n", b'data: {"model":"my \\"fast\\""}\n\n' * 2, b'data: {"model":"my \\"fast\\""}\n\n',
    ] == out  # fmt: skip
    assert b"" == renamer.finish()


@pytest.mark.parametrize("body", [b"", b"[1]", b"\x00\x01", b'"text"'])
def test_what_is_no_object_asks_for_no_model(body: bytes) -> None:
    """A list of files, a GET without a body: a route whose target has a model of its own takes these as well."""
    assert body == with_model(body, None, "gpt-4o")


def test_half_a_character_survives_another_model() -> None:
    """Some clients cut texts between surrogates; the provider gets what the caller sent."""
    body = b'{"model": "fast", "messages": [{"role": "user", "content": "\\ud83d"}]}'
    changed = with_model(body, json.loads(body), "gpt-4o")

    assert {**json.loads(body), "model": "gpt-4o"} == json.loads(changed)
