"""What a limit can count and over how long: the vocabulary of budgets.

Owns the words of the policy file and what each means as a unit and a window. Knows no sums and no rules.
"""

from __future__ import annotations

from enum import StrEnum

from proxy.core.budget.calendar import Calendar
from proxy.core.budget.window import DAY, HOUR, MINUTE, TEN_SECONDS, WindowShape


class Unit(StrEnum):
    """What is counted."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    """In and out together."""
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    COST = "cost"
    """In billionths of a US dollar, so that sums are whole numbers."""
    CONCURRENT = "concurrent"
    """Exchanges at the same time."""


class Dimension(StrEnum):
    """What one limit of a budget counts; the words are those of the policy file."""

    REQUESTS_PER_10S = "requests_per_10s"
    REQUESTS_PER_MINUTE = "requests_per_minute"
    REQUESTS_PER_HOUR = "requests_per_hour"
    REQUESTS_PER_DAY = "requests_per_day"
    REQUESTS_PER_CALENDAR_DAY = "requests_per_calendar_day"
    REQUESTS_PER_MONTH = "requests_per_month"
    TOKENS_PER_10S = "tokens_per_10s"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    TOKENS_PER_HOUR = "tokens_per_hour"
    TOKENS_PER_DAY = "tokens_per_day"
    TOKENS_PER_CALENDAR_DAY = "tokens_per_calendar_day"
    TOKENS_PER_MONTH = "tokens_per_month"
    INPUT_TOKENS_PER_10S = "input_tokens_per_10s"
    INPUT_TOKENS_PER_MINUTE = "input_tokens_per_minute"
    INPUT_TOKENS_PER_HOUR = "input_tokens_per_hour"
    INPUT_TOKENS_PER_DAY = "input_tokens_per_day"
    INPUT_TOKENS_PER_CALENDAR_DAY = "input_tokens_per_calendar_day"
    INPUT_TOKENS_PER_MONTH = "input_tokens_per_month"
    OUTPUT_TOKENS_PER_10S = "output_tokens_per_10s"
    OUTPUT_TOKENS_PER_MINUTE = "output_tokens_per_minute"
    OUTPUT_TOKENS_PER_HOUR = "output_tokens_per_hour"
    OUTPUT_TOKENS_PER_DAY = "output_tokens_per_day"
    OUTPUT_TOKENS_PER_CALENDAR_DAY = "output_tokens_per_calendar_day"
    OUTPUT_TOKENS_PER_MONTH = "output_tokens_per_month"
    COST_PER_HOUR_USD = "cost_per_hour_usd"
    COST_PER_DAY_USD = "cost_per_day_usd"
    COST_PER_CALENDAR_DAY_USD = "cost_per_calendar_day_usd"
    COST_PER_MONTH_USD = "cost_per_month_usd"
    CONCURRENT = "concurrent"


NANO_USD = 1_000_000_000
"""Units of cost in one US dollar."""

Shape = WindowShape | Calendar

_SHAPES: dict[str, Shape] = {
    "10s": TEN_SECONDS,
    "minute": MINUTE,
    "hour": HOUR,
    "day": DAY,
    "calendar_day": Calendar.DAY,
    "month": Calendar.MONTH,
}


def _split(dimension: Dimension) -> tuple[Unit, Shape | None]:
    what, _, window = dimension.value.removesuffix("_usd").partition("_per_")
    return Unit(what), _SHAPES[window] if window else None


_PARTS = {dimension: _split(dimension) for dimension in Dimension}

UNITS: dict[Dimension, Unit] = {dimension: unit for dimension, (unit, _) in _PARTS.items()}
SHAPES: dict[Dimension, Shape] = {dimension: shape for dimension, (_, shape) in _PARTS.items() if shape is not None}
"""Every dimension with a window; slots have none."""

QUOTAS = frozenset(
    dimension
    for dimension, (unit, shape) in _PARTS.items()
    if unit is Unit.COST or isinstance(shape, Calendar) or (shape is not None and shape.window_s >= DAY.window_s)
)
"""Dimensions whose exhaustion is no matter of pace: a client should not keep trying."""


def window_s(dimension: Dimension) -> float:
    """Return how long the window is; a month counts as its longest, slots as nothing."""
    shape = SHAPES.get(dimension)
    if shape is None:
        return 0.0
    return shape.longest_s if isinstance(shape, Calendar) else shape.window_s
