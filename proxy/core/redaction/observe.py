"""Counts what an answer of the model holds, changing nothing.

Owns the observation of whole answers. It looks at what the provider sent, before any value is put back: the order is
always new findings first, restoring after. Does not act on what it finds.
"""

from __future__ import annotations

from proxy.core.redaction.jsonio import loads
from proxy.core.redaction.normal import Allowlist
from proxy.core.redaction.scan import Detector, Scan, TooDeep, distinct
from proxy.terms.errors import RedactionFault
from proxy.terms.redaction import DirectionPlan


class AnswerObserver:
    """The answer side of one route's redaction plan, compiled once."""

    __slots__ = ("_allow", "_detector", "_plan")

    def __init__(self, plan: DirectionPlan, detector: Detector) -> None:
        """Raises ValueError when a pattern of the plan is not RE2."""
        self._plan = plan
        self._detector = detector
        self._allow = Allowlist(plan)

    def count(self, body: bytes) -> dict[str, int]:
        """Return type -> distinct values in an answer as the provider sent it; empty for what is no JSON.

        Raises:
            RedactionFault: The detector failed.
        """
        if not self._detector.may_contain(body) and b"\\u" not in body:
            return {}
        try:
            document = loads(body)
        except ValueError:
            return {}
        scan = Scan(self._detector, self._plan, self._allow)
        try:
            scan.answer(document)
        except TooDeep:
            return {}
        except Exception as exc:
            raise RedactionFault(f"reading an answer failed: {type(exc).__name__}") from exc
        return distinct(scan.sites)
