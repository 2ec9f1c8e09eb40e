"""Names and addresses in free text: found by a service, replaced on the way out, back on the way in."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.names_service import NamesService, in_utf16, names_service
from tests.support.simulator import Simulator
from tests.support.wire import Message, Sidecar, chat, request, sidecar_for, stream_text, threaded_simulator

pytestmark = pytest.mark.integration

POLICY = """
version: 1
policy: default
redaction: {request: {default: restore, rules: [{types: [person, address], action: restore}]}}
routes:
  - match: {models: [plain]}
    chain: [{provider: one}]
    redaction: {request: {default: restore}}
  - match: {models: ['*']}
    chain: [{provider: one}]
"""
TOLD = "echo: Ana Silva (ana.silva@example.com) lives in Rua das Flores"


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def service() -> Iterator[NamesService]:
    with names_service() as running:
        yield running


def config(provider: Simulator, service: NamesService, more: str) -> str:
    return f'providers: {{one: {{base_url: "{provider.origin}/v1"}}}}\nnames: {{url: "{service.url}", {more}}}\n'


@pytest.fixture(scope="module")
def strict(provider: Simulator, service: NamesService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    more = "timeout: 300ms, max_text: 1KiB, api_key: {env: NAMES_KEY}, auth_header: x-api-key"
    folder = tmp_path_factory.mktemp("strict")
    with sidecar_for(folder, config(provider, service, more), POLICY, env={"NAMES_KEY": "sk-names"}) as running:
        yield running


@pytest.fixture(scope="module")
def lenient(provider: Simulator, service: NamesService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    more = "timeout: 300ms, on_failure: pass"
    with sidecar_for(tmp_path_factory.mktemp("lenient"), config(provider, service, more), POLICY) as running:
        yield running


@pytest.fixture(autouse=True)
def _forget(provider: Simulator, service: NamesService) -> None:
    provider.reset()
    service.reset()


def sent(provider: Simulator) -> str:
    """Return the content of the last message the provider has seen."""
    text: str = json.loads(provider.entries[-1].body)["messages"][-1]["content"]
    return text


def said(answer: Message) -> str:
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def notes_of(sidecar: Sidecar, answer: Message) -> list[str]:
    notes: list[str] = json.loads(sidecar.row(answer.get("x-readygate-id"))["notes"] or "[]")
    return notes


def recover(sidecar: Sidecar, service: NamesService) -> None:
    """Let the service be well until the sidecar has noticed."""
    service.reset()
    for _ in range(100):
        sidecar.ask(chat(f"are you well again {time.monotonic()}"))  # success forgets failures before
        if sidecar.metric("readygate_names_open") == 0:
            service.asked.clear()
            return
        time.sleep(0.1)  # noqa: TID251 - no event loop here
    raise AssertionError("the breaker stays open")


def test_names_go_out_as_placeholders_and_come_back(
    strict: Sidecar, provider: Simulator, service: NamesService
) -> None:
    """A built-in finding that lies in one of the service's is not disturbed, and one call asks for all."""
    answer = strict.ask(chat(TOLD))

    assert (200, TOLD[6:]) == (answer.status, said(answer))
    assert "echo: [PERSON-1] ([EMAIL-1]) lives in [ADDRESS-1]" == sent(provider)
    assert (1, ["sk-names"]) == (len(service.asked), service.keys)


def test_names_come_back_in_streams(strict: Sidecar, provider: Simulator) -> None:
    """Like every other placeholder."""
    answer = strict.ask(chat(TOLD + " today", stream=True))

    assert (200, TOLD[6:] + " today") == (answer.status, stream_text(answer))
    assert "Ana" not in sent(provider)


def test_texts_are_asked_about_once(strict: Sidecar, provider: Simulator, service: NamesService) -> None:
    """A conversation sends its history with every turn; roles, model and routes without names are not sent at all."""
    turns = [{"role": "user", "content": "echo: I am João Gonçalves"}]
    body = {"model": "gpt-4o-mini", "messages": turns}
    strict.ask(request("POST", "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}))
    turns += [{"role": "assistant", "content": "Good day."}, {"role": "user", "content": "and Zoë"}]
    strict.ask(request("POST", "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}))
    strict.ask(chat("echo: something else of Ana Silva", model="plain"))

    assert ["echo: I am João Gonçalves", "Good day.\n\nand Zoë"] == [question["text"] for question in service.asked]
    assert "echo: something else of Ana Silva" == sent(provider)


def test_offsets_in_utf16_find_the_same(strict: Sidecar, provider: Simulator, service: NamesService) -> None:
    """Services in other languages than Python count so."""
    service.answer = in_utf16
    answer = strict.ask(chat("echo: 😀😀😀 Ana Silva, Zoë 😀"))

    assert "😀😀😀 Ana Silva, Zoë 😀" == said(answer)
    assert "echo: 😀😀😀 [PERSON-1], [PERSON-2] 😀" == sent(provider)


LIES: list[Any] = [
    [{"entity_type": "PERSON", "start": 0, "end": 9999, "score": 0.9}],
    [{"entity_type": "PERSON", "start": -3, "end": 2, "score": 0.9}],
    [{"entity_type": "PERSON", "start": True, "end": 2, "score": 0.9}],
    [{"entity_type": None, "start": 0, "end": 2, "score": 0.9}],
    b'[{"entity_type":"PERSON","start":0,"end":2,"score":1e999}]',
    b"[" * 100_000,
    b" " * (2 << 20) + b"[]",
    {"error": "no"},
    [None],
]


@pytest.mark.parametrize("lie", LIES, ids=range(len(LIES)))
def test_impossible_answers_refuse(
    strict: Sidecar, provider: Simulator, service: NamesService, lie: Any, request: pytest.FixtureRequest
) -> None:
    """Nothing leaves, the fault is ours, and the words of nobody are in the log."""
    recover(strict, service)
    provider.reset()
    service.answer = lambda _: lie
    answer = strict.ask(chat(f"echo: Ana Silva {request.node.name}"))

    assert (500, "redaction_failed") == (answer.status, answer.error["code"])
    assert ("gateway", 0) == (answer.get("x-readygate-fault"), len(provider.entries))
    assert "Ana Silva" not in strict.log()


def test_overlapping_findings_are_settled(strict: Sidecar, provider: Simulator, service: NamesService) -> None:
    """The longer name wins, halves of words are made whole, and the structured finding stays what it was."""
    recover(strict, service)
    spans = [(6, 9), (7, 14), (6, 15), (17, 25), (30, 34)]
    service.answer = lambda _: [
        {"entity_type": "PERSON", "start": start, "end": end, "score": 0.9, "more": {}} for start, end in spans
    ]
    answer = strict.ask(chat("echo: Ana Silva <ana@example.com> here"))

    assert "Ana Silva <ana@example.com> here" == said(answer)
    assert "echo: [PERSON-1] <[EMAIL-1]> here" == sent(provider)


def test_redirect_is_not_followed(strict: Sidecar, provider: Simulator, service: NamesService) -> None:
    """Texts go to the service that was named and nowhere else."""
    recover(strict, service)
    service.status, service.headers = 307, {"location": service.url + "/elsewhere"}
    answer = strict.ask(chat("echo: Ana Silva was sent away"))

    assert (500, 1) == (answer.status, [q["text"] for q in service.asked].count("echo: Ana Silva was sent away"))


def test_more_text_than_asked_about_is_unscanned(strict: Sidecar, provider: Simulator, service: NamesService) -> None:
    """The beginning is read, the rest is counted."""
    recover(strict, service)
    text = "echo: Ana Silva " + "word " * 400
    answer = strict.ask(chat(text))

    assert (200, True) == (answer.status, sent(provider).startswith("echo: [PERSON-1] word"))
    assert 1024 >= len(service.asked[0]["text"]) > 1000
    row = strict.row(answer.get("x-readygate-id"))
    assert len(text) - len(service.asked[0]["text"]) == row["unscanned_bytes"]


def test_more_text_than_asked_about_is_refused_where_unscanned_content_is(
    provider: Simulator, service: NamesService, tmp_path: Path
) -> None:
    """Names in what nobody has read do not leave."""
    policy = POLICY.replace("redaction: {request", "redaction: {unscanned: refuse, request", 1)
    with sidecar_for(tmp_path, config(provider, service, "max_text: 1KiB"), policy) as sidecar:
        refused = sidecar.ask(chat("echo: " + "word " * 400 + "Ana Silva"))
        within = sidecar.ask(chat("echo: Ana Silva"))

    assert (400, "unscanned_content") == (refused.status, refused.error["code"])
    assert (200, 1) == (within.status, len(provider.entries))


def test_late_answer_refuses_or_passes_as_declared(
    strict: Sidecar, lenient: Sidecar, provider: Simulator, service: NamesService
) -> None:
    """What the built-in detectors find is replaced either way."""
    recover(strict, service)
    recover(lenient, service)
    service.holds.clear()
    began_s = time.monotonic()
    refused = strict.ask(chat("echo: late Ana Silva ana@example.com"))
    passed = lenient.ask(chat("echo: late Ana Silva ana@example.com"))

    assert (500, 200) == (refused.status, passed.status)
    assert time.monotonic() - began_s < 3
    assert "echo: late Ana Silva [EMAIL-1]" == sent(provider)
    assert ["names_unread"] == notes_of(lenient, passed)
    assert lenient.metric("readygate_names_passed_total") >= 1


def test_dead_service_costs_no_waiting_and_is_found_again(
    lenient: Sidecar, provider: Simulator, service: NamesService
) -> None:
    """After five failures in a row it is left alone; a probe brings it back."""
    recover(lenient, service)
    service.holds.clear()
    for number in range(5):
        lenient.ask(chat(f"echo: slow {number} Ana Silva"))
    calls = lenient.metric("readygate_names_calls_total")
    began_s = time.monotonic()
    answers = [lenient.ask(chat(f"echo: fast {number} Ana Silva")) for number in range(5)]

    assert time.monotonic() - began_s < 0.9  # five deadlines are 1.5 s
    assert [200] * 5 == [answer.status for answer in answers]
    assert (1.0, True) == (
        lenient.metric("readygate_names_open"),
        lenient.metric("readygate_names_calls_total") <= calls + 1,
    )
    recover(lenient, service)
    assert "well Ana Silva" == said(lenient.ask(chat("echo: well Ana Silva")))
    assert "echo: well [PERSON-1]" == sent(provider)
