"""What stands on good answers and on the errors that providers make: our headers, their limits, the names of models."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator

import pytest

from tests.support.simulator import Simulator
from tests.support.wire import Message, Sidecar, chat, request, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

MAIN_KEY = "sk-main-AbCdEfGh0123456789XyZ0123456789"
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")

POLICY = """
version: 1
policy: default
redaction: {request: {default: "off", rules: [{types: [email, cpf], action: restore}, {types: [phone], action: observe}]}}
routes:
  - {name: alias, match: {models: ["fast"]}, chain: [{provider: main, model: gpt-4o-mini}], retries: none}
  - name: pair
    match: {models: ["pair"]}
    chain: [{provider: main, model: first-model}, {provider: second, model: second-model}]
    retries: none
  - {name: twice, match: {models: ["twice"]}, chain: [{provider: main, model: twice-model}], retries: once}
  - {name: any, match: {models: ["*"]}, chain: [{provider: main}], retries: none}
"""

BUDGETED = """
version: 1
policy: budgeted
applies_to: {apps: ["budgeted"]}
budgets: [{provider: main, requests_per_minute: 1000, tokens_per_minute: 100000}]
routes: [{match: {models: ["*"]}, chain: [{provider: main}], retries: none}]
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = f"""
providers:
  main: {{base_url: "{provider.base_url}", api_key: {{env: MAIN_KEY}}}}
  second: {{base_url: "{provider.origin}/second/openai/v1", api_key: {{env: MAIN_KEY}}}}
"""
    policies = {"default.yaml": POLICY, "budgeted.yaml": BUDGETED}
    with sidecar_for(tmp_path_factory.mktemp("sidecar"), config, policies, env={"MAIN_KEY": MAIN_KEY}) as running:
        yield running


@pytest.fixture(autouse=True)
def _forget(provider: Simulator) -> None:
    provider.reset()


def has_ours(answer: Message, provider: str = "main", model: str = "gpt-4o-mini", attempts: int = 1) -> None:
    assert UUID7.match(answer.get("x-readygate-id") or "")
    assert answer.has("x-request-id")
    assert (provider, model, str(attempts)) == (
        answer.get("x-readygate-provider"), answer.get("x-readygate-model"), answer.get("x-readygate-attempts"),
    )  # fmt: skip
    assert re.fullmatch(r"[0-9a-f]{12}", answer.get("x-readygate-policy") or "")
    assert re.fullmatch(r"gateway;dur=\d+\.\d\d, upstream;dur=\d+\.\d\d", answer.get("server-timing") or "")


# ---------------------------------------------------------------- good answers


def test_plain_answer_carries_our_headers_and_the_providers_request_id(sidecar: Sidecar) -> None:
    """The provider's id is what its support asks for; ours is the key of the row."""
    answer = sidecar.ask(chat())

    has_ours(answer)
    assert (answer.get("x-request-id") or "").startswith("req_sim")
    assert None is answer.get("x-readygate-fault")
    assert "success" == sidecar.row(answer.get("x-readygate-id"))["status"]


def test_streamed_answer_carries_our_headers_and_the_hints_for_proxies(sidecar: Sidecar) -> None:
    """Proxies in front buffer a stream unless they are told not to."""
    answer = sidecar.ask(chat(stream=True))

    has_ours(answer)
    assert "no" == answer.get("x-accel-buffering")
    assert "no-cache" == answer.get("cache-control")
    assert "[DONE]" == answer.events[-1]


def test_answer_without_a_request_id_gets_ours(sidecar: Sidecar, provider: Simulator) -> None:
    """SDKs show _request_id in every error; it must never be empty."""
    provider.fault("no_request_id")
    answer = sidecar.ask(chat())

    assert answer.get("x-readygate-id") == answer.get("x-request-id")


def test_binary_answer_carries_our_headers(sidecar: Sidecar) -> None:
    """Audio is an exchange like any other."""
    body = json.dumps({"model": "gpt-4o-mini", "input": "hello", "voice": "alloy"}).encode()
    answer = sidecar.ask(request("POST", "/v1/audio/speech", body, {"Content-Type": "application/json"}))

    assert 200 == answer.status
    has_ours(answer)


def test_model_list_is_answered_from_routes_with_our_headers(sidecar: Sidecar, provider: Simulator) -> None:
    """An answer of our own making names no provider and asked none."""
    answer = sidecar.ask(request("GET", "/v1/models"))

    assert {"fast", "pair", "twice"} == {row["id"] for row in answer.json()["data"]}
    assert "0" == answer.get("x-readygate-attempts")
    assert None is answer.get("x-readygate-provider")
    assert [] == provider.entries


def test_server_timing_parts_what_is_ours_from_what_is_the_providers(sidecar: Sidecar) -> None:
    """A slow provider must not be blamed on the gateway, nor the other way round."""
    answer = sidecar.ask(chat(headers={"x-sim-speech": "latency=200ms"}))

    ours, theirs = (float(part.partition("=")[2]) for part in (answer.get("server-timing") or "").split(", "))
    assert theirs > 190
    assert ours < 100


def test_redactions_are_counted_by_type(sidecar: Sidecar) -> None:
    """Types in alphabetical order with counts; values never, observed types not."""
    answer = sidecar.ask(chat("echo: a@example.com b@example.com 529.982.247-25"))

    assert "cpf=1,email=2" == answer.get("x-readygate-redactions")
    assert "a@example.com b@example.com 529.982.247-25" == answer.json()["choices"][0]["message"]["content"]
    row = sidecar.row(answer.get("x-readygate-id"))
    assert (1, 1, {"EMAIL": 2, "CPF": 1}) == (row["pii_detected"], row["pii_sanitized"], json.loads(row["sanitized"]))


def test_nothing_redacted_means_no_redaction_header(sidecar: Sidecar) -> None:
    """An empty value would be a third way to say none."""
    assert None is sidecar.ask(chat()).get("x-readygate-redactions")


# ---------------------------------------------------------------- budgets


def test_providers_own_limits_pass_where_no_budget_applies(sidecar: Sidecar) -> None:
    """Without a budget of ours the provider's figures are the best there are."""
    answer = sidecar.ask(chat(headers={"x-sim-speech": "remaining_requests=77"}))

    assert ("10000", "77") == (answer.get("x-ratelimit-limit-requests"), answer.get("x-ratelimit-remaining-requests"))


@pytest.mark.parametrize("stream", [False, True])
def test_our_limits_replace_the_providers_where_a_budget_applies(sidecar: Sidecar, stream: bool) -> None:
    """One set of figures, ours, for plain and streamed answers."""
    answer = sidecar.ask(chat(headers={"x-readygate-app": "budgeted"}, stream=stream))

    assert ("1000", "100000") == (answer.get("x-ratelimit-limit-requests"), answer.get("x-ratelimit-limit-tokens"))
    assert int(answer.get("x-ratelimit-remaining-requests") or 1000) < 1000
    assert answer.has("x-ratelimit-reset-requests")
    assert answer.has("x-ratelimit-reset-tokens")


# ---------------------------------------------------------------- names of models


@pytest.mark.parametrize("stream", [False, True])
def test_alias_is_mapped_out_and_back(sidecar: Sidecar, provider: Simulator, stream: bool) -> None:
    """The app asked for "fast" and finds "fast" in every event; the provider saw its own name."""
    answer = sidecar.ask(chat(model="fast", stream=stream))

    documents = [json.loads(e) for e in answer.events if e != "[DONE]"] if stream else [answer.json()]
    assert {"fast"} == {document["model"] for document in documents}
    assert "gpt-4o-mini" == provider.last.json()["model"]
    assert "gpt-4o-mini" == answer.get("x-readygate-model")
    row = sidecar.row(answer.get("x-readygate-id"))
    assert ("fast", "gpt-4o-mini", "alias") == (row["model_asked"], row["model_served"], row["route"])


@pytest.mark.parametrize("stream", [False, True])
def test_after_a_fallback_the_answer_names_who_served(sidecar: Sidecar, provider: Simulator, stream: bool) -> None:
    """Another model answered: the app must be able to see that."""
    provider.script("500")
    answer = sidecar.ask(chat(model="pair", stream=stream))

    documents = [json.loads(e) for e in answer.events if e != "[DONE]"] if stream else [answer.json()]
    assert 200 == answer.status
    assert {"second-model"} == {document["model"] for document in documents}
    has_ours(answer, "second", "second-model", 2)
    row = sidecar.row(answer.get("x-readygate-id"))
    assert ("fallback", "second", "second-model", 2) == (
        row["status"], row["provider"], row["model_served"], row["attempt_count"],
    )  # fmt: skip
    outcomes = [attempt["outcome"] for attempt in json.loads(row["attempts"])]
    assert ["upstream_5xx", "ok"] == outcomes


def test_second_try_at_the_same_target_is_no_fallback_of_names(sidecar: Sidecar, provider: Simulator) -> None:
    """The first target served it, if at the second try: the app finds the name it asked for."""
    provider.script("500")
    answer = sidecar.ask(chat(model="twice"))

    assert (200, "2") == (answer.status, answer.get("x-readygate-attempts"))
    assert "twice" == answer.json()["model"]
    assert "success" == sidecar.row(answer.get("x-readygate-id"))["status"]


def test_stale_connection_changes_nothing_for_the_caller(sidecar: Sidecar, provider: Simulator) -> None:
    """The provider closed an idle connection; the request never reached it, so nothing about the answer may differ."""
    provider.script("race:how=fin")
    sidecar.ask(chat(model="fast"))
    answer = sidecar.ask(chat(model="fast"))

    assert (200, "2") == (answer.status, answer.get("x-readygate-attempts"))
    assert "fast" == answer.json()["model"]
    assert "success" == sidecar.row(answer.get("x-readygate-id"))["status"]


# ---------------------------------------------------------------- provider errors


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422, 429, 451, 500, 503, 529])
def test_providers_own_error_passes_with_status_and_body(sidecar: Sidecar, provider: Simulator, status: int) -> None:
    """The SDK's own error classes must work: same status, same body, and whose fault it was."""
    provider.fault_for_model(f"err-{status}", f"{status}:message=provider-says-no,retry_after=3")
    answer = sidecar.ask(chat(model=f"err-{status}"))

    assert status == answer.status
    assert "provider-says-no" == answer.error["message"]
    assert "request_id" not in answer.error
    assert "provider" == answer.get("x-readygate-fault")
    assert (answer.get("x-request-id") or "").startswith("req_sim")
    row = sidecar.row(answer.get("x-readygate-id"))
    assert (status, "rate_limited" if status == 429 else "error") == (row["http_status"], row["status"])
    assert "provider-says-no" not in json.dumps(row, default=repr)


def test_providers_retry_after_passes(sidecar: Sidecar, provider: Simulator) -> None:
    """A proxy that renamed it and broke its clients."""
    provider.fault_for_model("err-wait", "429:retry_after=3")

    assert "3" == sidecar.ask(chat(model="err-wait")).get("retry-after")


def test_provider_error_that_echoes_our_key_is_masked(sidecar: Sidecar, provider: Simulator) -> None:
    """The commonest leak: "Incorrect API key provided: sk-…" from the provider itself (SE-02)."""
    provider.fault_for_model("err-echo", "401:echo_key=yes")
    answer = sidecar.ask(chat(model="err-echo"))

    assert 401 == answer.status
    assert MAIN_KEY.encode() not in answer.body
    row = sidecar.row(answer.get("x-readygate-id"))
    assert MAIN_KEY not in json.dumps(row, default=repr)
    assert MAIN_KEY not in sidecar.log()


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("stream", [False, True])
def test_account_headers_of_an_answer_to_our_key_stay_with_us(
    sidecar: Sidecar, provider: Simulator, status: int, stream: bool
) -> None:
    """Organisation and project are ours; the app has no business with them, in good answers as in bad."""
    world = provider.provider.world
    before = world.settings
    world.settings = dataclasses.replace(
        before, extra_headers=(("openai-organization", "org-secret12345"), ("openai-project", "proj_secret12345"))
    )
    try:
        provider.fault_for_model("err-account", "400")
        answer = sidecar.ask(chat(model="err-account" if status == 400 else "gpt-4o-mini", stream=stream))
    finally:
        world.settings = before

    assert status == answer.status
    assert not answer.has("openai-organization")
    assert not answer.has("openai-project")
