"""The theorem against a real Valkey: three sidecars acquire, settle, cancel, crash, lose the store and see its clock
step back, in any order, and no window holds more than the limit.

The oracle is the log of admissions by true time; it shares no code with the counters. ``test_budget_theorem`` plays
larger fleets on virtual time; here the script itself is at stake.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.flow.budgets import Granted
from tests.support.budgets import budget_rule
from tests.support.shared_budgets import SharedStore

SIDECARS = 3
LIMIT = 240
RULES = (budget_rule("p", "x", tokens_per_10s=LIMIT, concurrent=60),)
MOVES = st.lists(
    st.tuples(
        st.sampled_from(["acquire"] * 8 + ["settle"] * 4 + ["cancel", "crash", "cut", "heal", "back"]),
        st.one_of(st.floats(0.0, 1.5), st.sampled_from([0.0, 0.999, 1.0, 9.0, 10.0, 11.0])),
        st.integers(0, SIDECARS - 1),
        st.integers(1, 40),
        st.integers(0, 10**6),
    ),
    min_size=30,
    max_size=70,
)


@dataclass
class Admitted:
    """One admission by true time, and what it is known to have cost so far."""

    at_s: float
    cost: int
    sidecar: int
    reservation: Any
    is_open: bool = True


class Away:
    """A client whose server does not answer."""

    async def evalsha(self, *_: Any) -> Any:
        raise redis.ConnectionError("cut off")

    async def aclose(self) -> None: ...


@dataclass
class Fleet:
    """Three sidecars before one server, in true time; the server's clock may lag behind it."""

    url: str
    loop: asyncio.AbstractEventLoop
    now_s: float = 100.0
    lag_s: float = 0.0
    stores: list[SharedStore] = field(default_factory=list)
    log: list[Admitted] = field(default_factory=list)

    def start(self, started_s: float) -> SharedStore:
        store = SharedStore(
            self.url,
            RULES,
            loop=self.loop,
            max_sidecars=SIDECARS,
            private_share=0.25,
            started_s=started_s,
            sidecar=f"s{len(self.log)}",
        )
        tick = store.tick
        store.tick = lambda now_s: tick(now_s - self.lag_s)  # type: ignore[method-assign]
        return store

    def acquire(self, index: int, amount: int) -> None:
        store = self.stores[index]
        verdict = store.reserve(RULES, "x", amount, self.now_s, f"{index}-{len(self.log)}-{self.now_s}")
        if isinstance(verdict, Granted):
            self.log.append(Admitted(self.now_s, amount, index, verdict.reservation))

    def end(self, pick: int, *, cancels: bool) -> None:
        running = [entry for entry in self.log if entry.is_open]
        if not running:
            return
        entry = running[pick % len(running)]
        entry.is_open = False
        entry.cost = 0 if cancels else min(entry.cost, pick % 41)
        store = self.stores[entry.sidecar]
        if cancels:
            store.cancel(entry.reservation, self.now_s)
        else:
            store.settle(entry.reservation, entry.cost, self.now_s)

    def crash(self, index: int) -> None:
        """Whatever it held is never settled; what comes after it knows nothing."""
        for entry in self.log:
            if entry.sidecar == index:
                entry.is_open = False
        store = self.stores[index]
        store.central._waiting.clear()
        store.central._unsettled.clear()
        self.reach(index)
        store.close()
        self.stores[index] = self.start(self.now_s)

    def cut(self, index: int) -> None:
        central = self.stores[index].central
        if not isinstance(central._client, Away):
            central.kept_client = central._client  # type: ignore[attr-defined]
            central._client = Away()
            central._outage.is_open = True

    def reach(self, index: int) -> None:
        central = self.stores[index].central
        if isinstance(central._client, Away):
            central._client = central.kept_client  # type: ignore[attr-defined]
            central._outage.worked()

    def play(self, moves: list[tuple[str, float, int, int, int]]) -> None:
        for what, step_s, index, amount, pick in moves:
            self.now_s += step_s
            match what:
                case "acquire":
                    self.acquire(index, amount)
                case "settle" | "cancel":
                    self.end(pick, cancels=what == "cancel")
                case "crash":
                    self.crash(index)
                case "cut":
                    self.cut(index)
                case "heal":
                    self.reach(index)
                case "back":
                    self.lag_s += amount / 10.0


def worst_window(log: list[Admitted], window_s: float) -> int:
    return max((sum(b.cost for b in log if a.at_s <= b.at_s <= a.at_s + window_s) for a in log), default=0)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=MOVES)
def test_no_window_of_three_sidecars_holds_more_than_the_limit(
    redis_url: str, moves: list[tuple[str, float, int, int, int]]
) -> None:
    """Σ actual of what is admitted in any ten seconds ≤ L, whatever breaks; slots: running at once ≤ C."""
    redis.Redis.from_url(redis_url).flushall()
    loop = asyncio.new_event_loop()
    fleet = Fleet(redis_url, loop)
    try:
        fleet.stores = [fleet.start(0.0) for _ in range(SIDECARS)]
        fleet.play(moves)

        assert worst_window(fleet.log, 10.0) <= LIMIT
    finally:
        for index, store in enumerate(fleet.stores):
            fleet.reach(index)
            store.close()
        loop.close()


def test_lost_state_closes_the_shared_counter_for_a_window(redis_url: str) -> None:
    """A server that comes back empty does not mint a second limit: the sidecars know that they had spent."""
    redis.Redis.from_url(redis_url).flushall()
    loop = asyncio.new_event_loop()
    fleet = Fleet(redis_url, loop)
    fleet.stores = [fleet.start(0.0) for _ in range(SIDECARS)]
    try:
        for _ in range(30):
            for index in range(SIDECARS):
                fleet.acquire(index, 6)
        before = len(fleet.log)
        redis.Redis.from_url(redis_url).flushall()
        for _ in range(80):
            fleet.now_s += 0.5
            fleet.acquire(1, 6)
            fleet.acquire(0, 6)
        late = [entry for entry in fleet.log[before:] if entry.at_s > 130.0]

        assert before * 6 > LIMIT * 0.9
        assert worst_window(fleet.log, 10.0) <= LIMIT
        assert late, "after a window, and for slots a lease, the counter is open again"
    finally:
        for store in fleet.stores:
            store.close()
        loop.close()
