"""Budgets over a real Valkey or Redis, driven like the memory store: one call, one verdict, at a time of the test's choosing.

The script's clock is replaced by a key of the server, so that a minute passes in no time and clocks can step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import redis

from proxy.core.budget.calendar import WallClock
from proxy.core.budget.shares import OnOutage, Shares
from proxy.core.policy.model import BudgetRule
from proxy.flow.budgets import Ask, Budgets, BudgetView
from proxy.flow.verdicts import Verdict
from proxy.stores.redis_budgets import RedisBudgets
from proxy.stores.redis_words import SCRIPT

CLOCK_KEY = "readygate:{test}:clock"
TIMED_SCRIPT = SCRIPT.replace("redis.call('TIME')", f"{{ redis.call('GET', '{CLOCK_KEY}'), '0' }}")
EPOCH_S = 1_000_000_000.0
"""Server time when the test's clock stands at 0."""


class SharedStore:
    """One sidecar's budgets with the methods of ``Budgets``, each finished before it returns."""

    def __init__(
        self,
        url: str,
        rules: Sequence[BudgetRule],
        *,
        loop: asyncio.AbstractEventLoop,
        max_sidecars: int = 1,
        private_share: float = 0.0,
        on_outage: OnOutage = OnOutage.STRICT,
        sidecar: str = "test",
        started_s: float = 0.0,
        clock: redis.Redis | None = None,
    ) -> None:
        self._loop = loop
        self.server = clock or redis.Redis.from_url(url)
        self.now_s = 0.0
        self.central = RedisBudgets(
            url,
            sidecar=sidecar,
            namespace="test",
            max_sidecars=max_sidecars,
            lease_s=30.0,
            unix_s=lambda: EPOCH_S + self.now_s,
            now_s=loop.time,
            notice=self._notice,
            script=TIMED_SCRIPT,
        )
        self.notices: list[tuple[str, dict[str, Any]]] = []
        self.budgets = Budgets(
            central=self.central,
            shares=Shares(max_sidecars, private_share, on_outage),
            wall=WallClock(EPOCH_S),
            started_s=started_s,
        )
        self.budgets.apply(rules)
        self.tick(0.0)
        self._task = loop.create_task(self.central.run())
        loop.run_until_complete(self._up())

    def _notice(self, what: str, **fields: Any) -> None:
        self.notices.append((what, fields))

    async def _up(self) -> None:
        for _ in range(200):
            if not self.central.is_open:
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"the store does not answer: {self.central.trouble}")

    def tick(self, now_s: float) -> None:
        """Let it be ``now_s``, here and at the server."""
        self.now_s = now_s
        self.server.set(CLOCK_KEY, repr(EPOCH_S + now_s))

    def reserve(
        self, rules: Sequence[BudgetRule], provider: str, tokens: int, now_s: float, rid: str, **more: Any
    ) -> Verdict:
        self.tick(now_s)
        verdict = self.budgets.reserve(rules, provider, tokens, now_s, rid, **more)
        if isinstance(verdict, Ask):
            return self._loop.run_until_complete(self.budgets.decide(verdict, now_s))
        return verdict

    def settle(self, reservation: Any, actual_tokens: int | None, now_s: float, amounts: Any = None) -> None:
        self.tick(now_s)
        self.budgets.settle(reservation, actual_tokens, now_s, amounts)
        self.flush()

    def cancel(self, reservation: Any, now_s: float) -> None:
        self.tick(now_s)
        self.budgets.cancel(reservation, now_s)
        self.flush()

    def flush(self) -> None:
        """Send what waits, and look once at every shared counter."""
        self._loop.run_until_complete(self.budgets.refresh())

    def snapshot(self, now_s: float) -> tuple[BudgetView, ...]:
        self.tick(now_s)
        self.flush()
        return self.budgets.snapshot(now_s)

    def apply(self, rules: Sequence[BudgetRule]) -> None:
        self.budgets.apply(rules)

    @property
    def open_reservations(self) -> int:
        return self.budgets.open_reservations

    def close(self) -> None:
        """Hang up."""
        self._task.cancel()
        self._loop.run_until_complete(asyncio.wait([self._task]))
        self._loop.run_until_complete(self.central.close())
