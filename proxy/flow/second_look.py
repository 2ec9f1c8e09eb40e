"""A request read again by the redactor of other policies than those that decided it: what would they have found?

Shared by the shadow (live exchanges) and ``readygate replay`` (words that policy had kept). Owns nothing and changes nothing; what is found
are types and counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from proxy.core.dialect import Dialect
from proxy.core.redaction import Blocked, Redacted, RequestRedactor, Unreadable
from proxy.flow.large_bodies import redact_body
from proxy.terms.errors import ProxyError
from proxy.terms.redaction import RedactionPlan


class Seen(NamedTuple):
    """Type -> values that were found; a body that would be refused names its types only, once each."""

    findings: Mapping[str, int]
    has_unscanned: bool = False


def look_again(
    redactor: RequestRedactor | None,
    plan: RedactionPlan,
    body: bytes,
    dialect: Dialect,
    content_type: bytes = b"application/json",
) -> Seen | None:
    """Return what a redactor (None: it looks for nothing) finds in a body; None when it cannot say."""
    if redactor is None or not body:
        return Seen({})
    try:
        verdict = redact_body(redactor, plan, body, dialect, content_type)
    except ProxyError:
        return None
    if isinstance(verdict, Unreadable):
        return None
    if isinstance(verdict, Blocked):
        return Seen(dict.fromkeys(verdict.kinds, 1))
    if isinstance(verdict, Redacted):
        verdict.vault.close()
    return Seen(verdict.findings, verdict.unscanned_bytes > 0)
