"""What becomes of an answer's words on their way to the caller: new findings out, the exchange's own values back.

Owns the order and the choice of what reads an answer at all. Knows no sockets and no chain; ``core.redaction`` does the
work.
"""

from __future__ import annotations

from typing import Final

from proxy.core.dialect import Dialect
from proxy.core.redaction import AnswerRedactor, StreamObserver, StreamRestorer, Vault
from proxy.flow.catalog import Route
from proxy.flow.exchange import Exchange
from proxy.flow.intake import OFFLOAD_ABOVE_BYTES, ModelRenamer
from proxy.flow.metering import UsageHider
from proxy.flow.ports import Offload
from proxy.flow.streaming import Transform
from proxy.terms.errors import AnswerBlocked, RedactionFault
from proxy.terms.http import AnswerHead

UNREAD: Final = "response_unscanned"
"""The note of an answer that policy wanted counted and that could not be read."""


def must_treat(exchange: Exchange, route: Route) -> bool:
    """True when an answer may not be passed on unread: something has to be put back, or taken out."""
    if exchange.vault is not None and not exchange.vault.is_empty:
        return True
    return route.answers is not None and not route.answers.is_observing


def is_text(head: AnswerHead) -> bool:
    """True for answers in words: JSON and text; sound and pictures are not read."""
    content_type = head.content_type
    return b"json" in content_type or content_type.startswith(b"text/") or not content_type


async def redact_whole(exchange: Exchange, answers: AnswerRedactor, body: bytes, offload: Offload) -> bytes | None:
    """Return what may be passed on of an answer; None when policy blocks it."""
    if exchange.dialect is Dialect.EMBEDDINGS:
        return body
    marks = exchange.marks = answers.marks()
    try:
        if len(body) > OFFLOAD_ABOVE_BYTES:
            redacted: bytes = await offload(lambda: answers.whole(body, marks))
        else:
            redacted = answers.whole(body, marks)
    except AnswerBlocked:
        return None
    except RedactionFault:
        if not answers.is_observing:
            raise
        exchange.facts.notes.append(UNREAD)
        redacted = body
    return redacted


def redact_error(exchange: Exchange, answers: AnswerRedactor, body: bytes) -> bytes:
    """Return a provider's error without what policy replaces or blocks: errors like to echo the question."""
    exchange.marks = answers.marks(is_error=True)
    return answers.whole(body, exchange.marks)


def transforms_for(exchange: Exchange, route: Route, asked: str | None) -> tuple[Transform, ...]:
    """Return what stands between the provider's events and the caller's: findings out, values back, then the name."""
    transforms: list[Transform] = []
    answers, vault = route.answers, exchange.vault
    marks = None
    if answers is not None:
        marks = exchange.marks = answers.marks()
        if answers.is_observing:
            transforms.append(StreamObserver(exchange.dialect, marks))
            marks = None
    if marks is not None:
        transforms.append(StreamRestorer(vault or Vault(), exchange.dialect, marks))
    elif vault is not None and not vault.is_empty:
        transforms.append(StreamRestorer(vault, exchange.dialect))
    if asked is not None:
        transforms.append(ModelRenamer(asked))
    if exchange.hides_usage:
        transforms.append(UsageHider())
    return tuple(transforms)
