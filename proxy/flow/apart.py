"""A large whole answer on its way through the process for large bodies, and what of it goes into the exchange.

Owns which answers go that way. The steps themselves are in ``large_answers``; ``delivering`` does what is left.
"""

from __future__ import annotations

from typing import Final

from proxy.core.dialect import Dialect
from proxy.flow.catalog import Route
from proxy.flow.exchange import Exchange
from proxy.flow.intake import OFFLOAD_ABOVE_BYTES
from proxy.flow.large_answers import AnswerJob, ReadAnswer
from proxy.flow.large_bodies import LargeBodies
from proxy.flow.metering import estimated_whole
from proxy.flow.treating import UNREAD, is_text, must_treat
from proxy.terms.errors import RedactionFault
from proxy.terms.http import AnswerHead
from proxy.terms.outcomes import Outcome

_SCAN_ABOVE_BYTES: Final = 1024 * 1024
"""Searching more than this for the model's name is no work for the event loop."""


def is_read_apart(exchange: Exchange, route: Route, body: bytes, asked: str | None) -> bool:
    """True for an answer that is not to be read on the event loop; vectors have no words."""
    if exchange.dialect is not Dialect.EMBEDDINGS and (route.answers is not None or must_treat(exchange, route)):
        return len(body) > OFFLOAD_ABOVE_BYTES
    return asked is not None and len(body) > _SCAN_ABOVE_BYTES


async def read_apart(
    large: LargeBodies,
    exchange: Exchange,
    route: Route,
    head: AnswerHead,
    body: bytes,
    asked: str | None,
    *,
    is_readable: bool,
) -> bytes | Outcome:
    """Return what the caller gets of a large answer, or why it is no good; its facts go into the exchange.

    Raises:
        RedactionFault: It could not be treated, and may not go on untreated.
    """
    dialect, facts, vault = exchange.dialect, exchange.facts, exchange.vault
    reads = route.answers is not None and is_readable and is_text(head)
    is_known = dialect is not Dialect.OTHER
    job = AnswerJob(
        dialect,
        route.plan.redaction if reads else None,
        asked,
        reads_usage=is_known,
        has_to_be_document=dialect is Dialect.CHAT and is_readable and head.status < 300,
        keeps=exchange.content is not None,
    )
    try:
        read, made = await large.answer(body, job, None if vault is None or vault.is_empty else vault)
    except RedactionFault:
        if must_treat(exchange, route):
            raise
        read, made = ReadAnswer(is_unread=True), body  # it is counted or renamed, no more
    if reads:
        exchange.marks = read
        if read.is_unread:
            facts.notes.append(UNREAD)
    facts.usage = read.usage
    if read.is_blocked:
        return Outcome.ANSWER_BLOCKED
    if read.is_cut:
        return Outcome.TRUNCATED
    if facts.usage is None and is_known and route.budgets:
        facts.usage = estimated_whole(exchange, made)
    if exchange.content is not None and read.kept is not None:
        exchange.content.take_redacted(read.kept)
    return made
