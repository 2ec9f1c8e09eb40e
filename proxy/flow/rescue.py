"""What a caller has of a stream that more than one attempt contributes to.

Owns the state that outlives an attempt: what stands between any provider's events and this caller, what was said, and
what it has cost. Made only when an attempt leaves a begun stream behind. Knows no chain and no connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from proxy.core.dialect import Dialect, StreamWatch
from proxy.core.dialect.seam import Seam, StreamRecord, dumps_any, may_resume, with_prefill
from proxy.core.policy.model import Rescue
from proxy.core.routing.classify import classify_error_data
from proxy.core.routing.table import RULES
from proxy.flow.catalog import Deployment, Route
from proxy.flow.exchange import Exchange
from proxy.flow.intake import Request, with_model
from proxy.flow.stream_parts import Transform
from proxy.flow.streaming import StreamPipe
from proxy.terms.exchange import Usage
from proxy.terms.outcomes import Outcome

_REFUSES_PREFILL: Final = frozenset({400, 422})


@dataclass(slots=True)
class CallerStream:
    """A caller's stream whose head has gone out and whose end is still owed.

    ``record`` is None while the caller has had no content: whoever answers next begins it.
    """

    route: Route
    record: StreamRecord | None = None
    transforms: tuple[Transform, ...] = ()
    """The record, then what puts values and names back; their state goes on over the seam."""
    usage: Usage | None = None
    """Of the attempts that broke."""
    bytes_out: int = 0
    refused_prefill: set[str] = field(default_factory=set)
    """Deployments that would not go on from an assistant message."""
    prefill: str | None = None
    """What the attempt at hand put into the model's mouth."""

    def joined(self) -> tuple[Transform, ...]:
        """Return the codecs for the events of the next attempt."""
        if self.record is None:
            return self.transforms
        return (Seam(self.record, self.prefill, self.usage), *self.transforms)

    def body_of_rest(self, request: Request, deployment: Deployment) -> bytes:
        """Return the request for the rest: from what was said where the target can, else from the beginning."""
        record, document, model = self.record, request.document, deployment.model
        assert record is not None
        self.prefill = None
        # What one provider wrote is not shown to another where policy takes values out of it.
        may_show = self.route.answers is None or self.route.answers.is_observing
        if may_show and deployment.target.takes_prefill and deployment.name not in self.refused_prefill:
            self.prefill = record.prefill or None
        if self.prefill is not None:
            document = with_prefill(document, self.prefill, record.pieces)
            return dumps_any(document if model is None else {**document, "model": model})
        return request.body if model is None or model == request.model else with_model(request.body, document, model)

    def refuses_prefill(self, deployment: Deployment, http_status: int) -> bool:
        """Note a target that would not go on from an assistant message, though it was declared to."""
        if self.prefill is None or http_status not in _REFUSES_PREFILL:
            return False
        self.refused_prefill.add(deployment.name)
        return True

    def flush(self) -> bytes:
        """Return what is still held, for a stream that ends with an error."""
        return b"".join([transform.finish(broken=True) for transform in self.transforms])


def added(one: Usage | None, other: Usage | None) -> Usage | None:
    """Return the sum of what two attempts used; estimated as soon as one of them is."""
    if one is None or other is None:
        return one or other
    return Usage(
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        one.cached_tokens + other.cached_tokens,
        one.reasoning_tokens + other.reasoning_tokens,
        is_estimated=one.is_estimated or other.is_estimated,
    )


class Share:
    """One attempt's share of a caller's stream: how it is accounted for, and what is left when it breaks."""

    __slots__ = ("_begun", "_ended", "_exchange", "_record", "_request", "_route", "_watch", "pipe", "transforms")

    pipe: StreamPipe

    def __init__(
        self,
        exchange: Exchange,
        route: Route,
        request: Request,
        watch: StreamWatch | None,
        ended: Callable[[Outcome], None],
        transforms: tuple[Transform, ...],
    ) -> None:
        """Take part in ``exchange``; ``ended`` accounts for the attempt, once."""
        self._exchange = exchange
        self._route = route
        self._request = request
        self._watch = watch
        self._ended = ended
        begun = self._begun = exchange.stream
        record = begun.record if begun is not None else None
        if (
            record is None
            and route.plan.rescue is Rescue.RESUME
            and exchange.dialect is Dialect.CHAT
            and watch is not None
            and may_resume(request.document)
        ):
            record = StreamRecord()
            transforms = (record, *transforms)
        self._record = record
        self.transforms = transforms

    def set_up(self, pipe: StreamPipe) -> None:
        """Tell the pipe what the route's rescue asks of it."""
        self.pipe = pipe
        pipe.holds_all = self._route.plan.rescue is Rescue.HOLD and self._watch is not None
        pipe.believes_done = self._route.is_transparent
        pipe.mends = self._record is not None or (pipe.holds_all and self._exchange.dialect is Dialect.CHAT)

    def account(self, outcome: Outcome) -> None:
        """Settle this attempt with what it used itself, then put the sum into the facts."""
        facts, pipe, watch, begun = self._exchange.facts, self.pipe, self._watch, self._begun
        if pipe.first_content_s is not None and facts.first_token_ms is None:
            facts.first_token_ms = (pipe.first_content_s - self._exchange.arrived_s) * 1000.0
        facts.response_bytes = pipe.bytes_out
        if watch is not None:
            facts.usage = watch.usage or _estimated(self._request, watch)
        facts.outcome = outcome
        self._ended(outcome)
        if begun is not None:
            facts.response_bytes += begun.bytes_out
            facts.usage = added(begun.usage, facts.usage)

    def seal(self, outcome: Outcome) -> None:
        """Account for it and write the row: the stream ends with this attempt."""
        self.account(outcome)
        self._exchange.seal()

    def can_be_taken_up(self, outcome: Outcome) -> bool:
        """True when another attempt could go on: nothing of this one was sent, or plain text that can be continued."""
        if not self.pipe.bytes_out:
            return True
        record, watch = self._record, self._watch
        if record is None or watch is None or not record.is_plain:
            return False
        is_callers_own = watch.error and classify_error_data(watch.error_data) is Outcome.UPSTREAM_4XX
        return RULES[outcome].may_walk and not is_callers_own

    def leave_behind(self, outcome: Outcome) -> None:
        """Account for what broke and keep what the next attempt takes up."""
        self.account(outcome)
        facts, begun = self._exchange.facts, self._begun
        if begun is None:
            begun = self._exchange.stream = CallerStream(self._route)
        if begun.record is None and self.pipe.bytes_out:
            begun.record = self._record
            begun.transforms = self.transforms
        begun.usage, begun.bytes_out = facts.usage, facts.response_bytes
        facts.usage = None

    def refusal_in(self, failure: Outcome) -> bytes:
        """Return the provider's words about the caller's own error, when the stream began with them."""
        return self._watch.error_data if failure is Outcome.UPSTREAM_4XX and self._watch is not None else b""


def _estimated(request: Request, watch: StreamWatch) -> Usage:
    """Count what passed, for a stream whose provider reported no usage."""
    return Usage(-(-len(request.body) // 4), -(-watch.text_bytes_estimate // 4), is_estimated=True)
