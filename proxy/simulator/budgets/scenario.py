"""What is played: how many sidecars share which limit, who asks for how much, and what breaks when.

Owns the shapes and the named scenarios. Everything random is drawn from the seed, so a scenario is the same each time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from proxy.core.budget.shares import OnOutage, Shares

DRIFT = 200e-6
"""What a cheap crystal without time service is off by, at worst."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The sidecars and the limit they share."""

    sidecars: int = 10
    limit: int = 12_000
    """Tokens in any window."""
    window_s: float = 60.0
    max_sidecars: int = 10
    """What the sidecars were told (M); more may run."""
    private_share: float = 0.25
    """Part of the limit that is divided among the sidecars in advance."""
    on_outage: OnOutage = OnOutage.STRICT
    boost_after_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Load:
    """Who asks for how much. A request reserves an estimate and uses a part of it."""

    demand: tuple[tuple[float, float], ...] = ((0.0, 3.0),)
    """(from second, multiple of the limit that callers would use if nothing stopped them)."""
    spread: str = "even"
    """How demand divides: ``even``, ``skewed`` (the n-th sidecar asks 1/n as much as the first) or ``one``."""
    estimate_tokens: tuple[int, int] = (60, 240)
    overestimate: tuple[float, float] = (1.0, 6.0)
    """An estimate is so many times the use."""
    takes_s: tuple[float, float] = (0.5, 50.0)
    """How long an exchange runs, spread evenly over the orders of magnitude."""
    patience_s: float = 0.0
    """How long a caller that was told to wait comes back; 0: never."""

    def multiple_at(self, at_s: float) -> float:
        """Return the demand at a time."""
        found = 0.0
        for begins_s, multiple in self.demand:
            if begins_s > at_s:
                break
            found = multiple
        return found

    @property
    def mean_use(self) -> float:
        """Mean tokens that a request uses."""
        low, high = self.overestimate
        steps = [low + (high - low) * (n + 0.5) / 100 for n in range(100)]
        return sum(self.estimate_tokens) / 2 * sum(1 / step for step in steps) / 100


@dataclass(frozen=True, slots=True)
class Cut:
    """Some sidecars cannot reach the shared counter for a while."""

    begins_s: float
    ends_s: float
    sidecars: frozenset[int] | None = None
    """None: all of them."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What breaks when."""

    cuts: tuple[Cut, ...] = ()
    crashes: tuple[tuple[float, int], ...] = ()
    """(second, sidecar): the process dies with everything it knew and is back at once."""
    state_losses_s: tuple[float, ...] = ()
    """The shared counter forgets everything."""
    has_sentinel: bool = True
    """Whether the sidecars notice a loss, and leave the shared counter alone for a window."""
    lost_reply_ratio: float = 0.0
    """Part of the acquisitions whose reply is lost: charged, and nobody knows."""
    drift_ratio: float = 0.0
    """Clocks of the sidecars run fast or slow by up to so much."""
    store_steps: tuple[tuple[float, float], ...] = ()
    """(second, seconds that the clock of the shared counter jumps by)."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run."""

    name: str
    what: str
    fleet: Fleet
    load: Load = Load()
    trouble: Trouble = Trouble()
    duration_s: float = 300.0
    seed: int = 1

    @property
    def trouble_s(self) -> tuple[float, float]:
        """When things break, in the named scenarios: the middle third."""
        return self.duration_s / 3, self.duration_s * 2 / 3

    @property
    def bound_ratio(self) -> float:
        """What no window can pass, as a ratio of the limit: the theorem with the deviations it names.

        For windows as the fastest clock measures them, so for true ones when no clock drifts.
        """
        fleet, trouble = self.fleet, self.trouble
        if fleet.on_outage is OnOutage.ALLOW and trouble.cuts:
            return math.inf
        split = Shares(fleet.max_sidecars, fleet.private_share, fleet.on_outage).split(fleet.limit)
        own = split.boosted if fleet.on_outage is OnOutage.BOOST else split.slice
        shared = split.central * (1 + sum(1 for _, step_s in trouble.store_steps if step_s > 0))
        if not trouble.has_sentinel:
            shared += split.central * len(trouble.state_losses_s)
        return (shared + fleet.sidecars * own) / fleet.limit


def _whole_outage(base: Scenario, dice: Random) -> Scenario:
    return replace(base, trouble=Trouble(cuts=(Cut(*base.trouble_s),)))


def _half_cut(base: Scenario, dice: Random) -> Scenario:
    half = frozenset(dice.sample(range(base.fleet.sidecars), base.fleet.sidecars // 2))
    return replace(base, trouble=Trouble(cuts=(Cut(*base.trouble_s, half),)))


def _flapping(base: Scenario, dice: Random) -> Scenario:
    begins_s, ends_s = base.trouble_s
    cuts, at_s = [], begins_s
    while at_s < ends_s:
        lasts_s = dice.uniform(1.0, 12.0)
        some = frozenset(n for n in range(base.fleet.sidecars) if dice.random() < 0.5)
        cuts.append(Cut(at_s, min(ends_s, at_s + lasts_s), some))
        at_s += lasts_s + dice.uniform(0.5, 6.0)
    return replace(base, trouble=Trouble(cuts=tuple(cuts), lost_reply_ratio=0.01))


def _crashes(base: Scenario, dice: Random) -> Scenario:
    """Every sidecar dies about twice, and replies get lost."""
    count = range(base.fleet.sidecars)
    crashes = sorted((dice.uniform(0.0, base.duration_s), n) for n in count for _ in range(dice.choice((1, 2, 3))))
    return replace(base, trouble=Trouble(crashes=tuple(crashes), lost_reply_ratio=0.01))


def _clock_back(base: Scenario, dice: Random) -> Scenario:
    steps = ((base.trouble_s[0], -base.fleet.window_s / 2),)
    return replace(base, trouble=Trouble(drift_ratio=DRIFT, store_steps=steps))


def _clock_forward(base: Scenario, dice: Random) -> Scenario:
    steps = ((base.trouble_s[0], base.fleet.window_s / 2),)
    return replace(base, trouble=Trouble(drift_ratio=DRIFT, store_steps=steps))


def _state_loss(base: Scenario, dice: Random) -> Scenario:
    begins_s, ends_s = base.trouble_s
    return replace(base, trouble=Trouble(state_losses_s=(begins_s, (begins_s + ends_s) / 2, ends_s)))


def _too_many(base: Scenario, dice: Random) -> Scenario:
    """Half as many again as were announced, and the shared counter gone: what the announced number is for."""
    told = max(1, round(base.fleet.sidecars / 1.5))
    return _half_cut(replace(base, fleet=replace(base.fleet, max_sidecars=told)), dice)


SCENARIOS: dict[str, tuple[str, Callable[[Scenario, Random], Scenario]]] = {
    "healthy": ("everything works", lambda base, _: base),
    "store-down": ("nobody reaches the shared counter in the middle third", _whole_outage),
    "half-cut": ("half the sidecars do not reach it in the middle third", _half_cut),
    "flapping": ("random halves lose it for seconds at a time; 1 % of replies are lost", _flapping),
    "crashes": ("every sidecar is killed about twice; 1 % of replies are lost", _crashes),
    "clock-back": ("clocks drift by 200 ppm; the shared counter's steps back by half a window", _clock_back),
    "clock-forward": ("clocks drift by 200 ppm; the shared counter's leaps ahead by half a window", _clock_forward),
    "state-loss": ("the shared counter forgets everything, three times", _state_loss),
    "too-many": ("half as many sidecars again as announced, half of them cut off", _too_many),
}
"""Name -> what happens, and how it is made from a scenario in which nothing happens."""


def make_scenario(name: str, fleet: Fleet, load: Load, *, duration_s: float, seed: int) -> Scenario:
    """Return a named scenario. Raises KeyError for an unknown name."""
    what, make = SCENARIOS[name]
    return make(Scenario(name, what, fleet, load, duration_s=duration_s, seed=seed), Random(f"{name}:{seed}"))
