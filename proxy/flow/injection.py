"""Rehearsal: makes one attempt fail in the way a policy allows, for everything behind it to act as in earnest.

Owns nothing. Health, budgets, retries and rows treat what comes of it like the real thing; the row's notes, a metric
and a log line say that it was injected. Never reached on routes without ``inject``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

import orjson

from proxy.core.policy.faults import HEADER, FaultKind, InjectedFault, InjectPlan, parse_fault
from proxy.flow.ports import Answer, AttemptFailed, BodySink, Call, LiveBody, Upstream
from proxy.terms.http import AnswerHead
from proxy.terms.outcomes import Outcome


def choose_fault(plan: InjectPlan, call: Call, index: int, dice: Callable[[], float]) -> InjectedFault | None:
    """Return the fault of this attempt, if any; what the caller asks for comes before the route's own.

    A header that cannot be read is answered as a 400 in the provider's place, so that it is not overlooked.
    """
    fault = plan.fault
    if plan.takes_header:
        wanted = call.kind.head.fields.get(HEADER)
        if wanted is not None:
            try:
                fault = parse_fault(wanted.decode("latin-1"))
            except ValueError:
                fault = InjectedFault(FaultKind.STATUS, 400.0, "all")
    provider = call.kind.provider.partition("/")[0]
    if fault is None or not fault.hits(provider, index) or (fault.share < 1.0 and dice() >= fault.share):
        return None
    return fault


async def send_with(fault: InjectedFault, upstream: Upstream, call: Call, now_s: Callable[[], float]) -> Answer:
    """Send one attempt that goes wrong. Raises AttemptFailed as ``Upstream.send`` does."""
    match fault.kind:
        case FaultKind.REFUSE:
            raise AttemptFailed(Outcome.CONNECT_ERROR)
        case FaultKind.STATUS:
            return _answer(int(fault.amount))
        case FaultKind.LATENCY:
            await _delay(fault.amount, call, now_s)
            return await upstream.send(call)
        case FaultKind.CUT | FaultKind.STALL:
            answer = await upstream.send(call)
            if answer.live is not None:
                answer.live = _BreakingBody(answer.live, fault, call.timeouts.idle_s)
                return answer
            if fault.kind is FaultKind.CUT:
                raise AttemptFailed(Outcome.TRUNCATED)
            await asyncio.sleep(max(0.0, min(call.timeouts.idle_s, call.deadline_s - now_s())))
            raise AttemptFailed(Outcome.STALLED)


async def _delay(seconds: float, call: Call, now_s: Callable[[], float]) -> None:
    left_s = max(0.0, call.deadline_s - now_s())
    limit_s = min(call.timeouts.first_byte_s, left_s)
    await asyncio.sleep(min(seconds, limit_s))
    if seconds >= limit_s:
        raise AttemptFailed(Outcome.TOTAL_TIMEOUT if limit_s == left_s else Outcome.TTFB_TIMEOUT)


def _answer(status: int) -> Answer:
    """Return what an OpenAI-shaped provider says with this status."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    text = f"Injected for rehearsal: status {status}."
    body = orjson.dumps({"error": {"message": text, "type": kind, "param": None, "code": "injected_fault"}})
    try:
        reason = HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        reason = b"Injected"
    lines = b"\r\ncontent-type: application/json\r\ncontent-length: %d" % len(body)
    if status == 429:
        lines += b"\r\nretry-after: 1"
    return Answer(AnswerHead(status, reason, lines), body)


class _BreakingBody:
    """A live body that breaks after so many bytes."""

    def __init__(self, live: LiveBody, fault: InjectedFault, idle_s: float) -> None:
        self._live = live
        self._fault = fault
        self._idle_s = idle_s
        self._left = int(fault.amount)
        self._sink: BodySink | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._is_over = False

    def attach(self, sink: BodySink) -> None:
        """Deliver what comes before the break."""
        self._sink = sink
        self._live.attach(self)

    def on_body(self, data: bytes) -> None:
        """Pass on, or break."""
        if self._is_over or self._sink is None:
            return
        passed = data[: self._left]
        self._left -= len(passed)
        if passed:
            self._sink.on_body(passed)
        if len(passed) < len(data) and not self._is_over:
            self._break()

    def on_end(self, outcome: Outcome) -> None:
        """The answer was shorter than the break: it breaks at its end."""
        if self._is_over or self._sink is None:
            return
        if outcome is not Outcome.OK:
            self._is_over = True
            self._sink.on_end(outcome)
        else:
            self._break()

    def _break(self) -> None:
        self._is_over = True
        self._live.abort()
        assert self._sink is not None
        if self._fault.kind is FaultKind.CUT:
            self._sink.on_end(Outcome.RESET)
        else:
            loop = asyncio.get_running_loop()
            self._silence = loop.call_later(self._idle_s, self._sink.on_end, Outcome.STALLED)

    def pause(self) -> None:
        """Stop reading from the provider."""
        self._live.pause()

    def resume(self) -> None:
        """Read on."""
        self._live.resume()

    def abort(self) -> None:
        """Close the connection now; ``on_end`` is not called after this."""
        self._is_over = True
        if self._silence is not None:
            self._silence.cancel()
        self._live.abort()

    def write(self, data: bytes) -> None:
        """Send raw bytes to the provider."""
        self._live.write(data)

    def throttle(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Let the provider's back-pressure reach whoever writes."""
        self._live.throttle(pause, resume)

    def close(self) -> None:
        """Close in order."""
        self._live.close()
