"""The refusals that a provider causes, each one provoked for real and read as bytes: status, code, whose fault, when to come
back.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.support.refusals import check, row_agrees
from tests.support.simulator import Simulator, black_hole, refused_origin
from tests.support.wire import Sidecar, chat, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

BAD_ANSWERS = [
    ("cut:after=nothing", 502, "upstream_no_response", "untold"),
    ("reset:after=nothing", 502, "upstream_no_response", "untold"),
    ("reset:after=head", 502, "upstream_reset", "untold"),
    ("cut:after=10", 502, "upstream_truncated", "untold"),
    ("html", 502, "upstream_bad_response", "untold"),
    ("error_in_200", 502, "upstream_bad_response", "untold"),
    ("empty:status=200", 502, "upstream_bad_response", "untold"),
    ("bad_framing:kind=garbage", 502, "upstream_bad_response", "untold"),
    ("bad_framing:kind=cl_te", 502, "upstream_bad_response", "untold"),
    ("redirect:status=307", 502, "upstream_redirect", "no"),
    ("redirect:status=301", 502, "upstream_redirect", "no"),
]


def _model_for(fault: str) -> str:
    """Return a model that only this fault uses: each is a deployment with a breaker of its own."""
    return "zz-" + re.sub(r"\W+", "-", fault)


DEFAULT = """
version: 1
policy: default
routes:
  - {name: any, match: {models: ["gpt-*", "sim/*"]}, chain: [{provider: main}], retries: none}
  - {name: dead, match: {models: ["dead"]}, chain: [{provider: dead}], retries: none}
  - {name: dead-twice, match: {models: ["dead-twice"]}, chain: [{provider: dead, model: a}, {provider: dead, model: b}], retries: none}
  - {name: hole, match: {models: ["hole"]}, chain: [{provider: hole}], retries: none, timeouts: {connect: 150ms}}
  - {name: secure, match: {models: ["secure"]}, chain: [{provider: secure}], retries: none}
  - {name: slow, match: {models: ["slow"]}, chain: [{provider: main, model: slow-served}], retries: none, timeouts: {first_byte: 200ms}}
  - {name: late, match: {models: ["late"]}, chain: [{provider: main, model: late-served}], retries: none, timeouts: {total: 300ms}}
  - {name: pair, match: {models: ["pair"]}, chain: [{provider: main, model: pair-a}, {provider: main, model: pair-b}], retries: none}
""" + "".join(
    f"  - {{match: {{models: [{_model_for(fault)}]}}, chain: [{{provider: main, model: {_model_for(fault)}}}], retries: none}}\n"
    for fault, *_ in BAD_ANSWERS
)


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with black_hole() as hole:
        config = f"""
providers:
  main: {{base_url: "{provider.base_url}", api_key: {{env: MAIN_KEY}}}}
  dead: {{base_url: "{refused_origin()}/v1"}}
  hole: {{base_url: "{hole}/v1"}}
  secure: {{base_url: "https://127.0.0.1:{provider.port}/v1"}}
"""
        key = {"MAIN_KEY": "sk-main-0123456789abcdef0123456789"}
        with sidecar_for(tmp_path_factory.mktemp("sidecar"), config, DEFAULT, env=key) as running:
            yield running


@pytest.fixture(autouse=True)
def _forget(provider: Simulator) -> None:
    provider.reset()


def test_unreachable_provider_is_502_and_says_that_a_retry_may_help(sidecar: Sidecar) -> None:
    """We tried once, so the client's own retry is worth while and not forbidden."""
    answer = sidecar.ask(chat(model="dead"))

    check(answer, 502, "upstream_connect_error", "provider", "untold")
    assert "1" == answer.get("x-readygate-attempts")
    assert "dead" == answer.get("x-readygate-provider")
    row_agrees(sidecar, answer, "error")


def test_after_our_own_retries_the_client_is_told_not_to_multiply_them(sidecar: Sidecar) -> None:
    """Three tries of ours times three of the SDK's is nine bills."""
    answer = sidecar.ask(chat(model="dead-twice"))

    check(answer, 502, "upstream_connect_error", "provider", "no")
    assert "2" == answer.get("x-readygate-attempts")


def test_provider_that_does_not_connect_is_504(sidecar: Sidecar) -> None:
    """A black hole costs the connect time-out and no more."""
    began_s = time.monotonic()
    answer = sidecar.ask(chat(model="hole"))

    check(answer, 504, "upstream_timeout", "provider", "untold")
    assert time.monotonic() - began_s < 1.5


def test_provider_without_tls_is_a_tls_error(sidecar: Sidecar) -> None:
    """An https base URL on a plain port is the operator's commonest slip; the code names it."""
    check(sidecar.ask(chat(model="secure")), 502, "upstream_tls_error", "provider", "untold")


@pytest.mark.parametrize(("model", "served"), [("slow", "slow-served"), ("late", "late-served")])
def test_silent_provider_is_504(sidecar: Sidecar, provider: Simulator, model: str, served: str) -> None:
    """First-byte and total deadlines both end as the same code, worded apart."""
    provider.fault_for_model(served, "silence")

    check(sidecar.ask(chat(model=model)), 504, "upstream_timeout", "provider", "untold")


@pytest.mark.parametrize(("fault", "status", "code", "retry"), BAD_ANSWERS)
def test_bad_answer_is_a_named_502(
    sidecar: Sidecar, provider: Simulator, fault: str, status: int, code: str, retry: str
) -> None:
    """Whatever a provider does wrong becomes one of a few stable codes, before the caller has seen a byte."""
    model = _model_for(fault)
    provider.fault_for_model(model, fault)

    answer = sidecar.ask(chat(model=model))

    check(answer, status, code, "provider", retry)
    row_agrees(sidecar, answer, "error")


def test_answer_head_with_too_many_lines_is_not_called_truncated(sidecar: Sidecar, provider: Simulator) -> None:
    """The operator would look for a broken connection where there is a limit of ours."""
    provider.fault_for_model("gpt-lines", "big_head:count=300,size=20")

    answer = sidecar.ask(chat(model="gpt-lines"))

    assert answer.error["code"] in ("upstream_too_large", "upstream_bad_response")


def test_all_targets_cooling_is_503_with_the_soonest_time(sidecar: Sidecar, provider: Simulator) -> None:
    """Both targets named a wait; the caller is told the shorter one."""
    provider.fault_for_model("pair-a", "429:retry_after=9")
    provider.fault_for_model("pair-b", "429:retry_after=4")
    first = sidecar.ask(chat(model="pair"))
    asked = len(provider.entries)

    second = sidecar.ask(chat(model="pair"))

    assert 429 == first.status
    assert "4" == first.get("retry-after")
    if len(provider.entries) == asked:
        check(second, 503, "all_targets_unavailable", "gateway", "yes")
        assert 2_000 < int(second.get("retry-after-ms") or 0) <= 4_000
    else:  # a last resort is tried rather than refused; then the provider's own wait stands
        assert 429 == second.status
        assert int(second.get("retry-after") or 0) <= 4
