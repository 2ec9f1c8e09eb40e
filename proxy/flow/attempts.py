"""The walk along a chain: reserve, admit, send, judge, and hand the first good answer on.

Owns no state of its own: spend belongs to ``Budgets``, health to ``Fleet``, connections to the upstream hand.
Every reservation made here is settled or cancelled here, whatever happens. ``core.routing`` decides; this asks,
acts and records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from proxy.core.budget.announced import wait_in_body
from proxy.core.dialect import CHAT, OTHER
from proxy.core.policy.faults import InjectPlan
from proxy.core.routing.classify import classify_answer, judge_plain, says_error, says_too_long
from proxy.core.routing.problems import Code, Problem, problem
from proxy.core.routing.retry_after import parse_retry_after
from proxy.core.routing.table import RULES
from proxy.core.routing.walk import Commit, GiveUp, Try, TryNext, Walk, problem_of
from proxy.flow.attempt_result import Result, as_give_up, denied, judged, not_delivered
from proxy.flow.booking import Booking, Plan, book
from proxy.flow.budgets import Budgets, Denied, Granted
from proxy.flow.call_kinds import CallKinds, DeploymentCall
from proxy.flow.catalog import Deployment, Route
from proxy.flow.delivering import Delivery
from proxy.flow.exchange import Exchange
from proxy.flow.fleet import ADMIT, Fleet
from proxy.flow.injection import choose_fault, send_with
from proxy.flow.live_answers import Failed
from proxy.flow.ports import Answer, AttemptFailed, Call, Clock, Upstream, Witness
from proxy.flow.pricing import Pricing
from proxy.flow.room import Room, target_of
from proxy.flow.shaping import body_for, hurried, is_shaped, made_ready
from proxy.flow.sharing import StepShare, arrange, conversation_key
from proxy.flow.translating import asks_usage, is_translated, translated_answer
from proxy.flow.waiting import WaitingLines
from proxy.terms.outcomes import OK, Fault, Outcome, Status

_bare: Final = object.__new__
# Looking a member up on its class costs more than the comparison it is for.
_SUCCESS: Final = Status.SUCCESS
_FALLBACK: Final = Status.FALLBACK
_RESCUED: Final = Status.RESCUED


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
    waiting: WaitingLines
    pricing: Pricing | None = None
    room: Room = field(init=False)
    kinds: CallKinds = field(init=False)

    def __post_init__(self) -> None:
        self.room = Room(self.budgets, self.waiting, self.upstream, self.clock, self.pricing)
        self.kinds = CallKinds(self.upstream, self.delivery.demands_caller_key)

    async def walk(self, exchange: Exchange, plan: Plan) -> Problem | None:
        """Try deployments until one answers; return a refusal, or None when the caller was answered."""
        route = plan.route
        shares = route.shares
        deployments = plan.deployments = route.deployments if shares is None else self._arrange(exchange, plan, shares)
        deadline_s = exchange.arrived_s + route.plan.total_s
        walk = Walk(route.course, deadline_s)
        answers: dict[int, Answer] = {}
        may_refresh = type(plan.body) is bytes
        while True:
            now_s = self.clock.monotonic_s()
            step = walk.next(now_s)
            if isinstance(step, GiveUp):
                return self._give_up(exchange, plan, step, answers)
            deployment = deployments[step.target_index]
            if step.wait_s or plan.request.large is not None:
                await self._get_ready(exchange, plan, deployment, step.wait_s)
                now_s = self.clock.monotonic_s()
            if plan.request.is_stream:
                exchange.may_go_on, exchange.first_token_by_s = not walk.is_last, None
            result = await self._attempt(exchange, plan, deployment, step, deadline_s, now_s)
            if result.outcome is OK and (
                self._deliver_at_once(exchange, plan, deployment, step, result)
                if exchange.follows is None and self.delivery.takes_at_once(result.answer)
                else await self._deliver(exchange, plan, deployment, step, result)
            ):
                return None
            if result.booking is not None:
                result.booking.close(result.outcome, result.http_status, result.retry_after_s)
            if result.answer is not None:
                answers[step.target_index] = result.answer
            if result.outcome is Outcome.OWN_KEY_REFUSED and may_refresh:
                may_refresh = False
                if await self.upstream.refresh_credential(deployment.endpoint):
                    continue
            verdict = self._record(exchange, walk, deployment, result)
            if isinstance(verdict, TryNext) and type(plan.body) is not bytes and result.booking is not None:
                # A body that streamed away cannot be sent again.
                verdict = as_give_up(result, step, walk)
            if isinstance(verdict, GiveUp):
                return self._give_up(exchange, plan, verdict, answers)

    async def _get_ready(self, exchange: Exchange, plan: Plan, deployment: Deployment, wait_s: float) -> None:
        """Wait before an attempt, and have a large body ready in its target's form."""
        if wait_s:
            await asyncio.sleep(wait_s)
        if plan.request.large is not None:
            await made_ready(exchange, plan, deployment, self.delivery.large)

    def _arrange(self, exchange: Exchange, plan: Plan, shares: tuple[StepShare, ...]) -> tuple[Deployment, ...]:
        """Return the chain with the members of its shared steps in the order of this exchange."""
        is_sticky = any(share.is_sticky for share in shares)
        key = conversation_key(exchange.facts.conversation, plan.request) if is_sticky else b""
        now_s = self.clock.monotonic_s()

        def is_available(deployment: Deployment) -> bool:
            return self.fleet.may_be_tried(deployment.name, now_s) and not self.upstream.lacks_key(deployment.endpoint)

        return arrange(plan.route.deployments, shares, key, is_available, now_s, self.jitter)

    # --- one attempt ------------------------------------------------------------------------------

    async def _attempt(
        self, exchange: Exchange, plan: Plan, deployment: Deployment, step: Try, deadline_s: float, now_s: float
    ) -> Result:
        if deployment.is_particular and not is_shaped(exchange, plan, deployment):
            return Result(Outcome.UNSUITABLE)
        kind = self.kinds.of(exchange, plan, deployment)
        verdict = self.room.reserve(exchange, plan, deployment, now_s)
        if type(verdict) is not Granted:
            if verdict is None:
                return Result(Outcome.BREAKER_OPEN)
            verdict = await self.room.find(exchange, plan, deployment, verdict, deadline_s)
            if not isinstance(verdict, Granted):
                return denied(exchange, deployment, verdict)
            now_s, kind = self.clock.monotonic_s(), self.kinds.of(exchange, plan, deployment)
        booking = self._book(exchange, plan, kind, step, verdict, now_s)
        if isinstance(booking, Result):
            return booking
        try:
            call = self._call(exchange, plan, kind, step, deadline_s, now_s)
            inject = plan.route.plan.inject
            if inject is None:
                answer = await self.upstream.send(call)
            else:
                answer = await self._rehearse(exchange, inject, call, step)
            if deployment.speaks_messages and is_translated(exchange, deployment):
                answer = translated_answer(answer, self.clock.unix_ms() // 1000, reports_usage=asks_usage(plan.request))
            exchange.head_came(booking.facts)
            if answer.head.may_be_near is not None and plan.route.budgets:
                self.room.hear(plan, deployment, answer.head)
            return self._judge(exchange, plan, booking, answer)
        except AttemptFailed as failed:
            booking.facts.reused_connection = failed.reused_connection
            return Result(failed.outcome, None, booking)
        except asyncio.CancelledError:
            booking.close(Outcome.CLIENT_CANCELLED)
            raise
        except BaseException:
            booking.close(Outcome.GATEWAY_FAULT)
            raise

    async def _rehearse(self, exchange: Exchange, inject: InjectPlan, call: Call, step: Try) -> Answer:
        """Send an attempt that policy may let go wrong."""
        fault = choose_fault(inject, call, step.target_index, self.jitter)
        if fault is None:
            return await self.upstream.send(call)
        exchange.facts.notes.append(f"injected:{fault.kind}:{call.kind.provider}")
        self.witness.notice("fault_injected", kind=fault.kind.value, provider=call.kind.provider.partition("/")[0])
        return await send_with(fault, self.upstream, call, self.clock.monotonic_s)

    def _book(
        self, exchange: Exchange, plan: Plan, kind: DeploymentCall, step: Try, verdict: Granted, now_s: float
    ) -> Booking | Result:
        """Ask the breaker for an attempt that budgets have granted; on a no nothing stays held."""
        facts, deployment = exchange.facts, kind.deployment
        exchange.granted = verdict if verdict.limit_requests >= 0 or verdict.limit_tokens >= 0 else None
        exchange.observes = plan.route.plan.observe_only
        admission = ADMIT
        if step.is_retry or not self.fleet.admits_all(deployment.name, now_s):
            admission = self.fleet.admit(
                deployment.name, now_s, step.is_only_target, step.is_last_resort, step.is_retry, kind.variant
            )
            if admission.is_refused:
                self.budgets.cancel(verdict.reservation, now_s)
                facts.notes.append(f"skipped:{deployment.provider}:breaker_{admission.reason.value}")
                return Result(Outcome.BREAKER_OPEN, retry_after_s=max(0.0, admission.until_s - now_s))
        attempt = exchange.begin_attempt(deployment.provider, kind.model, now_s)
        exchange.is_own_key, exchange.named = kind.is_own_key, kind.named
        return book(
            self, exchange, deployment, attempt, verdict.reservation, admission, kind.variant, plan.route.counts_apart
        )

    def _judge(self, exchange: Exchange, plan: Plan, booking: Booking, answer: Answer) -> Result:
        """Name what came; only an answer named OK goes to the caller as a success."""
        head, body = answer.head, answer.body
        booking.facts.reused_connection = answer.reused_connection
        is_known = exchange.dialect is not OTHER
        is_plain = head.status == 200 and head.content_type == b"application/json" and not plan.request.is_stream
        if is_plain and is_known and body and not says_error(body):
            found = (
                OK
                if b"content-encoding" in head.telling
                else judge_plain(body, exchange.dialect is CHAT and not plan.route.is_transparent)
            )
            return judged(found, answer if found is OK else None, booking)
        if head.status == 101:
            return Result(OK, answer, booking)
        if exchange.stream is not None and head.status < 300 and (answer.live is None or not head.is_event_stream):
            if answer.live is not None:
                answer.live.abort()
            return Result(Outcome.BAD_CONTENT_TYPE, None, booking)
        outcome = classify_answer(
            head.status,
            head.content_type.decode("ascii", "replace"),
            plan.request.is_stream and is_known,
            self.upstream.uses_own_key(booking.deployment.endpoint),
            is_known and body is not None and says_error(body),
            is_known_shape=is_known,
            is_body_empty=answer.body == b"",
        )
        if outcome is OK:
            return Result(outcome, answer, booking)
        if outcome is Outcome.UPSTREAM_4XX and body and says_too_long(head.status, body):
            context = booking.deployment.target.context
            if context is not None:
                outcome, exchange.context_over = Outcome.CONTEXT_TOO_LONG, context
        if answer.live is not None:
            answer.live.abort()
            answer.live = None
            answer.body = b""
        fields = head.fields
        retry_after_s = parse_retry_after(
            _text(fields.get(b"retry-after")), self.clock.unix_ms() / 1000.0, _text(fields.get(b"retry-after-ms"))
        )
        if outcome is Outcome.RATE_LIMITED:
            if retry_after_s is None and answer.body:
                retry_after_s = wait_in_body(answer.body)
            if retry_after_s and plan.route.budgets:
                self.budgets.pause(target_of(plan, booking.deployment), retry_after_s, self.clock.monotonic_s())
        return Result(outcome, answer, booking, retry_after_s=retry_after_s)

    def _call(
        self, exchange: Exchange, plan: Plan, kind: DeploymentCall, step: Try, deadline_s: float, now_s: float
    ) -> Call:
        request, deployment = plan.request, kind.deployment
        shaped = exchange.shaped if deployment.is_particular else None
        body = body_for(exchange, plan, deployment) if shaped is None else shaped
        is_gathered = exchange.vault is not None or plan.route.answers is not None
        timeouts = deployment.target.timeouts
        if request.is_stream and deployment.hasty is not None:
            timeouts = hurried(exchange, plan, step.target_index, now_s, self.fleet)
        ends_s = now_s + timeouts.total_s
        if ends_s > deadline_s:  # noqa: PLR1730 - ``min`` costs more than the sum
            ends_s = deadline_s
        is_large = is_gathered or is_translated(exchange, deployment)
        call = _bare(Call)  # filled in place, as everything that every exchange makes
        call.kind = kind
        call.body = body
        call.timeouts = timeouts
        call.deadline_s = ends_s
        call.collect_max_bytes = self.collect_max_bytes if is_large else COLLECT_MAX_BYTES
        call.must_be_fresh = step.must_be_fresh
        call.wants_events = request.is_stream and exchange.dialect is not OTHER
        return call

    # --- what came of it --------------------------------------------------------------------------

    def _deliver_at_once(
        self, exchange: Exchange, plan: Plan, deployment: Deployment, step: Try, result: Result
    ) -> bool:
        """Hand on a good answer for which nothing has to be waited; False, with ``result`` corrected, as ``_deliver``."""
        answer, booking = result.answer, result.booking
        assert answer is not None
        assert answer.body is not None
        assert booking is not None
        head = answer.head
        exchange.facts.http_status = head.status
        asked = _begin_delivery(exchange, plan, deployment, step)
        try:
            found = self.delivery.read_at_once(exchange, plan.route, head, answer.body, asked)
            if isinstance(found, Failed):
                return not_delivered(result, found)
            booking.close(OK, head.status)
            exchange.seal()
            self.delivery.send_whole(exchange, head, found)
        except BaseException:
            booking.close(Outcome.GATEWAY_FAULT, head.status)
            raise
        return True

    async def _deliver(self, exchange: Exchange, plan: Plan, deployment: Deployment, step: Try, result: Result) -> bool:
        """Hand a good answer on; False, with ``result`` corrected, when it was not good after all."""
        answer, booking = result.answer, result.booking
        assert answer is not None
        assert booking is not None
        status = answer.head.status
        asked = _begin_delivery(exchange, plan, deployment, step)

        def ended(outcome: Outcome) -> None:
            """Account for the attempt before the answer's last byte leaves."""
            booking.close(outcome, status)

        try:
            failed = await self.delivery.deliver(exchange, plan.route, plan.request, answer, asked, ended)
        except BaseException:
            booking.close(Outcome.GATEWAY_FAULT, status)
            raise
        return True if failed is None else not_delivered(result, failed)

    def _record(
        self, exchange: Exchange, walk: Walk, deployment: Deployment, result: Result
    ) -> TryNext | Commit | GiveUp:
        """Tell the walk how the attempt ended, and hear how to go on."""
        outcome = result.outcome
        now_s = self.clock.monotonic_s()
        rule = RULES[outcome]
        stream = exchange.stream
        if stream is not None and stream.refuses_prefill(deployment, result.http_status):
            return walk.ask_again()
        verdict = walk.record(
            outcome,
            now_s,
            http_status=result.http_status,
            retry_after_s=result.retry_after_s,
            may_spend_retry=not rule.is_attempt or self.fleet.may_retry(deployment.name, now_s),
            jitter=self.jitter(),
            code=result.code,
            is_begun=result.is_begun,
        )
        if result.is_final and isinstance(verdict, TryNext):
            return GiveUp(outcome, result.code or rule.code, None, 0, False, walk.attempts, result.retry_after_s)
        return verdict

    def _give_up(self, exchange: Exchange, plan: Plan, end: GiveUp, answers: dict[int, Answer]) -> Problem | None:
        """Tell the caller what the walk came to: the provider's own error, or a problem of ours."""
        facts = exchange.facts
        facts.outcome = end.outcome
        if exchange.stream is not None:
            self.delivery.live.end_broken(exchange, end.outcome, problem_of(end))
            return None
        if not isinstance(plan.body, bytes) and plan.body.refusal is not None:
            return plan.body.refusal
        index = end.target_index
        shown = answers.get(index) if index is not None else None
        if index is not None:
            facts.provider = plan.deployments[index].provider
        if end.pass_through and shown is not None and self.delivery.can_show(exchange, shown, facts.provider):
            facts.status = Status.RATE_LIMITED if end.outcome is Outcome.RATE_LIMITED else Status.ERROR
            facts.error_code = end.code.value
            facts.fault = Fault.PROVIDER
            self.delivery.pass_error(exchange, shown, facts.provider, plan.route.answers)
            return None
        refusal = problem_of(end)
        if facts.provider and refusal.fault is Fault.PROVIDER:
            refusal = refusal._replace(message=f"{facts.provider}: {refusal.message}")
        return refusal

    # --- ahead of an exchange ---------------------------------------------------------------------

    def spent_everywhere(self, routes: list[Route]) -> Problem | None:
        """Return a refusal when not one deployment of these routes has budget for one more request."""
        now_s = self.clock.monotonic_s()
        denial: Denied | None = None
        for route in routes:
            if route.plan.observe_only:
                return None
            for deployment in route.deployments:
                verdict = self.budgets.reserve(route.budgets, deployment.provider, 0, now_s, "preflight")
                if isinstance(verdict, Granted):
                    self.budgets.cancel(verdict.reservation, now_s)
                    return None
                if not isinstance(verdict, Denied) or verdict.when_exhausted == "wait" or route.knows_who:
                    return None
                denial = verdict
        if denial is None:
            return None
        code = Code.INSUFFICIENT_QUOTA if denial.is_quota else Code.RATE_LIMIT_EXCEEDED
        return problem(code, retry_after_s=denial.retry_after_s)


COLLECT_MAX_BYTES: Final = 1024 * 1024
"""Answers up to this size are gathered and written in one piece; larger ones pass as they come."""


def _begin_delivery(exchange: Exchange, plan: Plan, deployment: Deployment, step: Try) -> str | None:
    """Name the status of an answer that seems good; return the model's name to be put back into it, if any."""
    is_rescued = exchange.stream is not None and exchange.stream.record is not None
    exchange.facts.status = _RESCUED if is_rescued else _FALLBACK if step.target_index else _SUCCESS
    if step.target_index or deployment.model is None:
        return None
    asked = plan.request.model
    return asked if asked != deployment.model else None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
