"""Calendar days and months of a time zone: where they begin, and that a clock cannot cheat."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from proxy.core.budget.calendar import Calendar, CalendarCounter, WallClock, period_of


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("kind", "zone", "moment", "hours"),
    [
        (Calendar.DAY, "UTC", "2026-11-21T12:00", 24),
        (Calendar.DAY, "Europe/Berlin", "2026-03-29T12:00", 23),
        (Calendar.DAY, "Europe/Berlin", "2026-10-25T12:00", 25),
        (Calendar.MONTH, "UTC", "2028-02-29T23:59", 29 * 24),
        (Calendar.MONTH, "America/Sao_Paulo", "2026-12-31T23:59", 31 * 24),
    ],
)
def test_period_holds_its_moment_and_has_its_length(kind: Calendar, zone: str, moment: str, hours: int) -> None:
    """Days with a change of the clocks, leap years, the turn of the year."""
    start_s, end_s = period_of(kind, zone, at(moment, zone))

    assert start_s <= at(moment, zone) < end_s
    assert hours * 3600 == end_s - start_s


def counter(wall: WallClock, limit: int = 10) -> CalendarCounter:
    return CalendarCounter(Calendar.DAY, "Europe/Berlin", limit, wall)


def test_day_is_empty_again_at_midnight_of_its_zone() -> None:
    """Berlin's midnight, not ours."""
    wall = WallClock(at("2026-11-21T23:00", "Europe/Berlin"))
    day = counter(wall)

    assert day.fits(10, 0.0)
    day.charge(10)
    assert not day.fits(1, 3599.0)
    assert day.wait_s(1, 0.0) == pytest.approx(3600.0, abs=0.01)
    assert day.fits(10, 3600.0)


def test_clock_that_steps_back_over_midnight_does_not_empty_the_day() -> None:
    """Otherwise every correction of the clock would mint a day."""
    wall = WallClock(at("2026-11-21T23:59", "Europe/Berlin"))
    day = counter(wall)
    day.fits(1, 0.0)
    day.charge(4)
    assert day.fits(10, 61.0)
    day.charge(10)
    wall.offset_s -= 7200.0

    assert not day.fits(1, 62.0)
    assert not day.fits(1, 62.0 + 7200.0)
    assert day.fits(1, 62.0 + 7200.0 + 86400.0)


def test_clock_that_steps_forward_begins_the_next_day_at_once() -> None:
    """The wall clock is what a calendar day means."""
    wall = WallClock(at("2026-11-21T12:00", "Europe/Berlin"))
    day = counter(wall)
    day.fits(1, 0.0)
    day.charge(10)
    wall.offset_s += 86400.0

    assert day.fits(10, 1.0)


def test_settlement_after_midnight_gives_nothing_back_and_charges_what_is_over() -> None:
    """Yesterday's refund is not today's money; yesterday's overrun is today's debt."""
    day = counter(WallClock(at("2026-11-21T23:59", "Europe/Berlin")), 100)
    day.fits(50, 0.0)
    day.charge(50)
    day.correct(0.0, -40, 120.0)
    refunded = day.used
    day.correct(0.0, 7, 120.0)

    assert (0, 7) == (refunded, day.used)
