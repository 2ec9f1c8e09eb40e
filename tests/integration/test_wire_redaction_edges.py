"""Bodies and answers at the edge of what can be read, through a running sidecar: unusual encodings, labels and codings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.canned_provider import whole
from tests.support.raw_provider import RawProvider, raw_provider
from tests.support.wire import Message, Sidecar, chat, request, sidecar_for

pytestmark = pytest.mark.integration

EMAIL = "ana.canary@example.org"
PEM = f"-----BEGIN PRIVATE KEY-----\n{'MIIEvQIBADANBgkqhkiG9w0BAQEFAASC' * 3}\n-----END PRIVATE KEY-----"
POLICY = """
version: 1
policy: all
applies_to: {apps: ["*"]}
redaction: {request: {default: restore}}
routes: [{name: all, match: {models: ["*"]}, chain: [{provider: main}], retries: none}]
"""
STRICT = POLICY.replace(
    "default: restore}", "default: observe, rules: [{types: [email], action: restore}]}, unscanned: refuse"
)
DOCUMENT = json.dumps({"input": f"é {EMAIL}"}, ensure_ascii=False)
LINE = json.dumps({"custom_id": "a", "body": {"messages": [{"role": "user", "content": EMAIL}]}})


def upload(head: str, content: bytes) -> bytes:
    start = f"--cut\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode()
    body = start + content + b"\r\n--cut--\r\n"
    return request("POST", "/v1/files", body, {"Content-Type": "multipart/form-data; boundary=cut"})


@pytest.fixture(scope="module")
def provider() -> Iterator[RawProvider]:
    with raw_provider() as running:
        yield running


@pytest.fixture(scope="module")
def sidecar(provider: RawProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = f'providers: {{main: {{base_url: "{provider.base_url}"}}}}\n'
    with sidecar_for(tmp_path_factory.mktemp("edges"), config, POLICY) as running:
        yield running


def send(sidecar: Sidecar, provider: RawProvider, data: bytes) -> tuple[Message, bytes]:
    """Return the answer and what the provider got."""
    provider.seen.clear()
    answer = sidecar.ask(data)
    return answer, b"".join(message.body for message in provider.seen)


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", None])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_json_in_another_encoding_goes_nowhere(
    sidecar: Sidecar, provider: RawProvider, encoding: str, content_type: str | None
) -> None:
    """Some servers read UTF-16, and our search does not."""
    headers = {"Content-Type": content_type} if content_type else {}
    answer, left = send(sidecar, provider, request("POST", "/v1/moderations", DOCUMENT.encode(encoding), headers))

    assert (400, "body_unreadable", b"") == (answer.status, answer.error["code"], left)


@pytest.mark.parametrize("garbage", [b"\xe9", b"\0"])
def test_text_with_bytes_that_are_none_is_read_and_counted(
    sidecar: Sidecar, provider: RawProvider, garbage: bytes
) -> None:
    """One byte in an old encoding does not hide the words beside it, and does not get lost."""
    body = garbage + f" {EMAIL} ".encode() + garbage
    answer, left = send(sidecar, provider, request("POST", "/v1/notes", body, {"Content-Type": "text/plain"}))

    assert (200, garbage + b" [EMAIL-1] " + garbage) == (answer.status, left)
    assert len(body) == sidecar.row(answer.get("x-readygate-id"))["unscanned_bytes"]


def test_form_keeps_its_bytes_and_too_many_fields_are_read_as_text(sidecar: Sidecar, provider: RawProvider) -> None:
    """Ten thousand fields in front of a value are no way past policy."""
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    escaped = EMAIL.replace("@", "%40")
    _, few = send(sidecar, provider, request("POST", "/v1/notes", f"a=%FF%FE&b={escaped}".encode(), kind))
    many = "&".join(f"a{at}=1" for at in range(10_050))
    _, left = send(sidecar, provider, request("POST", "/v1/notes", f"{many}&b={escaped}".encode(), kind))

    assert few == b"a=%FF%FE&b=%5BEMAIL-1%5D"
    assert left.startswith(b"a0=1&")
    assert b"canary" not in left


def test_json_under_a_label_nobody_knows_is_read(sidecar: Sidecar, provider: RawProvider) -> None:
    """A label that means nothing is as good as none."""
    kind = {"Content-Type": "application/vnd.example"}
    answer, left = send(sidecar, provider, request("POST", "/v1/moderations", DOCUMENT.encode(), kind))

    assert (200, {"input": "é [EMAIL-1]"}) == (answer.status, json.loads(left))


@pytest.mark.parametrize("head", ['name="file"; filename="upload"', 'name="file"; filename=""'])
def test_batch_sent_without_a_name_is_read_by_its_lines(sidecar: Sidecar, provider: RawProvider, head: str) -> None:
    """SDKs call bytes ``upload`` and say nothing of their type."""
    kind = "\r\nContent-Type: application/octet-stream"
    answer, left = send(sidecar, provider, upload(head + kind, f"{LINE}\n{LINE}\n".encode()))

    assert 200 == answer.status
    assert 2 == left.count(b"[EMAIL-1]")
    assert b"canary" not in left
    assert 0 == sidecar.row(answer.get("x-readygate-id"))["unscanned_bytes"]


def test_field_in_utf16_counts_as_unread(sidecar: Sidecar, provider: RawProvider) -> None:
    """ASCII in UTF-16 is valid UTF-8, with a NUL after every letter."""
    content = "hello".encode("utf-16-le")
    answer, _ = send(sidecar, provider, upload('name="prompt"', content))

    assert len(content) == sidecar.row(answer.get("x-readygate-id"))["unscanned_bytes"]


def test_unscanned_content_is_refused_also_where_most_types_are_only_observed(
    provider: RawProvider, tmp_path: Path
) -> None:
    """The two keys have nothing to do with each other."""
    with sidecar_for(tmp_path, f'providers: {{main: {{base_url: "{provider.base_url}"}}}}\n', STRICT) as strict:
        kind = {"Content-Type": "application/octet-stream"}
        answer, left = send(strict, provider, request("POST", "/v1/notes", b"\xff" * 64, kind))

    assert (400, "unscanned_content", b"") == (answer.status, answer.error["code"], left)


def test_turn_of_a_history_the_provider_keeps_gives_no_number_twice(sidecar: Sidecar, provider: RawProvider) -> None:
    """The first turn's [EMAIL-1] is somebody else's; an answer that speaks of it must not be given this turn's value."""
    said = {"output": [{"type": "message", "content": [{"type": "output_text", "text": "[EMAIL-1]"}]}]}
    provider.answer(whole(json.dumps(said).encode()))
    tags = []
    for more in ({"previous_response_id": None}, {"previous_response_id": "resp_1"}, {"conversation": "conv_1"}):
        body = json.dumps({"model": "m", "input": EMAIL, **more}).encode()
        kind = {"Content-Type": "application/json"}
        answer, left = send(sidecar, provider, request("POST", "/v1/responses", body, kind))
        tags.append(json.loads(left)["input"])
        came = answer.json()["output"][0]["content"][0]["text"]
        assert came == (EMAIL if more.get("previous_response_id", 0) is None else "[EMAIL-1]")

    assert "[EMAIL-1]" == tags[0]
    assert tags[1] == tags[2] != tags[0]


def answered(text: str) -> bytes:
    document: dict[str, Any] = {"id": "x", "object": "chat.completion", "choices": [{"index": 0}]}
    document["choices"][0] |= {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps(document).encode()


def test_answer_whose_coding_is_none_is_read(sidecar: Sidecar, provider: RawProvider) -> None:
    """``content-encoding: identity`` says nothing, and some servers say it."""
    provider.answer(whole(answered("to [EMAIL-1]"), more="content-encoding: identity\r\n"))
    answer = sidecar.ask(chat(f"write to {EMAIL}"))

    assert (200, f"to {EMAIL}") == (answer.status, answer.json()["choices"][0]["message"]["content"])


def test_value_in_json_with_a_byte_order_mark_is_escaped(sidecar: Sidecar, provider: RawProvider) -> None:
    """A value with line breaks must not end the string it is put into."""
    provider.answer(whole(b"\xef\xbb\xbf" + answered("key [PRIVATE-KEY-1]")))
    answer = sidecar.ask(chat(f"my key: {PEM}"))

    assert answer.body.startswith(b"\xef\xbb\xbf")
    assert f"key {PEM}" == json.loads(answer.body.decode("utf-8-sig"))["choices"][0]["message"]["content"]


def test_words_of_a_policy_are_replaced_in_names_of_members_whole_and_streamed(
    provider: RawProvider, tmp_path: Path
) -> None:
    """Whether an answer comes in one piece must not decide what the caller sees."""
    types = (
        "types: [{name: code_name, terms: [project falcon]}], request: {default: restore}, response: {default: redact}"
    )
    policy = POLICY.replace("request: {default: restore}", types)
    said = '{"project falcon": 1, "x": "project falcon"}'
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": said}}
    events = [{"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]}]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    stream = b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events) + b"data: [DONE]\n\n"
    document = {
        "choices": [{"index": 0, "message": {"role": "assistant", "tool_calls": [call]}, "finish_reason": "stop"}]
    }
    config = f'providers: {{main: {{base_url: "{provider.base_url}"}}}}\n'
    with sidecar_for(tmp_path, config, policy) as running:
        provider.answer(whole(json.dumps(document).encode()))
        in_one = running.ask(chat("hi")).json()["choices"][0]["message"]["tool_calls"][0]
        provider.answer(whole(stream, "text/event-stream"))
        answer = running.ask(chat("hi", stream=True))
        deltas = [json.loads(event)["choices"][0]["delta"] for event in answer.events if event != "[DONE]"]
        streamed = "".join(
            piece["function"].get("arguments") or "" for d in deltas for piece in d.get("tool_calls", [])
        )

    assert '{"[CODE_NAME_REDACTED]": 1, "x": "[CODE_NAME_REDACTED]"}' == in_one["function"]["arguments"] == streamed
