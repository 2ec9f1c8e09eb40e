"""Handing a provider's answer to the caller: whole, streamed, raw, or as a tunnel.

Owns the order that matters: restore, rename, account, write the row, and only then let the last byte go.
Knows no chain; when an answer turns out bad before its first byte left, it says so and nothing was sent.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import orjson

from proxy.core.dialect import CHAT, OTHER, Dialect, StreamWatch, read_usage_of
from proxy.core.policy.model import BrokenStream
from proxy.core.redaction import AnswerRedactor, AnswerRestorer
from proxy.core.routing.classify import is_document
from proxy.core.routing.problems import Code, Problem, problem, render_event
from proxy.core.routing.table import RULES
from proxy.core.routing.walk import problem_of_break
from proxy.flow import headers as header_lines
from proxy.flow.apart import is_read_apart, read_apart
from proxy.flow.catalog import Route
from proxy.flow.coding import Inflater, InflateTooLarge, is_inflatable
from proxy.flow.exchange import Exchange, error_dialect
from proxy.flow.intake import AT_ONCE_BYTES, OFFLOAD_ABOVE_BYTES, Request, rename_model
from proxy.flow.large_bodies import LargeBodies
from proxy.flow.metering import estimated_whole
from proxy.flow.outbox import Outbox
from proxy.flow.pacing import Turns
from proxy.flow.ports import Answer, LiveBody, Offload, Upstream
from proxy.flow.rescue import Share
from proxy.flow.stream_parts import Decoder, Decoders
from proxy.flow.streaming import StreamPipe
from proxy.flow.translating import TranslatedLive
from proxy.flow.treating import is_text, must_treat, redact_error, transforms_for, treat_at_once, treat_whole
from proxy.terms.http import AnswerHead
from proxy.terms.outcomes import OK, Fault, Outcome, Status

DRAINING: Final = "draining"
"""The message of the cancellation that a drain sends; any other cancellation means that the caller left."""


def is_draining(exc: asyncio.CancelledError) -> bool:
    """True for a drain's cancellation, False when the caller left."""
    return bool(exc.args) and exc.args[0] == DRAINING


_ACCOUNT_IDS = re.compile(rb"\b(org|proj|acct|user)[-_][A-Za-z0-9]{8,}")
_BARE_WORD = re.compile(r"[A-Za-z_][\w.-]{0,63}\Z|[0-9]{1,4}\Z", re.ASCII)
_BREAKS_OF_THE_WIRE: Final = frozenset({Outcome.RESET, Outcome.TRUNCATED})
_USAGE_MAX_BYTES: Final = 4 * 1024 * 1024
_INFLATE_HERE_BYTES: Final = 16 * 1024
"""More is inflated in the worker thread, which leaves the interpreter to others meanwhile."""

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
class Delivery:
    """Delivers answers; one per process."""

    upstream: Upstream
    outbox: Outbox
    now_s: Callable[[], float]
    demands_caller_key: bool
    is_fsync: bool
    max_body_bytes: int
    offload: Offload
    large: LargeBodies
    turns: Turns = field(init=False)

    def __post_init__(self) -> None:
        self.turns = Turns(self.now_s, self.offload)

    async def deliver(
        self, exchange: Exchange, route: Route, request: Request, answer: Answer, asked: str | None, ended: Ended
    ) -> Failed | None:
        """Hand ``answer`` on. ``asked`` is the model name to put back; ``ended`` accounts for the attempt, once."""
        exchange.facts.http_status = answer.head.status
        live = answer.live
        if live is None:
            return await self._whole(exchange, route, answer, asked, ended)
        if answer.head.status == 101:
            return await self._tunnel(exchange, answer.head, live, ended)
        if answer.head.is_event_stream:
            return await self._stream(exchange, route, request, answer.head, live, asked, ended)
        if must_treat(exchange, route) and is_text(answer.head):
            live.abort()
            return Failed(Outcome.TOO_LARGE)
        return await self._raw(exchange, answer.head, live, ended)

    # --- whole ------------------------------------------------------------------------------------

    def takes_at_once(self, answer: Answer | None) -> bool:
        """True for the common answer: here as a whole, small and in plain text, so that nothing has to be waited for."""
        if answer is None or self.is_fsync:
            return False
        body = answer.body
        return body is not None and len(body) <= AT_ONCE_BYTES and b"content-encoding" not in answer.head.telling

    def read_at_once(
        self, exchange: Exchange, route: Route, head: AnswerHead, body: bytes, asked: str | None
    ) -> bytes | Failed:
        """Return what the caller gets of an answer that ``takes_at_once``, or why it is no good; see ``deliver``."""
        if route.answers is not None or exchange.vault is not None:
            treated = treat_at_once(exchange, route.answers if is_text(head) else None, body)
            if treated is None:
                exchange.facts.usage = read_usage_of(body)
                return Failed(Outcome.ANSWER_BLOCKED)
            body = treated
        return self._read(exchange, route, head, body, asked, is_readable=True)

    async def _whole(
        self, exchange: Exchange, route: Route, answer: Answer, asked: str | None, ended: Ended
    ) -> Failed | None:
        """Hand an answer on that may have to be decoded, treated in a thread or synced first."""
        head, body = answer.head, answer.body
        assert body is not None
        is_decoded = False
        coding = head.telling.get(b"content-encoding")
        if coding is not None:
            decoded = await self._decoded(exchange, route, coding, body)
            if isinstance(decoded, Outcome):
                return Failed(decoded)
            body, is_decoded = decoded
        is_readable = coding is None or is_decoded
        if len(body) > OFFLOAD_ABOVE_BYTES and is_read_apart(exchange, route, body, asked):
            apart = await read_apart(self.large, exchange, route, head, body, asked, is_readable=is_readable)
            found = Failed(apart) if isinstance(apart, Outcome) else _kept(exchange, apart)
        else:
            if route.answers is not None or exchange.vault is not None:
                answers = route.answers if is_readable and is_text(head) else None
                treated = await treat_whole(exchange, answers, body, self.offload)
                if treated is None:
                    exchange.facts.usage = read_usage_of(body)
                    return Failed(Outcome.ANSWER_BLOCKED)
                body = treated
            found = self._read(exchange, route, head, body, asked, is_readable=is_readable)
        if isinstance(found, Failed):
            return found
        ended(OK)
        exchange.seal()
        if self.is_fsync:
            await self.outbox.durable()
        self.send_whole(exchange, head, found, is_decoded=is_decoded)
        return None

    @staticmethod
    def _read(
        exchange: Exchange, route: Route, head: AnswerHead, body: bytes, asked: str | None, *, is_readable: bool
    ) -> bytes | Failed:
        """Put the model's name back and take the usage out of an answer that is as the caller gets it."""
        if asked is not None:
            body = rename_model(body, asked)
        if exchange.dialect is not OTHER:
            facts = exchange.facts
            if len(body) <= _USAGE_MAX_BYTES:
                facts.usage = read_usage_of(body)
            if facts.usage is None:
                if _is_cut(exchange.dialect, head, body, is_readable=is_readable):
                    return Failed(Outcome.TRUNCATED)
                facts.usage = estimated_whole(exchange, body) if route.budgets else None
        return _kept(exchange, body)

    def send_whole(self, exchange: Exchange, head: AnswerHead, body: bytes, *, is_decoded: bool = False) -> None:
        """Write an answer whose attempt is accounted for and whose row is written."""
        block = self.upstream.mask(exchange.facts.provider, exchange.header_block(head, is_decoded=is_decoded))
        if exchange.inbound.head.method == "HEAD":
            exchange.responder.send_head(head.status, head.reason, block + _length_line(head))
        else:
            exchange.responder.send_whole(head.status, head.reason, block, body)

    async def _decoded(
        self, exchange: Exchange, route: Route, coding: bytes, body: bytes
    ) -> tuple[bytes, bool] | Outcome:
        """Return a coded body as it can be read, and whether it can; or why it is no good."""
        if exchange.dialect is OTHER or not is_inflatable(coding):
            return Outcome.BAD_RESPONSE if must_treat(exchange, route) else (body, False)
        work = partial(self._inflated, coding, body)
        found: bytes | Outcome = work() if len(body) <= _INFLATE_HERE_BYTES else await self.offload(work)
        return found if isinstance(found, Outcome) else (found, True)

    def _inflated(self, coding: bytes, body: bytes) -> bytes | Outcome:
        try:
            return Inflater(coding, self.max_body_bytes).feed(body)
        except InflateTooLarge:
            return Outcome.TOO_LARGE
        except zlib.error:
            return Outcome.BAD_RESPONSE

    def _must_read(self, exchange: Exchange, provider: str) -> bool:
        """True when something has to be put back into an error, or our key taken out of it."""
        return self.upstream.uses_own_key(provider) or (exchange.vault is not None and not exchange.vault.is_empty)

    def can_show(self, exchange: Exchange, answer: Answer, provider: str) -> bool:
        """True when a provider's error may go to the caller: it need not be read, or can be."""
        if answer.body is None:
            return False
        coding = answer.head.telling.get(b"content-encoding")
        if coding is None or not self._must_read(exchange, provider):
            return True
        try:
            Inflater(coding, self.max_body_bytes).feed(answer.body)
        except (zlib.error, InflateTooLarge):
            return False
        return is_inflatable(coding)

    def pass_error(
        self, exchange: Exchange, answer: Answer, provider: str, answers: AnswerRedactor | None = None
    ) -> None:
        """Pass a provider's own error with its status; our keys and account ids do not go with it."""
        head, body = answer.head, answer.body or b""
        facts = exchange.facts
        is_own = self.upstream.uses_own_key(provider)
        is_decoded = False
        coding = head.telling.get(b"content-encoding")
        if coding is not None and self._must_read(exchange, provider):
            body = Inflater(coding, self.max_body_bytes).feed(body)
            is_decoded = True
        if answers is not None and is_text(head) and (coding is None or is_decoded):
            body = redact_error(exchange, answers, body)
        told = _ACCOUNT_IDS.sub(rb"\1-***", self.upstream.mask(provider, body)) if is_own else body
        facts.error_code, facts.error_message = _error_words(told, facts.error_code)
        if exchange.vault is not None and not exchange.vault.is_empty:
            body = AnswerRestorer(exchange.vault, exchange.dialect).whole(body)
        if is_own:
            body = _ACCOUNT_IDS.sub(rb"\1-***", self.upstream.mask(provider, body))
        facts.http_status = head.status
        facts.response_bytes = len(body)
        exchange.seal()
        block = exchange.header_block(head, is_decoded=is_decoded)
        block = self.upstream.mask(provider, block) + b"x-readygate-fault: provider\r\n"
        exchange.responder.send_whole(head.status, head.reason, block, body)

    # --- streams ----------------------------------------------------------------------------------

    async def _stream(
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
        block = self.upstream.mask(exchange.facts.provider, exchange.header_block(head, is_decoded=is_decoded))
        responder.start(head.status, head.reason, block, None)
        pipe.open(responder, keeps_prelude=exchange.may_go_on)
        return None

    def _mask_events(self, provider: str, data: bytes) -> bytes:
        """Take our key and account ids out of events that carry a provider's error."""
        if not self.upstream.uses_own_key(provider):
            return data
        return _ACCOUNT_IDS.sub(rb"\1-***", self.upstream.mask(provider, data))

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

    async def _raw(self, exchange: Exchange, head: AnswerHead, live: LiveBody, ended: Ended) -> Failed | None:
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

    async def _tunnel(self, exchange: Exchange, head: AnswerHead, live: LiveBody, ended: Ended) -> Failed | None:
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


def _kept(exchange: Exchange, body: bytes) -> bytes:
    """Note what goes to the caller, and keep it where policy keeps content; vectors are none."""
    exchange.facts.response_bytes = len(body)
    if exchange.content is not None and exchange.dialect is not Dialect.EMBEDDINGS:
        exchange.content.take_answer(body)
    return body


def _length_line(head: AnswerHead) -> bytes:
    """Return the provider's own length, which an answer to HEAD keeps."""
    return b"" if head.length is None else b"content-length: %b\r\n" % head.length


def _is_cut(dialect: Dialect, head: AnswerHead, body: bytes, *, is_readable: bool) -> bool:
    """Tell whether a chat answer is no JSON document; asked where its usage, which comes last, was not found."""
    if not is_readable or dialect is not CHAT or head.status >= 300 or len(body) > _USAGE_MAX_BYTES:
        return False
    return not is_document(body)


def _error_words(body: bytes, fallback: str) -> tuple[str, str]:
    """Return the code of a provider's error and a message that cannot hold prompt text: its type.

    Both are kept only as the bare words they are meant to be: some servers write sentences there.
    """
    try:
        document = orjson.loads(body)
        error = document["error"]
        code, kind = error.get("code"), error.get("type")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return fallback, ""
    words = [str(word) if _BARE_WORD.match(str(word)) else "" for word in (code, kind) if word]
    return next(filter(None, words), fallback), str(kind) if kind and _BARE_WORD.match(str(kind)) else ""


def _responses_error(code: str, message: str, request_id: str) -> bytes:
    """Return the data of a Responses API error event that both of its readers understand."""
    error = {"message": message, "type": "server_error", "param": None, "code": code, "request_id": request_id}
    return (
        b"data: "
        + orjson.dumps({"type": "error", "code": code, "message": message, "param": None, "error": error})
        + b"\n\n"
    )
