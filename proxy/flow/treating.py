"""What becomes of an answer's words on their way to the caller: new findings out, the exchange's own values back.

Owns the order and the choice of what reads an answer at all. Knows no sockets and no chain; ``core.redaction`` does the
work.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from proxy.core.dialect import EMBEDDINGS
from proxy.core.redaction import AnswerRedactor, StreamObserver, StreamRestorer, Vault
from proxy.core.redaction.restore import put_back
from proxy.flow.catalog import Route
from proxy.flow.exchange import Exchange
from proxy.flow.intake import ModelRenamer, takes_long
from proxy.flow.metering import UsageHider
from proxy.flow.ports import Offload
from proxy.flow.stream_parts import Transform
from proxy.terms.errors import AnswerBlocked, RedactionFault
from proxy.terms.http import AnswerHead

UNREAD: Final = "response_unscanned"
"""The note of an answer that policy wanted counted and that could not be read."""


_CITING: Final = (b"_search", b"-search", b':online"', b'"plugins"')
"""What tools, models and switches that search are called at the providers known; a false alarm only costs time."""


def must_treat(exchange: Exchange, route: Route) -> bool:
    """True when an answer may not be passed on unread: something has to be put back, or taken out."""
    if exchange.vault is not None and not exchange.vault.is_empty:
        return True
    return route.answers is not None and not route.answers.is_observing


def is_text(head: AnswerHead) -> bool:
    """True for answers in words: JSON and text; sound and pictures are not read."""
    content_type = head.content_type
    return content_type.find(b"json") >= 0 or content_type.startswith(b"text/") or not content_type


async def treat_whole(
    exchange: Exchange, answers: AnswerRedactor | None, body: bytes, offload: Offload
) -> bytes | None:
    """Return what the caller gets of a whole answer; None when policy blocks it.

    Args:
        exchange: Whose vault goes in, and whose tally comes out.
        answers: What policy does with the model's own words; None where it does not look at them.
        body: The answer.
        offload: Where large answers are treated.
    """
    if not takes_long(body):
        return treat_at_once(exchange, answers, body)
    treated: bytes | None = await offload(partial(treat_at_once, exchange, answers, body))
    return treated


def treat_at_once(exchange: Exchange, answers: AnswerRedactor | None, body: bytes) -> bytes | None:
    """Do the same here and now."""
    vault = exchange.vault
    if vault is not None and vault.is_empty:
        vault = None
    if exchange.dialect is EMBEDDINGS or (answers is None and vault is None):
        return body
    if vault is not None and answers is None and exchange.content is None:
        return put_back(vault, body)
    try:
        return _treated(exchange, answers, vault, body)
    except AnswerBlocked:
        return None


def _treated(exchange: Exchange, answers: AnswerRedactor | None, vault: Vault | None, body: bytes) -> bytes:
    """Take new findings out, then put the values back."""
    if answers is not None:
        exchange.marks = answers.marks()
        try:
            body = answers.whole(body, exchange.marks)
        except RedactionFault:
            if not answers.is_observing:
                raise
            exchange.facts.notes.append(UNREAD)
    if exchange.content is not None:
        exchange.content.take_redacted(body)
    return body if vault is None else put_back(vault, body)


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
        transforms.append(StreamRestorer(vault, exchange.dialect, keeps_places=_may_cite(exchange.inbound.body)))
    if asked is not None:
        transforms.append(ModelRenamer(asked))
    if exchange.hides_usage:
        transforms.append(UsageHider())
    return tuple(transforms)


def _may_cite(body: object) -> bool:
    """Tell whether a request looks like one whose answer points into its own text: searches of the web and of files do."""
    return type(body) is bytes and any(sign in body for sign in _CITING)
