"""Putting values back into whole answers, errors included."""

import json
from typing import Any

import pytest

from proxy.core.dialect import Dialect
from proxy.core.redaction import AnswerRestorer, Vault
from tests.unit.core.redaction.doubles import vault_of


def whole(body: bytes, vault: Vault | None = None, dialect: Dialect = Dialect.CHAT) -> bytes:
    return AnswerRestorer(vault_of("ana@x.com", 'a"b\\c\n') if vault is None else vault, dialect).whole(body)


def test_answer_without_placeholders_stays_byte_for_byte() -> None:
    """Number spellings, spaces, repeated keys and half surrogates are the provider's."""
    for body in (
        b'{"choices": [\n {"message": {"content": "[x] caf\\u00e9 \\ud83d"}}], "f": 1.0e2, "a":1,"a":2}',
        b'{"data":[{"embedding":[0.1,0.2]},{"embedding":[0.3]}]}',
        b"\x89PNG[\xff",
        b"",
    ):
        assert body == whole(body)


def test_content_arguments_refusal_and_keys_are_restored() -> None:
    """Everywhere a model can write."""
    body = json.dumps({"choices": [{"index": 0, "logprobs": {"content": []}, "message": {
        "content": "hi [EMAIL-1]", "refusal": None, "reasoning_content": "[email-1]?",
        "tool_calls": [{"id": "call_1", "function": {"name": "f", "arguments": '{"[EMAIL-1]": "[EMAIL-2]"}'}}]}}],
        "mine": {"[EMAIL-1]": ["[EMAIL-1]"]}, "usage": {"total_tokens": 1}}).encode()  # fmt: skip
    made: dict[str, Any] = json.loads(whole(body))
    message = made["choices"][0]["message"]

    assert ("hi ana@x.com", None, "ana@x.com?") == (
        message["content"],
        message["refusal"],
        message["reasoning_content"],
    )
    assert {"ana@x.com": 'a"b\\c\n'} == json.loads(message["tool_calls"][0]["function"]["arguments"])
    assert {"ana@x.com": ["ana@x.com"]} == made["mine"]


def test_structured_output_stays_valid_json() -> None:
    """The content is JSON by itself; a value with a quote must not break it."""
    body = json.dumps({"choices": [{"message": {"content": '{"p":"[EMAIL-2]"}'}}]}).encode()

    assert {"p": 'a"b\\c\n'} == json.loads(json.loads(whole(body))["choices"][0]["message"]["content"])


def test_log_probabilities_of_a_changed_choice_go() -> None:
    """Token by token they would disagree with the text."""
    choices = [
        {"message": {"content": text}, "logprobs": {"content": [{"token": "["}]}} for text in ("[EMAIL-1]", "[x]")
    ]
    made = json.loads(whole(json.dumps({"choices": choices}).encode()))

    assert [None, {"content": [{"token": "["}]}] == [choice["logprobs"] for choice in made["choices"]]


def test_provider_error_that_quotes_the_prompt_is_restored() -> None:
    """The application compares its own values."""
    body = b'{"error":{"message":"Invalid email [EMAIL-1]","type":"invalid_request_error","param":null,"code":null}}'

    assert body.replace(b"[EMAIL-1]", b"ana@x.com") == whole(body)


def test_body_that_is_no_json_is_restored_as_text() -> None:
    """Proxies in front of providers answer HTML."""
    assert b"<p>ana@x.com \xff</p>" == whole(b"<p>[EMAIL-1] \xff</p>")


def test_half_surrogate_beside_a_placeholder_survives() -> None:
    """Strict parsers refuse it; the value comes back all the same."""
    body = b'{"choices":[{"message":{"content":"[EMAIL-1] \\ud83d"}}]}'

    assert body.replace(b"[EMAIL-1]", b"ana@x.com") == whole(body)


@pytest.mark.parametrize(
    "body", [b'"[EMAIL-1]"', b'["[EMAIL-1]"]', b'{"a":"\\u005bEMAIL-1\\u005d"}', '{"a":"\uff3bEMAIL-1\uff3d"}'.encode()]
)
def test_any_document_and_any_escape_is_restored(body: bytes) -> None:
    """The quick test must not miss an opener."""
    assert b"ana@x.com" in whole(body)


def test_embeddings_and_empty_vaults_touch_nothing() -> None:
    """Nothing to restore, nothing to do."""
    assert b"[EMAIL-1]" == whole(b"[EMAIL-1]", dialect=Dialect.EMBEDDINGS) == whole(b"[EMAIL-1]", Vault())


def test_text_that_begins_with_a_colon_is_not_taken_for_structure() -> None:
    """The quick test once counted this bracket as an array's."""
    body = b'{"choices":[{"message":{"content":": [EMAIL-1]"}}],": [EMAIL-1]":[],"a":":[EMAIL-1]"}'

    assert body.replace(b"[EMAIL-1]", b"ana@x.com") == whole(body)


def test_citations_move_with_their_text() -> None:
    """An offset into the placeholder's text would point beside the word."""
    text = "See [EMAIL-1] and [EMAIL-1] here"
    at = text.index("here")
    body = {"choices": [{"message": {"content": text, "annotations": [
        {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 13}},
        {"type": "url_citation", "start_index": at, "end_index": at + 4}, None]}}]}  # fmt: skip
    message = json.loads(whole(json.dumps(body).encode(), vault_of("a@b.example.com")))["choices"][0]["message"]
    first, second, _ = message["annotations"]

    assert "here" == message["content"][second["start_index"] : second["end_index"]]
    assert "See a@b.example.com" == message["content"][: first["url_citation"]["end_index"]]
