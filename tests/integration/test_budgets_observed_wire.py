"""Budgets under ``mode: observe``, through the front door: what would have been refused is recorded, and nothing changes."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from tests.support.simulator import Simulator
from tests.support.wire import Sidecar, chat, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

POLICY = """
version: 1
policy: default
mode: observe
budgets:
  - {id: few, provider: main, model: "few*", requests_per_hour: 2, concurrent: 50, when_exhausted: refuse}
  - {id: line, provider: main, model: "line*", requests_per_hour: 1, when_exhausted: {wait: 5s}}
  - {id: small, provider: main, model: "small*", tokens_per_hour: 20, when_exhausted: refuse}
routes: [{name: any, match: {models: ["*"]}, chain: [{provider: main}], output_cap: 7, retries: none}]
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = f'providers: {{main: {{base_url: "{provider.base_url}"}}}}\n'
    with sidecar_for(tmp_path_factory.mktemp("observed"), config, POLICY) as running:
        yield running


def test_spent_budget_is_told_in_the_row_and_refuses_nobody(sidecar: Sidecar) -> None:
    """design.md: observe decides and records. What is refused in truth would not have been charged, so nor is it here."""
    before = sidecar.metric("readygate_budget_observed_total")
    answers = [sidecar.ask(chat(model="few")) for _ in range(5)]
    notes = [str(sidecar.row(answer.get("x-readygate-id"))["notes"]) for answer in answers]

    assert [200] * 5 == [answer.status for answer in answers]
    assert [False, False, True, True, True] == ["would_refuse:budget:main:requests_per_hour" in note for note in notes]
    assert 3 == sidecar.metric("readygate_budget_observed_total") - before
    assert "2" != answers[0].get("x-ratelimit-limit-requests"), "our limit in place of the provider's"


def test_request_no_budget_could_ever_hold_and_one_that_would_wait_both_pass_at_once(sidecar: Sidecar) -> None:
    """Neither a 400 nor a line to stand in."""
    large = sidecar.ask(chat(model="small", max_tokens=500))
    line = [sidecar.ask(chat(model="line"), 3.0) for _ in range(2)]

    assert [200, 200, 200] == [answer.status for answer in (large, *line)]
    assert "would_refuse:budget:main:tokens_per_hour" in str(sidecar.row(large.get("x-readygate-id"))["notes"])


def test_stream_leaves_as_its_caller_wrote_it(sidecar: Sidecar, provider: Simulator) -> None:
    """No usage is asked for and no length capped: a provider that dislikes either must not find out from an observer."""
    assert 200 == sidecar.ask(chat(model="small", stream=True)).status
    sent = orjson.loads(provider.entries[-1].body)

    assert set(orjson.loads(chat(model="small", stream=True).split(b"\r\n\r\n", 1)[1])) == set(sent)
