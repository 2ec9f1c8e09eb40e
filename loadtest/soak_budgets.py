"""``make soak-budgets``: eight sidecars, one Valkey, three times the demand, while lines break; about ten minutes.

Run: ``python -m loadtest.soak_budgets [--seconds 130] [--sidecars 8]``. Every sidecar is a process with a line of its own
to the shared store; the provider's journal is the only witness. Two providers with the same limit: at ``tight`` estimates
are nearly right, at ``late`` requests reserve ten times what they use and refund it seconds later. Prints a table; exit
code 1 when a window passed the limit, when a healthy fleet used less than 0.9 of it, or when a caller met anything but a
success or a refusal of the budget.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.budget_load import Ask, Caller, Shot, reconcile
from tests.support.redis import running_redis
from tests.support.sidecar_fleet import Fleet, policy_text, sidecar_fleet
from tests.support.window_oracle import Cost, worst_window

LIMIT = 24_000
"""Tokens a minute, of each provider."""
DEMAND = 3.0
WINDOW_S = 60.0
USE_GOAL = 0.9
STORE = "max_sidecars: {count}, private_share: 0.25, on_outage: strict"
TIGHT = Ask(provider="tight", max_tokens=20, tokens_in=60, tokens_out=20)


def late_ask(dice: random.Random) -> Ask:
    """Return a request that holds much, uses little, and says so late."""
    return Ask(provider="late", max_tokens=750, tokens_in=60, tokens_out=20, seconds=round(dice.uniform(2.0, 12.0), 2))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; ratios are of the limit."""

    scenario: str
    provider: str
    worst_ratio: float
    use_ratio: float
    """Mean use of the windows that lie within the scenario."""
    asked: int
    served: int
    broken: Counter[str]
    """Answers that are neither a success nor a refusal of the budget."""
    p99_denial_ms: float

    @property
    def is_good(self) -> bool:
        """Whether it holds what is promised."""
        needs_use = self.scenario == "healthy" and self.provider == "tight"
        return self.worst_ratio <= 1.0 and not self.broken and (not needs_use or self.use_ratio >= USE_GOAL)


Trouble = Callable[[Fleet, float], Awaitable[None]]


async def healthy(fleet: Fleet, seconds: float) -> None:
    """Break nothing."""
    await asyncio.sleep(seconds)


async def store_down(fleet: Fleet, seconds: float) -> None:
    """Black-hole every line for two thirds of the time."""
    await asyncio.sleep(seconds / 6)
    for line in fleet.lines:
        line.black_hole()
    await asyncio.sleep(seconds * 2 / 3)
    for line in fleet.lines:
        line.heal()
    await asyncio.sleep(seconds / 6)


async def half_cut(fleet: Fleet, seconds: float) -> None:
    """Cut every other sidecar off for two thirds of the time."""
    await asyncio.sleep(seconds / 6)
    for line in fleet.lines[::2]:
        line.black_hole()
    await asyncio.sleep(seconds * 2 / 3)
    for line in fleet.lines:
        line.heal()
    await asyncio.sleep(seconds / 6)


async def flapping(fleet: Fleet, seconds: float) -> None:
    """Let lines come and go at random, refused, silent, or losing a reply."""
    dice, until_s = random.Random(7), time.monotonic() + seconds
    while time.monotonic() < until_s - 4:
        for line in fleet.lines:
            act = dice.choice((line.heal, line.heal, line.black_hole, line.refuse, line.drop_replies))
            act()
        await asyncio.sleep(dice.uniform(0.5, 4.0))
    for line in fleet.lines:
        line.heal()
    await asyncio.sleep(max(0.0, until_s - time.monotonic()))


SCENARIOS: dict[str, Trouble] = {
    "healthy": healthy,
    "store down": store_down,
    "half cut off": half_cut,
    "flapping": flapping,
}


async def play(fleet: Fleet, name: str, seconds: float) -> list[Row]:
    """Play one scenario under load at both providers and judge it."""
    began_s = time.monotonic()
    caller = Caller(fleet.ports)
    per_s = DEMAND * LIMIT / WINDOW_S / (TIGHT.tokens_in + TIGHT.tokens_out)
    shots: dict[str, list[Shot]] = {}

    async def load(provider: str, ask: Ask | Callable[[random.Random], Ask], seed: int) -> None:
        shots[provider] = await caller.steady(per_s, seconds, ask, seed=seed)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load("tight", TIGHT, 1), name="tight")
        tasks.create_task(load("late", late_ask, 2), name="late")
        tasks.create_task(SCENARIOS[name](fleet, seconds), name="trouble")
    caller.close()
    reconcile(caller.shots, fleet.served)
    return [judge(fleet, name, provider, shots[provider], began_s, seconds) for provider in ("tight", "late")]


def judge(fleet: Fleet, name: str, provider: str, shots: list[Shot], began_s: float, seconds: float) -> Row:
    """Return the line of one provider: the worst window that touches the scenario, and what was used within it."""
    costs = [
        Cost(entry.started_s, entry.tokens_in + entry.tokens_out)
        for entry in fleet.entries_of(provider)
        if entry.started_s > began_s - WINDOW_S
    ]
    ends = [began_s + at_s for at_s in range(int(WINDOW_S), int(seconds) + 1)]
    sums = [sum(cost.amount for cost in costs if end - WINDOW_S <= cost.at_s < end) for end in ends]
    denials = sorted(shot.latency_s for shot in shots if shot.status == 429)
    return Row(
        name,
        provider,
        worst_window(costs, WINDOW_S).amount / LIMIT,
        sum(sums) / max(1, len(sums)) / LIMIT,
        len(shots),
        sum(shot.is_served for shot in shots),
        Counter(f"{shot.status} {shot.code}".strip() for shot in shots if shot.status not in (200, 429)),
        denials[int(len(denials) * 0.99)] * 1000 if denials else 0.0,
    )


def show(row: Row) -> str:
    """Return a line of the table."""
    return (
        f"{row.scenario:13} {row.provider:6} {row.worst_ratio:13.3f} {row.use_ratio:8.3f} {row.asked:8} {row.served:8} "
        f"{row.broken.total():8} {row.p99_denial_ms:10.1f} ms  {'' if row.is_good else 'MISSED'} "
        f"{', '.join(f'{count} x {what}' for what, count in row.broken.items())}"
    ).rstrip()


def main() -> int:
    """Run the soak; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.soak_budgets", description=__doc__)
    parser.add_argument("--seconds", type=float, default=130.0, help="of each scenario (default 130)")
    parser.add_argument("--sidecars", type=int, default=8)
    parser.add_argument("--scenario", choices=SCENARIOS, action="append", help="only these (default: all)")
    options = parser.parse_args()
    limits = f"tokens_per_minute: {LIMIT}, when_exhausted: refuse"
    policy = policy_text({"tight": limits, "late": limits})
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="readygate-soak-") as folder,
        running_redis() as server,
        sidecar_fleet(
            Path(folder), options.sidecars, policy, redis=server, store=STORE, providers=("tight", "late")
        ) as fleet,
    ):
        print(f"{options.sidecars} sidecars are up; their slices open after a window", file=sys.stderr, flush=True)
        fleet.wait_until_slices_open(WINDOW_S)
        print("scenario      at      worst window      use    asked   served   broken  p99 denial", flush=True)
        for name in options.scenario or SCENARIOS:
            for row in asyncio.run(play(fleet, name, options.seconds)):
                rows.append(row)
                print(show(row), flush=True)
    return 0 if all(row.is_good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
