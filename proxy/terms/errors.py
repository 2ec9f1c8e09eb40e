"""Faults of our own making, one small tree.

An expected answer (a refusal, a denied budget) is a value, not an exception. What is here is raised
when something that should work did not; a hand raises a leaf where it catches its driver's exception.
Messages never hold prompt text, credentials or vault values.
"""

from __future__ import annotations


class ProxyError(Exception):
    """Something in the sidecar failed."""

    code = "internal_error"

    def __str__(self) -> str:
        return super().__str__() or (self.__doc__ or "").strip().splitlines()[0]


class SpoolUnavailable(ProxyError):
    """The audit spool cannot be written."""

    code = "audit_unavailable"


class SpoolFull(SpoolUnavailable):
    """The audit spool has reached its disk limit."""

    code = "audit_backpressure"


class SpoolLocked(ProxyError):
    """Another process owns the audit spool directory."""

    code = "spool_locked"


class SinkUnavailable(ProxyError):
    """The audit store did not answer; the rows stay in the spool."""

    code = "sink_unavailable"


class QueryTooSlow(ProxyError):
    """The audit store did not finish a query in the time it was given; narrow it, for instance by time."""

    code = "audit_query_timeout"


class RowRefused(ProxyError):
    """The audit store refused one row for what it holds."""

    code = "row_refused"


class AnswerBlocked(ProxyError):
    """Policy forbids answers that hold values of this type."""

    code = "content_policy_violation"

    def __init__(self, kind: str) -> None:
        super().__init__(f"policy blocks {kind.lower()} in answers")
        self.kind = kind


class RedactionFault(ProxyError):
    """A detector or the walk failed; nothing may leave unread."""

    code = "redaction_failed"


class ValuesUnavailable(ProxyError):
    """The store of kept values did not answer; placeholders of earlier turns stay as they are."""

    code = "values_unavailable"


class NamesUnavailable(RedactionFault):
    """The names service did not answer as it should, and policy may not act without it."""
