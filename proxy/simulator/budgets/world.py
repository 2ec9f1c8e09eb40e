"""The made-up world: sidecars, the counter they share, callers that ask, and a log of what the provider sees.

Owns virtual time. Admission is decided by ``core/budget``; here is only who asks whom, and what fails on the way.
"""

from __future__ import annotations

import heapq
import math
from array import array
from bisect import bisect
from collections.abc import Callable
from itertools import accumulate, count
from random import Random

from proxy.core.budget.dimensions import Dimension
from proxy.core.budget.ledger import Account, Ledger, Meter, Reservation
from proxy.core.budget.shares import OnOutage, Outage, Shares, Split
from proxy.core.budget.window import WindowCounter, WindowShape
from proxy.simulator.budgets.scenario import Cut, Load, Scenario

DENIAL_HOLDS_S = 0.1
"""After a denial the shared counter is not asked for so long."""
PROBE_EVERY_S = 1.0
CANCEL_AFTER_S = 1.0
"""When an acquisition without a reply is taken back."""
_TELL_EVERY = 5_000


class Log:
    """What a provider would have seen, in order, and what callers met. Seconds are true ones."""

    def __init__(self, sidecars: int) -> None:
        self.at_s = array("d")
        self.used = array("q")
        """Tokens used by the request admitted at the same place of ``at_s``."""
        self.asked_of = [0] * sidecars
        """Tokens that callers of each sidecar wanted to use."""
        self.served_by = [0] * sidecars
        self.asked = 0
        """Requests."""
        self.refused = 0
        self.waited_s = array("d")
        """Of each served request."""
        self.by_slice = 0
        """Requests admitted by a private slice."""
        self.store_calls = 0
        self.busiest_second = 0
        """Most acquisitions that reached the shared counter within one second."""


class _Counter:
    """A limit with its ledger: the shared one, or a private slice."""

    __slots__ = ("account", "ledger", "window")

    def __init__(self, shape: WindowShape, limit: int) -> None:
        self.window = WindowCounter(shape, limit)
        self.account = Account([Meter("simulated", Dimension.TOKENS_PER_MINUTE, self.window)])
        self.ledger = Ledger()

    def acquire(self, tokens: int, now_s: float, rid: str) -> Reservation | None:
        """Hold the tokens; what could never fit is not cut to the limit here: it goes to the other counter."""
        if tokens > self.window.limit:
            return None
        return self.ledger.acquire(self.account, tokens, now_s, rid)


class _Shared(_Counter):
    """The counter all share: it may be closed after a loss of its state, and its clock may step."""

    __slots__ = ("_second", "_second_calls", "calls", "closed_until_s", "offset_s", "peak")

    def __init__(self, shape: WindowShape, limit: int) -> None:
        super().__init__(shape, limit)
        self.closed_until_s = -math.inf
        self.offset_s = 0.0
        self.calls = self.peak = self._second = self._second_calls = 0

    def take(self, tokens: int, at_s: float, rid: str) -> Reservation | None:
        """Answer an acquisition that arrived."""
        self.calls += 1
        second = int(at_s)
        if second != self._second:
            self._second, self._second_calls = second, 0
        self._second_calls += 1
        self.peak = max(self.peak, self._second_calls)
        if at_s < self.closed_until_s:
            return None
        return self.acquire(tokens, at_s + self.offset_s, rid)


class _Sidecar:
    """One process: its slice, its breaker towards the shared counter, its clock."""

    __slots__ = ("closed_until_s", "denied_until_s", "life", "next_probe_s", "outage", "rate", "slice")

    def __init__(self, shape: WindowShape, limit: int, rate: float) -> None:
        self.slice = _Counter(shape, limit)
        self.outage = Outage()
        self.rate = rate
        self.life = 0
        self.closed_until_s = -math.inf
        """After a restart the slice stays closed for a window: the one before may have spent it."""
        self.denied_until_s = self.next_probe_s = -math.inf


class World:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        fleet, trouble = scenario.fleet, scenario.trouble
        self._scenario = scenario
        self._dice = Random(scenario.seed)
        self._shape = WindowShape(fleet.window_s, max(10, min(60, int(fleet.window_s))))
        shares = Shares(fleet.max_sidecars, fleet.private_share, fleet.on_outage)
        self._split: Split = shares.split(fleet.limit)
        self._shared = _Shared(self._shape, self._split.central)
        drift = trouble.drift_ratio
        self._sidecars = [
            _Sidecar(self._shape, self._split.slice, 1.0 + self._dice.uniform(-drift, drift))
            for _ in range(fleet.sidecars)
        ]
        self._ids = count()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = count()
        self._cuts: list[Cut] = []
        self.log = Log(fleet.sidecars)
        self._plan_trouble()

    # --- time -------------------------------------------------------------------------------------

    def play(self, tell: Callable[[float], None]) -> Log:
        """Play it to its end; ``tell`` hears now and then which part is done."""
        scenario, load, dice = self._scenario, self._scenario.load, self._dice
        full_rate = scenario.fleet.limit / scenario.fleet.window_s / load.mean_use
        weights = list(accumulate(_weights(load, scenario.fleet.sidecars)))
        peak = max((multiple for _, multiple in load.demand), default=0.0)
        at_s, number = 0.0, 0
        while peak > 0:
            at_s += dice.expovariate(full_rate * peak)
            if at_s >= scenario.duration_s:
                break
            self._run_until(at_s)
            if load.multiple_at(at_s) < peak * dice.random():
                continue
            who = bisect(weights, dice.random() * weights[-1])
            estimate = dice.randint(*load.estimate_tokens)
            use = max(1, int(estimate / dice.uniform(*load.overestimate)))
            self.log.asked += 1
            self.log.asked_of[who] += use
            self._arrive(at_s, who, estimate, use, at_s)
            number += 1
            if number % _TELL_EVERY == 0:
                tell(at_s / scenario.duration_s)
        self._run_until(scenario.duration_s)
        self.log.store_calls, self.log.busiest_second = self._shared.calls, self._shared.peak
        return self.log

    def _run_until(self, at_s: float) -> None:
        events = self._events
        while events and events[0][0] <= at_s:
            when_s, _, act = heapq.heappop(events)
            act(when_s)

    def _at(self, when_s: float, act: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when_s, next(self._order), act))

    # --- trouble ----------------------------------------------------------------------------------

    def _plan_trouble(self) -> None:
        trouble = self._scenario.trouble
        for cut in trouble.cuts:
            self._at(cut.begins_s, lambda _, cut=cut: self._cuts.append(cut))  # type: ignore[misc]
            self._at(cut.ends_s, lambda _, cut=cut: self._cuts.remove(cut))  # type: ignore[misc]
        for when_s, who in trouble.crashes:
            self._at(when_s, lambda at_s, who=who: self._crash(at_s, who))  # type: ignore[misc]
        for when_s in trouble.state_losses_s:
            self._at(when_s, self._forget)
        for when_s, step_s in trouble.store_steps:
            self._at(when_s, lambda _, step_s=step_s: self._step(step_s))  # type: ignore[misc]

    def _crash(self, at_s: float, who: int) -> None:
        sidecar = self._sidecars[who]
        fresh = _Sidecar(self._shape, self._split.slice, sidecar.rate)
        fresh.life = sidecar.life + 1
        fresh.closed_until_s = at_s + self._scenario.fleet.window_s
        self._sidecars[who] = fresh

    def _forget(self, at_s: float) -> None:
        shared = _Shared(self._shape, self._split.central)
        shared.offset_s, shared.calls, shared.peak = self._shared.offset_s, self._shared.calls, self._shared.peak
        if self._scenario.trouble.has_sentinel:
            shared.closed_until_s = at_s + self._scenario.fleet.window_s
        self._shared = shared

    def _step(self, step_s: float) -> None:
        self._shared.offset_s += step_s

    def _reaches(self, who: int) -> bool:
        return not any(cut.sidecars is None or who in cut.sidecars for cut in self._cuts)

    # --- one request ------------------------------------------------------------------------------

    def _arrive(self, at_s: float, who: int, estimate: int, use: int, first_s: float) -> None:
        sidecar = self._sidecars[who]
        held = self._from_shared(sidecar, who, at_s, estimate)
        if held is None:
            held = self._from_slice(sidecar, at_s, estimate)
            if held is None and not self._lets_pass(sidecar):
                self._turn_away(at_s, who, estimate, use, first_s)
                return
            self.log.by_slice += 1
        self.log.at_s.append(at_s)
        self.log.used.append(use)
        self.log.served_by[who] += use
        self.log.waited_s.append(at_s - first_s)
        if held is not None:
            ends_s = at_s + _takes_s(self._scenario.load, self._dice)
            is_shared = held.account is self._shared.account
            life = sidecar.life
            self._at(ends_s, lambda now_s: self._settle(now_s, who, life, held, use, is_shared))

    def _from_shared(self, sidecar: _Sidecar, who: int, at_s: float, estimate: int) -> Reservation | None:
        outage = sidecar.outage
        if outage.is_open:
            if at_s < sidecar.next_probe_s:
                return None
            sidecar.next_probe_s = at_s + PROBE_EVERY_S
        if at_s < sidecar.denied_until_s:
            return None
        if not self._reaches(who):
            outage.failed("unreachable", at_s)
            return None
        rid = str(next(self._ids))
        held = self._shared.take(estimate, at_s, rid)
        lost = self._scenario.trouble.lost_reply_ratio
        if lost and self._dice.random() < lost:
            outage.failed("no reply", at_s)
            if held is not None:
                self._at(at_s + CANCEL_AFTER_S, lambda now_s: self._cancel(now_s, who, held))
            return None
        outage.worked()
        if held is None:
            sidecar.denied_until_s = at_s + DENIAL_HOLDS_S
        return held

    def _from_slice(self, sidecar: _Sidecar, at_s: float, estimate: int) -> Reservation | None:
        fleet, outage = self._scenario.fleet, sidecar.outage
        if at_s < sidecar.closed_until_s or (outage.reason and fleet.on_outage is OnOutage.DENY):
            return None
        is_boosted = fleet.on_outage is OnOutage.BOOST and outage.lasted_s(at_s) >= fleet.boost_after_s
        sidecar.slice.window.limit = self._split.boosted if is_boosted else self._split.slice
        return sidecar.slice.acquire(estimate, at_s * sidecar.rate, str(next(self._ids)))

    def _lets_pass(self, sidecar: _Sidecar) -> bool:
        return bool(sidecar.outage.reason) and self._scenario.fleet.on_outage is OnOutage.ALLOW

    def _turn_away(self, at_s: float, who: int, estimate: int, use: int, first_s: float) -> None:
        patience_s = self._scenario.load.patience_s
        if patience_s:
            again_s = at_s + self._wait_s(self._sidecars[who], at_s, estimate)
            if again_s - first_s <= patience_s:
                self._at(again_s, lambda now_s: self._arrive(now_s, who, estimate, use, first_s))
                return
        self.log.refused += 1

    def _wait_s(self, sidecar: _Sidecar, at_s: float, estimate: int) -> float:
        """Return what a caller is told: when the sooner of the two counters has room, if nobody else comes."""
        own_s = sidecar.slice.window.wait_s(estimate, at_s * sidecar.rate)
        shared_s = math.inf
        if not sidecar.outage.is_open and at_s >= self._shared.closed_until_s:
            shared_s = self._shared.window.wait_s(estimate, at_s + self._shared.offset_s)
        return max(DENIAL_HOLDS_S, min(own_s, shared_s))

    # --- ends -------------------------------------------------------------------------------------

    def _settle(self, at_s: float, who: int, life: int, held: Reservation, use: int, is_shared: bool) -> None:
        sidecar = self._sidecars[who]
        if sidecar.life != life:
            return  # it died with what it held; the reservation stays charged until it ages out
        if not is_shared:
            sidecar.slice.ledger.settle(held, use, at_s * sidecar.rate)
        elif self._reaches(who):
            self._shared.ledger.settle(held, use, at_s + self._shared.offset_s)
        else:
            self._at(at_s + PROBE_EVERY_S, lambda now_s: self._settle(now_s, who, life, held, use, is_shared))

    def _cancel(self, at_s: float, who: int, held: Reservation) -> None:
        if self._reaches(who):
            self._shared.ledger.cancel(held, at_s + self._shared.offset_s)
        else:
            self._at(at_s + PROBE_EVERY_S, lambda now_s: self._cancel(now_s, who, held))


def play(scenario: Scenario, tell: Callable[[float], None] = lambda _: None) -> Log:
    """Play a scenario; ``tell`` hears now and then which part of it is done."""
    return World(scenario).play(tell)


def _weights(load: Load, sidecars: int) -> list[float]:
    match load.spread:
        case "one":
            return [1.0] + [0.0] * (sidecars - 1)
        case "skewed":
            return [1.0 / (n + 1) for n in range(sidecars)]
        case _:
            return [1.0] * sidecars


def _takes_s(load: Load, dice: Random) -> float:
    shortest_s, longest_s = load.takes_s
    return float(shortest_s * (longest_s / shortest_s) ** dice.random())
