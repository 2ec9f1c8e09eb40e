"""Breakers and retry budgets through the whole sidecar (BR-01 to BR-04), and a primary that flaps.

The simulated provider's journal counts the calls and says when they came.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from tests.support.simulator import Simulator
from tests.support.wire import Message, Sidecar, caller, chat, eventually, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

COPIES = 12
POLICY = "version: 1\npolicy: default\nroutes:\n" + "".join(
    f"  - {{match: {{models: [pair-{n}]}}, chain: [{{provider: one, model: p{n}}}, {{provider: two, model: q{n}}}], retries: none}}\n"
    f"  - {{match: {{models: [lone-{n}]}}, chain: [{{provider: one, model: l{n}}}], retries: once}}\n"
    for n in range(COPIES)
)
_turns = count()


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = f"""
providers:
  one: {{base_url: "{provider.origin}/one/v1"}}
  two: {{base_url: "{provider.origin}/two/v1"}}
"""
    with sidecar_for(tmp_path_factory.mktemp("sidecar"), config, POLICY) as running:
        yield running


@pytest.fixture(autouse=True)
def _forget(provider: Simulator) -> None:
    provider.reset()


@pytest.fixture
def number() -> int:
    """The routes of this test alone."""
    return next(_turns) % COPIES


def calls(provider: Simulator, name: str = "one") -> int:
    return sum(entry.provider == name for entry in provider.entries)


def ask(sidecar: Sidecar, model: str) -> Message:
    return sidecar.ask(chat(model=model))


def test_breaker_opens_probes_once_and_closes(sidecar: Sidecar, provider: Simulator, number: int) -> None:
    """BR-01: five failures open it; after each back-off one probe; a good probe closes it."""
    model = f"pair-{number}"
    provider.fault_for_provider("one", "500")
    answers = [ask(sidecar, model) for _ in range(20)]
    assert 5 == calls(provider)

    eventually(lambda: (ask(sidecar, model), calls(provider) == 6)[1], "no probe after the back-off", 2.5)
    more = [ask(sidecar, model) for _ in range(10)]
    assert 6 == calls(provider)
    provider.fault_for_provider("one", "ok")
    eventually(lambda: (ask(sidecar, model), calls(provider) > 6)[1], "no second probe", 4.0)
    before = calls(provider)
    healed = [ask(sidecar, model) for _ in range(5)]

    assert before + 5 == calls(provider)
    assert {200} == {answer.status for answer in (*answers, *more, *healed)}


def test_half_open_lets_exactly_one_through(sidecar: Sidecar, provider: Simulator, number: int) -> None:
    """BR-02: fifty at once, one probe, and everybody answered."""
    model = f"pair-{number}"
    provider.fault_for_provider("one", "500")
    for _ in range(6):
        ask(sidecar, model)
    assert 5 == calls(provider)
    provider.fault_for_provider("one", "ok:latency=700ms")
    time.sleep(1.4)  # noqa: TID251 - the back-off of at most 1.25 s; no event loop here
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: ask(sidecar, model), range(50)))

    assert {200} == {answer.status for answer in answers}
    assert 6 == calls(provider)


def test_callers_who_leave_or_err_open_nothing(sidecar: Sidecar, provider: Simulator, number: int) -> None:
    """BR-03: neither says anything about the provider's health."""
    model = f"pair-{number}"
    provider.fault_for_provider("one", "silence")
    for turn in range(40):
        with caller(sidecar.data_port) as wire:
            wire.send(chat(model=model))
            eventually(lambda at=turn + 1: calls(provider) >= at, "the request did not arrive")  # type: ignore[misc]
            wire.reset()
    provider.fault_for_provider("one", "400")
    refused = [ask(sidecar, model) for _ in range(40)]
    provider.fault_for_provider("one", "ok")
    good = ask(sidecar, model)

    assert {400} == {answer.status for answer in refused}
    assert (200, "one") == (good.status, good.get("x-readygate-provider"))


def _fail_for(sidecar: Sidecar, model: str, seconds: float, per_s: float) -> int:
    """Ask at a steady pace while everything fails; return how many requests were made."""
    made, end_s = 0, time.monotonic() + seconds
    with ThreadPoolExecutor(8) as pool:
        while time.monotonic() < end_s:
            pool.submit(ask, sidecar, model)
            made += 1
            time.sleep(1 / per_s)  # noqa: TID251 - the pace of a load; no event loop here
    return made


def test_retries_of_a_dead_provider_stay_within_their_budget(
    sidecar: Sidecar, provider: Simulator, number: int
) -> None:
    """BR-04, in short: a fifth more than what was asked, and the probes."""
    provider.fault("500")
    made = _fail_for(sidecar, f"lone-{number}", 3.0, 20)

    assert len(provider.entries) <= 1.2 * made + 4
    assert len(provider.entries) >= 5


@pytest.mark.slow
def test_retries_of_a_provider_dead_for_a_minute_stay_within_their_budget(
    sidecar: Sidecar, provider: Simulator, number: int
) -> None:
    """BR-04."""
    provider.fault("500")
    made = _fail_for(sidecar, f"lone-{number}", 60.0, 20)

    assert len(provider.entries) <= 1.2 * made + 61


def _flap(
    sidecar: Sidecar, provider: Simulator, model: str, *, rounds: int, down_s: float, up_s: float, per_s: float
) -> tuple[list[Message], list[int], list[float]]:
    """Let the primary fall and heal while requests come; return answers, calls while down, seconds until back."""
    answers: list[Message] = []
    calls_down: list[int] = []
    back_s: list[float] = []
    is_over = threading.Event()

    def load() -> None:
        with ThreadPoolExecutor(8) as pool:
            while not is_over.wait(1 / per_s):
                pool.submit(lambda: answers.append(ask(sidecar, model)))

    thread = threading.Thread(target=load)
    thread.start()
    for _ in range(rounds):
        before = calls(provider)
        provider.fault_for_provider("one", "503")
        time.sleep(down_s)  # noqa: TID251 - the length of an outage; no event loop here
        calls_down.append(calls(provider) - before)
        provider.fault_for_provider("one", "ok")
        healed_s = time.monotonic()
        time.sleep(up_s)  # noqa: TID251 - the time between outages; no event loop here
        served = [
            entry.received_s for entry in provider.entries if entry.provider == "one" and entry.received_s > healed_s
        ]
        back_s.append(served[0] - healed_s if served else float("inf"))
    is_over.set()
    thread.join()
    return answers, calls_down, back_s


def test_flapping_primary_costs_no_answer(sidecar: Sidecar, provider: Simulator, number: int) -> None:
    """The short form: everybody is answered, and the primary is back soon."""
    answers, calls_down, back_s = _flap(sidecar, provider, f"pair-{number}", rounds=1, down_s=1.0, up_s=2.0, per_s=20)

    assert {200} == {answer.status for answer in answers}
    assert max(calls_down) <= 5 + 3, calls_down
    assert max(back_s) <= 5.0, back_s


@pytest.mark.slow
def test_primary_that_flaps_for_a_minute_costs_no_answer(sidecar: Sidecar, provider: Simulator, number: int) -> None:
    """Sixty seconds at 20 requests a second: 100 % answered, one probe per back-off, back within 5 s of healing."""
    answers, calls_down, back_s = _flap(sidecar, provider, f"pair-{number}", rounds=6, down_s=4.0, up_s=6.0, per_s=20)

    assert len(answers) > 900
    assert {200} == {answer.status for answer in answers}
    # Five to open it, and at most one probe a second and a quarter after that, some under way as it fell.
    assert max(calls_down) <= 5 + 4 + 3, calls_down
    assert max(back_s) <= 5.0, back_s
    first = json.loads(sidecar.row(answers[-1].get("x-readygate-id"))["attempts"])[0]
    assert "one" == first["provider"]
