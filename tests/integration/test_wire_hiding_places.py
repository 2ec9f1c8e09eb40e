"""Values in places where nobody looks for them: what the provider got, with everything decoded that it could decode."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.raw_provider import RawProvider, raw_provider
from tests.support.wire import Message, Sidecar, chat, request, sidecar_for, stream_text

pytestmark = pytest.mark.integration

EMAIL, CARD, CPF = "ana.canary@example.org", "4539148803436467", "52998224725"
TOKEN = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
CODENAME = "project falcon"
ESCAPED = EMAIL.replace("@", "\\u0040")
POLICY = f"""
version: 1
policy: all
applies_to: {{apps: ["*"]}}
redaction:
  types: [{{name: CODENAME, pattern: "(?i){CODENAME}", examples: {{match: ["{CODENAME}"], no_match: ["falcon"]}}}}]
  request: {{default: restore}}
routes: [{{name: all, match: {{models: ["*"]}}, chain: [{{provider: main}}], retries: none}}]
"""


def said(content: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content, **fields}]}


def part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


CHATS = {
    "name of a message's member": said("x", **{EMAIL: 1}),
    "name below a member of the protocol": {**said("x"), "stream_options": {EMAIL: 1}},
    "name in full width": {**said("x"), "metadata": {EMAIL.replace("@", "\uff20"): 1}},
    "name that is a word": {**said("x"), "metadata": {CODENAME: 1}},
    "model of a message": said("x", model=EMAIL),
    "model": {**said("x"), "model": EMAIL},
    "id that is a token": said("x", tool_call_id=TOKEN),
    "number as content": said(int(CARD)),
    "number as user": {**said("x"), "user": int(CPF)},
    "number with a fraction of nothing": {**said("x"), "metadata": {"card": float(CARD)}},
    "two parts, the second a value by itself": said([part("mail ana.ca"), part("nary@example.org bye")]),
    "escape in long JSON text": said(json.dumps({"pad": "x" * 70_000, "to": EMAIL}).replace("@", "\\u0040")),
    "escape in fenced JSON text": said("```json\n" + json.dumps({"to": EMAIL}).replace("@", "\\u0040") + "\n```"),
    "small at sign": said(EMAIL.replace("@", "\ufe6b")),
    "letters of mathematics": said("".join(chr(0x1D41A + ord(c) - 97) if c.isalpha() else c for c in EMAIL)),
}
CANARIES = (
    EMAIL, ESCAPED, CARD, CPF, TOKEN, CODENAME, "ana.ca", EMAIL.replace("@", "\uff20"), EMAIL.replace("@", "\ufe6b"), "\U0001d41a",
)  # fmt: skip


def form(head: str, content: str, cut: str = "\r\n") -> bytes:
    return f"--cut{cut}Content-Disposition: form-data; {head}{cut}{cut}{content}{cut}--cut--{cut}".encode()


FIELD = form('name="prompt"', "x")
FORMS = {
    "bare line ends": form('name="prompt"', EMAIL, "\n"),
    "words before the first part": f"{EMAIL}\r\n".encode() + FIELD,
    "words behind the last part": FIELD + EMAIL.encode(),
    "another header": form(f'name="prompt"\r\nX-Note: {EMAIL}', "x"),
    "another parameter": form(f'name="prompt"; note="{EMAIL}"', "x"),
    "a second name of a file": form(f"name=\"f\"; filename=a; filename*=UTF-8''{EMAIL}", "x"),
    "no name": form("", EMAIL),
    "another boundary": form('name="prompt"', EMAIL).replace(b"--cut", b"--other"),
}


@pytest.fixture(scope="module")
def provider() -> Iterator[RawProvider]:
    with raw_provider() as running:
        yield running


@pytest.fixture(scope="module")
def sidecar(provider: RawProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = f'providers: {{main: {{base_url: "{provider.base_url}"}}}}\n'
    with sidecar_for(tmp_path_factory.mktemp("hiding"), config, POLICY) as running:
        yield running


def read_by(provider: RawProvider) -> str:
    """Return everything that left, as it was written and as JSON says it."""
    seen = [message.body for message in provider.seen]
    return "\n".join(text for body in seen for text in (body.decode("utf-8", "replace"), *_strings(_parsed(body))))


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield key
            yield from _strings(value)
    elif isinstance(node, list):
        for item in node:
            yield from _strings(item)
    elif isinstance(node, str):
        yield node


def send(sidecar: Sidecar, provider: RawProvider, path: str, body: bytes, content_type: str | None) -> Message:
    provider.seen.clear()
    return sidecar.ask(request("POST", path, body, {"Content-Type": content_type} if content_type else {}))


@pytest.mark.parametrize("place", CHATS)
def test_value_in_an_odd_place_of_a_chat_leaves_as_a_placeholder(
    sidecar: Sidecar, provider: RawProvider, place: str
) -> None:
    """What we read must be what the provider can read, names, numbers and escapes included."""
    answer = send(sidecar, provider, "/v1/chat/completions", json.dumps(CHATS[place]).encode(), "application/json")
    left = read_by(provider)

    assert 200 == answer.status
    assert 1 == len(provider.seen)
    assert [] == [canary for canary in CANARIES if canary in left]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/xml", "application/x-yaml"])
@pytest.mark.parametrize("spelled", [EMAIL, ESCAPED], ids=["plain", "escaped"])
def test_json_under_a_wrong_label_is_read_as_json(
    sidecar: Sidecar, provider: RawProvider, content_type: str | None, spelled: str
) -> None:
    """Servers look at a body and not at its label."""
    answer = send(sidecar, provider, "/v1/moderations", f'{{"input":"{spelled}"}}'.encode(), content_type)
    left = read_by(provider)

    assert 200 == answer.status
    assert [] == [canary for canary in CANARIES if canary in left]
    assert "[EMAIL-1]" in left


@pytest.mark.parametrize("flaw", FORMS)
def test_form_that_others_may_read_otherwise_is_refused(sidecar: Sidecar, provider: RawProvider, flaw: str) -> None:
    """A form that is odd and holds a value goes nowhere: a lenient parser would find the value where we do not."""
    answer = send(sidecar, provider, "/v1/files", FORMS[flaw], "multipart/form-data; boundary=cut")

    assert (400, "client", []) == (answer.status, answer.get("x-readygate-fault"), provider.seen)


def test_one_bad_byte_does_not_hide_the_other_lines_of_a_batch(sidecar: Sidecar, provider: RawProvider) -> None:
    """Lines that can be read are read; the file also counts as unread."""
    body = form('name="file"; filename="a.jsonl"', json.dumps({"to": EMAIL}) + "\n?").replace(b"?", b"\xff")
    answer = send(sidecar, provider, "/v1/files", body, "multipart/form-data; boundary=cut")

    assert 200 == answer.status
    assert EMAIL not in read_by(provider)
    assert b"\xff" in provider.seen[0].body
    assert 0 < sidecar.row(answer.get("x-readygate-id"))["unscanned_bytes"]


@pytest.mark.parametrize(
    "broken", [b'{"choices":[{"index":0,"delta":{"content":"bro', b'{"choices":[{"delta":{"content":"\xff\xc3"}}]}']
)
def test_broken_event_that_comes_alone_in_mid_stream_never_reaches_the_caller(
    sidecar: Sidecar, provider: RawProvider, broken: bytes
) -> None:
    """Events without an end in them are not parsed one by one; a client's parser must not meet what is no JSON."""
    words = [b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % word for word in (b"one ", b"two ")]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    provider.answer(head, *words, b"data: " + broken + b"\n\n", gap_s=0.15, closes=True)
    answer = sidecar.ask(
        request("POST", "/v1/chat/completions", json.dumps(said("x") | {"stream": True}).encode(), {"Content-Type": "application/json"})
    )  # fmt: skip

    assert broken not in answer.body
    assert "upstream_bad_stream" == json.loads(answer.events[-1])["error"]["code"]
    assert ["one ", "two "] == [json.loads(event)["choices"][0]["delta"]["content"] for event in answer.events[:-1]]


def test_streamed_citations_point_at_the_values_the_caller_gets(sidecar: Sidecar, provider: RawProvider) -> None:
    """A search model counts characters of its own text, in which placeholders stand; most events hold none."""
    deltas = [{"content": text} for text in ("Found it: ", "[EMAIL-1] is on ", "page two.")]
    cited = {"annotations": [{"type": "url_citation", "url_citation": {"start_index": 10, "end_index": 19}}]}
    events = [json.dumps({"choices": [{"index": 0, "delta": delta}]}) for delta in (*deltas, cited)]
    events.append(json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    provider.answer(head, *(f"data: {event}\n\n".encode() for event in (*events, "[DONE]")), gap_s=0.02, closes=True)
    answer = sidecar.ask(chat(f"Where is {EMAIL}?", stream=True, web_search_options={}))
    notes = [
        note["url_citation"]
        for event in answer.events
        if "annotations" in event
        for note in json.loads(event)["choices"][0]["delta"]["annotations"]
    ]

    assert f"Found it: {EMAIL} is on page two." == stream_text(answer)
    assert [{"start_index": 10, "end_index": 10 + len(EMAIL)}] == notes
