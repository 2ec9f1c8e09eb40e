"""Budgets that sidecars share, through the front door: real sidecars, a real Valkey, and the provider's journal as oracle."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.redis import RedisServer
from tests.support.simulator import Simulator
from tests.support.wire import Message, Sidecar, ask, chat, eventually, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

POLICY = """
version: 1
policy: default
budgets: [{id: b, provider: main, LIMITS, when_exhausted: refuse}]
routes: [{name: any, match: {models: ["*"]}, chain: [{provider: main}], retries: none}]
"""


@contextmanager
def fleet(
    folder: Path, url: str, limits: str, sidecars: int, store: str = "", **options: Any
) -> Iterator[tuple[list[Sidecar], Simulator]]:
    """Run sidecars that share budgets in front of one provider."""
    with ExitStack() as stack:
        provider = stack.enter_context(threaded_simulator(**options))
        config = f"""
providers: {{main: {{base_url: "{provider.base_url}"}}}}
budgets: {{store: "{url}", max_sidecars: {sidecars}{store}}}
"""
        running = []
        for number in range(sidecars):
            place = folder / f"s{number}"
            place.mkdir()
            policy = POLICY.replace("LIMITS", limits)
            running.append(stack.enter_context(sidecar_for(place, config, policy)))
        yield running, provider


def flood(sidecars: list[Sidecar], count: int, **fields: Any) -> list[Message]:
    """Ask all sidecars at once, round robin."""
    with ThreadPoolExecutor(count) as pool:
        ports = [sidecars[i % len(sidecars)].data_port for i in range(count)]
        return list(pool.map(lambda port: ask(port, chat(**fields), 10.0), ports))


def test_budget_for_k_admits_exactly_k_over_three_sidecars(own_redis: RedisServer, tmp_path: Path) -> None:
    """RL-04: all of it is in the shared counter, and thirty ask at the same time."""
    with fleet(tmp_path, own_redis.url, "requests_per_hour: 11", 3, ", private_share: 0.0") as (sidecars, provider):
        answers = flood(sidecars, 30)
        # A command that a busy machine answers too late is taken back, so the rest may come a little later.
        eventually(lambda: _served(provider, sidecars) == 11, "all of the budget is used", 10.0)
        answers += flood(sidecars, 6)

        assert 11 == provider.journal.request_count
        refused = [answer for answer in answers if answer.status != 200]
        assert {429} == {answer.status for answer in refused}
        assert all(int(answer.get("retry-after") or 0) >= 1 for answer in refused)
        assert {"budget_store": "ok"} == {"budget_store": sidecars[0].health()["components"]["budget_store"]["state"]}


def _served(provider: Simulator, sidecars: list[Sidecar]) -> int:
    """Ask once more if something is left, and return how many the provider has seen."""
    if provider.journal.request_count < 11:
        ask(sidecars[0].data_port, chat(), 10.0)
    return provider.journal.request_count


def test_refused_by_slots_charges_no_request(own_redis: RedisServer, tmp_path: Path) -> None:
    """RL-03: A runs, B finds no slot and costs nothing, A ends, C has the second request of the hour."""
    limits = "requests_per_hour: 2, concurrent: 1"
    with fleet(tmp_path, own_redis.url, limits, 1, ", private_share: 0.0") as (sidecars, provider):
        answers = flood(sidecars, 2, headers={"x-sim-speech": "latency=0.7s"})
        later = ask(sidecars[0].data_port, chat(), 10.0)

        assert [200, 429] == sorted(answer.status for answer in answers)
        assert 200 == later.status
        assert 2 == provider.journal.request_count
        eventually(lambda: _left_behind(own_redis) == (0, 0), "slots and reservations are given back", 2.0)


def _left_behind(server: RedisServer) -> tuple[int, int]:
    client = redis.Redis.from_url(server.url)
    slots = sum(client.zcard(key) for key in client.keys("*|concurrent"))
    return slots, client.hlen("readygate:{default}:reservations")


@pytest.mark.parametrize("newcomer", [False, True])
def test_emptied_store_is_noticed_by_sidecars_that_never_used_the_budget(
    own_redis: RedisServer, tmp_path: Path, newcomer: bool
) -> None:
    """What the first sidecar spent is forgotten; the second, also one restarted since, must not spend it again."""
    limits = "requests_per_minute: 20"
    with fleet(tmp_path, own_redis.url, limits, 2, ", private_share: 0.0") as (sidecars, provider):
        eventually(lambda: _spent(provider, sidecars[0]) == 20, "all of the budget is used", 10.0)
        redis.Redis.from_url(own_redis.url).flushall()
        if newcomer:
            (tmp_path / "s2").mkdir()
            with sidecar_for(
                tmp_path / "s2", _config(provider, own_redis.url), POLICY.replace("LIMITS", limits)
            ) as new:
                time.sleep(1.2)  # noqa: TID251 - a heartbeat of the old ones
                answers = flood([new], 10)
        else:
            answers = flood(sidecars[1:], 10)

        assert {429} == {answer.status for answer in answers}
        assert 20 == provider.journal.request_count
        assert all(30 < int(answer.get("retry-after") or 0) <= 62 for answer in answers)


def _config(provider: Simulator, url: str) -> str:
    return (
        f'providers: {{main: {{base_url: "{provider.base_url}"}}}}\n'
        f'budgets: {{store: "{url}", max_sidecars: 3, private_share: 0.0}}\n'
    )


def _spent(provider: Simulator, sidecar: Sidecar) -> int:
    if provider.journal.request_count < 20:
        ask(sidecar.data_port, chat(), 10.0)
    return provider.journal.request_count


def test_store_away_from_the_start_leaves_ready_and_refuses_until_slices_open(tmp_path: Path) -> None:
    """RL-08: a sidecar that cannot know what its predecessor used admits nothing; readiness does not depend on Redis."""
    url = "redis://127.0.0.1:1/0"
    with fleet(tmp_path, url, "requests_per_hour: 100", 1) as (sidecars, provider):
        answer = ask(sidecars[0].data_port, chat())

        assert 429 == answer.status
        assert 0 == provider.journal.request_count
        assert 200 == sidecars[0].status("/readyz")
        assert "degraded" == sidecars[0].health()["components"]["budget_store"]["state"]


@pytest.mark.slow
def test_store_that_goes_and_comes_costs_no_errors_and_no_time(own_redis: RedisServer, tmp_path: Path) -> None:
    """RL-08, RL-14: slices serve in the outage without waiting, the store is back within two seconds."""
    limits = "requests_per_10s: 4000"
    with fleet(tmp_path, own_redis.url, limits, 1, ", private_share: 0.5") as (sidecars, _provider):
        sidecar = sidecars[0]
        time.sleep(11.5)  # noqa: TID251 - the slice opens when whatever ran before has left the window
        assert 200 == ask(sidecar.data_port, chat()).status
        own_redis.stop()
        eventually(lambda: sidecar.metric("readygate_budget_store_up") == 0.0, "the breaker opens", 5.0)
        taken = []
        for _ in range(40):
            began_s = time.monotonic()
            assert 200 == ask(sidecar.data_port, chat()).status
            taken.append(time.monotonic() - began_s)
        own_redis.start()
        eventually(lambda: sidecar.metric("readygate_budget_store_up") == 1.0, "the store is asked again", 2.5)
        assert 200 == ask(sidecar.data_port, chat()).status

        assert sorted(taken)[-2] < 0.05


def test_pause_a_provider_asks_for_is_heard_by_the_other_sidecar(own_redis: RedisServer, tmp_path: Path) -> None:
    """One sidecar gets a 429 for so long; the other does not knock at all, and both say when."""
    with fleet(tmp_path, own_redis.url, "requests_per_hour: 1000", 2) as (sidecars, provider):
        first = ask(sidecars[0].data_port, chat(headers={"x-sim-fault": "429:retry_after=30"}))
        time.sleep(0.1)  # noqa: TID251 - the word travels with the next command
        asked = provider.journal.request_count
        second = ask(sidecars[1].data_port, chat())

        assert [429, 429] == [first.status, second.status]
        assert asked == provider.journal.request_count
        assert 20 <= int(second.get("retry-after") or 0) <= 30
        assert any("paused" in note for note in str(sidecars[1].row(second.get("x-readygate-id"))["notes"]).split(","))
