"""``when_exhausted: {wait: …}`` through the front door: who waits, for how long, and who is told no at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.simulator import Simulator
from tests.support.wire import Message, Sidecar, chat, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

POLICY = """
version: 1
policy: default
budgets:
  - {id: slots, provider: slots, concurrent: 1, when_exhausted: {wait: 3s}, max_waiting: 4}
  - {id: rate, provider: rate, requests_per_10s: 2, requests_per_hour: 1000, when_exhausted: {wait: 300ms}}
routes:
  - {name: slots, match: {models: ["slots"]}, chain: [{provider: slots}], retries: none}
  - {name: rate, match: {models: ["rate"]}, chain: [{provider: rate}], retries: none}
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = "providers:\n" + "".join(f'  {n}: {{base_url: "{provider.base_url}"}}\n' for n in ("slots", "rate"))
    with sidecar_for(tmp_path_factory.mktemp("waiting"), config, POLICY) as running:
        yield running


def at_once(sidecar: Sidecar, model: str, count: int) -> list[tuple[float, Message]]:
    """Ask at the same time; return seconds and answers."""

    def one(_: int) -> tuple[float, Message]:
        began_s = time.monotonic()
        answer = sidecar.ask(chat(model=model, headers={"x-sim-speech": "latency=0.2s"}), 10.0)
        return time.monotonic() - began_s, answer

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_exchanges_wait_for_a_slot_one_after_the_other(sidecar: Sidecar) -> None:
    """Five at once for one slot of a fifth of a second: all are served, the last after four others."""
    results = at_once(sidecar, "slots", 5)

    assert [200] * 5 == [answer.status for _, answer in results]
    assert 0.8 < max(seconds for seconds, _ in results) < 3.0
    waited = [a for _, a in results if "waited:" in str(sidecar.row(a.get("x-readygate-id"))["notes"])]
    assert 4 == len(waited)


def test_a_full_line_refuses_newcomers_at_once(sidecar: Sidecar) -> None:
    """One runs, four wait, the others are told no without waiting."""
    results = at_once(sidecar, "slots", 9)
    refused = [seconds for seconds, answer in results if answer.status == 429]

    assert 5 == sum(answer.status == 200 for _, answer in results)
    assert 4 == len(refused)
    assert max(refused) < 0.5


def test_wait_that_cannot_be_met_is_refused_at_once_with_the_true_one(sidecar: Sidecar) -> None:
    """Ten seconds of room are needed, three tenths are allowed: nobody is kept waiting for nothing."""
    for _ in range(2):
        assert 200 == sidecar.ask(chat(model="rate")).status
    began_s = time.monotonic()
    answer = sidecar.ask(chat(model="rate"))

    assert time.monotonic() - began_s < 0.25
    assert (429, "rate_limit_exceeded") == (answer.status, answer.error["code"])
    assert 5 < int(answer.get("retry-after") or 0) <= 11
    assert abs(int(answer.get("retry-after-ms") or 0) / 1000 - int(answer.get("retry-after") or 0)) <= 1.0
    assert "true" != answer.get("x-should-retry") or answer.get("retry-after")
    assert "2" == answer.get("x-ratelimit-limit-requests")
