"""Budgets of many sidecars on virtual time: what they admit when the shared counter is away, clocks drift, pods die.

Owns scenarios, the made-up world they are played in, its figures and its plot. The decisions are those of
``core/budget``, the same code the sidecar runs; the verdict is made from a log of what a provider would have seen,
by code that shares nothing with the counters. Knows no socket and no wall clock. Called by ``cli``.
"""

from proxy.simulator.budgets.figures import Figures, measure, worst_of
from proxy.simulator.budgets.plot import draw
from proxy.simulator.budgets.scenario import SCENARIOS, Fleet, Load, Scenario, Trouble, make_scenario
from proxy.simulator.budgets.world import Log, play

__all__ = [
    "SCENARIOS",
    "Figures",
    "Fleet",
    "Load",
    "Log",
    "Scenario",
    "Trouble",
    "draw",
    "make_scenario",
    "measure",
    "play",
    "worst_of",
]
