"""An answer that is still arriving on its way to the caller: streamed, raw, or as a tunnel.

Owns the order that matters for what cannot be taken back: nothing leaves before it is worth starting, the row is written
before the last byte, and what broke cannot be taken for complete. Knows no chain.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import orjson

from proxy.core.dialect import OTHER, Dialect, StreamWatch
from proxy.core.policy.model import BrokenStream
from proxy.core.routing.problems import Code, Problem, problem, render_event
from proxy.core.routing.table import RULES
from proxy.core.routing.walk import problem_of_break
from proxy.flow import headers as header_lines
from proxy.flow.catalog import Route
from proxy.flow.coding import Inflater, is_inflatable
from proxy.flow.exchange import Exchange, error_dialect
from proxy.flow.intake import Request
from proxy.flow.outbox import Outbox
from proxy.flow.pacing import Turns
from proxy.flow.ports import LiveBody, Offload, Upstream
from proxy.flow.rescue import Share
from proxy.flow.stream_parts import Decoder, Decoders
from proxy.flow.streaming import StreamPipe
from proxy.flow.translating import TranslatedLive
from proxy.flow.treating import transforms_for
from proxy.terms.http import AnswerHead
from proxy.terms.outcomes import OK, Fault, Outcome, Status

DRAINING: Final = "draining"
"""The message of the cancellation that a drain sends; any other cancellation means that the caller left."""


def is_draining(exc: asyncio.CancelledError) -> bool:
    """True for a drain's cancellation, False when the caller left."""
    return bool(exc.args) and exc.args[0] == DRAINING


_ACCOUNT_IDS: Final = re.compile(rb"\b(org|proj|acct|user)[-_][A-Za-z0-9]{8,}")
_BREAKS_OF_THE_WIRE: Final = frozenset({Outcome.RESET, Outcome.TRUNCATED})

Ended = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer was no good, and the caller has seen nothing of it that another cannot take up."""

    outcome: Outcome
    is_begun: bool = False
    """The caller has had content; what follows has to go on behind it."""
    error_body: bytes = b""
    """The provider's words, when a stream began with the caller's own error."""


@dataclass(slots=True)
class LiveDelivery:
    """Delivers answers that are still arriving; one per process."""

    upstream: Upstream
    outbox: Outbox
    now_s: Callable[[], float]
    is_fsync: bool
    offload: Offload
    turns: Turns = field(init=False)

    def __post_init__(self) -> None:
        self.turns = Turns(self.now_s, self.offload)

    async def stream(
        self,
        exchange: Exchange,
        route: Route,
        request: Request,
        head: AnswerHead,
        live: LiveBody,
        asked: str | None,
        ended: Ended,
    ) -> Failed | None:
        begun, dialect = exchange.stream, exchange.dialect
        watch = StreamWatch(dialect, expected_choices=request.choices) if dialect is not OTHER else None
        is_seam = begun is not None and begun.record is not None
        transforms = begun.joined() if begun is not None and is_seam else transforms_for(exchange, route, asked)
        coding = head.telling.get(b"content-encoding")
        inflater = Inflater(coding) if coding is not None and watch is not None and is_inflatable(coding) else None
        if coding is not None and inflater is None:
            if transforms or begun is not None:
                live.abort()
                return Failed(Outcome.BAD_RESPONSE)
            watch = None
        if exchange.content is not None and watch is not None and not is_seam:
            transforms = exchange.content.beside(transforms, route.answers, dialect)
        if exchange.follows is not None and not is_seam:
            transforms = (exchange.follows, *transforms)
        share = Share(exchange, route, request, watch, ended, transforms)
        pipe = StreamPipe(
            live,
            watch,
            share.transforms,
            share.seal,
            decoder=_decoder_of(live, inflater),
            mask=partial(self._mask_events, exchange.facts.provider),
            seals_on_finish=dialect in (Dialect.RESPONSES, Dialect.MESSAGES),
        )
        pipe.take_turns(self.turns)
        pipe.is_buffered = route.answers is not None and route.answers.is_buffered
        share.set_up(pipe)
        try:
            failure = await self._begin(exchange, head, live, pipe, is_decoded=inflater is not None)
            if failure is not None:
                return Failed(failure, error_body=share.refusal_in(failure))
            outcome = await pipe.ended()
        except asyncio.CancelledError as exc:
            live.abort()
            if is_draining(exc) and not exchange.responder.has_started:
                share.account(Outcome.SHUTTING_DOWN)
                raise
            self._cut_short(exchange, route, pipe, share.seal, exc)
            return None
        if outcome is OK:
            exchange.responder.finish()
            return None
        if share.can_be_taken_up(outcome):
            share.leave_behind(outcome)
            return Failed(outcome, is_begun=pipe.bytes_out > 0)
        self._broken(exchange, route, pipe, share.seal, outcome)
        return None

    async def _begin(
        self, exchange: Exchange, head: AnswerHead, live: LiveBody, pipe: StreamPipe, *, is_decoded: bool
    ) -> Outcome | None:
        """Let the answer through once it is worth starting; return why it was not."""
        responder, begun = exchange.responder, exchange.stream
        if exchange.first_token_by_s is not None:
            pipe.limit_first_token(exchange.first_token_by_s - self.now_s())
        if begun is not None:
            responder.bind(pipe)
            pipe.open(responder, keeps_prelude=True)
            live.attach(pipe)
            return None
        live.attach(pipe)
        failure = await pipe.committed()
        if failure is not None:
            live.abort()
            return failure
        if self.is_fsync:
            await self.outbox.durable(exchange.facts.id)
        responder.bind(pipe)
        block = self.upstream.mask(exchange.facts.provider, exchange.header_block(head, is_decoded))
        responder.start(head.status, head.reason, block, None)
        pipe.open(responder, keeps_prelude=exchange.may_go_on)
        return None

    def _mask_events(self, provider: str, data: bytes) -> bytes:
        """Take our key and account ids out of events that carry a provider's error."""
        return without_account(self.upstream, provider, data) if self.upstream.uses_own_key(provider) else data

    def _cut_short(
        self, exchange: Exchange, route: Route, pipe: StreamPipe, terminal: Ended, exc: asyncio.CancelledError
    ) -> None:
        """The caller left, or the drain ran out of time in mid-stream."""
        if is_draining(exc):
            self._broken(exchange, route, pipe, terminal, Outcome.SHUTTING_DOWN)
            return
        exchange.cancelled()
        terminal(Outcome.CLIENT_CANCELLED)

    def _broken(self, exchange: Exchange, route: Route, pipe: StreamPipe, terminal: Ended, outcome: Outcome) -> None:
        """End a stream that the caller has seen the beginning of, so that it cannot be taken for complete."""
        trouble = problem_of_break(outcome)
        self._note_break(exchange, trouble)
        terminal(outcome)
        if pipe.has_told_error:
            exchange.responder.write(pipe.flush_broken())
            exchange.responder.abort()
        else:
            self._end_in_band(exchange, route, trouble, outcome, pipe.flush_broken())

    def end_broken(self, exchange: Exchange, outcome: Outcome, trouble: Problem) -> None:
        """End a stream that no attempt could complete."""
        stream = exchange.stream
        assert stream is not None
        self._note_break(exchange, trouble)
        facts = exchange.facts
        facts.outcome, facts.usage = outcome, stream.usage
        exchange.seal()
        self._end_in_band(exchange, stream.route, trouble, outcome, stream.flush())

    @staticmethod
    def _note_break(exchange: Exchange, trouble: Problem) -> None:
        facts = exchange.facts
        is_blocked = trouble.code == Code.CONTENT_POLICY_VIOLATION
        facts.status = Status.BLOCKED if is_blocked else Status.ERROR
        facts.error_code, facts.error_message, facts.fault = trouble.code, trouble.message, trouble.fault

    def _end_in_band(self, exchange: Exchange, route: Route, trouble: Problem, outcome: Outcome, held: bytes) -> None:
        """Say what happened where the caller's client will read it, and cut; or only cut."""
        responder = exchange.responder
        if not self._mirrors_cuts(route, outcome):
            event = render_event(trouble, exchange.facts.id, error_dialect(exchange.dialect))
            if exchange.dialect is Dialect.RESPONSES:
                event = b"event: error\n" + _responses_error(trouble.code, trouble.message, exchange.facts.id)
            responder.write(held + event)
        responder.abort()

    @staticmethod
    def _mirrors_cuts(route: Route, outcome: Outcome) -> bool:
        """True when a break of the provider's connection is passed on as a break of the caller's."""
        mode = route.plan.broken_stream
        if mode is BrokenStream.AUTO:
            return route.is_transparent and outcome in _BREAKS_OF_THE_WIRE
        return mode is BrokenStream.CUT

    # --- everything else that is still arriving -----------------------------------------------------

    async def raw(self, exchange: Exchange, head: AnswerHead, live: LiveBody, ended: Ended) -> Failed | None:
        """Pass a large or opaque body as it comes."""
        facts = exchange.facts
        length = int(head.length) if head.length is not None else None

        def terminal(outcome: Outcome) -> None:
            facts.response_bytes = pipe.bytes_out
            facts.outcome = outcome
            ended(outcome)
            exchange.seal()

        pipe = StreamPipe(live, None, (), terminal, seal_at_bytes=length)
        try:
            if self.is_fsync:
                await self.outbox.durable(exchange.facts.id)
            exchange.responder.bind(live)
            block = self.upstream.mask(facts.provider, exchange.header_block(head))
            exchange.responder.start(head.status, head.reason, block, length)
            pipe.open(exchange.responder)
            live.attach(pipe)
            outcome = await pipe.ended()
        except asyncio.CancelledError:
            live.abort()
            exchange.cancelled()
            terminal(Outcome.CLIENT_CANCELLED)
            return None
        if outcome is OK:
            exchange.responder.finish()
            return None
        facts.status, facts.fault = Status.ERROR, Fault.PROVIDER
        facts.error_code = RULES[outcome].code.value
        terminal(outcome)
        exchange.responder.abort()
        return None

    async def tunnel(self, exchange: Exchange, head: AnswerHead, live: LiveBody, ended: Ended) -> Failed | None:
        """Join the two sockets after a websocket handshake; bytes are passed, not read."""
        lines = header_lines.to_caller(head) + b"connection: Upgrade\r\nupgrade: websocket\r\n"
        lines += header_lines.our_lines(exchange.facts, exchange.elapsed_ms(), head.has_request_id)
        status_line = b"HTTP/1.1 101 " + (head.reason or b"Switching Protocols") + b"\r\n"
        responder = exchange.responder
        sink = _TunnelSink(responder.tunnel_write)
        responder.tunnel(status_line + lines + b"\r\n", live)
        responder.bind(live)
        outcome = OK
        try:
            live.attach(sink)
            await sink.ended
        except asyncio.CancelledError as exc:
            # Either side may close a websocket at any time, and both are its proper end; a drain's deadline is not.
            if is_draining(exc):
                outcome = Outcome.SHUTTING_DOWN
                exchange.note_refusal(problem(RULES[outcome].code))
        exchange.facts.outcome = outcome
        exchange.facts.response_bytes = sink.bytes_out
        ended(outcome)
        exchange.seal()
        live.close()
        responder.abort()
        return None


def without_account(upstream: Upstream, provider: str, data: bytes) -> bytes:
    """Return a provider's words without our key and the ids of the account behind it."""
    return _ACCOUNT_IDS.sub(rb"\1-***", upstream.mask(provider, data))


class _TunnelSink:
    """Passes a provider's raw bytes to the caller."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self.bytes_out = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_body(self, data: bytes) -> None:
        self.bytes_out += len(data)
        self._write(data)

    def on_end(self, outcome: Outcome) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


def _decoder_of(live: LiveBody, inflater: Inflater | None) -> Decoder | None:
    """Return what makes events of the caller's dialect of a provider's bytes; None where they are."""
    if type(live) is not TranslatedLive:
        return inflater
    return live.codec if inflater is None else Decoders(inflater, live.codec)


def _responses_error(code: str, message: str, request_id: str) -> bytes:
    """Return the data of a Responses API error event that both of its readers understand."""
    error = {"message": message, "type": "server_error", "param": None, "code": code, "request_id": request_id}
    return (
        b"data: "
        + orjson.dumps({"type": "error", "code": code, "message": message, "param": None, "error": error})
        + b"\n\n"
    )
