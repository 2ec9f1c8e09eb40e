"""Two limits on one counter: every answer is that of the counter itself, had it had the other limit."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.budget.calendar import Calendar, CalendarCounter, WallClock
from proxy.core.budget.limit_view import LimitView
from proxy.core.budget.window import MINUTE, SlotCounter, SlotView, WindowCounter


class Step(NamedTuple):
    """One charge: through the view or the counter, so much, so long after the one before."""

    is_view: bool
    amount: int
    after_s: float


steps = st.lists(st.builds(Step, st.booleans(), st.integers(0, 9), st.floats(0.0, 40.0)), max_size=40)


def counters() -> list[WindowCounter | CalendarCounter]:
    return [WindowCounter(MINUTE, 0), CalendarCounter(Calendar.DAY, "UTC", 0, WallClock(1_000_000.0))]


@pytest.mark.parametrize("kind", [0, 1], ids=["window", "calendar"])
@given(steps=steps, limits=st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_two_limits_on_one_sum_are_as_two_counters_that_are_told_everything(
    kind: int, steps: list[Step], limits: tuple[int, int]
) -> None:
    """Against two counters, one for each limit, which both hear of every charge and correction."""
    base, own, other = counters()[kind], counters()[kind], counters()[kind]
    base.limit, own.limit, other.limit = limits[0], limits[0], limits[1]
    view = LimitView(base, limits[1])
    now_s = 100.0
    for is_view, amount, after_s in steps:
        now_s += after_s
        face, twin = (view, other) if is_view else (base, own)
        assert twin.fits(amount, now_s) == face.fits(amount, now_s)
        assert own.fits(0, now_s) == base.fits(0, now_s)
        assert other.wait_s(amount, now_s) == view.wait_s(amount, now_s)
        assert (limits[0], limits[1]) == (base.limit, view.limit)
        if face.fits(amount, now_s):
            face.charge(amount)
            for one in (own, other):
                one.advance(now_s)
                one.charge(amount)
            face.correct(now_s, -(amount // 2), now_s)
            own.correct(now_s, -(amount // 2), now_s)
            other.correct(now_s, -(amount // 2), now_s)
        view.advance(now_s)
        assert own.used == base.used == view.used == other.used
        assert (other.reset_s(now_s), other.full_reset_s(now_s)) == (view.reset_s(now_s), view.full_reset_s(now_s))


def test_what_never_fits_waits_for_ever_by_its_own_limit_alone() -> None:
    """A request that is larger than the canary's limit may well fit the other."""
    base = WindowCounter(MINUTE, 10)
    view = LimitView(base, 3)

    assert (math.inf, 0.0) == (view.wait_s(5, 1.0), base.wait_s(5, 1.0))


def test_slots_are_taken_from_both() -> None:
    """A slot that is given back through either is free in both."""
    base = SlotCounter(3)
    view = SlotView(base, 1)
    base.used += 1
    view.used += 1

    assert (2, 2, 3, 1) == (base.used, view.used, base.limit, view.limit)
    view.used -= 2
    assert 0 == base.used
