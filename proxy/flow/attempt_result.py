"""What came of one attempt: its outcome with what it brought, and the sentences it comes to for chain and row.

Owns nothing that lasts. Knows no connection and no budget.
"""

from __future__ import annotations

from typing import Final

from proxy.core.routing.problems import Code
from proxy.core.routing.table import RULES
from proxy.core.routing.walk import GiveUp, Try, Walk
from proxy.flow.booking import Booking
from proxy.flow.budgets import Denied, TooLarge, Unpriced
from proxy.flow.catalog import Deployment
from proxy.flow.exchange import Exchange
from proxy.flow.live_answers import Failed
from proxy.flow.ports import Answer
from proxy.terms.http import AnswerHead
from proxy.terms.outcomes import Outcome

_bare: Final = object.__new__
_JSON_LINE: Final = b"\r\ncontent-type: application/json"


class Result:
    """One attempt's outcome with what it brought."""

    __slots__ = ("answer", "booking", "code", "is_begun", "is_final", "outcome", "retry_after_s")

    def __init__(
        self,
        outcome: Outcome,
        answer: Answer | None = None,
        booking: Booking | None = None,
        *,
        retry_after_s: float | None = None,
        code: Code | None = None,
        is_final: bool = False,
    ) -> None:
        self.outcome = outcome
        self.answer = answer
        self.booking = booking
        self.retry_after_s = retry_after_s
        self.code = code
        self.is_begun = False
        """The caller has had content of it; only a rescue can go on."""
        self.is_final = is_final
        """A budget says refuse: the chain is not walked on."""

    @property
    def http_status(self) -> int:
        return 0 if self.answer is None else self.answer.head.status


def judged(outcome: Outcome, answer: Answer | None, booking: Booking) -> Result:
    """Return the result of an attempt that brought an answer; the same as calling the class, filled in place."""
    result = _bare(Result)
    result.outcome = outcome
    result.answer = answer
    result.booking = booking
    result.retry_after_s = result.code = None
    result.is_begun = result.is_final = False
    return result


def not_delivered(result: Result, failed: Failed) -> bool:
    """Correct the result of an attempt whose answer was not good after all; always False."""
    result.outcome = failed.outcome
    result.is_begun = failed.is_begun
    result.answer = None
    if failed.error_body:
        result.answer = Answer(AnswerHead(400, b"Bad Request", _JSON_LINE), failed.error_body)
    return False


def denied(exchange: Exchange, deployment: Deployment, verdict: Denied | TooLarge | Unpriced) -> Result:
    """Note which budget said no; return what that comes to."""
    is_final = verdict.when_exhausted == "refuse"
    if isinstance(verdict, Unpriced):
        exchange.facts.notes.append(f"skipped:{deployment.provider}:unpriced")
        return Result(Outcome.BUDGET_DENIED, code=Code.UNKNOWN_PRICE, is_final=is_final)
    exchange.denied = verdict
    why = f":{verdict.why}" if isinstance(verdict, Denied) and verdict.why else ""
    exchange.facts.notes.append(f"skipped:{deployment.provider}:budget:{verdict.dimension.value}{why}")
    if isinstance(verdict, TooLarge):
        return Result(Outcome.BUDGET_DENIED, code=Code.BUDGET_REQUEST_TOO_LARGE, is_final=is_final)
    code = Code.INSUFFICIENT_QUOTA if verdict.is_quota else Code.RATE_LIMIT_EXCEEDED
    return Result(Outcome.BUDGET_DENIED, code=code, retry_after_s=verdict.retry_after_s, is_final=is_final)


def as_give_up(result: Result, step: Try, walk: Walk) -> GiveUp:
    """Return the end of a walk that could go on but for a body that has streamed away."""
    status = result.http_status
    rule = RULES[result.outcome]
    return GiveUp(
        result.outcome, rule.code, step.target_index, status, rule.passes_body and status >= 400, walk.attempts,
        result.retry_after_s,
    )  # fmt: skip
