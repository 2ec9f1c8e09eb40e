"""The budget simulation: the theorem's bound holds in every scenario, and the command tells."""

from __future__ import annotations

import json
import xml.dom.minidom
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.core.budget.shares import OnOutage
from proxy.simulator.budgets import SCENARIOS, Figures, Fleet, Load, make_scenario, measure, play
from proxy.simulator.budgets.figures import jain

FLEET = Fleet(sidecars=8, limit=4000, window_s=20.0, max_sidecars=8)
TIGHT = Load(overestimate=(1.0, 1.2), estimate_tokens=(20, 60), takes_s=(0.1, 2.0))


def played(name: str, fleet: Fleet = FLEET, load: Load = TIGHT, seed: int = 1) -> Figures:
    """Play two minutes of a scenario."""
    scenario = make_scenario(name, fleet, load, duration_s=120.0, seed=seed)
    return measure(scenario, play(scenario))


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("load", [TIGHT, Load(), replace(TIGHT, spread="skewed")], ids=["tight", "streams", "skewed"])
def test_no_window_passes_the_bound_of_the_theorem(name: str, load: Load) -> None:
    """Shown with the code that decides in the sidecar, judged by the log of admissions."""
    for seed in (1, 2):
        figures = played(name, load=load, seed=seed)

        assert 0.3 < figures.worst_window_ratio <= figures.bound_ratio


def test_healthy_fleet_uses_what_it_may_and_serves_all_alike() -> None:
    """Safety bought with idleness would be worth nothing."""
    figures = played("healthy")

    assert figures.use_ratio > 0.9
    assert figures.fairness > 0.9
    assert 0.6 < figures.refused_ratio < 0.72


def test_outage_leaves_the_private_share() -> None:
    """Without the store the slices admit psi of the limit, no less and no more."""
    figures = played("store-down")

    assert 0.2 < figures.use_in_trouble_ratio <= 0.25


@pytest.mark.parametrize(("mode", "least", "most"), [("deny", 0.0, 0.05), ("boost", 0.3, 1.0), ("allow", 2.0, 4.0)])
def test_each_way_through_an_outage_costs_what_its_name_says(mode: str, least: float, most: float) -> None:
    """Deny admits nothing, boost up to an equal part of everything, allow everything."""
    fleet = replace(FLEET, on_outage=OnOutage(mode), boost_after_s=5.0)
    figures = played("store-down", fleet)

    assert least <= figures.use_in_trouble_ratio <= most


def test_forgotten_state_without_a_sentinel_overshoots() -> None:
    """The scenario can fail: what the sentinel is for shows when it is taken away."""
    scenario = make_scenario("state-loss", FLEET, TIGHT, duration_s=120.0, seed=1)
    careless = replace(scenario, trouble=replace(scenario.trouble, has_sentinel=False))

    assert measure(careless, play(careless)).worst_window_ratio > 1.2


def test_patient_callers_wait_instead_of_being_refused() -> None:
    """Waiting is measured, and never longer than the patience."""
    load = replace(TIGHT, demand=((0.0, 0.5), (30.0, 1.5), (50.0, 0.2)), patience_s=30.0)
    figures = played("healthy", load=load)

    assert figures.refused_ratio < 0.1
    assert 0.0 < figures.waited_p95_s <= 30.0


def test_fairness_is_that_of_jain() -> None:
    """1 when all are alike, 1/n when one has everything."""
    assert 1.0 == jain([0.5, 0.5, 0.5])
    assert 0.25 == jain([1.0, 0.0, 0.0, 0.0])


def test_command_prints_draws_and_repeats_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command prints the same figures; the drawing is well-formed."""
    plot, trace = tmp_path / "out.svg", tmp_path / "trace.csv"
    trace.write_text("# demand\n0,1\n40,3\n")
    command = [
        "simulate", "budgets", "--sidecars", "2,5", "--scenario", "healthy,half-cut", "--duration", "2m",
        "--trace", str(trace), "--plot", str(plot), "--format", "json", "--seeds", "2",
    ]  # fmt: skip
    code = main(command)
    first = capsys.readouterr().out
    main(command)

    assert 0 == code
    assert first == capsys.readouterr().out
    assert 4 == len(json.loads(first)["runs"])
    drawn = xml.dom.minidom.parse(str(plot))  # noqa: S318 - our own file
    assert 4 == len(drawn.getElementsByTagName("polyline"))


@pytest.mark.parametrize(
    "options",
    [["--private-share", "1.5"], ["--duration", "10s"], ["--overestimate", "0.5-2"], ["--trace", "/nowhere.csv"]],
)
def test_options_that_make_no_sense_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and a sentence."""
    assert 2 == main(["simulate", "budgets", *options])
    assert "simulate budgets:" in capsys.readouterr().err
