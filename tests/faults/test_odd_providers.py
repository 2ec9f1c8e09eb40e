"""Providers that misbehave in ways no table lists, byte by byte: never a truncated success, never a second end, in time.

A provider of raw bytes stands in front of one that answers well; each case has a route, and so a breaker, of its own.
"""

from __future__ import annotations

import gzip
import json
import signal
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from proxy.core.sse import EventDecoder
from tests.support.raw_provider import RawProvider, raw_provider
from tests.support.wire import Message, Sidecar, caller, chat, eventually, sidecar_for

pytestmark = pytest.mark.integration

WORDS = [f"w{n} " for n in range(12)]
TEXT = "".join(WORDS)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
NAMELESS = b"HTTP/1.1 200 OK\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    document = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


ROLE, FINISH = chunk({"role": "assistant", "content": ""}), chunk({}, "stop")
SPOKEN = [chunk({"content": word}) for word in WORDS]
WHOLE = [HEAD, ROLE, *SPOKEN, FINISH, DONE]
CHOICE = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
DOCUMENT = json.dumps({"id": "x", "object": "chat.completion", "created": 1, "choices": [CHOICE]}).encode()


def whole(body: bytes, *lines: bytes) -> bytes:
    """A plain answer whose framing is in order, whatever its body is."""
    more = b"".join(line + b"\r\n" for line in lines)
    return b"HTTP/1.1 200 OK\r\n" + more + b"content-length: %d\r\n\r\n" % len(body) + body


JSON = b"content-type: application/json"
KINDS = {
    "lone": "chain: [{provider: odd}], broken_stream: event",
    "pair": "chain: [{provider: odd}, {provider: good}], broken_stream: event",
    "resume": "chain: [{provider: odd}, {provider: good}], rescue: resume",
    "prefilled": "chain: [{provider: odd}, {provider: good, prefill: true}], rescue: resume",
    "hold": "chain: [{provider: odd}, {provider: good}], rescue: hold",
}
COPIES = 20
_turns = count()


def _policy() -> str:
    limits = "retries: none, timeouts: {first_byte: 500ms, idle: 400ms, total: 4s}"
    rows = "".join(
        f"  - {{match: {{models: [{kind}-{n}]}}, {rest.replace('odd', f'odd{n}')}, {limits}}}\n"
        for kind, rest in KINDS.items()
        for n in range(COPIES)
    )
    return f'version: 1\npolicy: default\nredaction: {{request: {{default: "off"}}}}\nroutes:\n{rows}'


@pytest.fixture(scope="module")
def good() -> Iterator[RawProvider]:
    with raw_provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def odd() -> Iterator[RawProvider]:
    with raw_provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def sidecar(odd: RawProvider, good: RawProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    rows = "".join(f'  odd{n}: {{base_url: "{odd.base_url}"}}\n' for n in range(COPIES))
    config = f'providers:\n{rows}  good: {{base_url: "{good.base_url}"}}\n'
    with sidecar_for(tmp_path_factory.mktemp("sidecar"), config, _policy()) as running:
        yield running


def ask(sidecar: Sidecar, kind: str, **fields: Any) -> Message:
    return sidecar.ask(chat(model=f"{kind}-{next(_turns) % COPIES}", **fields))


def events_of(answer: Message) -> list[str]:
    return [event.data.decode() for event in EventDecoder().feed(answer.body) if event.data is not None]


def text_of(answer: Message) -> str:
    documents = [json.loads(event) for event in events_of(answer) if event != "[DONE]"]
    choices = [choice for document in documents for choice in document.get("choices", [])]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def outcomes(sidecar: Sidecar, answer: Message) -> tuple[str, list[str]]:
    """Status and attempts of an answer's row."""
    row = sidecar.row(answer.get("x-readygate-id"))
    return row["status"], [attempt["outcome"] for attempt in json.loads(row["attempts"])]


# ---------------------------------------------------------------- ends that are none

CUT_POLITELY = {
    "done-without-finish": ([HEAD, ROLE, *SPOKEN[:5], DONE], "truncated"),
    "nameless-and-cut": ([NAMELESS, ROLE, *SPOKEN[:5]], "truncated"),
    "last-event-unclosed": ([HEAD, ROLE, *SPOKEN[:4], SPOKEN[4].rstrip()], "truncated"),
    "error-then-done": ([HEAD, ROLE, *SPOKEN[:5], b'data: {"error":"boom"}\n\n', DONE], "upstream_error_event"),
    "vllm-error-then-done": (
        [HEAD, ROLE, *SPOKEN[:5], b'data: {"object":"error","message":"x","code":500}\n\n', DONE],
        "upstream_error_event",
    ),
    "finish-reason-error": ([HEAD, ROLE, *SPOKEN[:5], chunk({}, "error"), DONE], "upstream_error_event"),
}


@pytest.mark.parametrize(("pieces", "outcome"), CUT_POLITELY.values(), ids=CUT_POLITELY)
@pytest.mark.parametrize("kind", ["resume", "hold"])
def test_stream_that_only_looks_ended_is_rescued(
    sidecar: Sidecar, odd: RawProvider, good: RawProvider, kind: str, pieces: list[bytes], outcome: str
) -> None:
    """One call at each, one whole text, one finish, one [DONE]."""
    odd.answer(*pieces, gap_s=0.01, closes=True)
    good.answer(*WHOLE, closes=True)
    answer = ask(sidecar, kind, stream=True)

    assert (200, "whole", TEXT) == (answer.status, answer.ended, text_of(answer))
    assert 1 == events_of(answer).count("[DONE]")
    assert (1, 1) == (len(odd.seen), len(good.seen))
    assert ("rescued" if kind == "resume" else "fallback", [outcome, "ok"]) == outcomes(sidecar, answer)


@pytest.mark.parametrize("name", [name for name in CUT_POLITELY if name != "done-without-finish"])
@pytest.mark.parametrize("kind", ["lone", "pair"])
def test_stream_that_only_looks_ended_is_an_error_that_clients_read(
    sidecar: Sidecar, odd: RawProvider, kind: str, name: str
) -> None:
    """Without rescue: the last event has an error member, stands by itself, and nothing says [DONE]."""
    pieces, outcome = CUT_POLITELY[name]
    odd.answer(*pieces, gap_s=0.01, closes=True)
    answer = ask(sidecar, kind, stream=True)

    assert (200, "eof") == (answer.status, answer.ended)
    assert TEXT.startswith(text_of(answer))
    assert json.loads(events_of(answer)[-1])["error"]
    assert "[DONE]" not in events_of(answer)
    assert ("error", [outcome]) == outcomes(sidecar, answer)


def test_choice_that_never_ends_is_not_made_good_by_done(sidecar: Sidecar, odd: RawProvider) -> None:
    """Of two choices one is whole and one is cut; the caller must not take both for answers."""
    second = [chunk({"content": "half "}, index=1)]
    odd.answer(HEAD, ROLE, *SPOKEN, *second, FINISH, DONE, gap_s=0.01, closes=True)
    answer = ask(sidecar, "pair", stream=True, n=2)

    assert ("eof", "upstream_truncated") == (answer.ended, json.loads(events_of(answer)[-1])["error"]["code"])


def test_provider_that_ignores_n_is_believed(sidecar: Sidecar, odd: RawProvider) -> None:
    """Fewer choices than were asked for are all there are."""
    odd.answer(*WHOLE, gap_s=0.01, closes=True)
    answer = ask(sidecar, "pair", stream=True, n=2)

    assert ("whole", "[DONE]") == (answer.ended, events_of(answer)[-1])


def test_nothing_follows_the_end(sidecar: Sidecar, odd: RawProvider) -> None:
    """Official clients read on behind [DONE] and stumble over what is no text there."""
    odd.answer(HEAD, ROLE, *SPOKEN, FINISH, DONE, b"\xff\xfe\n\n", DONE, gap_s=0.02, closes=True)
    answer = ask(sidecar, "lone", stream=True)

    assert ("whole", TEXT, 1) == (answer.ended, text_of(answer), events_of(answer).count("[DONE]"))
    assert answer.body.endswith(DONE)


def test_rescue_that_says_nothing_more_ends_once(sidecar: Sidecar, odd: RawProvider, good: RawProvider) -> None:
    """All was said but the end; the rescue brings the end, and nonsense behind it adds no second one."""
    odd.answer(HEAD, ROLE, *SPOKEN, gap_s=0.01, closes=True)
    good.answer(HEAD, ROLE, FINISH + DONE, b'data: {"id": bro\n\n', gap_s=0.05, closes=True)
    answer = ask(sidecar, "prefilled", stream=True)

    assert ("whole", TEXT) == (answer.ended, text_of(answer))
    assert 1 == events_of(answer).count("[DONE]")


def test_stream_held_whole_needs_no_second_one(sidecar: Sidecar, odd: RawProvider, good: RawProvider) -> None:
    """A provider that falls silent behind its finish reason has said everything; nobody else is asked and paid."""
    odd.answer(HEAD, ROLE, *SPOKEN, FINISH, gap_s=0.06)
    good.answer(*WHOLE, closes=True)
    answer = ask(sidecar, "hold", stream=True)

    assert ("whole", TEXT, "[DONE]") == (answer.ended, text_of(answer), events_of(answer)[-1])
    assert [] == good.seen


# ---------------------------------------------------------------- plain answers

BAD_BODIES = {
    "half-that-ends-in-a-brace": (whole(DOCUMENT[:-1], JSON), "truncated"),
    "brace-inside-a-text": (whole(b'{"choices":[{"message":{"content":"a {b}', JSON), "truncated"),
    "two-documents": (whole(DOCUMENT * 2, JSON), "truncated"),
    "page-without-a-name": (whole(b"<html>{}</html>"), "truncated"),
    "cut-gzip": (whole(gzip.compress(DOCUMENT)[:-30], JSON, b"content-encoding: gzip"), "truncated"),
    "no-gzip-at-all": (whole(DOCUMENT, JSON, b"content-encoding: gzip"), "bad_response"),
    "nothing-in-it": (whole(b"{}", JSON), "bad_response"),
    "somebody-elses-error": (whole(b'{"detail":"boom"}', JSON), "bad_response"),
    "error-behind-an-id": (whole(b'{"id":"x","error":{"message":"boom"}}', JSON), "bad_response"),
}


@pytest.mark.parametrize(("answered", "outcome"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_body_that_is_no_answer_walks_on(
    sidecar: Sidecar, odd: RawProvider, good: RawProvider, answered: bytes, outcome: str
) -> None:
    """A status of 200 and proper framing do not make it one."""
    odd.answer(answered, closes=True)
    good.answer(whole(DOCUMENT, JSON), closes=True)
    answer = ask(sidecar, "pair")

    assert (200, DOCUMENT) == (answer.status, answer.body)
    assert ("fallback", [outcome, "ok"]) == outcomes(sidecar, answer)


GOOD_BODIES = {
    "error-is-null": whole(b'{"error":null,' + DOCUMENT[1:], JSON),
    "half-a-pair": whole(DOCUMENT.replace(b"w0", rb"\ud83d"), JSON),
    "no-name": whole(DOCUMENT),
}


@pytest.mark.parametrize("answered", GOOD_BODIES.values(), ids=GOOD_BODIES)
def test_odd_body_that_is_an_answer_is_passed_on(sidecar: Sidecar, odd: RawProvider, answered: bytes) -> None:
    """Strictness ends where a provider is only peculiar."""
    odd.answer(answered, closes=True)
    answer = ask(sidecar, "pair")

    assert (200, answered.partition(b"\r\n\r\n")[2]) == (answer.status, answer.body)
    assert ("success", ["ok"]) == outcomes(sidecar, answer)


# ---------------------------------------------------------------- time

DRIPS: dict[str, list[bytes]] = {
    "head-by-bytes": [bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\nx-slow: " + b"y" * 200],
    "interim-answers": [b"HTTP/1.1 102 Processing\r\n\r\n"] * 15,
}


@pytest.mark.parametrize("pieces", DRIPS.values(), ids=DRIPS)
def test_head_that_drips_is_no_first_byte(
    sidecar: Sidecar, odd: RawProvider, good: RawProvider, pieces: list[bytes]
) -> None:
    """The limit holds however often something comes."""
    odd.answer(*pieces, gap_s=0.1)
    good.answer(whole(DOCUMENT, JSON), closes=True)
    began_s = time.monotonic()
    answer = ask(sidecar, "pair")

    assert time.monotonic() - began_s < 0.5 + 0.5
    assert ("fallback", ["ttfb_timeout", "ok"]) == outcomes(sidecar, answer)


# ---------------------------------------------------------------- leaving


def _left(sidecar: Sidecar, kind: str, odd: RawProvider, ready: Callable[[], bool]) -> Message:
    with caller(sidecar.data_port, 10) as wire:
        wire.send(chat(model=f"{kind}-0", stream=True))
        eventually(ready, "the provider was not asked")
        sidecar.signal(signal.SIGTERM)
        return wire.message()


def test_held_stream_is_told_that_we_leave(odd: RawProvider, good: RawProvider, tmp_path: Path) -> None:
    """Nothing of it was sent when the drain's time was up, so it gets a status, not a cut connection."""
    odd.answer(HEAD, ROLE, *SPOKEN * 5, gap_s=0.1)
    config = f'providers: {{odd0: {{base_url: "{odd.base_url}"}}, good: {{base_url: "{good.base_url}"}}}}\n'
    policy = (
        "version: 1\npolicy: default\nroutes:\n"
        "  - {match: {models: [hold-0]}, chain: [{provider: odd0}, {provider: good}], rescue: hold}\n"
    )
    with sidecar_for(tmp_path, config, policy, server="drain: {grace: 0s, deadline: 1s}") as sidecar:
        answer = _left(sidecar, "hold", odd, lambda: bool(odd.seen))

        assert (503, "shutting_down") == (answer.status, answer.error["code"])
        assert 0 == sidecar.wait()
        assert ("error", ["shutting_down"]) == outcomes(sidecar, answer)
