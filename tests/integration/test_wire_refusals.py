"""The refusals that no provider has a part in, each one provoked for real and read as bytes: status, code, whose fault, when
to come back.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest

from tests.support.refusals import check, row_agrees
from tests.support.simulator import Simulator, refused_origin
from tests.support.wire import Sidecar, caller, chat, entries_of, request, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

OUR_KEY = "sk-main-0123456789abcdef0123456789"
EVERY_ANSWER = ("x-request-id", "x-readygate-id", "x-readygate-attempts", "x-readygate-policy", "server-timing")

DEFAULT = """
version: 1
policy: default
routes:
  - {name: any, match: {models: ["gpt-*", "sim/*"]}, chain: [{provider: main}], retries: none}
  - {name: once, match: {models: ["once"]}, chain: [{provider: main, model: once-served}], retries: once}
  - {name: dead, match: {models: ["dead"]}, chain: [{provider: dead}], retries: none}
"""


def _budget(name: str, limits: str) -> str:
    return f"""
version: 1
policy: {name}
applies_to: {{apps: ["{name}"]}}
budgets: [{{id: {name}, provider: main, {limits}, when_exhausted: refuse}}]
routes: [{{match: {{models: ["*"]}}, chain: [{{provider: main}}], retries: none}}]
"""


BLOCK = """
version: 1
policy: block
applies_to: {apps: ["block"]}
redaction: {request: {default: restore, rules: [{types: [credit_card, cpf], action: block}]}, unscanned: refuse}
routes: [{match: {models: ["*"]}, chain: [{provider: main}], retries: none}]
"""

POLICIES = {
    "default.yaml": DEFAULT,
    "rate.yaml": _budget("rate", "requests_per_minute: 2"),
    "day.yaml": _budget("day", "requests_per_day: 1"),
    "tokens.yaml": _budget("tokens", "tokens_per_minute: 200"),
    "slots.yaml": _budget("slots", "concurrent: 1"),
    "block.yaml": BLOCK,
}


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = f"""
providers:
  main: {{base_url: "{provider.base_url}", api_key: {{env: MAIN_KEY}}}}
  dead: {{base_url: "{refused_origin()}/v1"}}
"""
    server = "max_body: 64KiB, max_head: 8KiB, timeouts: {head: 1s, body: 1s}"
    folder = tmp_path_factory.mktemp("sidecar")
    with sidecar_for(folder, config, POLICIES, server=server, env={"MAIN_KEY": OUR_KEY}) as running:
        yield running


@pytest.fixture(autouse=True)
def _forget(provider: Simulator) -> None:
    provider.reset()


# ---------------------------------------------------------------- budgets


def test_rate_budget_spent_tells_the_true_wait(sidecar: Sidecar) -> None:
    """A client that sleeps exactly what it is told gets in; one that is told too little hammers."""
    said = [sidecar.ask(chat(headers={"x-readygate-app": "rate"})) for _ in range(3)]

    assert [200, 200, 429] == [answer.status for answer in said]
    check(said[2], 429, "rate_limit_exceeded", "policy", "yes")
    assert 50_000 < int(said[2].get("retry-after-ms") or 0) <= 62_000
    row_agrees(sidecar, said[2], "rate_limited")


def test_our_budget_is_shown_in_ratelimit_headers_and_the_providers_is_not(sidecar: Sidecar) -> None:
    """An app that paces itself by x-ratelimit-* must pace itself by the limit that really binds it."""
    answer = sidecar.ask(chat(headers={"x-readygate-app": "tokens"}, max_tokens=10))

    assert 200 == answer.status
    assert "200" == answer.get("x-ratelimit-limit-tokens")
    assert int(answer.get("x-ratelimit-remaining-tokens") or -1) < 200
    assert re.fullmatch(r"\d+(\.\d+)?(ms|s)|\d+m\d+s", answer.get("x-ratelimit-reset-tokens") or "")
    assert None is answer.get("x-ratelimit-limit-requests"), (
        "no request budget of ours applies; the provider's is not ours"
    )


def test_rate_refusal_shows_the_budget_that_refused(sidecar: Sidecar) -> None:
    """x-ratelimit-* stand where a budget applies, and nowhere does it apply more than in its own 429."""
    for _ in range(3):
        answer = sidecar.ask(chat(headers={"x-readygate-app": "rate"}))

    assert 429 == answer.status
    assert "2" == answer.get("x-ratelimit-limit-requests")
    assert "0" == answer.get("x-ratelimit-remaining-requests")


def test_day_budget_spent_says_do_not_retry(sidecar: Sidecar) -> None:
    """An SDK retries a plain 429 within seconds; a spent day must not look like one."""
    said = [sidecar.ask(chat(headers={"x-readygate-app": "day"})) for _ in range(2)]

    assert 200 == said[0].status
    error = check(said[1], 429, "insufficient_quota", "policy", "no")
    assert "insufficient_quota" == error["type"]


def test_request_larger_than_the_budget_is_no_429(sidecar: Sidecar, provider: Simulator) -> None:
    """Waiting can never help, so a 429 would be a lie that loops for ever."""
    answer = sidecar.ask(chat("too-large-marker", headers={"x-readygate-app": "tokens"}, max_tokens=5000))

    check(answer, 400, "budget_request_too_large", "policy", "no")
    assert [] == entries_of(provider, "too-large-marker")


def test_slots_taken_refuse_and_a_freed_slot_admits(sidecar: Sidecar) -> None:
    """A concurrency budget counts exchanges in flight, streams until their last byte, and gives back."""
    app = {"x-readygate-app": "slots"}
    with caller(sidecar.data_port) as wire:
        wire.send(chat("hello", {**app, "x-sim-speech": "tokens=8,rate=20"}, stream=True))
        assert "" == wire.until(b"data: ")
        second = sidecar.ask(chat(headers=app))
        first = wire.message()
    third = sidecar.ask(chat(headers=app))

    check(second, 429, "rate_limit_exceeded", "policy", "yes")
    assert "whole" == first.ended
    assert 200 == third.status


# ---------------------------------------------------------------- content


def test_blocked_content_names_types_and_places_never_the_value(sidecar: Sidecar, provider: Simulator) -> None:
    """The developer must find the field; the value must not travel in an error, a row or a log."""
    card, cpf = "4111 1111 1111 1111", "529.982.247-25"
    body = {
        "model": "gpt-4o-mini",
        "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": f"card {card} cpf {cpf}"}],
    }
    answer = sidecar.ask(
        request("POST", "/v1/chat/completions", json.dumps(body).encode(),
                {"Content-Type": "application/json", "x-readygate-app": "block"})
    )  # fmt: skip

    error = check(answer, 400, "content_policy_violation", "policy", "no")
    assert "messages[1].content" == error["param"]
    assert "credit_card" in error["message"]
    assert "cpf" in error["message"]
    row = row_agrees(sidecar, answer, "blocked")
    assert [] == provider.entries
    for value in (card, cpf, card.replace(" ", ""), "52998224725"):
        assert value.encode() not in answer.body
        assert value not in json.dumps(row, default=repr)
        assert value not in sidecar.log()


def test_unreadable_upload_is_refused_by_a_strict_policy(sidecar: Sidecar, provider: Simulator) -> None:
    """unscanned: refuse means that what nobody read does not leave."""
    answer = sidecar.ask(
        request(
            "POST",
            "/v1/files",
            b"\x00\x01binary",
            {"Content-Type": "application/octet-stream", "x-readygate-app": "block"},
        )
    )

    check(answer, 400, "unscanned_content", "policy", "no")
    assert [] == provider.entries


# ---------------------------------------------------------------- what is not there


def test_unknown_model_names_the_known_ones(sidecar: Sidecar) -> None:
    """A typo in a model name is the commonest first error; the answer should end it."""
    answer = sidecar.ask(chat(model="gtp-4o"))

    error = check(answer, 404, "model_not_found", "policy", "no")
    assert "model" == error["param"]
    assert "gtp-4o" in error["message"]
    assert "once" in error["message"]


def test_path_without_a_route_is_404(sidecar: Sidecar) -> None:
    """A path that policy does not allow never reaches a provider."""
    check(sidecar.ask(request("GET", "/v1/fine_tuning/jobs")), 404, "not_found", "client", "no")


@pytest.mark.parametrize("path", ["/", "/chat/completions", "/v2/models", "/v1x", "/metrics", "/health"])
def test_path_outside_v1_is_404_in_the_openai_shape(sidecar: Sidecar, path: str) -> None:
    """The data port serves /v1 only, and the hint says how the base URL should end."""
    error = check(sidecar.ask(request("GET", path)), 404, "not_found", "client", "no")

    assert "/v1" in error["message"]


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "PURGE"])
def test_method_that_no_provider_has_is_405(sidecar: Sidecar, method: str) -> None:
    """Methods that mean something to proxies end here, in the same error shape."""
    target = "localhost:443" if method == "CONNECT" else "/v1/models"
    answer = sidecar.ask(request(method, target))

    assert answer.status in (400, 405)
    assert {"message", "type", "param", "code", "request_id"} == set(answer.error)


# ---------------------------------------------------------------- bodies and heads


def test_body_above_the_limit_is_413_before_it_is_sent(sidecar: Sidecar) -> None:
    """The announced length is enough: nobody has to upload 100 MB to hear no."""
    with caller(sidecar.data_port) as wire:
        wire.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100000000\r\n\r\n{"
        )
        answer = wire.message()

    check(answer, 413, "body_too_large", "client", "no")
    assert "close" == answer.get("connection")


def test_chunked_body_above_the_limit_is_413(sidecar: Sidecar) -> None:
    """A body that never says its length is bounded all the same."""
    with caller(sidecar.data_port) as wire:
        wire.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + (b"4000\r\n" + b" " * 0x4000 + b"\r\n") * 5
        )
        answer = wire.message()

    check(answer, 413, "body_too_large", "client", "no")


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate", "gzip, gzip"])
def test_encoded_body_is_415(sidecar: Sidecar, provider: Simulator, coding: str) -> None:
    """A compressed body could not be read by policy, so it does not pass unread."""
    answer = sidecar.ask(
        request(
            "POST",
            "/v1/chat/completions",
            b"\x1f\x8b",
            {"Content-Type": "application/json", "Content-Encoding": coding},
        )
    )

    check(answer, 415, "body_encoded", "client", "no")
    assert [] == provider.entries


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"not json", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b'{"a": "\xed\xa0\x80"}',
     b'{"model":"gpt-4o","model":"other","messages":[]}', b'{"model":"gpt-4o","messages":[],"messag\\u0065s":[]}'],
)  # fmt: skip
def test_unreadable_body_is_400(sidecar: Sidecar, provider: Simulator, body: bytes) -> None:
    """What we cannot read as one meaning, a provider could read as another."""
    answer = sidecar.ask(request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"}))

    check(answer, 400, "body_unreadable", "client", "no")
    assert [] == provider.entries


def test_head_above_the_limit_is_431(sidecar: Sidecar) -> None:
    """Oversized heads get the error shape too, not a dropped connection."""
    check(sidecar.ask(chat(headers={"x-long": "y" * 9000})), 431, "header_too_large", "client", "no")


def test_body_that_does_not_come_is_408(sidecar: Sidecar) -> None:
    """A caller that stalls in mid-body is told, and the connection is freed."""
    with caller(sidecar.data_port) as wire:
        wire.send(chat()[:-5])
        began_s = time.monotonic()
        answer = wire.message()

    check(answer, 408, "body_timeout", "client", "untold")
    assert time.monotonic() - began_s < 4.0


def test_unknown_expectation_is_417(sidecar: Sidecar) -> None:
    """RFC 9110 section 10.1.1."""
    check(sidecar.ask(chat(headers={"Expect": "the-unexpected"})), 417, "expectation_failed", "client", "no")


def test_foreign_host_is_421(sidecar: Sidecar) -> None:
    """A web page that rebinds DNS to loopback must not reach providers with our keys."""
    data = chat().replace(b"Host: localhost", b"Host: evil.example")

    check(sidecar.ask(data), 421, "bad_request", "client", "no")


# ---------------------------------------------------------------- every refusal


def test_refusals_carry_the_headers_of_every_answer(sidecar: Sidecar, provider: Simulator) -> None:
    """Support asks for the id first; it, the policy revision and the timings stand on every refusal of an exchange."""
    provider.fault_for_model("gpt-bad", "html")
    answers = [
        sidecar.ask(chat(model="gtp-4o")),
        sidecar.ask(chat(model="dead")),
        sidecar.ask(chat(model="gpt-bad")),
        sidecar.ask(chat("4111 1111 1111 1111", headers={"x-readygate-app": "block"})),
        sidecar.ask(request("GET", "/v1/fine_tuning/jobs")),
    ]

    for answer in answers:
        assert [] == [name for name in EVERY_ANSWER if not answer.has(name)], answer.first_line
        assert re.fullmatch(r"[0-9a-f]{12}", answer.get("x-readygate-policy") or "")
        assert re.fullmatch(r"gateway;dur=\d+\.\d+, upstream;dur=\d+\.\d+", answer.get("server-timing") or "")


def test_refusals_before_an_exchange_carry_the_headers_of_every_answer(sidecar: Sidecar) -> None:
    """A 404 or 413 of the front door is an answer like any other."""
    answers = [
        sidecar.ask(request("GET", "/nowhere")),
        sidecar.ask(chat(headers={"Content-Encoding": "gzip"})),
        sidecar.ask(b"GARBAGE\r\n\r\n"),
    ]

    for answer in answers:
        assert [] == [name for name in EVERY_ANSWER if not answer.has(name)], answer.first_line


@pytest.mark.parametrize(
    "data",
    [b"GARBAGE\r\n\r\n", request("GET", "/nowhere"), chat(headers={"Content-Encoding": "gzip"}), chat(model="gtp-4o"),
     request("BREW", "/v1/models")],
    ids=["garbage", "404", "415", "model", "method"],
)  # fmt: skip
def test_every_refusal_is_one_row(sidecar: Sidecar, data: bytes) -> None:
    """Whoever got a byte of an answer is in the record, also those who never became an exchange."""
    answer = sidecar.ask(data)

    row = sidecar.row(answer.get("x-readygate-id"))
    assert (answer.status, answer.error["code"]) == (row["http_status"], row["error_code"])


def test_anthropic_path_gets_the_anthropic_shape(sidecar: Sidecar) -> None:
    """The Anthropic SDK reads ``type`` and ``error.type``; the OpenAI shape would be an unknown error to it."""
    body = json.dumps({"model": "claude-unknown", "max_tokens": 5, "messages": []}).encode()
    answer = sidecar.ask(request("POST", "/v1/messages", body, {"Content-Type": "application/json"}))

    document = answer.json()
    assert (404, "error", "not_found_error") == (answer.status, document["type"], document["error"]["type"])
    assert answer.get("x-readygate-id") == document["request_id"]


def test_refused_head_request_has_no_body(sidecar: Sidecar) -> None:
    """HEAD answers end with the head; a body would be read as the next answer."""
    with caller(sidecar.data_port) as wire:
        wire.send(request("HEAD", "/v1/fine_tuning/jobs") + request("GET", "/v1/models"))
        first = wire.message(is_bodiless=True)
        second = wire.message()

    assert 404 == first.status
    assert 200 == second.status
    assert "list" == second.json()["object"]
