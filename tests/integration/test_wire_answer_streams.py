"""Redacted streams through the real process: the data sets, every way of framing, and streams that break."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from loadtest.score_detect import FILES, load_rows
from proxy.core.redaction import AnswerRedactor
from proxy.core.redaction.detect import build_detector
from proxy.core.redaction.sieve import Sieve
from proxy.terms.redaction import Action, DirectionPlan, RedactionPlan
from tests.support.simulator import Simulator
from tests.support.wire import Message, Sidecar, caller, chat, sidecar_for, stream_text, threaded_simulator

pytestmark = pytest.mark.integration

BREAKS = [(fault, after) for fault in ("error_event", "cut", "reset") for after in (5, 7, 9, 11, 13)]
"""Each has a deployment of its own, so that no breaker opens on the others."""
POLICY = (
    """
version: 1
policy: default
redaction: {request: {default: restore}, response: {default: redact}}
routes:
"""
    + "".join(
        f"  - {{name: {fault}-{after}, match: {{models: [{fault}-{after}]}}, retries: none, broken_stream: event, "
        f"chain: [{{provider: main, model: served-{fault}-{after}}}]}}\n"
        for fault, after in BREAKS
    )
    + """
  - {name: resumed, match: {models: [resumed]}, retries: none, rescue: resume,
     chain: [{provider: main, model: first}, {provider: main, model: second, prefill: true}]}
  - {name: any, match: {models: ["*"]}, chain: [{provider: main}], retries: none}
"""
)
OWN, NEW = "ana.canary@example.com", "bob.canary@empresa.com.br"
ANSWERS = AnswerRedactor(RedactionPlan(response=DirectionPlan(default=Action.REDACT)), build_detector())
FRAMINGS = {
    "one character an event": "chars=1",
    "one byte a read": "chars=4,split=1",
    "crlf": "chars=2,eol=crlf",
    "cr": "chars=2,eol=cr",
    "byte order mark and comments": "chars=3,bom=1,comments=1",
    "several data lines": "chars=3,multiline=1,nospace=1",
    "event fields": "chars=3,fields=1",
    "half emoji": "chars=1,utf16=1",
    "no last blank line": "chars=5,tight_end=1",
    "one event": "chars=4000",
    "gzip": "chars=3,encode=gzip",
}


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = f'providers: {{main: {{base_url: "{provider.base_url}"}}}}\n'
    with sidecar_for(tmp_path_factory.mktemp("streams"), config, POLICY) as running:
        yield running


def streamed(
    sidecar: Sidecar, provider: Simulator, answer: str, speech: str, fault: str = "ok", model: str = "m"
) -> Message:
    provider.script({"fault": fault, "content": answer})
    return sidecar.ask(chat(f"I am {OWN}", {"x-sim-speech": speech}, stream=True, model=model))


def sieved(text: str) -> str:
    sieve = Sieve(ANSWERS.marks(), is_json=False)
    return sieve.feed(text) + sieve.finish()


@pytest.mark.parametrize("speech", FRAMINGS.values(), ids=FRAMINGS)
def test_framing_of_the_provider_does_not_matter(sidecar: Sidecar, provider: Simulator, speech: str) -> None:
    """redaction.md 8.6.3: characters and lines cut over reads, every line end, comments, a missing last blank line."""
    text = f"Olá 😀 [EMAIL-1]: {NEW}, CPF 529.982.247-25, ação 😀."
    answer = streamed(sidecar, provider, text, speech)
    told = answer.body.decode().replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
    events = [json.loads(line[6:]) for line in told.split("\n") if line.startswith("data: {")]
    read = "".join(c["delta"].get("content") or "" for event in events for c in event["choices"])

    assert f"Olá 😀 {OWN}: [EMAIL_REDACTED], CPF [CPF_REDACTED], ação 😀." == read.encode(
        "utf-16", "surrogatepass"
    ).decode("utf-16")


@pytest.mark.parametrize("name", FILES)
def test_labelled_data_comes_out_as_in_one_piece(sidecar: Sidecar, provider: Simulator, name: str) -> None:
    """redaction.md 8.6.7, through sockets: whatever the tokens, the caller reads what the whole text comes to."""
    rng = random.Random(name)
    rows = [row["text"] for row in load_rows((name,)) if "[[sim" not in row["text"]]
    for text in rng.sample(rows, 12):
        answer = streamed(sidecar, provider, text, f"chars={rng.choice((1, 2, 3, 5, 9))}")

        assert sieved(text) == stream_text(answer), text


@pytest.mark.parametrize(("fault", "after"), BREAKS)
def test_stream_that_breaks_shows_no_value_and_says_so(
    sidecar: Sidecar, provider: Simulator, fault: str, after: int
) -> None:
    """redaction.md 8.6.8: broken in the middle of what was held, at every event."""
    answer = streamed(
        sidecar, provider, f"[EMAIL-1] {NEW} and more", "chars=3,rate=120", f"{fault}:after={after}", f"{fault}-{after}"
    )
    text = stream_text(Message(b"", [], answer.body.rpartition(b"data: ")[0]))

    assert 200 == answer.status
    assert "error" in json.loads(answer.events[-1])
    assert "[DONE]" not in answer.events
    assert NEW not in text


def test_rescue_shows_no_other_provider_what_the_first_one_wrote(sidecar: Sidecar, provider: Simulator) -> None:
    """A continuation from the text so far would carry what policy takes out of it; the next target begins anew."""
    text = f"some words first, then {NEW} and a few words more to the end"
    provider.script({"fault": "cut:after=16", "content": text}, {"fault": "ok", "content": text})
    before = len(provider.entries)
    answer = sidecar.ask(chat("hi", {"x-sim-speech": "chars=3,rate=120"}, stream=True, model="resumed"))
    bodies = [entry.body.decode() for entry in provider.entries[before:]]

    assert "some words first, then [EMAIL_REDACTED] and a few words more to the end" == stream_text(answer)
    assert 2 == len(bodies)
    assert not [body for body in bodies if "bob.canary" in body or "assistant" in body]
    assert "rescued" == sidecar.row(answer.get("x-readygate-id"))["status"]


def test_error_body_of_the_provider_is_restored_and_redacted(sidecar: Sidecar, provider: Simulator) -> None:
    """Errors like to echo the question, and sometimes somebody else's."""
    provider.script({"status": 400, "body": json.dumps(
        {"error": {"message": f"bad value [EMAIL-1] near {NEW}", "type": "invalid_request_error", "code": "x"}})})  # fmt: skip
    answer = sidecar.ask(chat(f"I am {OWN}"))

    assert (400, f"bad value {OWN} near [EMAIL_REDACTED]") == (answer.status, answer.error["message"])


def test_caller_that_leaves_amid_a_held_value_leaves_nothing_behind(sidecar: Sidecar, provider: Simulator) -> None:
    """The vault and the lanes go with the exchange; its row says cancelled."""
    provider.script({"fault": "ok", "content": f"words first {NEW} and more " * 50})
    with caller(sidecar.data_port) as wire:
        wire.send(chat(f"I am {OWN}", {"x-sim-speech": "chars=3,rate=50"}, stream=True))
        wire.until(b"words")
        exchange_id = wire.held.split(b"x-readygate-id: ")[1][:36].decode()
        wire.reset()
    row = sidecar.row(exchange_id)

    assert "cancelled" == row["status"]
    assert OWN not in repr(row)
