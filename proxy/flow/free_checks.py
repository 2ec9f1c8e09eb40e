"""Asking providers how they are without paying: ``GET /models``, now and then, where ``config.yaml`` says so.

Owns what the last checks said. A check that succeeds invites open breakers whose provider could not be reached to try
again at once; checks that fail show the provider as failed and count for readiness. Neither opens nor closes a breaker:
that a list of models can be had says nothing about a model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from proxy.core.config.settings import HealthCheck, ProviderKind, ProviderSettings
from proxy.core.policy.model import Timeouts
from proxy.flow.fleet import Fleet
from proxy.flow.ports import AttemptFailed, Call, CallKind, Upstream, Witness
from proxy.terms.http import RequestHead
from proxy.terms.outcomes import Outcome

FAILED_AFTER: Final = 3
"""So many failures in a row make a provider failed."""
ANSWER_MAX_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one free call brought. ``http_status`` 0: no answer; ``date``: the answer's Date field, for its clock."""

    outcome: Outcome
    http_status: int
    latency_ms: float
    date: str = ""

    @property
    def is_well(self) -> bool:
        """The provider answers and takes our key; that it has no list of models, or limits us, is not against it."""
        return self.outcome is Outcome.OK or self.http_status in (404, 405, 429)


async def ask_for_models(
    upstream: Upstream, endpoint: str, kind: ProviderKind, timeout_s: float, now_s: Callable[[], float]
) -> CheckResult:
    """Make one free call; never raises for what the provider does."""
    head = RequestHead("GET", b"/v1/models", "/v1/models", [], {})
    lines = b"accept: application/json\r\naccept-encoding: identity\r\nuser-agent: readygate\r\n"
    if kind is ProviderKind.ANTHROPIC:
        lines += b"anthropic-version: 2023-06-01\r\n"
    limits = Timeouts(min(2.0, timeout_s), timeout_s, timeout_s, timeout_s)
    began_s = now_s()
    asked = CallKind(endpoint, head, b"/models", lines)
    call = Call(asked, b"", limits, began_s + timeout_s, ANSWER_MAX_BYTES, must_be_fresh=True)
    try:
        answer = await upstream.send(call)
    except AttemptFailed as failed:
        return CheckResult(failed.outcome, 0, (now_s() - began_s) * 1000.0)
    if answer.live is not None:
        answer.live.abort()
    status = answer.head.status
    date = answer.head.fields.get(b"date", b"").decode("latin-1")
    return CheckResult(_outcome_of(status), status, (now_s() - began_s) * 1000.0, date)


def _outcome_of(status: int) -> Outcome:
    if status < 300:
        return Outcome.OK
    if status in (401, 403):
        return Outcome.OWN_KEY_REFUSED
    if status == 429:
        return Outcome.RATE_LIMITED
    if status >= 500:
        return Outcome.UPSTREAM_5XX
    return Outcome.REDIRECT if status < 400 else Outcome.UPSTREAM_4XX


class FreeChecks:
    """Checks every provider that wants it, each in its own jittered rhythm."""

    def __init__(
        self,
        providers: Mapping[str, ProviderSettings],
        upstream: Upstream,
        fleet: Fleet,
        witness: Witness,
        now_s: Callable[[], float],
        dice: Callable[[], float],
    ) -> None:
        self._wanted = {name: p for name, p in providers.items() if p.health_check is not None}
        self._upstream = upstream
        self._fleet = fleet
        self._witness = witness
        self._now_s = now_s
        self._dice = dice
        self._failures: dict[str, int] = {}
        self._last: dict[str, tuple[CheckResult, float]] = {}

    @property
    def is_wanted(self) -> bool:
        """True when some provider is to be checked."""
        return bool(self._wanted)

    def failed(self, provider: str) -> str:
        """Why a provider is failed by its checks; empty when it is not."""
        failures = self._failures.get(provider, 0)
        return (
            f"{failures} checks in a row failed: {self._last[provider][0].outcome}" if failures >= FAILED_AFTER else ""
        )

    def shown(self, provider: str) -> dict[str, object] | None:
        """What the last check said, for people; None when there was none."""
        found = self._last.get(provider)
        if found is None:
            return None
        result, at_s = found
        return {
            "outcome": result.outcome.value,
            "http_status": result.http_status,
            "latency_ms": round(result.latency_ms, 1),
            "seconds_ago": round(self._now_s() - at_s, 1),
        }

    async def run(self) -> None:
        """Check for ever."""
        async with asyncio.TaskGroup() as tasks:
            for name, provider in self._wanted.items():
                assert provider.health_check is not None
                tasks.create_task(self._keep_checking(name, provider, provider.health_check), name=f"check-{name}")

    async def _keep_checking(self, name: str, provider: ProviderSettings, check: HealthCheck) -> None:
        while True:
            # From half to one and a half times the rhythm: a fleet of sidecars must not knock in step.
            await asyncio.sleep(check.every_s * (0.5 + self._dice()))
            if not self._upstream.lacks_key(name):
                result = await ask_for_models(self._upstream, name, provider.kind, check.timeout_s, self._now_s)
                self._learn(name, result)

    def _learn(self, name: str, result: CheckResult) -> None:
        now_s = self._now_s()
        was_failed = bool(self.failed(name))
        self._last[name] = (result, now_s)
        if result.is_well:
            self._failures[name] = 0
            self._fleet.invite(name, now_s)
        else:
            self._failures[name] = self._failures.get(name, 0) + 1
        if was_failed is not bool(self.failed(name)):
            what = "provider_check_failed" if not was_failed else "provider_check_recovered"
            self._witness.notice(what, provider=name, outcome=result.outcome.value)
