"""The catalogue of upstream faults (UF-01 to UF-26): what each target was asked, what the caller sees, what the row says.

One table for plain answers and one for streams. Each case has routes, and so breakers, of its own; the simulated
provider's journal counts the calls.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from tests.support.simulator import Simulator, black_hole, refused_origin
from tests.support.upstream_cases import PLAIN, STREAMED, Case
from tests.support.wire import Message, Sidecar, caller, chat, eventually, sidecar_for, stream_text, threaded_simulator

pytestmark = pytest.mark.integration

COPIES = 96
KINDS = {
    "pair": "chain: [{provider: one, model: M-1}, {provider: two, model: M-2}], retries: none",
    "patient": "chain: [{provider: one, model: M-1}, {provider: two, model: M-2}], retries: once",
    "lone": "chain: [{provider: one, model: M-1}], retries: none",
    "pooled": "chain: [{provider: three, model: M-1}], retries: none",
    "again": "chain: [{provider: one, model: M-1}], retries: once",
}
SPECIAL = """
  - {match: {models: [dead-pair]}, chain: [{provider: dead}, {provider: two, model: d2}], retries: none}
  - {match: {models: [dead-lone]}, chain: [{provider: dead}]}
  - {match: {models: [lost-pair]}, chain: [{provider: lost}, {provider: two, model: l2}], retries: none}
  - {match: {models: [lost-lone]}, chain: [{provider: lost}], retries: none}
  - {match: {models: [hole-pair]}, chain: [{provider: hole}, {provider: two, model: h2}], retries: none, timeouts: {connect: 200ms}}
  - {match: {models: [tls-pair]}, chain: [{provider: secure}, {provider: two, model: s2}], retries: none}
  - match: {models: [hang]}
    chain: [{provider: one, model: x1}, {provider: two, model: x2}, {provider: three, model: x3}]
    retries: none
    timeouts: {first_byte: 400ms, total: 1s}
"""


def _policy() -> str:
    rows = [
        f"  - {{match: {{models: [{kind}-{n}]}}, {rest.replace('M-', f'{kind}{n}-')}, "
        "timeouts: {first_byte: 600ms, idle: 400ms}}\n"
        for kind, rest in KINDS.items()
        for n in range(COPIES)
    ]
    return f"version: 1\npolicy: default\nroutes:\n{''.join(rows)}{SPECIAL}"


_promised: dict[str, tuple[str, list[str]]] = {}
_turns = {kind: count() for kind in KINDS}


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with black_hole() as hole:
        rows = "".join(
            f'  {name}: {{base_url: "{provider.origin}/{name}/v1", api_key: {{env: RG_KEY}}{pool}}}\n'
            for name, pool in (("one", ", keepalive: 0s"), ("two", ""), ("three", ""))
        )
        config = f"""
providers:
{rows}
  dead: {{base_url: "{refused_origin()}/v1"}}
  lost: {{base_url: "http://nowhere.invalid/v1"}}
  hole: {{base_url: "{hole}/v1"}}
  secure: {{base_url: "https://127.0.0.1:{provider.port}/v1"}}
"""
        key = {"RG_KEY": "sk-own-0123456789abcdef0123456789"}
        with sidecar_for(tmp_path_factory.mktemp("sidecar"), config, _policy(), env=key) as running:
            yield running
            _keep_promises(running)


@pytest.fixture(autouse=True)
def _forget(provider: Simulator) -> None:
    provider.reset()


CASES = [(False, case) for case in PLAIN.values()] + [(True, case) for case in STREAMED.values()]
IDS = list(PLAIN) + [f"stream-{name}" for name in STREAMED]


def next_model(kind: str) -> str:
    """A model whose route has not been used yet (or long ago)."""
    return f"{kind}-{next(_turns[kind]) % COPIES}"


def ask(sidecar: Sidecar, kind: str, **fields: Any) -> Message:
    """Ask the next route of that kind."""
    return sidecar.ask(chat("echo: one two three four five six seven", model=next_model(kind), **fields))


def asked(provider: Simulator) -> list[str]:
    """The providers that were asked, in order."""
    return [entry.provider for entry in provider.entries if entry.method]


def text_of(answer: Message, *, is_stream: bool) -> str:
    if is_stream:
        assert ("whole", "[DONE]") == (answer.ended, answer.events[-1])
        return stream_text(answer)
    content: str = answer.json()["choices"][0]["message"]["content"]
    return content


def promise(answer: Message, *outcomes: str, status: str = "") -> None:
    """Have the answer's row checked when all tests are through: its attempts, and its status where one is given."""
    _promised[answer.get("x-readygate-id") or ""] = (status, list(outcomes))


def _keep_promises(sidecar: Sidecar) -> None:
    if not _promised:  # only some of the tests ran, and none of those that promise rows
        return
    sidecar.row(next(reversed(_promised), ""))
    told = {row["id"]: (row["status"], [a["outcome"] for a in json.loads(row["attempts"])]) for row in sidecar.rows()}
    wrong = {
        key: (told.get(key), (status, outcomes))
        for key, (status, outcomes) in _promised.items()
        if key not in told or told[key][1] != outcomes or status not in ("", told[key][0])
    }
    _promised.clear()

    assert {} == wrong, "rows and what was promised of them"


@pytest.mark.parametrize(("is_stream", "case"), CASES, ids=IDS)
def test_fault_walks_on_at_once_and_unseen(sidecar: Sidecar, provider: Simulator, is_stream: bool, case: Case) -> None:
    """One call each; the caller has the second target's answer; the row has both."""
    provider.fault_for_provider("one", case.fault)
    answer = ask(sidecar, "pair", stream=is_stream)

    assert 200 == answer.status, answer.body
    assert "one two three four five six seven" == text_of(answer, is_stream=is_stream)
    assert ["one", "two"] == asked(provider)
    assert ("2", "two") == (answer.get("x-readygate-attempts"), answer.get("x-readygate-provider"))
    promise(answer, case.outcome, "ok", status="fallback")


@pytest.mark.parametrize(("is_stream", "case"), CASES, ids=IDS)
def test_fault_of_the_only_target_is_told_as_it_is(
    sidecar: Sidecar, provider: Simulator, is_stream: bool, case: Case
) -> None:
    """The status and the code of the table, exactly one call, and one row that agrees."""
    provider.fault_for_provider("one", case.fault)
    answer = ask(sidecar, "lone", stream=is_stream)

    assert (case.status, case.code) == (answer.status, answer.error["code"] or answer.error["type"])
    assert ["one"] == asked(provider)
    promise(answer, case.outcome)


def _check_retries(sidecar: Sidecar, provider: Simulator, is_stream: bool, case: Case) -> None:
    provider.fault_for_provider("one", case.fault)
    alone = ask(sidecar, "again", stream=is_stream)
    at_one, before = asked(provider), len(provider.entries)
    chained = ask(sidecar, "patient", stream=is_stream)

    assert ["one"] * case.again == at_one
    assert ["one"] * case.patient + ["two"] == asked(provider)[before:]
    assert (True, 200) == (alone.status >= 400, chained.status)


@pytest.mark.parametrize("name", ["UF-05-429-soon", "UF-07-503", "UF-07-529", "UF-14-error-in-200"])
def test_retries_are_as_the_table_allows(sidecar: Sidecar, provider: Simulator, name: str) -> None:
    """The short form of the next test."""
    _check_retries(sidecar, provider, False, PLAIN[name])


@pytest.mark.slow
@pytest.mark.parametrize(("is_stream", "case"), CASES, ids=IDS)
def test_retries_are_as_many_as_the_table_allows(
    sidecar: Sidecar, provider: Simulator, is_stream: bool, case: Case
) -> None:
    """With ``retries: once``: at the only target, and at the first of two."""
    _check_retries(sidecar, provider, is_stream, case)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_callers_own_error_never_walks(sidecar: Sidecar, provider: Simulator, status: int) -> None:
    """It would be the same error everywhere, and it is the provider's to word."""
    provider.fault_for_provider("one", str(status))
    answer = ask(sidecar, "patient")

    assert (status, ["one"]) == (answer.status, asked(provider))
    promise(answer, "upstream_4xx")


def test_content_refusal_is_an_answer(sidecar: Sidecar, provider: Simulator) -> None:
    """A finish reason of content_filter, plain or streamed, is not for another provider to overrule."""
    provider.fault_for_provider("one", "ok:finish=content_filter")
    plain, streamed = ask(sidecar, "patient"), ask(sidecar, "patient", stream=True)

    assert ["one", "one"] == asked(provider)
    assert "content_filter" == plain.json()["choices"][0]["finish_reason"]
    assert '"content_filter"' in streamed.body.decode()


# ---------------------------------------------------------------- connecting


@pytest.mark.parametrize(
    ("name", "outcome", "within_s"),
    [
        ("dead", "connect_error", 0.1),
        ("lost", "dns_error", 2.5),
        ("hole", "connect_timeout", 0.3),
        ("tls", "tls_error", 1.0),
    ],
)
def test_unreachable_provider_is_passed_over_in_time(
    sidecar: Sidecar, provider: Simulator, name: str, outcome: str, within_s: float
) -> None:
    """UF-01 to UF-03: refused, no such name, a black hole, no TLS."""
    began_s = time.monotonic()
    answer = sidecar.ask(chat(model=f"{name}-pair"))
    took_s = time.monotonic() - began_s

    assert (200, ["two"]) == (answer.status, asked(provider))
    promise(answer, outcome, "ok")
    assert took_s < within_s + 0.4  # a busy machine's share


@pytest.mark.parametrize(
    ("name", "status", "code", "calls"),
    [("dead", 502, "upstream_connect_error", 2), ("lost", 502, "upstream_dns_error", 1)],
)
def test_unreachable_only_provider_is_a_bad_gateway(
    sidecar: Sidecar, name: str, status: int, code: str, calls: int
) -> None:
    """Refused is tried once more; a name that does not exist is not."""
    answer = sidecar.ask(chat(model=f"{name}-lone"))

    assert (status, code) == (answer.status, answer.error["code"])
    promise(answer, *["connect_error" if name == "dead" else "dns_error"] * calls)


def test_liveness_answers_while_providers_hang(sidecar: Sidecar, provider: Simulator) -> None:
    """UF-02: no look-up and no silence blocks the loop."""
    provider.fault("silence")
    with caller(sidecar.data_port) as wire:
        wire.send(chat(model="hang"))
        began_s = time.monotonic()
        status = sidecar.status("/livez")

        assert (200, True) == (status, time.monotonic() - began_s < 0.3)
        wire.message()


# ---------------------------------------------------------------- time


@pytest.mark.parametrize(("latency", "calls"), [("200ms", ["one"]), ("900ms", ["one", "two"])])
def test_first_byte_on_either_side_of_its_limit(
    sidecar: Sidecar, provider: Simulator, latency: str, calls: list[str]
) -> None:
    """UF-08: one answer, never both."""
    provider.fault_for_provider("one", f"ok:latency={latency}")
    answer = ask(sidecar, "pair")

    assert "one two three four five six seven" == text_of(answer, is_stream=False)
    assert calls == asked(provider)


def test_silent_provider_is_let_go(sidecar: Sidecar, provider: Simulator) -> None:
    """UF-04: its socket is closed when the next is tried."""
    provider.fault_for_provider("one", "silence")
    ask(sidecar, "pair")

    eventually(lambda: provider.entries[0].closed_by == "peer", "the silent provider's socket stays open", 1.0)


def test_stalled_stream_ends_in_an_error_in_time(sidecar: Sidecar, provider: Simulator) -> None:
    """UF-09: at most half a second behind the idle limit."""
    provider.fault_for_provider("one", "stall:after=5")
    began_s = time.monotonic()
    answer = ask(sidecar, "pair", stream=True)

    assert time.monotonic() - began_s < 0.4 + 0.5
    assert ("upstream_stalled", "eof") == (json.loads(answer.events[-1])["error"]["code"], answer.ended)
    assert "[DONE]" not in answer.events
    promise(answer, "stalled")


def test_chain_of_hanging_targets_keeps_to_the_deadline(sidecar: Sidecar, provider: Simulator) -> None:
    """BR-08: three targets hang; the whole takes the route's total and 200 ms at most, and all are in the row."""
    provider.fault("silence")
    began_s = time.monotonic()
    answer = sidecar.ask(chat(model="hang"))

    assert time.monotonic() - began_s < 1.0 + 0.2 + 0.2  # a busy machine's share
    assert (504, "upstream_timeout") == (answer.status, answer.error["code"])
    promise(answer, "ttfb_timeout", "ttfb_timeout", "total_timeout")


# ---------------------------------------------------------------- sockets and codings


@pytest.mark.parametrize("how", ["fin", "reset"])
def test_socket_that_dies_as_it_is_used_again_is_replaced(sidecar: Sidecar, provider: Simulator, how: str) -> None:
    """UF-19: the provider never saw the request, so even a POST may be repeated, once, on a fresh socket."""
    model = next_model("pooled")
    provider.script(f"race:how={how}")
    first = sidecar.ask(chat("echo: first", model=model))
    second = sidecar.ask(chat("echo: second", model=model))

    assert (200, 200) == (first.status, second.status)
    assert "second" == text_of(second, is_stream=False)
    promise(second, "stale_connection", "ok")


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "streamed"])
def test_coded_answers_are_the_same_answers(
    sidecar: Sidecar, provider: Simulator, coding: str, is_stream: bool
) -> None:
    """UF-16: a provider that codes although nobody asked."""
    provider.fault_for_provider("one", f"encode:as={coding},members=2" if coding == "gzip" else f"encode:as={coding}")
    answer = ask(sidecar, "pair", stream=is_stream)

    assert "one two three four five six seven" == text_of(answer, is_stream=is_stream)
    assert ["one"] == asked(provider)


def test_http10_answer_is_good_when_it_is_whole(sidecar: Sidecar, provider: Simulator) -> None:
    """UF-23: and its connection is not used again."""
    provider.fault_for_provider("one", "http10")
    plain, streamed = ask(sidecar, "pair"), ask(sidecar, "pair", stream=True)

    assert "one two three four five six seven" == text_of(plain, is_stream=False)
    assert "one two three four five six seven" == text_of(streamed, is_stream=True)
    assert 2 == len({entry.connection for entry in provider.entries})


def test_interim_answers_are_skipped(sidecar: Sidecar, provider: Simulator) -> None:
    """Up to sixteen."""
    provider.fault_for_provider("one", "informational:count=16")

    assert "one two three four five six seven" == text_of(ask(sidecar, "pair"), is_stream=False)


@pytest.mark.parametrize(
    "speech", ["eol=crlf", "eol=cr", "bom=1", "comments=1", "multiline=1", "nospace=1", "tight_end=1"]
)
def test_streams_of_every_notation_arrive(sidecar: Sidecar, provider: Simulator, speech: str) -> None:
    """UF-24, at the wire: split in threes, inside characters too."""
    provider.fault_for_provider("one", f"ok:{speech},split=3")
    answer = ask(sidecar, "pair", stream=True)
    provider.fault_for_provider("one", f"ok:{speech}")
    whole = ask(sidecar, "pair", stream=True)

    assert "whole" == answer.ended
    promise(answer, "ok")
    promise(whole, "ok")
    assert ["one", "one"] == asked(provider)
    assert re.sub(rb"sim\d+|pair-?\d+", b"", whole.body) == re.sub(rb"sim\d+|pair-?\d+", b"", answer.body)
    assert b" seven" in answer.body


# ---------------------------------------------------------------- callers who leave


@pytest.mark.parametrize("fault", ["silence", "ok:first_token=5", "ok:rate=5"])
def test_provider_is_let_go_when_the_caller_leaves(sidecar: Sidecar, provider: Simulator, fault: str) -> None:
    """UF-21: before the head, before the first token, in mid-stream; one row says so."""
    provider.fault_for_provider("one", fault)
    model = next_model("lone")
    with caller(sidecar.data_port) as wire:
        wire.send(chat("echo: one two three four five six seven", model=model, stream=True))
        eventually(lambda: bool(provider.entries) and provider.entries[0].received_s > 0, "nothing was asked")
        if fault != "silence":
            wire.until(b"\r\n\r\n")
        wire.reset()

    eventually(lambda: provider.entries[0].closed_by == "peer", "the provider goes on", 1.0)
    row = sidecar.rows("model_asked = ? AND status = 'cancelled'", model, count=1)[0]
    assert "client_cancelled" == row["outcome"]
