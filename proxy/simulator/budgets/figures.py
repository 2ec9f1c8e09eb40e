"""What a run comes to: overshoot, use, fairness, refusals, waiting.

Reads the log of admissions only; shares no code with the counters it judges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from proxy.simulator.budgets.scenario import Scenario
from proxy.simulator.budgets.world import Log

_POINTS = 120
"""Points of the line that is drawn."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The result of one run. Ratios are of the limit unless said otherwise."""

    scenario: str
    sidecars: int
    worst_window_ratio: float
    """The most that was used by the requests admitted in any window; above 1 is an overshoot."""
    worst_window_s: float
    """When that window began."""
    bound_ratio: float
    """What the theorem allows, with the deviations it names."""
    use_ratio: float
    """Tokens used in the whole run after its first window, of what the limit allowed."""
    use_in_trouble_ratio: float
    """Mean use of the windows that lie whole in the middle third, where things break."""
    fairness: float
    """Jain's index over the part of its demand that each sidecar was served: 1 when all were served alike."""
    refused_ratio: float
    """Requests refused in the end, of those asked."""
    waited_p50_s: float
    waited_p95_s: float
    """How long served requests waited."""
    slice_ratio: float
    """Requests admitted by private slices, of those admitted."""
    requests: int
    busiest_second: int
    """Most acquisitions that reached the shared counter within one second."""
    line: tuple[tuple[float, float], ...]
    """(end of the window in seconds, use in it as a ratio of the limit)."""


def measure(scenario: Scenario, log: Log) -> Figures:
    """Return the figures of a run."""
    fleet = scenario.fleet
    worst, began_s, line = _slide(log, fleet.window_s * (1 - scenario.trouble.drift_ratio), scenario.duration_s)
    begins_s, ends_s = scenario.trouble_s
    waited = sorted(log.waited_s)
    return Figures(
        scenario=scenario.name,
        sidecars=fleet.sidecars,
        worst_window_ratio=worst / fleet.limit,
        worst_window_s=began_s,
        bound_ratio=scenario.bound_ratio,
        use_ratio=_use(log, scenario, min(fleet.window_s, begins_s), scenario.duration_s),
        use_in_trouble_ratio=_mean_window(line, begins_s + fleet.window_s, ends_s) / fleet.limit,
        fairness=jain([s / a for s, a in zip(log.served_by, log.asked_of, strict=True) if a]),
        refused_ratio=log.refused / log.asked if log.asked else 0.0,
        waited_p50_s=waited[len(waited) // 2] if waited else 0.0,
        waited_p95_s=waited[len(waited) * 95 // 100] if waited else 0.0,
        slice_ratio=log.by_slice / len(log.at_s) if log.at_s else 0.0,
        requests=log.asked,
        busiest_second=log.busiest_second,
        line=tuple((at_s, used / fleet.limit) for at_s, used in line),
    )


def worst_of(runs: Sequence[Figures]) -> Figures:
    """Return the figures of several seeds as one: the worst window of all, the mean of the rest, the line of the worst.

    Raises ValueError when there is none.
    """
    worst = max(runs, key=lambda run: run.worst_window_ratio)
    if len(runs) == 1:
        return worst

    def mean(read: Callable[[Figures], float]) -> float:
        return fmean(read(run) for run in runs)

    return replace(
        worst,
        use_ratio=mean(lambda run: run.use_ratio),
        use_in_trouble_ratio=mean(lambda run: run.use_in_trouble_ratio),
        fairness=mean(lambda run: run.fairness),
        refused_ratio=mean(lambda run: run.refused_ratio),
        waited_p50_s=mean(lambda run: run.waited_p50_s),
        waited_p95_s=mean(lambda run: run.waited_p95_s),
        slice_ratio=mean(lambda run: run.slice_ratio),
        busiest_second=max(run.busiest_second for run in runs),
    )


def jain(parts: Sequence[float]) -> float:
    """Return Jain's fairness index: 1 when all parts are equal, 1/n when one has everything."""
    squares = sum(part * part for part in parts)
    return sum(parts) ** 2 / (len(parts) * squares) if squares else 1.0


def _slide(log: Log, window_s: float, duration_s: float) -> tuple[int, float, list[tuple[float, int]]]:
    """Return the largest sum of any half-open window, when it began, and the sums at even steps."""
    at_s, used = log.at_s, log.used
    worst, began_s, held, first = 0, 0.0, 0, 0
    line: list[tuple[float, int]] = []
    points = iter([duration_s * number / _POINTS for number in range(1, _POINTS + 1)])
    point_s = next(points)
    for index in range(len(at_s) + 1):
        now_s = at_s[index] if index < len(at_s) else math.inf
        while point_s < now_s:
            while first < index and at_s[first] <= point_s - window_s:
                held -= used[first]
                first += 1
            line.append((point_s, held))
            point_s = next(points, math.inf)
            if point_s == math.inf and now_s == math.inf:
                return worst, began_s, line
        held += used[index]
        while at_s[first] <= now_s - window_s:
            held -= used[first]
            first += 1
        if held > worst:
            worst, began_s = held, at_s[first]
    return worst, began_s, line


def _mean_window(line: Sequence[tuple[float, int]], begins_s: float, ends_s: float) -> float:
    """Return the mean of the windows that end in the span; of the last one before its end when none does."""
    inside = [used for at_s, used in line if begins_s <= at_s <= ends_s]
    return fmean(inside or [used for at_s, used in line if at_s <= ends_s][-1:] or [0])


def _use(log: Log, scenario: Scenario, begins_s: float, ends_s: float) -> float:
    used = sum(tokens for now_s, tokens in zip(log.at_s, log.used, strict=True) if begins_s <= now_s < ends_s)
    allowed = scenario.fleet.limit * (ends_s - begins_s) / scenario.fleet.window_s
    return used / allowed if allowed > 0 else 0.0
