"""One exchange while it lasts: its facts, its answer's headers, its one end.

Owns the ``ExchangeFacts`` and the promise that exactly one row is written, before the caller can take the
answer for complete. Everything here is synchronous, so a cancelled exchange still ends in order. Knows no
chain and no provider connection.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

from proxy.core.dialect import OTHER, Dialect, dialect_of
from proxy.core.redaction import Vault
from proxy.core.routing.problems import Dialect as ErrorDialect
from proxy.core.routing.problems import Problem, render
from proxy.flow import headers as header_lines
from proxy.flow.budgets import Denied, Granted, TooLarge
from proxy.flow.outbox import Outbox
from proxy.flow.ports import BodySource, Clock, Inbound, Responder, Witness
from proxy.terms.exchange import AttemptFacts, attempt_of, facts_of
from proxy.terms.http import EVENT_STREAM, AnswerHead
from proxy.terms.outcomes import Fault, Outcome, Status

if TYPE_CHECKING:
    from proxy.flow.content import ContentDraft
    from proxy.flow.kept_values import Follower
    from proxy.flow.rescue import CallerStream

_JSON: Final = b"content-type: application/json\r\n"
_STREAM_HINTS: Final = (
    (b"cache-control", b"cache-control: no-cache\r\n"),
    (b"x-accel-buffering", b"x-accel-buffering: no\r\n"),
)
_REASONS: Final = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}


def error_dialect(dialect: Dialect) -> ErrorDialect:
    """Return the error shape of a request's dialect."""
    return ErrorDialect.ANTHROPIC if dialect is Dialect.MESSAGES else ErrorDialect.OPENAI


class Tally(Protocol):
    """What an answer's findings came to."""

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return type -> distinct values seen, and the same for those replaced."""


class Exchange:
    """The state of one exchange, from its head to its row."""

    __slots__ = (
        "_has_row",
        "_is_sealed",
        "_now_s",
        "_outbox",
        "_witness",
        "arrived_s",
        "content",
        "context_over",
        "denied",
        "dialect",
        "facts",
        "first_token_by_s",
        "follows",
        "granted",
        "hides_usage",
        "inbound",
        "is_begun",
        "is_own_key",
        "marks",
        "may_go_on",
        "named",
        "observes",
        "responder",
        "shaped",
        "stream",
        "vault",
    )

    def __init__(self, inbound: Inbound, responder: Responder, clock: Clock, outbox: Outbox, witness: Witness) -> None:
        head = inbound.head
        self.inbound = inbound
        self.responder = responder
        self.arrived_s = inbound.arrived_s
        # Only a POST makes a model speak; lists, look-ups and preflights of the same paths are just passed.
        self.dialect = dialect_of(head.path) if head.method == "POST" else OTHER
        self.vault: Vault | None = None
        self.content: ContentDraft | None = None
        """The words of this exchange, where policy has them kept."""
        self.follows: Follower | None = None
        """Keeps the values of this turn for the next one, once the answer has said its name."""
        self.marks: Tally | None = None
        """What was found in the answer, where policy looks."""
        self.stream: CallerStream | None = None
        """What the caller has of a stream that an earlier attempt began and left."""
        self.shaped: bytes | BodySource | None = None
        """The body for the target at hand, where that asks for more than another model name."""
        self.context_over: int | None = None
        """A target with a context of so many tokens found the request too long."""
        self.may_go_on = False
        """Another target may still be tried after the attempt at hand."""
        self.first_token_by_s: float | None = None
        """When the attempt at hand must have brought content; monotonic."""
        self.hides_usage = False
        self.observes = False
        """``mode: observe``: what the provider says of its own limits stays as it is."""
        """The usage at the end of the stream was asked for by us; the caller does not get it."""
        self.is_own_key = False
        """The last attempt used a key of ours: headers that name its account stay here."""
        self.denied: Denied | TooLarge | None = None
        """The last budget that said no."""
        self.named: bytes | None = None
        """The answer's lines that name policy, provider and model."""
        self.granted: Granted | None = None
        """What the budgets said to the last attempt, where one of ours limits requests or tokens."""
        exchange_id, ts_ms = clock.stamp()
        self.facts = facts_of(exchange_id, ts_ms, head.method, head.path[:2048])
        if type(inbound.body) is bytes:
            self.facts.request_bytes = len(inbound.body)
        self._now_s = clock.monotonic_s
        self._outbox = outbox
        self._witness = witness
        self.is_begun = False
        """The outbox holds this exchange's BEGIN."""
        self._has_row = True
        self._is_sealed = False

    def elapsed_ms(self) -> float:
        """Milliseconds since the head was complete."""
        now_s = self._now_s
        return (now_s() - self.arrived_s) * 1000.0

    def forgo_row(self) -> None:
        """The outbox refused and has counted the exchange: a row after all would make that count wrong."""
        self._has_row = False

    @property
    def is_sealed(self) -> bool:
        """True once the row has been written."""
        return self._is_sealed

    # --- answers of our own -------------------------------------------------------------------------

    def refuse(self, refusal: Problem) -> None:
        """Answer with a refusal; before any byte was sent as a whole answer, after it not at all."""
        facts = self.facts
        self.note_refusal(refusal)
        facts.http_status = refusal.status
        self.seal()
        body = render(refusal, facts.id, error_dialect(self.dialect))
        lines = _JSON + header_lines.our_lines(facts, self.elapsed_ms(), False) + header_lines.refusal_lines(refusal)
        if refusal.status == 429 and isinstance(self.denied, Denied):
            lines += header_lines.denial_lines(self.denied)
        self.responder.send_whole(refusal.status, _REASONS.get(refusal.status, b"Error"), lines, body)

    def note_refusal(self, refusal: Problem) -> None:
        """Put a refusal into the facts."""
        facts = self.facts
        facts.error_code = refusal.code
        facts.error_message = refusal.message
        facts.fault = refusal.fault
        if refusal.fault is Fault.POLICY:
            facts.status = Status.RATE_LIMITED if refusal.status == 429 else Status.BLOCKED
        else:
            facts.status = Status.RATE_LIMITED if refusal.status == 429 else Status.ERROR

    def answer_json(self, body: bytes) -> None:
        """Answer 200 with a document of our own."""
        self.facts.http_status = 200
        self.facts.response_bytes = len(body)
        self.seal()
        self.responder.send_whole(
            200, b"OK", _JSON + header_lines.our_lines(self.facts, self.elapsed_ms(), False), body
        )

    # --- answers of a provider ----------------------------------------------------------------------

    def header_block(self, head: AnswerHead, is_decoded: bool = False) -> bytes:
        """Return the header lines of an answer passed on: the provider's, then ours."""
        granted = self.granted
        is_governed = granted is not None and not self.observes
        lines = header_lines.to_caller(head, is_decoded, is_governed, self.is_own_key)
        if head.content_type == EVENT_STREAM:
            lines += b"".join([line for name, line in _STREAM_HINTS if name not in head.fields])
        facts = self.facts
        now_ms = facts.latency_ms if self._is_sealed else self.elapsed_ms()
        lines += header_lines.our_lines(facts, now_ms, head.has_request_id, self.named)
        return lines + header_lines.budget_lines(granted) if is_governed and granted is not None else lines

    def begin_attempt(self, provider: str, model: str, now_s: float) -> AttemptFacts:
        """Note that an attempt begins."""
        attempt = attempt_of(provider, model, (now_s - self.arrived_s) * 1000.0)
        self.facts.attempts.append(attempt)
        self.facts.provider = provider
        self.facts.model_served = model
        return attempt

    def head_came(self, attempt: AttemptFacts) -> None:
        """Note that an attempt's answer has begun (or is whole)."""
        attempt.ended_ms = now_ms = self.elapsed_ms()
        self.facts.upstream_ms += now_ms - attempt.started_ms

    def end_attempt(self, attempt: AttemptFacts, outcome: Outcome, http_status: int) -> float:
        """Note how an attempt ended; return its milliseconds. Streaming counts as the provider's time."""
        attempt.outcome = outcome
        attempt.http_status = http_status
        is_live = not attempt.ended_ms or self.responder.has_started
        if is_live:
            now_ms = self.elapsed_ms()
            self.facts.upstream_ms += now_ms - (attempt.ended_ms or attempt.started_ms)
            attempt.ended_ms = now_ms
        return attempt.ended_ms - attempt.started_ms

    # --- the end --------------------------------------------------------------------------------------

    def seal(self) -> None:
        """Write the row; the first call counts, and it comes before the answer's last byte."""
        if self._is_sealed:
            return
        self._is_sealed = True
        facts = self.facts
        facts.latency_ms = self.elapsed_ms()
        if self.marks is not None:
            facts.response_findings, facts.response_sanitized = self.marks.counts()
        granted = self.granted
        if granted is not None:
            facts.budget = {
                "remaining_requests": granted.remaining_requests,
                "remaining_tokens": granted.remaining_tokens,
            }
        if self.content is not None and self._has_row:
            self.content.seal(facts)
        if self.is_begun:
            self._outbox.end(facts)
        elif self._has_row:
            self._outbox.single(facts)
        self._witness.exchange_ended(facts)

    def cancelled(self) -> None:
        """The caller left (or a drain ran out of time)."""
        facts = self.facts
        if not self._is_sealed:
            facts.status = Status.CANCELLED
            facts.outcome = Outcome.CLIENT_CANCELLED
            facts.error_code = "client_cancelled"
            if self.stream is not None and facts.usage is None:
                facts.usage = self.stream.usage

    def close(self) -> None:
        """End whatever way it ended; the vault is emptied."""
        self.seal()
        if self.vault is not None:
            self.vault.close()
            self.vault = None
