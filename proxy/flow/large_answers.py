"""Large whole answers: treated where large bodies are read, so that no document holds the event loop up.

Owns what is asked about an answer and what comes back; the steps are those that ``delivering`` takes with small ones:
findings out, values back, the caller's name for the model, usage. Knows no pipes and no sockets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from proxy.core.dialect import Dialect, read_usage_of
from proxy.core.redaction import AnswerRedactor, AnswerRestorer, Vault
from proxy.core.routing.classify import is_document
from proxy.flow.intake import rename_model
from proxy.terms.errors import AnswerBlocked, RedactionFault
from proxy.terms.exchange import Usage
from proxy.terms.redaction import RedactionPlan

KEPT_BYTES: Final = 256 * 1024
"""More of an answer is never kept as content."""


@dataclass(frozen=True, slots=True)
class AnswerJob:
    """Ask for what a caller gets of a whole answer."""

    dialect: Dialect
    plan: RedactionPlan | None
    """Where policy looks at the model's own words."""
    asked: str | None
    """The model name to put back."""
    reads_usage: bool
    has_to_be_document: bool
    """Without usage, an answer that is no JSON was cut."""
    keeps: bool
    """What is redacted alone, before values come back, is wanted as well."""
    hash_key: bytes = b""
    """Of pseudonyms; whoever has the process fills it in."""


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """What came of it; the body travels beside it. Also the tally of findings: type -> distinct values."""

    usage: Usage | None = None
    is_blocked: bool = False
    is_cut: bool = False
    is_unread: bool = False
    """Policy wanted it counted, and it could not be read."""
    seen: dict[str, int] = field(default_factory=dict)
    replaced: dict[str, int] = field(default_factory=dict)
    kept: bytes | None = None

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return what was seen and what was replaced."""
        return self.seen, self.replaced


def read_answer(
    job: AnswerJob, answers: AnswerRedactor | None, vault: Vault | None, body: bytes
) -> tuple[ReadAnswer, bytes]:
    """Take new findings out, put the values back, then the name; return what came of it, and the body.

    Raises:
        RedactionFault: It could not be judged, or restored.
    """
    marks, is_unread, kept = None, False, None
    has_words = job.dialect is not Dialect.EMBEDDINGS
    if answers is not None and has_words:
        marks = answers.marks()
        try:
            body = answers.whole(body, marks)
        except AnswerBlocked:
            seen, replaced = marks.counts()
            return ReadAnswer(read_usage_of(body), is_blocked=True, seen=seen, replaced=replaced), b""
        except RedactionFault:
            if not answers.is_observing:
                raise
            is_unread = True
    if job.keeps:
        kept = body[:KEPT_BYTES]
    if vault is not None and has_words:
        body = AnswerRestorer(vault, job.dialect).whole(body)
    if job.asked is not None:
        body = rename_model(body, job.asked)
    usage = read_usage_of(body) if job.reads_usage else None
    is_cut = usage is None and job.has_to_be_document and not is_document(body)
    seen, replaced = ({}, {}) if marks is None else marks.counts()
    return ReadAnswer(usage, False, is_cut, is_unread, seen, replaced, kept), body
