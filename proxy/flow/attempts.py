"""The walk along a chain: reserve, admit, send, judge, and hand the first good answer on.

Owns no state of its own: spend belongs to ``Budgets``, health to ``Fleet``, connections to the upstream hand.
Every reservation made here is settled or cancelled here, whatever happens. ``core.routing`` decides; this asks,
acts and records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from proxy.core.budget.ledger import Reservation
from proxy.core.dialect import Dialect
from proxy.core.health.breaker import Admission, BreakerState
from proxy.core.health.breaker import Verdict as BreakerVerdict
from proxy.core.routing.classify import classify_answer
from proxy.core.routing.problems import Code, Problem, problem
from proxy.core.routing.retry_after import parse_retry_after
from proxy.core.routing.table import RULES
from proxy.core.routing.walk import Commit, GiveUp, Try, TryNext, Walk, problem_of
from proxy.flow import headers as header_lines
from proxy.flow.budgets import Budgets, Denied, Granted, TooLarge
from proxy.flow.catalog import Deployment, Route
from proxy.flow.delivering import Delivery
from proxy.flow.exchange import Exchange
from proxy.flow.fleet import Fleet
from proxy.flow.intake import Request, with_model
from proxy.flow.ports import Answer, AttemptFailed, BodySource, Call, Clock, Upstream, Witness
from proxy.terms.exchange import AttemptFacts
from proxy.terms.outcomes import Fault, Outcome, Status

_NOT_ACCEPTED: Final = frozenset(
    {
        Outcome.CONNECT_ERROR,
        Outcome.DNS_ERROR,
        Outcome.TLS_ERROR,
        Outcome.CONNECT_TIMEOUT,
        Outcome.STALE_CONNECTION,
        Outcome.RATE_LIMITED,
        Outcome.OVERLOADED,
        Outcome.UPSTREAM_5XX,
        Outcome.OWN_KEY_REFUSED,
        Outcome.REDIRECT,
    }
)
"""Outcomes that mean that the provider did no work: the reservation is handed back."""

_REPLACED_BY_OUR_KEY: Final = frozenset({b"x-api-key", b"api-key", b"openai-organization", b"openai-project"})


@dataclass(slots=True)
class Plan:
    """What every attempt of one exchange shares."""

    route: Route
    request: Request
    body: bytes | BodySource
    tokens: int
    is_explicit: bool


@dataclass(slots=True)
class _Result:
    """One attempt's outcome with what it brought."""

    outcome: Outcome
    answer: Answer | None = None
    attempt: AttemptFacts | None = None
    reservation: Reservation | None = None
    admission: Admission | None = None
    retry_after_s: float | None = None
    code: Code | None = None
    is_final: bool = False
    """A budget says refuse: the chain is not walked on."""


@dataclass(slots=True)
class Attempts:
    """Walks chains; one per process."""

    fleet: Fleet
    budgets: Budgets
    upstream: Upstream
    delivery: Delivery
    clock: Clock
    witness: Witness
    jitter: Callable[[], float]
    collect_max_bytes: int

    async def walk(self, exchange: Exchange, plan: Plan) -> Problem | None:
        """Try deployments until one answers; return a refusal, or None when the caller was answered."""
        route = plan.route
        deployments = route.deployments
        deadline_s = exchange.arrived_s + route.plan.total_s
        retries = route.plan.retries
        walk = Walk(
            len(deployments), route.plan.max_attempts, deadline_s, retries.same_target, retries.statuses or None
        )
        shown: Answer | None = None
        has_refreshed = type(plan.body) is not bytes
        while True:
            step = walk.next(self.clock.monotonic_s())
            if isinstance(step, GiveUp):
                return self._give_up(exchange, plan, step, shown)
            if step.wait_s:
                await asyncio.sleep(step.wait_s)
            deployment = deployments[step.target_index]
            result = await self._attempt(exchange, plan, deployment, step, deadline_s)
            if result.outcome is Outcome.OK:
                if await self._deliver(exchange, plan, deployment, result):
                    return None
            elif result.answer is not None:
                shown = result.answer
            if result.outcome is Outcome.OWN_KEY_REFUSED and not has_refreshed:
                has_refreshed = True
                if await self.upstream.refresh_credential(deployment.provider):
                    self._forget(exchange, deployment, result)
                    continue
            verdict = self._record(exchange, walk, deployment, result)
            match verdict:
                case TryNext():
                    if type(plan.body) is not bytes and result.attempt is not None:
                        # A body that streamed away cannot be sent again.
                        return self._give_up(exchange, plan, _as_give_up(result, step, walk), shown)
                case GiveUp():
                    return self._give_up(exchange, plan, verdict, shown)
                case Commit():
                    raise AssertionError("a failed attempt cannot be committed")

    # --- one attempt ------------------------------------------------------------------------------

    async def _attempt(
        self, exchange: Exchange, plan: Plan, deployment: Deployment, step: Try, deadline_s: float
    ) -> _Result:
        now_s = self.clock.monotonic_s()
        facts = exchange.facts
        rid = f"{facts.id}:{len(facts.attempts)}"
        verdict = self.budgets.reserve(
            plan.route.budgets, deployment.provider, plan.tokens, now_s, rid, is_explicit=plan.is_explicit
        )
        if not isinstance(verdict, Granted):
            return _denied(exchange, deployment, verdict)
        _note_budget(exchange, verdict)
        reservation = verdict.reservation
        admission = self.fleet.admit(
            deployment.name, now_s, is_only_target=step.is_only_target or step.is_last_resort, is_retry=step.is_retry
        )
        if admission.is_refused:
            self.budgets.cancel(reservation, now_s)
            facts.notes.append(f"skipped:{deployment.provider}:breaker_{admission.reason.value}")
            return _Result(Outcome.BREAKER_OPEN, retry_after_s=max(0.0, admission.until_s - now_s))
        model = deployment.model or plan.request.model or ""
        attempt = exchange.begin_attempt(deployment.provider, model)
        result = _Result(Outcome.GATEWAY_FAULT, None, attempt, reservation, admission)
        try:
            answer = await self.upstream.send(self._call(exchange, plan, deployment, step, deadline_s))
        except AttemptFailed as failed:
            result.outcome = failed.outcome
            attempt.reused_connection = failed.reused_connection
        except asyncio.CancelledError:
            exchange.end_attempt(attempt, Outcome.CLIENT_CANCELLED, 0)
            self.fleet.record(
                deployment.name, Outcome.CLIENT_CANCELLED, self.clock.monotonic_s(), 0.0, admission=admission
            )
            self.budgets.settle(reservation, None, self.clock.monotonic_s())
            raise
        else:
            exchange.head_came(attempt)
            self._judge(exchange, plan, deployment, answer, result)
            attempt.reused_connection = answer.reused_connection
        return result

    def _judge(
        self, exchange: Exchange, plan: Plan, deployment: Deployment, answer: Answer, result: _Result
    ) -> None:
        """Name what came; only an answer named OK goes to the caller as a success."""
        head = answer.head
        result.answer = answer
        if head.status == 101:
            result.outcome = Outcome.OK
            return
        is_known = exchange.dialect is not Dialect.OTHER
        result.outcome = classify_answer(
            head.status,
            head.content_type.decode("ascii", "replace"),
            plan.request.is_stream and is_known,
            self.upstream.uses_own_key(deployment.provider),
            False if answer.body is None or not is_known else _says_error(answer.body),
            is_known_shape=is_known,
            is_body_empty=answer.body == b"",
        )
        if result.outcome is Outcome.OK:
            return
        if answer.live is not None:
            answer.live.abort()
            answer.live = None
            answer.body = b""
        fields = head.fields
        result.retry_after_s = parse_retry_after(
            _text(fields.get(b"retry-after")), self.clock.unix_ms() / 1000.0, _text(fields.get(b"retry-after-ms"))
        )

    def _call(self, exchange: Exchange, plan: Plan, deployment: Deployment, step: Try, deadline_s: float) -> Call:
        head = exchange.inbound.head
        request = plan.request
        body = plan.body
        if type(body) is bytes and deployment.model is not None and deployment.model != request.model:
            body = with_model(body, request.document, deployment.model)
        own_key = self.upstream.uses_own_key(deployment.provider)
        timeouts = deployment.target.timeouts
        is_known = exchange.dialect is not Dialect.OTHER
        return Call(
            provider=deployment.provider,
            method=head.method,
            target=head.target[3:],
            headers=header_lines.to_provider(
                head, wants_identity=is_known, drops=_REPLACED_BY_OUR_KEY if own_key else frozenset()
            ),
            body=body,
            model=deployment.model or request.model or "",
            connect_timeout_s=timeouts.connect_s,
            first_byte_timeout_s=timeouts.first_byte_s,
            idle_timeout_s=timeouts.idle_s,
            deadline_s=deadline_s,
            collect_max_bytes=self.collect_max_bytes if exchange.vault is not None else COLLECT_MAX_BYTES,
            body_length=head.content_length,
            must_be_fresh=step.must_be_fresh,
            passes_caller_key=not self.delivery.demands_caller_key,
            caller_authorization=head.fields.get(b"authorization"),
            is_websocket=head.is_websocket,
        )

    # --- what came of it --------------------------------------------------------------------------

    async def _deliver(self, exchange: Exchange, plan: Plan, deployment: Deployment, result: _Result) -> bool:
        """Hand a good answer on; False, with ``result`` corrected, when it was not good after all."""
        answer, attempt = result.answer, result.attempt
        assert answer is not None and attempt is not None
        is_first = len(exchange.facts.attempts) == 1
        exchange.facts.status = Status.SUCCESS if is_first else Status.FALLBACK
        renames = deployment.model is not None and deployment.model != plan.request.model and is_first
        asked = plan.request.model if renames else None

        def ended(outcome: Outcome) -> None:
            """Account for the attempt; called once, before the answer's last byte leaves."""
            now_s = self.clock.monotonic_s()
            taken_ms = exchange.end_attempt(attempt, outcome, answer.head.status)
            self.fleet.record(deployment.name, outcome, now_s, taken_ms, admission=result.admission)
            usage = exchange.facts.usage
            spent = usage.input_tokens + usage.output_tokens if usage is not None else None
            assert result.reservation is not None
            self.budgets.settle(result.reservation, spent, now_s)

        failed = await self.delivery.deliver(exchange, plan.route, plan.request, answer, asked, ended)
        if failed is None:
            return True
        result.outcome = failed.outcome
        result.answer = None
        return False

    def _forget(self, exchange: Exchange, deployment: Deployment, result: _Result) -> None:
        """Close the books on an attempt that is repeated because its credential had been rotated."""
        now_s = self.clock.monotonic_s()
        if result.attempt is not None:
            exchange.end_attempt(result.attempt, result.outcome, 401)
        if result.reservation is not None:
            self.budgets.cancel(result.reservation, now_s)
        if result.admission is not None and result.admission.verdict is BreakerVerdict.PROBE:
            self.fleet.cancel_probe(deployment.name, now_s)

    def _record(self, exchange: Exchange, walk: Walk, deployment: Deployment, result: _Result) -> TryNext | Commit | GiveUp:
        """Tell fleet, budgets and walk how the attempt ended."""
        now_s = self.clock.monotonic_s()
        status = 0 if result.answer is None else result.answer.head.status
        outcome = result.outcome
        if result.attempt is not None:
            result.attempt.retry_after_s = result.retry_after_s
            taken_ms = exchange.end_attempt(result.attempt, outcome, status)
            change = self.fleet.record(
                deployment.name, outcome, now_s, taken_ms, result.retry_after_s, admission=result.admission
            )
            if change is not None:
                self.witness.notice(
                    "breaker_" + ("alarm" if change.is_alarm else change.now.value),
                    deployment=change.deployment,
                    was=change.was.value,
                    outcome=change.outcome.value,
                )
            if result.reservation is not None:
                if outcome in _NOT_ACCEPTED:
                    self.budgets.cancel(result.reservation, now_s)
                else:
                    self.budgets.settle(result.reservation, 0 if 400 <= status < 500 else None, now_s)
        may_spend = not RULES[outcome].is_attempt or self.fleet.may_retry(deployment.name, now_s)
        verdict = walk.record(
            outcome,
            now_s,
            http_status=status,
            retry_after_s=result.retry_after_s,
            may_spend_retry=may_spend,
            jitter=self.jitter(),
            code=result.code,
        )
        if result.is_final and isinstance(verdict, TryNext):
            return GiveUp(outcome, result.code or RULES[outcome].code, None, 0, False, walk.attempts, result.retry_after_s)
        return verdict

    def _give_up(self, exchange: Exchange, plan: Plan, end: GiveUp, shown: Answer | None) -> Problem | None:
        """Tell the caller what the walk came to: the provider's own error, or a problem of ours."""
        facts = exchange.facts
        facts.outcome = end.outcome
        if end.pass_through and shown is not None and shown.body is not None:
            facts.status = Status.RATE_LIMITED if end.outcome is Outcome.RATE_LIMITED else Status.ERROR
            facts.error_code = end.code.value
            facts.fault = Fault.PROVIDER
            self.delivery.pass_error(exchange, shown, facts.provider)
            return None
        refusal = problem_of(end)
        provider = facts.provider
        if provider and refusal.fault is Fault.PROVIDER:
            refusal = refusal._replace(message=f"{provider}: {refusal.message}")
        return refusal

    # --- ahead of an exchange ---------------------------------------------------------------------

    def spent_everywhere(self, routes: list[Route]) -> Problem | None:
        """Return a refusal when not one deployment of these routes has budget for one more request."""
        now_s = self.clock.monotonic_s()
        denial: Denied | None = None
        for route in routes:
            for deployment in route.deployments:
                verdict = self.budgets.reserve(route.budgets, deployment.provider, 0, now_s, "preflight")
                if isinstance(verdict, Granted):
                    self.budgets.cancel(verdict.reservation, now_s)
                    return None
                if isinstance(verdict, Denied):
                    denial = verdict
        if denial is None:
            return None
        code = Code.INSUFFICIENT_QUOTA if denial.spent_for_the_day else Code.RATE_LIMIT_EXCEEDED
        return problem(code, retry_after_s=denial.retry_after_s)

    def view(self) -> list[dict[str, Any]]:
        """Return every deployment as it stands, for the admin door."""
        now_s = self.clock.monotonic_s()
        rows = []
        for view in self.fleet.view(now_s):
            is_cooling = view.cooling_until_s is not None and view.cooling_until_s > now_s
            state = "cooling" if is_cooling and view.state is BreakerState.CLOSED else view.state.value
            retry_at_s = view.retry_at_s or (view.cooling_until_s if is_cooling else None)
            rows.append(
                {
                    "deployment": view.deployment,
                    "provider": view.deployment.partition(":")[0],
                    "state": state,
                    "for_s": round(now_s - view.since_s, 1) if view.since_s else None,
                    "retry_in_s": None if retry_at_s is None else round(max(0.0, retry_at_s - now_s), 2),
                    "attempts": view.attempts,
                    "success_ratio": view.success_ratio,
                    "p50_ms": view.p50_ms,
                    "p95_ms": view.p95_ms,
                    "last_429_s_ago": None if view.last_429_s is None else round(now_s - view.last_429_s, 1),
                    "consecutive_failures": view.consecutive_failures,
                    "last_outcome": view.last_outcome.value if view.last_outcome else None,
                    "alarm": view.alarm.value if view.alarm else None,
                }
            )
        return rows


COLLECT_MAX_BYTES: Final = 1024 * 1024
"""Answers up to this size are gathered and written in one piece; larger ones pass as they come."""


def _denied(exchange: Exchange, deployment: Deployment, verdict: Denied | TooLarge) -> _Result:
    exchange.facts.notes.append(f"skipped:{deployment.provider}:budget:{verdict.dimension.value}")
    is_final = verdict.when_exhausted == "refuse"
    if isinstance(verdict, TooLarge):
        return _Result(Outcome.BUDGET_DENIED, code=Code.BUDGET_REQUEST_TOO_LARGE, is_final=is_final)
    code = Code.INSUFFICIENT_QUOTA if verdict.spent_for_the_day else Code.RATE_LIMIT_EXCEEDED
    return _Result(Outcome.BUDGET_DENIED, code=code, retry_after_s=verdict.retry_after_s, is_final=is_final)


def _note_budget(exchange: Exchange, granted: Granted) -> None:
    """Keep the numbers of the tightest limits for the answer's headers and the row."""
    budget = exchange.facts.budget
    if granted.limit_requests >= 0:
        budget["limit_requests"] = granted.limit_requests
        budget["remaining_requests"] = granted.remaining_requests
        budget["reset_requests_s"] = granted.reset_requests_s
    if granted.limit_tokens >= 0:
        budget["limit_tokens"] = granted.limit_tokens
        budget["remaining_tokens"] = granted.remaining_tokens
        budget["reset_tokens_s"] = granted.reset_tokens_s


def _as_give_up(result: _Result, step: Try, walk: Walk) -> GiveUp:
    status = 0 if result.answer is None else result.answer.head.status
    rule = RULES[result.outcome]
    return GiveUp(
        result.outcome, rule.code, step.target_index, status, rule.passes_body and status >= 400, walk.attempts,
        result.retry_after_s,
    )  # fmt: skip


def _says_error(body: bytes) -> bool:
    """True when a small JSON body is an error document under a success status; cheap for ordinary answers."""
    return body[:64].lstrip().startswith(b'{"error"') or b'"object":"error"' in body[:128]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
