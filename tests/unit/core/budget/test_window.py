"""The window counter: what it holds, when it forgets, how long it asks to wait."""

from __future__ import annotations

import math

import pytest

from proxy.core.budget.window import DAY, HOUR, MINUTE, TEN_SECONDS, SlotCounter, WindowCounter, WindowShape


def charged(limit: int, *charges: tuple[float, int], shape: WindowShape = MINUTE) -> WindowCounter:
    """Return a counter that was charged ``(second, amount)`` in this order."""
    counter = WindowCounter(shape, limit)
    for at_s, amount in charges:
        counter.advance(at_s)
        counter.charge(amount)
    return counter


def test_limit_reached_leaves_no_room_until_the_minute_has_passed() -> None:
    """A minute's limit means any sixty seconds, not a clock minute: no double load at its edge."""
    counter = charged(3, (59.0, 3))

    assert counter.fits(1, 61.0) is False
    assert counter.fits(1, 119.9) is False
    assert counter.fits(1, 120.0) is True


@pytest.mark.parametrize("shape", [TEN_SECONDS, MINUTE, HOUR, DAY])
def test_charge_counts_for_at_least_one_window_and_at_most_one_bucket_more(shape: WindowShape) -> None:
    """Rounding outward is what makes the promise hold whatever the second of admission."""
    bucket_s = shape.window_s / shape.slices
    at_s = 7 * bucket_s + 0.9 * bucket_s
    counter = charged(1, (at_s, 1), shape=shape)

    assert counter.fits(1, at_s + shape.window_s) is False
    assert counter.fits(1, at_s + shape.window_s + bucket_s) is True


def test_charges_age_out_one_second_at_a_time() -> None:
    """Room comes back as it was used, not all at once."""
    counter = charged(10, (0.0, 4), (1.0, 3), (2.0, 3))

    assert counter.fits(5, 61.0) is False
    assert counter.fits(4, 61.0) is True
    assert counter.fits(7, 62.0) is True
    assert counter.fits(10, 63.0) is True


def test_clock_stepping_back_opens_no_second_window() -> None:
    """A monotonic clamp: an earlier second is the latest one seen."""
    counter = charged(2, (1000.0, 2))

    assert counter.fits(1, 10.0) is False
    assert counter.fits(1, 1000.0) is False
    assert counter.fits(1, 1061.0) is True


def test_correction_seen_at_an_earlier_second_moves_nothing_back() -> None:
    """A settlement that carries an old time must not rewind the window under the others."""
    counter = charged(10, (1000.0, 4), (1030.0, 6))
    counter.correct(1030.0, -1, 1001.0)
    counter.advance(1000.0)

    assert counter.wait_s(5, 1030.0) == pytest.approx(1061.0 - 1030.0, abs=1e-5)
    assert counter.fits(5, 1061.0) is True


def test_long_silence_clears_everything() -> None:
    """After an idle night the ring must not be walked bucket by bucket, nor remember anything."""
    counter = charged(5, (1.0, 5))
    counter.advance(1e9)

    assert counter.used == 0
    assert counter.fits(5, 1e9) is True


def test_refund_lowers_the_second_of_admission() -> None:
    """A late settlement must not make room in the present that the past has already used."""
    counter = charged(10, (0.0, 8), (30.0, 2))
    counter.correct(0.0, -6, 30.0)

    assert counter.used == 4
    assert counter.fits(8, 61.0) is True
    assert counter.fits(9, 61.0) is False


def test_refund_after_the_window_gives_nothing_back() -> None:
    """What has aged out was given back already."""
    counter = charged(10, (0.0, 8), (61.0, 10))
    counter.correct(0.0, -8, 61.0)

    assert counter.used == 10


def test_overrun_after_the_window_is_charged_now() -> None:
    """A stream that outlives its window still pays for what it used beyond its reservation."""
    counter = charged(10, (0.0, 2))
    counter.correct(0.0, 5, 100.0)

    assert counter.used == 5
    assert counter.fits(6, 160.0) is False
    assert counter.fits(6, 161.0) is True


def test_wait_is_the_first_moment_it_fits() -> None:
    """Callers are told a true wait: not sooner, and not the whole window."""
    counter = charged(10, (0.5, 4), (10.5, 6))

    wait_s = counter.wait_s(3, 20.25)

    assert wait_s == pytest.approx(61.0 - 20.25, abs=1e-5)
    assert counter.fits(3, 20.25 + wait_s - 0.01) is False
    assert counter.fits(3, 20.25 + wait_s) is True


def test_wait_looks_past_the_oldest_bucket_when_one_is_not_enough() -> None:
    """Five tokens need both old charges gone."""
    counter = charged(10, (0.5, 4), (10.5, 6))

    assert counter.wait_s(5, 20.0) == pytest.approx(71.0 - 20.0, abs=1e-5)


def test_wait_is_zero_when_it_fits_and_endless_when_it_never_will() -> None:
    """Both ends of the scale are told apart from a real wait."""
    counter = charged(10, (0.0, 10))

    assert charged(10).wait_s(10, 0.0) == 0.0
    assert counter.wait_s(11, 0.0) == math.inf


def test_wait_after_an_overrun_is_finite() -> None:
    """Charged beyond the limit, the counter still says when it will be open again."""
    counter = charged(10, (5.0, 9))
    counter.correct(5.0, 40, 6.0)

    assert counter.wait_s(1, 6.0) == pytest.approx(66.0 - 6.0, abs=1e-5)


def test_raised_limit_acts_at_once_and_lowered_one_refunds_nothing() -> None:
    """A reload changes the limit and never the sum."""
    counter = charged(10, (0.0, 10))
    counter.limit = 20
    has_room_when_raised = counter.fits(10, 1.0)
    counter.limit = 5

    assert has_room_when_raised is True
    assert counter.used == 10
    assert counter.fits(1, 60.9) is False
    assert counter.fits(5, 61.0) is True


def test_reset_is_when_the_last_charge_leaves() -> None:
    """The number behind a reset column: empty again if nobody comes."""
    counter = charged(10, (0.0, 1), (20.0, 1))

    assert counter.reset_s(30.0) == pytest.approx(81.0 - 30.0)
    assert counter.reset_s(81.0) == 0.0


def test_reset_of_the_present_charge_is_the_window_and_what_is_left_of_its_second() -> None:
    """The number behind ``x-ratelimit-reset``."""
    counter = charged(10, (20.25, 1))

    assert counter.full_reset_s(20.25) == pytest.approx(60.75)


def test_slots_start_free() -> None:
    """Nobody holds a slot at the start."""
    slots = SlotCounter(3)

    assert (slots.limit, slots.used) == (3, 0)


def test_what_was_corrected_after_a_look_does_not_leave_the_window_twice() -> None:
    """Bars and denials look at the buckets between charge and correction; sums must not remember that."""
    counter = charged(100, (5.5, 9), shape=TEN_SECONDS)
    counter.reset_s(5.6)
    counter.correct(5.5, -9, 5.7)
    for second in range(6, 20):
        counter.advance(float(second))
        counter.charge(1)

    assert 11 == counter.used
