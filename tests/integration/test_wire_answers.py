"""Answers through the front door: what the model wrote itself is redacted, blocked or counted, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.simulator import Simulator
from tests.support.wire import Message, Sidecar, ask, chat, request, sidecar_for, stream_text, threaded_simulator

pytestmark = pytest.mark.integration

MODES = {
    "redact": "{default: redact}",
    "mask": "{default: mask}",
    "hash": "{default: hash}",
    "observe": "{default: observe}",
    "block": "{default: 'off', rules: [{types: [credit_card], action: block}]}",
    "buffer": "{default: redact, stream: buffer}",
    "fast": "{default: redact, stream: low_latency}",
}
POLICIES = {
    f"{name}.yaml": f"""
version: 1
policy: {name}
applies_to: {{apps: [{name}]}}
redaction: {{request: {{default: restore}}, response: {response}}}
routes: [{{name: {name}, match: {{models: ["*"]}}, chain: [{{provider: main}}], retries: none}}]
"""
    for name, response in MODES.items()
}
OWN = "ana.canary@example.com"
NEW = "bob.canary@empresa.com.br"
CARD = "4111 1111 1111 1111"
SAID = f"Dear {OWN}, ask {NEW} about it."


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = f'providers: {{main: {{base_url: "{provider.base_url}"}}}}\nlog: {{level: debug, format: json}}\n'
    with sidecar_for(tmp_path_factory.mktemp("answers"), config, POLICIES) as running:
        yield running


def asked(
    sidecar: Sidecar, app: str, answer: str, provider: Simulator, speech: str = "chars=3", **fields: Any
) -> Message:
    """Ask with a value of the application's own, and let the provider say ``answer``."""
    provider.script({"fault": "ok", "content": answer.replace(OWN, "[EMAIL-1]")})
    headers = {"x-sim-speech": speech, "x-readygate-app": app}
    return sidecar.ask(chat(f"I am {OWN}", headers, **fields))


def said(answer: Message, *, is_stream: bool) -> str:
    if is_stream:
        return stream_text(answer)
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("app", "mark"),
    [
        ("redact", "[EMAIL_REDACTED]"),
        ("buffer", "[EMAIL_REDACTED]"),
        ("fast", "[EMAIL_REDACTED]"),
        ("mask", "***.******@*******.*om.br"),
        ("observe", NEW),
    ],
)
def test_words_of_the_model_are_treated_and_own_values_come_back(
    sidecar: Sidecar, provider: Simulator, app: str, mark: str, is_stream: bool
) -> None:
    """The application reads its own address, and of the model's what policy lets it."""
    before = sidecar.metric("readygate_findings_total", type="email", direction="response")
    answer = asked(sidecar, app, SAID, provider, stream=is_stream)
    text = said(answer, is_stream=is_stream)

    if app == "fast" and is_stream:
        assert NEW not in text
    else:
        assert f"Dear {OWN}, ask {mark} about it." == text
    row = sidecar.row(answer.get("x-readygate-id"))
    assert {"EMAIL": 1} == json.loads(row["response_findings"])
    assert "success" == row["status"]
    assert before + 1 == sidecar.metric("readygate_findings_total", type="email", direction="response")


def test_observed_stream_passes_byte_for_byte(sidecar: Sidecar, provider: Simulator) -> None:
    """Counting must be invisible: the same bytes as with no policy at all."""
    provider.script(*[{"fault": "ok", "content": f"mail {NEW} now"}] * 2)
    through = sidecar.ask(chat("hi", {"x-readygate-app": "observe"}, stream=True))
    straight = ask(provider.port, chat("hi", stream=True))
    ids = [json.loads(event)["id"] for event in (through.events[0], straight.events[0])]

    assert straight.body.replace(ids[1].encode(), ids[0].encode()) == through.body


def test_blocked_whole_answer_is_a_refusal_that_says_so(sidecar: Sidecar, provider: Simulator) -> None:
    """The provider did its work; the caller learns that the answer, not the question, was refused."""
    answer = asked(sidecar, "block", f"the card is {CARD}, ok", provider)

    assert (400, "content_policy_violation", "policy") == (
        answer.status, answer.error["code"], answer.get("x-readygate-fault"),
    )  # fmt: skip
    assert "answer" in answer.error["message"]
    assert "false" == answer.get("x-should-retry")
    row = sidecar.row(answer.get("x-readygate-id"))
    assert ("blocked", {"CREDIT_CARD": 1}) == (row["status"], json.loads(row["response_findings"]))


def test_blocked_stream_ends_with_an_error_and_no_done(sidecar: Sidecar, provider: Simulator) -> None:
    """Nothing of the value came, and no client can take the stream for complete."""
    words = f"a few words first, then the card {CARD}, and more"
    answer = asked(sidecar, "block", words, provider, "chars=9,rate=100", stream=True)

    assert 200 == answer.status
    assert "[DONE]" not in answer.events
    assert "content_policy_violation" == json.loads(answer.events[-1])["error"]["code"]
    assert b"4111" not in answer.body
    assert stream_text(Message(b"", [], answer.body.rpartition(b"data: ")[0])).startswith("a few words first")
    assert "blocked" == sidecar.row(answer.get("x-readygate-id"))["status"]


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses"])
def test_other_dialects_are_treated_alike(sidecar: Sidecar, provider: Simulator, path: str, is_stream: bool) -> None:
    """Wherever the words of a model stand."""
    provider.script({"fault": "ok", "content": SAID.replace(OWN, "[EMAIL-1]")})
    question = {"model": "gpt-4o-mini", "stream": is_stream, "prompt": f"I am {OWN}", "input": f"I am {OWN}"}
    question.pop("input" if path.endswith("completions") else "prompt")
    headers = {"Content-Type": "application/json", "x-sim-speech": "chars=2", "x-readygate-app": "redact"}
    answer = sidecar.ask(request("POST", path, json.dumps(question).encode(), headers))
    expected = f"Dear {OWN}, ask [EMAIL_REDACTED] about it."

    assert NEW.encode() not in answer.body
    if not is_stream:
        assert expected in json.dumps(answer.json())
        return
    events = [json.loads(event) for event in answer.events if event != "[DONE]"]
    if path.endswith("completions"):
        assert expected == "".join(e["choices"][0]["text"] for e in events if e.get("choices"))
    else:
        deltas = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
        done = next(e["text"] for e in events if e["type"] == "response.output_text.done")
        assert expected == deltas == done == events[-1]["response"]["output"][-1]["content"][0]["text"]


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_arguments_of_tool_calls_are_treated_and_stay_json(
    sidecar: Sidecar, provider: Simulator, is_stream: bool
) -> None:
    """What a tool gets is the application's own value, and no new one."""
    tools = [{"type": "function", "function": {"name": "mail", "parameters": {"type": "object"}}}]
    call = json.dumps({"to": OWN, "cc": NEW, "cpf": 52998224725})
    # The values of the question come back as they were; what the model adds is replaced.
    question = chat(
        f"I am {OWN}\ncall mail {call.replace(NEW, 'NEW').replace('52998224725', '1')}",
        {"x-sim-speech": "chars=2", "x-readygate-app": "redact"},
        tools=tools,
        stream=is_stream,
    )
    answer = sidecar.ask(question)
    if is_stream:
        events = [json.loads(event) for event in answer.events if event != "[DONE]"]
        pieces = [c["delta"].get("tool_calls") or [] for e in events for c in e["choices"]]
        source = "".join(p["function"].get("arguments", "") for piece in pieces for p in piece)
    else:
        source = answer.json()["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]

    assert {"to": OWN, "cc": "NEW", "cpf": 1} == json.loads(source)


def test_no_value_is_anywhere_but_with_the_application(sidecar: Sidecar, provider: Simulator) -> None:
    """Journal of the provider, log, metrics, rows and spool after everything above."""
    asked(sidecar, "redact", SAID, provider, stream=True)
    row = asked(sidecar, "redact", SAID, provider)
    sidecar.row(row.get("x-readygate-id"))
    places = [
        *[entry.body for entry in provider.entries],
        sidecar.log().encode(),
        sidecar.admin("/metrics").body,
        repr(sidecar.rows()).encode(),
        *[path.read_bytes() for path in sidecar.folder.rglob("*") if path.is_file() and path.suffix != ".yaml"],
    ]
    for place in places:
        for value in (OWN, NEW, CARD):
            assert value.encode() not in place
