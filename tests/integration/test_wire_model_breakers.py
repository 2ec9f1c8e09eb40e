"""A target that takes any model: one broken model is shut by itself, with one probe, and the rest goes on (BR-01, BR-02)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.simulator import Simulator
from tests.support.wire import Sidecar, chat, eventually, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

POLICY = """
version: 1
policy: default
routes: [{name: any, match: {models: ["*"]}, chain: [{provider: main}, {provider: spare, model: other}], retries: none}]
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture
def sidecar(provider: Simulator, tmp_path: Path) -> Iterator[Sidecar]:
    provider.reset()
    config = "providers:\n" + "".join(f'  {n}: {{base_url: "{provider.origin}/{n}/v1"}}\n' for n in ("main", "spare"))
    with sidecar_for(tmp_path, config, POLICY) as running:
        yield running


def asked(provider: Simulator, model: str) -> Counter[str]:
    return Counter(entry.provider for entry in provider.entries if entry.model == model)


def test_broken_model_is_shut_alone_and_probed_once(provider: Simulator, sidecar: Sidecar) -> None:
    """Five failures, then nothing until the back-off; fifty at once make one probe; the other models never notice."""
    provider.fault_for_model("broken", "500")
    for _ in range(10):
        sidecar.ask(chat(model="broken"))
    served = [sidecar.ask(chat(model=f"well-{number}")).get("x-readygate-provider") for number in range(5)]
    before = asked(provider, "broken")["main"]
    state = {row["deployment"]: row["state"] for row in sidecar.admin("/api/v1/breakers").json()["breakers"]}

    assert 5 == before
    assert ["main"] * 5 == served
    assert ("closed", "open") == (state["main:*"], state["main:broken"])
    assert 1.0 == sidecar.metric("readygate_breaker_open", deployment="main:*")

    def due() -> bool:
        rows = sidecar.admin("/api/v1/breakers").json()["breakers"]
        return not next(row["retry_in_s"] for row in rows if row["deployment"] == "main:broken")

    eventually(due, "the back-off does not pass", 5)
    provider.fault_for_model("broken", "ok:latency=500ms")

    async def at_once() -> list[int]:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(asyncio.to_thread(sidecar.ask, chat(model="broken"), 10.0)) for _ in range(50)]
        return [task.result().status for task in running]

    assert {200} == set(asyncio.run(at_once()))
    assert before + 1 == asked(provider, "broken")["main"]
    assert "main" == sidecar.ask(chat(model="broken")).get("x-readygate-provider")


def test_rate_limit_of_a_model_leaves_the_others(provider: Simulator, sidecar: Sidecar) -> None:
    """Providers limit by model; the limited one goes to the spare until its time."""
    provider.fault_for_model("limited", "429:retry_after=30")
    limited = [sidecar.ask(chat(model="limited")) for _ in range(4)]

    assert 1 == asked(provider, "limited")["main"]
    assert {200} == {answer.status for answer in limited}
    assert "main" == sidecar.ask(chat(model="free")).get("x-readygate-provider")
