"""A settled answer moves only for what lasts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.health.settle import Settled


def test_change_shows_after_it_has_lasted() -> None:
    """Ten seconds of trouble are trouble."""
    settled = Settled()

    assert [True, True, False] == [settled.follow(False, 10.0, now_s) for now_s in (0.0, 9.9, 10.0)]
    assert [False, True] == [settled.follow(True, 10.0, now_s) for now_s in (11.0, 21.0)]


def test_change_that_is_taken_back_begins_anew() -> None:
    """Flapping never shows, however long it goes on."""
    settled = Settled()

    for second in range(0, 100, 2):
        assert settled.follow(second % 4 == 0, 3.0, float(second))


def test_no_settle_time_follows_at_once() -> None:
    """Who asks for no patience gets none."""
    settled = Settled()

    assert [False, True, False] == [settled.follow(well, 0.0, 1.0) for well in (False, True, False)]


@given(st.lists(st.tuples(st.booleans(), st.floats(0.1, 5.0)), max_size=60), st.floats(0.0, 10.0))
def test_every_change_was_asked_for_throughout_its_settle_time(
    steps: list[tuple[bool, float]], settle_s: float
) -> None:
    """Whatever the history: the answer changes only to what every look of the last settle time said."""
    settled, now_s, history = Settled(), 0.0, list[tuple[float, bool]]()
    for is_well, gap_s in steps:
        now_s += gap_s
        before = settled.shown
        after = settled.follow(is_well, settle_s, now_s)
        history.append((now_s, is_well))
        if after is not before:
            recent = [value for at_s, value in history if now_s - at_s < settle_s] or [is_well]
            assert {after} == set(recent)
            assert now_s - history[0][0] >= settle_s or settle_s == 0.0 or len(history) > len(recent)
