"""Whatever the weights and the keys: shares come out as asked, keys stay where they were, loads are told apart."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.routing.shares import Load, PeakEwma, WeightedTurns, by_affinity, two_choices

weights = st.lists(st.integers(1, 20), min_size=2, max_size=8)


@given(weights, st.integers(1, 5))
def test_turns_give_each_exactly_its_weight(given_weights: list[int], rounds: int) -> None:
    """Over one round of all weights nobody gets one turn too many."""
    turns = WeightedTurns([float(weight) for weight in given_weights])
    everyone = range(len(given_weights))

    taken = Counter(turns.take(everyone) for _ in range(rounds * sum(given_weights)))

    assert {index: rounds * weight for index, weight in enumerate(given_weights)} == dict(taken)


@given(weights, st.data())
def test_turns_are_taken_by_those_present_alone(given_weights: list[int], data: st.DataObject) -> None:
    """Whoever is away is not asked, and does not come back with a backlog of turns."""
    turns = WeightedTurns([float(weight) for weight in given_weights])
    everyone = range(len(given_weights))
    away = data.draw(st.integers(0, len(given_weights) - 1))
    present = [index for index in everyone if index != away]

    during = {turns.take(present) for _ in range(200)}
    after = Counter(turns.take(everyone) for _ in range(sum(given_weights)))

    assert away not in during
    assert after[away] <= given_weights[away] + 1


@given(st.binary(min_size=1, max_size=40), weights, st.data())
def test_key_moves_only_when_its_target_leaves(key: bytes, given_weights: list[int], data: st.DataObject) -> None:
    """A provider's prompt cache is worth keeping: others coming and going must not move a conversation."""
    names = [f"p{index}:m" for index in range(len(given_weights))]
    floats = [float(weight) for weight in given_weights]
    order = by_affinity(key, names, floats)
    gone = data.draw(st.sampled_from(order))
    left = [index for index in range(len(names)) if index != gone]
    without = [left[i] for i in by_affinity(key, [names[i] for i in left], [floats[i] for i in left])]

    assert order == by_affinity(key, names, floats)
    assert [index for index in order if index != gone] == without


def test_many_keys_spread_by_weight() -> None:
    """Three to one is three to one within a few per cent."""
    first = Counter(by_affinity(f"conversation-{n}".encode(), ["a:m", "b:m"], [3.0, 1.0])[0] for n in range(4000))

    assert abs(first[0] / 4000 - 0.75) < 0.03


@given(st.lists(st.floats(0.1, 1000.0), min_size=1, max_size=8), st.floats(0, 0.999), st.floats(0, 0.999))
def test_two_choices_never_takes_the_dearest_of_several(costs: list[float], one: float, other: float) -> None:
    """Two different ones are looked at, so the worst is never taken alone."""
    chosen = two_choices(costs, one, other)

    assert 0 <= chosen < len(costs)
    assert len(costs) == 1 or costs[chosen] <= sorted(costs)[-2]


def test_two_choices_reach_everyone() -> None:
    """A target that nobody can draw would never be used."""
    dice = random.Random(1)

    assert {0, 1, 2, 3} == {two_choices([1.0] * 4, dice.random(), dice.random()) for _ in range(200)}


def test_latency_jumps_up_and_comes_down_slowly() -> None:
    """One bad answer is news, one good one is not yet."""
    seen = PeakEwma()
    seen.note(100.0, 0.0)
    seen.note(2000.0, 1.0)
    at_once = seen.value_ms(1.0)
    seen.note(100.0, 1.5)

    assert 2000.0 == at_once
    assert 1700.0 < seen.value_ms(1.5) < 2000.0
    assert seen.value_ms(61.5) < 10.0


def test_cost_weighs_what_is_under_way_and_how_long_it_takes() -> None:
    """Ten waiting at a fast target can be dearer than one at a slow one."""
    fast, slow = Load(), Load()
    fast.latency.note(100.0, 0.0)
    slow.latency.note(500.0, 0.0)
    fast.in_flight = 9

    assert fast.cost(1.0, 0.0, by_latency=True) > slow.cost(1.0, 0.0, by_latency=True)
    assert fast.cost(20.0, 0.0, by_latency=False) < slow.cost(1.0, 0.0, by_latency=False)
