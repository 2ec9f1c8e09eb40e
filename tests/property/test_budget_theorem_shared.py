"""The theorem over the real thing: three sidecars' budgets, the script in a Valkey, a clock that only the test moves.

The oracle is the list of what was admitted, added up by brute force, as in ``test_budget_theorem.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
import redis

from proxy.flow.budgets import Granted
from tests.support.budgets import budget_rule
from tests.support.shared_budgets import SharedStore

WINDOW_S = 10.0
SIDECARS = 3
LIMIT = 60
RULES = (budget_rule("p/x", "x", tokens_per_10s=LIMIT, requests_per_minute=4000),)


@dataclass(slots=True)
class Admitted:
    """One admission; while it runs it may still come to use all it reserved."""

    at_s: float
    cost: int
    sidecar: int
    held: Any
    is_open: bool = True


class World:
    """Three sidecars on one server, and everything they admitted."""

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop, seed: int) -> None:
        self._url, self._loop, self._dice = url, loop, Random(seed)
        self._server = redis.Redis.from_url(url)
        self._server.flushall()
        self.now_s, self._numbers = 1000.0, 0
        self.stores = [self._sidecar(-1e6) for _ in range(SIDECARS)]
        self.log: list[Admitted] = []

    def _sidecar(self, started_s: float) -> SharedStore:
        self._numbers += 1
        return SharedStore(
            self._url, RULES, loop=self._loop, max_sidecars=SIDECARS, private_share=0.3,
            sidecar=f"s{self._numbers}", started_s=started_s,
        )  # fmt: skip

    def ask(self, who: int, tokens: int) -> bool:
        self._numbers += 1
        store = self.stores[who]
        verdict = store.reserve(RULES, "x", tokens, self.now_s, f"r{self._numbers}")
        if isinstance(verdict, Granted):
            self.log.append(Admitted(self.now_s, tokens, who, verdict.reservation))
            return True
        return False

    def flood(self, tokens: int) -> None:
        for who in self._dice.sample(range(SIDECARS), SIDECARS):
            while self.ask(who, tokens):
                pass

    def end(self, one: Admitted) -> None:
        one.is_open = False
        if self._dice.random() < 0.3:
            one.cost = 0
            self.stores[one.sidecar].cancel(one.held, self.now_s)
        else:
            one.cost = self._dice.randint(0, one.cost)
            self.stores[one.sidecar].settle(one.held, one.cost, self.now_s)

    def crash(self, who: int) -> None:
        """Lose everything one sidecar knew; what it ran may use all it reserved."""
        self.stores[who].close()
        for one in self.log:
            if one.sidecar == who:
                one.is_open = False
        self.stores[who] = self._sidecar(self.now_s)

    def forget(self) -> None:
        """Lose the server's state, which every sidecar has used."""
        for who in range(SIDECARS):
            self.ask(who, 0)
        self._server.flushall()
        self.stores[0].tick(self.now_s)

    def step(self) -> None:
        running = [one for one in self.log if one.is_open]
        match self._dice.choices(("time", "flood", "end", "all", "crash", "forget"), (30, 25, 25, 8, 6, 3))[0]:
            case "time":
                self.now_s += self._dice.choice((0.3, 0.999, 1.0, 4.0, 9.0, 9.999, 10.001, 11.0))
            case "flood":
                self.flood(self._dice.choice((1, 1, 4, 9, 17)))
            case "end" if running:
                self.end(self._dice.choice(running))
            case "all":
                for one in running:
                    self.end(one)
            case "crash":
                self.crash(self._dice.randrange(SIDECARS))
            case "forget":
                self.forget()

    def worst(self) -> int:
        late = [one for one in self.log if one.at_s >= self.now_s - 2 * WINDOW_S]
        return max((sum(b.cost for b in late if a.at_s <= b.at_s <= a.at_s + WINDOW_S) for a in late), default=0)

    def close(self) -> None:
        for store in self.stores:
            store.close()
        self._server.close()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    running = asyncio.new_event_loop()
    yield running
    running.close()


@pytest.mark.parametrize(
    "seed", [1, 2, 3, pytest.param(4, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow)]
)
def test_no_window_passes_the_limit_whatever_happens(
    seed: int, own_redis: Any, loop: asyncio.AbstractEventLoop
) -> None:
    """Crashes, lost state, late refunds, demand beyond the limit: the script and the slices hold together."""
    world = World(own_redis.url, loop, seed)
    try:
        world.flood(1)
        assert LIMIT == world.worst(), "shared counter and slices together are the limit"
        for _ in range(120):
            world.step()
            assert world.worst() <= LIMIT
    finally:
        world.close()
