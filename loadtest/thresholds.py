"""What a load test must reach, held against what the drivers saw. Pure: no locust, clock or file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

MIN_SUCCESS_RATIO = 0.99
MAX_OVERHEAD_P95_MS = 5.0
_DURATION = re.compile(r"(?:^|,)\s*([\w-]+)\s*(?:;[^,]*?)?;\s*dur=([0-9.]+)", re.ASCII)


@dataclass(slots=True)
class Tally:
    """What the users of one run saw, as the locust process writes it down."""

    requests: int = 0
    failures: int = 0
    failure_reasons: dict[str, int] = field(default_factory=dict)
    overhead_ms: list[float] = field(default_factory=list)
    """The sidecar's own time per answer, from ``server-timing``."""
    first_token_ms: list[float] = field(default_factory=list)
    stream_events: int = 0
    round_trips: int = 0
    """Answers that held the very value the prompt held."""
    probes: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """One threshold and its outcome."""

    text: str
    is_met: bool


def server_timings(header: str) -> dict[str, float]:
    """Durations in milliseconds of a ``server-timing`` header, by metric name; metrics without one are left out.

    Source: W3C Server Timing, ``gateway;dur=1.2, upstream;dur=200.3``.
    """
    return {name: float(duration) for name, duration in _DURATION.findall(header)}


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that ``percent`` of all values do not exceed (nearest rank); 0 for none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, min(len(ordered), int(rank)) - 1)]


def judge(tally: Tally, leaked: int) -> list[Line]:
    """Hold one run against the thresholds.

    Args:
        leaked: Requests that reached the provider with a value from a prompt in them.
    """
    ratio = 1 - tally.failures / tally.requests if tally.requests else 0.0
    p95_ms = percentile(tally.overhead_ms, 95)
    return [
        Line(
            f"success {ratio:.3%} of {tally.requests:,} requests, must exceed {MIN_SUCCESS_RATIO:.0%}",
            ratio > MIN_SUCCESS_RATIO,
        ),
        Line(
            f"own overhead p95 {p95_ms:.2f} ms (p50 {percentile(tally.overhead_ms, 50):.2f}, p99 "
            f"{percentile(tally.overhead_ms, 99):.2f}) over {len(tally.overhead_ms):,} answers, at most {MAX_OVERHEAD_P95_MS:g} ms",
            bool(tally.overhead_ms) and p95_ms <= MAX_OVERHEAD_P95_MS,
        ),
        Line(
            f"{tally.stream_events:,} stream events, first token p50 {percentile(tally.first_token_ms, 50):.1f} ms, "
            f"p95 {percentile(tally.first_token_ms, 95):.1f} ms",
            tally.stream_events > 0,
        ),
        Line(f"{tally.round_trips:,} values came back to the app as they were", tally.round_trips > 0),
        Line(f"{leaked} values reached the provider", leaked == 0),
        Line(f"{tally.probes:,} health probes answered", tally.probes > 0),
    ]
