"""Handing a provider's answer to the caller: whole here, and by ``live_answers`` while it is still arriving.

Owns the order that matters: restore, rename, account, write the row, and only then let the last byte go.
Knows no chain; when an answer turns out bad before its first byte left, it says so and nothing was sent.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import orjson

from proxy.core.dialect import CHAT, EMBEDDINGS, OTHER, Dialect, read_usage_of
from proxy.core.redaction import AnswerRedactor, AnswerRestorer
from proxy.core.routing.classify import is_document
from proxy.flow.apart import is_read_apart, read_apart
from proxy.flow.catalog import Route
from proxy.flow.coding import Inflater, InflateTooLarge, is_inflatable
from proxy.flow.exchange import Exchange
from proxy.flow.intake import AT_ONCE_BYTES, OFFLOAD_ABOVE_BYTES, Request, rename_model
from proxy.flow.large_bodies import LargeBodies
from proxy.flow.live_answers import Ended, Failed, LiveDelivery, without_account
from proxy.flow.metering import estimated_whole
from proxy.flow.outbox import Outbox
from proxy.flow.ports import Answer, Offload, Upstream
from proxy.flow.treating import is_text, must_treat, redact_error, treat_at_once, treat_whole
from proxy.terms.http import AnswerHead
from proxy.terms.outcomes import OK, Outcome

_BARE_WORD = re.compile(r"[A-Za-z_][\w.-]{0,63}\Z|[0-9]{1,4}\Z", re.ASCII)
_USAGE_MAX_BYTES: Final = 4 * 1024 * 1024
_INFLATE_HERE_BYTES: Final = 16 * 1024
"""More is inflated in the worker thread, which leaves the interpreter to others meanwhile."""


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
    live: LiveDelivery = field(init=False)

    def __post_init__(self) -> None:
        self.live = LiveDelivery(self.upstream, self.outbox, self.now_s, self.is_fsync, self.offload)

    async def deliver(
        self, exchange: Exchange, route: Route, request: Request, answer: Answer, asked: str | None, ended: Ended
    ) -> Failed | None:
        """Hand ``answer`` on. ``asked`` is the model name to put back; ``ended`` accounts for the attempt, once."""
        exchange.facts.http_status = answer.head.status
        live = answer.live
        if live is None:
            return await self._whole(exchange, route, answer, asked, ended)
        if answer.head.status == 101:
            return await self.live.tunnel(exchange, answer.head, live, ended)
        if answer.head.is_event_stream:
            return await self.live.stream(exchange, route, request, answer.head, live, asked, ended)
        if must_treat(exchange, route) and is_text(answer.head):
            live.abort()
            return Failed(Outcome.TOO_LARGE)
        return await self.live.raw(exchange, answer.head, live, ended)

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
        answers = route.answers
        if answers is not None or exchange.vault is not None:
            if answers is not None and not is_text(head):
                answers = None
            treated = treat_at_once(exchange, answers, body)
            if treated is None:
                exchange.facts.usage = read_usage_of(body)
                return Failed(Outcome.ANSWER_BLOCKED)
            body = treated
        return _read(exchange, route, head, body, asked, True)

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
            found = _read(exchange, route, head, body, asked, is_readable)
        if isinstance(found, Failed):
            return found
        if exchange.follows is not None:
            await exchange.follows.settled()
        ended(OK)
        exchange.seal()
        if self.is_fsync:
            await self.outbox.durable()
        self.send_whole(exchange, head, found, is_decoded=is_decoded)
        return None

    def send_whole(self, exchange: Exchange, head: AnswerHead, body: bytes, *, is_decoded: bool = False) -> None:
        """Write an answer whose attempt is accounted for and whose row is written."""
        block = self.upstream.mask(exchange.facts.provider, exchange.header_block(head, is_decoded))
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
        told = without_account(self.upstream, provider, body) if is_own else body
        facts.error_code, facts.error_message = _error_words(told, facts.error_code)
        if exchange.vault is not None and not exchange.vault.is_empty:
            body = AnswerRestorer(exchange.vault, exchange.dialect).whole(body)
        if is_own:
            body = without_account(self.upstream, provider, body)
        facts.http_status = head.status
        facts.response_bytes = len(body)
        exchange.seal()
        block = exchange.header_block(head, is_decoded)
        block = self.upstream.mask(provider, block) + b"x-readygate-fault: provider\r\n"
        exchange.responder.send_whole(head.status, head.reason, block, body)


def _read(
    exchange: Exchange, route: Route, head: AnswerHead, body: bytes, asked: str | None, is_readable: bool
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


def _kept(exchange: Exchange, body: bytes) -> bytes:
    """Note what goes to the caller, and keep it where policy keeps content; vectors are none."""
    exchange.facts.response_bytes = len(body)
    if exchange.content is not None and exchange.dialect is not EMBEDDINGS:
        exchange.content.take_answer(body)
    if exchange.follows is not None:
        exchange.follows.take_answer(body)
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
