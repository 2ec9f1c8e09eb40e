"""The owner of what is known about each deployment: its breaker, its last answers, its retry budget.

A deployment that takes any model has one breaker for itself and, once a model has failed there, one for that model
(a *variant*): one broken model must not shut the others, and a provider that is down shuts all. What failed before
the provider's software was reached, its refusal of our key, and failures of several models without a success between
them count against the deployment; the rest against the model. Models are named by callers, so variants are few, live
only after a failure, and never become metric labels.

Owns all health state, keyed by deployment name, and is the one place where outcomes become breaker
verdicts. Knows no connection and no policy. Calls are synchronous; nothing else changes this state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from proxy.core.health.breaker import (
    ADMIT,
    DEFAULT_SETTINGS,
    PROBE,
    Admission,
    Breaker,
    BreakerSettings,
    BreakerState,
    Reason,
    Verdict,
)
from proxy.core.health.success import LatencyWindow
from proxy.core.routing.table import RULES, Health, OutcomeRule
from proxy.terms.outcomes import OK, Outcome

__all__ = ["ADMIT", "PROBE", "Admission", "BreakerChange", "DeploymentView", "Fleet", "Reason", "Verdict"]

_CLOSED: Final = BreakerState.CLOSED
RETRY_SHARE = 0.2
RETRY_FLOOR = 3
"""At most this share of a deployment's attempts of the last 30 s, plus this many, may be repetitions."""
VARIANTS_MAX = 16
"""Models of one deployment with a breaker of their own; further ones share the deployment's."""
VARIANT_NAME_MAX = 100
DEFAULT_COOLDOWN_S = 1.0
"""How long a target is left alone that says "too many requests" or "overloaded" without naming a time."""


class BreakerChange(NamedTuple):
    """A breaker moved, or an operator has to act; for telemetry."""

    deployment: str
    was: BreakerState
    now: BreakerState
    outcome: Outcome
    retry_at_s: float | None
    is_alarm: bool


class DeploymentView(NamedTuple):
    """One deployment as it stands. Every ``_s`` is monotonic seconds; None where nothing is known.

    ``success_ratio`` (0 to 1) and ``attempts`` are of the last 30 s; the quantiles of the last 256 good
    answers of the last five minutes. ``alarm`` is the outcome an operator has to look into, until the
    next good answer.
    """

    deployment: str
    state: BreakerState
    since_s: float
    retry_at_s: float | None
    cooling_until_s: float | None
    attempts: int
    success_ratio: float | None
    p50_ms: float | None
    p95_ms: float | None
    last_429_s: float | None
    consecutive_failures: float
    local_failures: int
    upstream_failures: int
    opened_count: int
    last_outcome: Outcome | None
    last_outcome_s: float | None
    alarm: Outcome | None
    variant_of: str = ""
    """The deployment whose model this is; empty for a deployment itself."""


class _Watched:
    __slots__ = (
        "add_latency",
        "alarm",
        "breaker",
        "last_429_s",
        "last_bad_variant",
        "last_outcome",
        "last_outcome_s",
        "latencies",
        "local_failures",
        "upstream_failures",
        "variants",
    )

    def __init__(self, settings: BreakerSettings) -> None:
        self.breaker = Breaker(settings)
        self.latencies = LatencyWindow()
        self.add_latency = self.latencies.add
        self.last_429_s: float | None = None
        self.last_outcome: Outcome | None = None
        self.last_outcome_s = 0.0
        self.local_failures = 0
        """Failures before the provider's software was reached (refused, DNS, TLS, connect timeout)."""
        self.upstream_failures = 0
        self.alarm: Outcome | None = None
        self.variants: dict[str, _Watched] | None = None
        self.last_bad_variant: str | None = None
        """The model that failed last, until the deployment's next good answer."""


class Fleet:
    """Health of every deployment this process dials."""

    def __init__(self, jitter: Callable[[], float], settings: BreakerSettings = DEFAULT_SETTINGS) -> None:
        """Start with nothing known. ``jitter`` returns random numbers from 0 to 1; asked on failures only."""
        self._jitter = jitter
        self._settings = settings
        self._watched: dict[str, _Watched] = {}

    def apply(self, deployments: Iterable[str]) -> None:
        """Watch exactly these from now on; what is known of those that stay is kept."""
        self._watched = {name: self._watched.get(name) or _Watched(self._settings) for name in deployments}

    def admit(
        self,
        deployment: str,
        now_s: float,
        is_only_target: bool = False,
        is_last_resort: bool = False,
        is_retry: bool = False,
        variant: str = "",
    ) -> Admission:
        """Say whether this deployment may be tried now.

        ``PROBE`` must end in ``record`` or ``cancel_probe``. The only target of a chain is paced while it
        is open rather than shut, and not refused while it cools; a last resort is probed more often. The
        three flags are those of the walk's ``Try``; ``is_retry`` spends the retry budget. ``variant`` names the model
        where the deployment takes any.
        """
        watched = self._watched.get(deployment)
        if watched is None:
            watched = self._watch(deployment)
        admission = watched.breaker.admit(now_s, is_only_target, is_last_resort)
        if watched.variants is not None and admission.verdict is Verdict.ADMIT:
            own = watched.variants.get(variant)
            if own is not None:
                admission = own.breaker.admit(now_s, is_only_target, is_last_resort)
                admission = admission._replace(is_variant=True)
        if is_retry and admission.verdict is not Verdict.REFUSED:
            watched.breaker.recent.count_retry(now_s)
        return admission

    def admits_all(self, deployment: str, now_s: float) -> bool:
        """True when ``admit`` would answer every first try with ``ADMIT``, whatever its flags and its model."""
        watched = self._watched.get(deployment)
        return watched is not None and now_s >= watched.breaker.admits_from_s and watched.variants is None

    def is_ready(self, deployment: str, now_s: float) -> bool:
        """True when the next attempt would be admitted now; changes nothing."""
        watched = self._watched.get(deployment)
        return watched is None or watched.breaker.retry_at_s(now_s) is None

    def may_retry(self, deployment: str, now_s: float) -> bool:
        """True while the deployment's retry budget has room; ask only after a failure."""
        watched = self._watched.get(deployment)
        if watched is None:
            return True
        recent = watched.breaker.recent.tally(now_s)
        return recent.retries < RETRY_SHARE * (recent.attempts - recent.retries) + RETRY_FLOOR

    def record(
        self,
        deployment: str,
        outcome: Outcome,
        now_s: float,
        latency_ms: float,
        retry_after_s: float | None = None,
        admission: Admission | None = None,
        variant: str = "",
    ) -> BreakerChange | None:
        """Learn how one attempt ended.

        Args:
            deployment: Whom it was sent to.
            outcome: How it ended; outcomes of targets that were passed over are ignored.
            now_s: Monotonic seconds.
            latency_ms: From sending to the end that matters to users; used for good answers only.
            retry_after_s: What the provider asked for, already clamped.
            admission: What ``admit`` said. Without it the first verdict in half-open is the probe's.
            variant: The model, where the deployment takes any.

        Returns:
            What telemetry should hear, or None, which is the rule.
        """
        watched = self._watched.get(deployment)
        if watched is None:
            watched = self._watch(deployment)
        breaker = watched.breaker
        if outcome is OK and breaker.state is _CLOSED:
            watched.last_outcome = outcome
            watched.last_outcome_s = now_s
            watched.alarm = None
            watched.add_latency((now_s, latency_ms))
            breaker.succeed(now_s)
            if watched.variants is None:
                return None
        rule = RULES[outcome]
        if not rule.is_attempt:
            return None
        own = self._variant_for(watched, outcome, rule, variant, admission)
        if own is not None:
            name = f"{deployment.removesuffix('*')}{variant}"
            return self._take(name, own, outcome, now_s, latency_ms, retry_after_s, admission)
        if outcome is OK and breaker.state is _CLOSED:
            return None
        return self._take(deployment, watched, outcome, now_s, latency_ms, retry_after_s, admission)

    def _variant_for(
        self, watched: _Watched, outcome: Outcome, rule: OutcomeRule, variant: str, admission: Admission | None
    ) -> _Watched | None:
        """Return the model's own state when this outcome is about the model, or None when about the deployment."""
        if outcome is OK:
            watched.last_bad_variant = None
        if not variant or len(variant) > VARIANT_NAME_MAX:
            return None
        if admission is not None and admission.verdict is Verdict.PROBE and not admission.is_variant:
            return None
        own = watched.variants.get(variant) if watched.variants is not None else None
        is_about_model = (rule.health is Health.BAD and not rule.is_local and not rule.alarms) or rule.cools
        if not is_about_model:
            # What the provider answered to this model is news of the model as well; only a success is.
            return own if outcome is OK or (admission is not None and admission.is_variant) else None
        if rule.health is Health.BAD:
            last, watched.last_bad_variant = watched.last_bad_variant, variant
            if last is not None and last != variant:
                return None
        return own or self._new_variant(watched, variant)

    def _new_variant(self, watched: _Watched, variant: str) -> _Watched | None:
        variants = watched.variants
        if variants is None:
            variants = watched.variants = {}
        if len(variants) >= VARIANTS_MAX:
            idle = next((n for n, w in variants.items() if w.breaker.state is BreakerState.CLOSED), None)
            if idle is None:
                return None
            # What is counted stays counted.
            watched.breaker.opened_count += variants.pop(idle).breaker.opened_count
        own = variants[variant] = _Watched(self._settings)
        return own

    def _take(
        self,
        name: str,
        watched: _Watched,
        outcome: Outcome,
        now_s: float,
        latency_ms: float,
        retry_after_s: float | None,
        admission: Admission | None,
    ) -> BreakerChange | None:
        breaker, rule = watched.breaker, RULES[outcome]
        is_probe = breaker.state is BreakerState.HALF_OPEN if admission is None else admission.verdict is Verdict.PROBE
        was = breaker.state
        had_alarm = watched.alarm
        self._learn(watched, outcome, rule, now_s, is_probe)
        if outcome is OK:
            watched.add_latency((now_s, latency_ms))
        if rule.cools:
            breaker.cool(now_s + (DEFAULT_COOLDOWN_S if retry_after_s is None else retry_after_s), now_s)
        is_alarm = rule.alarms and had_alarm is not outcome
        if was is breaker.state and not is_alarm:
            return None
        return BreakerChange(name, was, breaker.state, outcome, breaker.retry_at_s(now_s), is_alarm)

    def cancel_probe(self, deployment: str, now_s: float) -> None:
        """The probe that ``admit`` granted was not made; the next attempt may be it."""
        watched = self._watched.get(deployment)
        if watched is not None:
            watched.breaker.cancel_probe(now_s)

    def reset(self, name: str, now_s: float) -> bool:
        """Close a breaker, a deployment's or a variant's, as an operator asked; False when it is unknown."""
        for _, shown, watched in self._all():
            if shown == name:
                watched.breaker.reset(now_s)
                return True
        return False

    def invite(self, provider: str, now_s: float) -> None:
        """A provider has answered: those of its breakers that opened because it could not be reached may probe now."""
        for name, watched in self._watched.items():
            outcome = watched.last_outcome
            if name.partition(":")[0].partition("/")[0] == provider and outcome is not None and RULES[outcome].is_local:
                watched.breaker.invite(now_s)

    def may_be_tried(self, deployment: str, now_s: float) -> bool:
        """True when it is closed and not cooling, or due for a probe; changes nothing."""
        watched = self._watched.get(deployment)
        return watched is None or watched.breaker.retry_at_s(now_s) is None

    def unavailable(self, now_s: float) -> frozenset[str]:
        """Deployments that nobody may try now because their breaker is open and its back-off runs.

        One whose back-off has passed may be tried: it counts as available, or a sidecar that gets no traffic while
        it is not ready would never find out that the provider is well again.
        """
        return frozenset(
            name
            for name, watched in self._watched.items()
            if watched.breaker.state is not BreakerState.CLOSED and watched.breaker.retry_at_s(now_s) is not None
        )

    def view(self, now_s: float) -> tuple[DeploymentView, ...]:
        """Every deployment as it stands, in the order they were first named, each followed by its variants."""
        return tuple(_view(name, watched, now_s, of) for of, name, watched in self._all())

    def _all(self) -> Iterator[tuple[str, str, _Watched]]:
        """Yield (deployment a variant is of, name, state)."""
        for name, watched in self._watched.items():
            yield "", name, watched
            for variant, own in (watched.variants or {}).items():
                yield name, f"{name.removesuffix('*')}{variant}", own

    def _watch(self, deployment: str) -> _Watched:
        watched = self._watched[deployment] = _Watched(self._settings)
        return watched

    def _learn(self, watched: _Watched, outcome: Outcome, rule: OutcomeRule, now_s: float, is_probe: bool) -> None:
        breaker = watched.breaker
        if rule.health is Health.SILENT:
            if is_probe:
                breaker.cancel_probe(now_s)
            return
        watched.last_outcome = outcome
        watched.last_outcome_s = now_s
        if outcome is Outcome.RATE_LIMITED:
            watched.last_429_s = now_s
        if rule.alarms:
            watched.alarm = outcome
        if rule.health is Health.GOOD:
            watched.alarm = None
            breaker.succeed(now_s, is_probe=is_probe)
        elif rule.health is Health.ANSWERED:
            breaker.answer(now_s, is_probe=is_probe)
        else:
            if rule.is_local:
                watched.local_failures += 1
            else:
                watched.upstream_failures += 1
            breaker.fail(rule.weight, now_s, self._jitter(), is_probe=is_probe)


def _view(name: str, watched: _Watched, now_s: float, variant_of: str) -> DeploymentView:
    breaker = watched.breaker
    recent = breaker.recent.tally(now_s)
    p50_ms, p95_ms = watched.latencies.quantiles(now_s, 0.5, 0.95)
    return DeploymentView(
        deployment=name,
        state=breaker.state,
        since_s=breaker.since_s,
        retry_at_s=breaker.retry_at_s(now_s),
        cooling_until_s=breaker.cooling_until_s if breaker.cooling_until_s > now_s else None,
        attempts=recent.attempts,
        success_ratio=max(0.0, 1.0 - recent.failed / recent.attempts) if recent.attempts else None,
        p50_ms=p50_ms,
        p95_ms=p95_ms,
        last_429_s=watched.last_429_s,
        consecutive_failures=breaker.consecutive_failures,
        local_failures=watched.local_failures,
        upstream_failures=watched.upstream_failures,
        opened_count=breaker.opened_count,
        last_outcome=watched.last_outcome,
        last_outcome_s=watched.last_outcome_s if watched.last_outcome else None,
        alarm=watched.alarm,
        variant_of=variant_of,
    )
