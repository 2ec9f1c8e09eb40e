"""The breaker of one deployment: when to stop asking it, and how to find out that it is well again.

Owns the states closed, open and half-open and the cool-down after a 429. Knows no outcome names, no
clock and no dice: weights, seconds and a jitter number come in as arguments.

=========  ==========================================  ==========================================
state      an attempt asks to be admitted              what ends it
=========  ==========================================  ==========================================
closed     admitted, unless the target is cooling      5 failures in a row, or more than half of
                                                       at least 20 attempts in 30 s -> open
open       refused until the back-off has passed,      the first attempt after it is the one
           then the one probe                          probe -> half-open
half-open  refused: the probe is out                   probe well -> closed; probe failed or past
                                                       its deadline -> open, back-off doubled
=========  ==========================================  ==========================================

Cooling (a 429 with its retry-after, or an overload) is beside the state: it refuses ordinary attempts
until its time and says nothing about health. Both are advice about whom to prefer, so they give way
where there is no one else: the only target of a chain is not refused for cooling (the provider's own
429 is the honest answer), and while open it gets a paced trickle of probes; the last one whose fellows
were all passed over gets a slower one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from proxy.core.health.success import SuccessWindow

_NEVER_S = float("-inf")


class BreakerState(StrEnum):
    """Traffic flows; nothing flows; one probe is out."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Verdict(StrEnum):
    """What a breaker says to an attempt."""

    ADMIT = "admit"
    PROBE = "probe"
    REFUSED = "refused"


class Reason(StrEnum):
    """Why an attempt was refused."""

    NONE = ""
    OPEN = "open"
    PROBING = "probing"
    COOLING = "cooling"


_CLOSED: Final = BreakerState.CLOSED
_REFUSED: Final = Verdict.REFUSED


class Admission(NamedTuple):
    """The answer to one attempt. ``until_s`` (monotonic) is when a refused one may ask again."""

    verdict: Verdict
    until_s: float = 0.0
    reason: Reason = Reason.NONE
    is_variant: bool = False
    """The one who said so is the breaker of one model of a deployment that takes any, not the deployment's own."""

    @property
    def is_refused(self) -> bool:
        """True when the attempt must not be made."""
        return self.verdict is _REFUSED


ADMIT = Admission(Verdict.ADMIT)
PROBE = Admission(Verdict.PROBE)


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a breaker opens and for how long. Ratios from 0 to 1."""

    is_enabled: bool = True
    """False: everything is admitted; failures are still counted and shown."""
    consecutive_failures: float = 5.0
    failure_ratio: float = 0.5
    """Opens above it, not at it."""
    min_attempts: int = 20
    window_s: int = 30
    base_backoff_s: float = 1.0
    max_backoff_s: float = 60.0
    jitter_ratio: float = 0.25
    """A back-off is lengthened by up to this share of itself; it is never shortened."""
    probe_deadline_s: float = 10.0
    only_target_pace_s: float = 1.0
    """The only target of a chain gets a probe this often while it is open."""
    last_resort_pace_s: float = 10.0
    """A target gets a probe at least this often when all others of the chain were passed over."""
    forgive_after_s: float = 5.0
    """Each such stretch of being closed halves the next back-off."""
    max_cooldown_s: float = 300.0


DEFAULT_SETTINGS = BreakerSettings()


class Breaker:
    """One breaker. ``now_s`` must be monotonic; an earlier one than before only delays."""

    __slots__ = (
        "_jitter",
        "_last_probe_s",
        "_probe_deadline_s",
        "_settings",
        "_trips",
        "_until_s",
        "admits_from_s",
        "consecutive_failures",
        "cooling_until_s",
        "opened_count",
        "recent",
        "since_s",
        "state",
    )

    def __init__(self, settings: BreakerSettings = DEFAULT_SETTINGS) -> None:
        self.state = _CLOSED
        self.since_s = 0.0
        """When the state was entered."""
        self.consecutive_failures = 0.0
        """Weighted failures since the last success."""
        self.cooling_until_s = _NEVER_S
        self.admits_from_s = _NEVER_S
        """From then on every attempt is admitted, whatever it is, until something fails; infinity while not closed."""
        self.opened_count = 0
        self.recent = SuccessWindow(settings.window_s)
        self._settings = settings
        self._trips = 0
        """Openings not yet forgiven; each doubles the back-off."""
        self._until_s = 0.0
        self._last_probe_s = _NEVER_S
        self._probe_deadline_s = 0.0
        self._jitter = 0.0

    def admit(self, now_s: float, is_only_target: bool = False, is_last_resort: bool = False) -> Admission:
        """Say whether an attempt may be made now. ``PROBE`` must be answered by a verdict or ``cancel_probe``.

        Args:
            now_s: Monotonic seconds.
            is_only_target: The chain has no other: not refused for cooling, and paced while open.
            is_last_resort: The others of the chain were all passed over: probed every ten seconds at least.
        """
        if self.state is _CLOSED:
            if now_s >= self.cooling_until_s or is_only_target or not self._settings.is_enabled:
                return ADMIT
            return Admission(Verdict.REFUSED, self.cooling_until_s, Reason.COOLING)
        if self.state is BreakerState.HALF_OPEN:
            if now_s < self._probe_deadline_s:
                return Admission(Verdict.REFUSED, self._probe_deadline_s, Reason.PROBING)
            self._open(self._probe_deadline_s, self._jitter)
        pace_s: float | None = None
        if is_only_target:
            pace_s = self._settings.only_target_pace_s
        elif is_last_resort:
            pace_s = self._settings.last_resort_pace_s
        return self._admit_while_open(now_s, pace_s)

    def retry_at_s(self, now_s: float) -> float | None:
        """When the next attempt may be admitted (monotonic seconds); None when that is now."""
        until_s = self.cooling_until_s
        if self.state is BreakerState.OPEN:
            until_s = max(self._until_s, until_s)
        elif self.state is BreakerState.HALF_OPEN:
            until_s = self._probe_deadline_s
        return until_s if until_s > now_s else None

    def succeed(self, now_s: float, is_probe: bool = False) -> None:
        """Take a good answer. One that did not come from the probe closes nothing."""
        self.recent.count_success(now_s)
        if self.state is _CLOSED:
            self.consecutive_failures = 0.0
        elif is_probe:
            self._close(now_s)

    def answer(self, now_s: float, *, is_probe: bool = False) -> None:
        """Take an answer that says nothing about health (the caller's own error, a 429): it came, though."""
        if is_probe and self.state is not _CLOSED:
            self._close(now_s)

    def fail(self, weight: float, now_s: float, jitter: float, *, is_probe: bool = False) -> None:
        """Take a failure.

        Args:
            weight: More than 0, at most 1; half failures need twice as many.
            now_s: Monotonic seconds.
            jitter: A random number from 0 to 1, for the back-off should this open the breaker.
            is_probe: The attempt was the probe.
        """
        self.recent.count_failure(weight, now_s)
        self.consecutive_failures += weight
        if self.state is _CLOSED:
            if self._settings.is_enabled and self._is_too_much(now_s):
                self._forgive(now_s)
                self._open(now_s, jitter)
        elif self.state is BreakerState.HALF_OPEN and is_probe:
            self._open(now_s, jitter)

    def cancel_probe(self, now_s: float) -> None:
        """The probe was not made, or ended without a verdict: the next attempt may be the probe."""
        if self.state is BreakerState.HALF_OPEN:
            self.state = BreakerState.OPEN
            self.since_s = self._until_s = now_s
            self._last_probe_s = _NEVER_S

    def cool(self, until_s: float, now_s: float) -> None:
        """Refuse ordinary attempts until then, at most ``max_cooldown_s`` from now; never shortens."""
        self.cooling_until_s = max(self.cooling_until_s, min(until_s, now_s + self._settings.max_cooldown_s))
        if self.state is _CLOSED:
            self.admits_from_s = self.cooling_until_s

    def invite(self, now_s: float) -> None:
        """Let the next attempt be the probe: there is reason to believe that it is well again."""
        if self.state is BreakerState.OPEN:
            self._until_s = min(self._until_s, now_s)

    def reset(self, now_s: float) -> None:
        """Forget everything, as an operator may ask."""
        self.cooling_until_s = _NEVER_S
        self._close(now_s)
        self._trips = 0

    def _admit_while_open(self, now_s: float, pace_s: float | None) -> Admission:
        until_s = max(self._until_s, self.cooling_until_s)
        if pace_s is not None:
            until_s = min(until_s, max(self.since_s, self._last_probe_s) + pace_s)
        if now_s < until_s:
            return Admission(Verdict.REFUSED, until_s, Reason.OPEN)
        self.state = BreakerState.HALF_OPEN
        self.since_s = self._last_probe_s = now_s
        self._probe_deadline_s = now_s + self._settings.probe_deadline_s
        return PROBE

    def _is_too_much(self, now_s: float) -> bool:
        settings = self._settings
        if self.consecutive_failures >= settings.consecutive_failures:
            return True
        recent = self.recent.tally(now_s)
        return recent.attempts >= settings.min_attempts and recent.failed > settings.failure_ratio * recent.attempts

    def _forgive(self, now_s: float) -> None:
        stretches = max(0.0, now_s - self.since_s) // self._settings.forgive_after_s
        self._trips = max(0, self._trips - int(stretches))

    def _open(self, now_s: float, jitter: float) -> None:
        settings = self._settings
        backoff_s = min(settings.max_backoff_s, settings.base_backoff_s * 2.0 ** min(self._trips, 32))
        self._trips += 1
        self.opened_count += 1
        self._jitter = jitter
        self.state = BreakerState.OPEN
        self.admits_from_s = math.inf
        self.since_s = now_s
        self._until_s = now_s + backoff_s * (1.0 + settings.jitter_ratio * jitter)

    def _close(self, now_s: float) -> None:
        self.state = _CLOSED
        self.admits_from_s = self.cooling_until_s
        self.since_s = now_s
        self.consecutive_failures = 0.0
        self._trips //= 2  # a good probe forgives half, so that a provider that flaps is soon asked again
        self.recent.clear()
