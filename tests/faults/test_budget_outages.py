"""Sidecars cut off from Redis, killed, or more than were announced. The provider's journal is the oracle."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.budget_load import Ask, Caller, reconcile
from tests.support.postgres import NoServer
from tests.support.redis import RedisServer, running_redis
from tests.support.sidecar_fleet import Fleet, policy_text, sidecar_fleet

pytestmark = pytest.mark.faults


@contextmanager
def caller_of(fleet: Fleet) -> Iterator[Caller]:
    """A caller whose connections are closed at the end."""
    caller = Caller(fleet.ports)
    try:
        yield caller
    finally:
        caller.close()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A Valkey for the fleets of this module; each has a namespace of its own."""
    try:
        with running_redis() as running:
            yield running
    except NoServer as exc:
        pytest.skip(str(exc))


def test_slots_of_a_killed_sidecar_are_free_after_their_lease_and_not_before(
    tmp_path: Path, server: RedisServer
) -> None:
    """RL-10: SIGKILL with ten slots taken; what it charged stays charged."""
    lease_s = 3.0
    policy = policy_text({"slots": "concurrent: 12, requests_per_minute: 16, when_exhausted: refuse"})
    store = "max_sidecars: {count}, private_share: 0.25, lease: 3s, namespace: killed"
    with sidecar_fleet(tmp_path, 2, policy, redis=server, store=store, providers=["slots"]) as fleet:

        async def go() -> None:
            with caller_of(fleet) as caller:

                async def hold() -> None:
                    """Take a slot; on a busy machine the store may be late, and slices are closed yet."""
                    while (await caller.ask(0, Ask(provider="slots", seconds=60))).status == 429:  # noqa: ASYNC110
                        await asyncio.sleep(0.3)

                async with asyncio.TaskGroup() as tasks:
                    for _ in range(10):
                        tasks.create_task(hold(), name="slow")
                    async with asyncio.timeout(8):
                        while len(fleet.entries_of("slots")) < 10:  # noqa: ASYNC110 - the journal wakes nobody
                            await asyncio.sleep(0.1)
                    fleet.sidecars[0].signal(signal.SIGKILL)
                    killed_s = time.monotonic()
                early = await caller.burst(6, Ask(provider="slots", seconds=0.4), sidecars=[1])
                assert sum(shot.is_served for shot in early) <= 1, "slots are free before the lease is over"
                await asyncio.sleep(max(0.0, killed_s + lease_s + 1.0 - time.monotonic()))
                served = 0
                for _ in range(3):
                    late = await caller.burst(8, Ask(provider="slots", seconds=0.4), sidecars=[1])
                    served += sum(shot.is_served for shot in late)
                    await asyncio.sleep(0.3)
                assert served >= 2, "slots are not free after the lease"
                assert 10 + sum(shot.is_served for shot in early) + served <= 16, "requests of the dead were forgotten"

        asyncio.run(go())


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["some are cut off", "all are cut off", "flapping"])
def test_no_window_passes_the_limit_while_sidecars_are_cut_off(tmp_path: Path, server: RedisServer, cut: str) -> None:
    """RL-09 and RL-08 with windows of 10 s: nobody has to agree with anybody for the bound to hold."""
    policy = policy_text({"cut": "requests_per_10s: 100, tokens_per_10s: 20000, when_exhausted: refuse"})
    store = f"max_sidecars: {{count}}, private_share: 0.25, namespace: {cut.split(maxsplit=1)[0]}"
    with sidecar_fleet(tmp_path, 4, policy, redis=server, store=store, providers=["cut"]) as fleet:
        fleet.wait_until_slices_open(10.0)

        async def trouble() -> None:
            for turn in range(12):
                for number, line in enumerate(fleet.lines):
                    is_cut = (number + turn) % 2 == 0 if cut == "flapping" else number < 2 or cut == "all are cut off"
                    if is_cut and 1 <= turn <= 9:
                        line.black_hole()
                    else:
                        line.heal()
                await asyncio.sleep(2.0)

        async def go() -> None:
            with caller_of(fleet) as caller:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(trouble(), name="trouble")
                    await caller.steady(30, 26.0, Ask(provider="cut"))
                reconcile(caller.shots, fleet.served)
                assert not caller.broken
                assert [200] * 4 == [sidecar.status("/readyz") for sidecar in fleet.sidecars]

        asyncio.run(go())
        assert fleet.worst(10.0, "requests", "cut").amount <= 100
        assert fleet.worst(10.0, "tokens", "cut").amount <= 20000


@pytest.mark.slow
def test_absent_store_from_the_start_costs_no_waiting_and_is_told(tmp_path: Path, server: RedisServer) -> None:
    """RL-08: refused at start, there for a while, away for 30 s: ready throughout, and what it adds is milliseconds."""
    policy = policy_text({"away": "requests_per_minute: 4000, when_exhausted: refuse"})
    store = "max_sidecars: {count}, private_share: 0.5, namespace: away"

    def refuse_all(fleet: Fleet) -> None:
        for line in fleet.lines:
            line.refuse()

    with sidecar_fleet(tmp_path, 2, policy, redis=server, store=store, providers=["away"], prepare=refuse_all) as fleet:
        assert [200, 200] == [sidecar.status("/readyz") for sidecar in fleet.sidecars]
        assert ["degraded"] * 2 == [sidecar.health()["status"] for sidecar in fleet.sidecars]
        for line in fleet.lines:
            line.heal()
        fleet.wait_until_slices_open(60.0)

        async def go() -> None:
            with caller_of(fleet) as caller:
                healthy = await caller.steady(15, 10.0, Ask(provider="away"), is_regular=True)
                for line in fleet.lines:
                    line.black_hole()
                await caller.steady(15, 1.0, Ask(provider="away"), is_regular=True)
                away = await caller.steady(15, 30.0, Ask(provider="away"), is_regular=True)
                assert [200, 200] == [sidecar.status("/readyz") for sidecar in fleet.sidecars]
                for line in fleet.lines:
                    line.heal()
                await asyncio.sleep(2.2)
                assert ["ok"] * 2 == [
                    sidecar.health()["components"]["budget_store"]["state"] for sidecar in fleet.sidecars
                ]
                assert not [shot for shot in caller.shots if not shot.is_served]
                before, after = (sorted(gateway_ms(shots)) for shots in (healthy, away))
                p99 = [values[int(len(values) * 0.99)] for values in (before, after)]
                assert p99[1] <= p99[0] + 5.0

        def gateway_ms(shots: list[object]) -> list[float]:
            return [float(shot.headers["server-timing"].split("dur=")[1].split(",")[0]) for shot in shots]  # type: ignore[attr-defined]

        asyncio.run(go())


@pytest.mark.slow
def test_more_sidecars_than_announced_stay_within_the_stated_deviation(tmp_path: Path, server: RedisServer) -> None:
    """RL-20: six run where four were announced: at most psi/2 above the limit, and somebody is told."""
    policy = policy_text({"many": "requests_per_10s: 80, when_exhausted: refuse"})
    store = "max_sidecars: 4, private_share: 0.25, namespace: many"
    with sidecar_fleet(tmp_path, 6, policy, redis=server, store=store, providers=["many"]) as fleet:
        fleet.wait_until_slices_open(10.0)

        async def go() -> None:
            with caller_of(fleet) as caller:
                await caller.steady(24, 22.0, Ask(provider="many"))

        asyncio.run(go())
        worst = fleet.worst(10.0, "requests", "many").amount
        assert 80 * 0.9 <= worst <= 80 * (1 + 0.25 / 2)
        assert any("members_exceed_max" in sidecar.log() for sidecar in fleet.sidecars)
