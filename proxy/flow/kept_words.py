"""What other policies would find in the words that policy had kept of an exchange.

Owns what may be concluded from which kind of words: those kept `full` are what the caller sent; those kept `redacted` lack what was
replaced, so the row's counts stand in for it. Words that were cut, that no key opens or that are no JSON prove nothing. Knows no
store: the pieces come with the row, as ``readygate audit show --content`` shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.core.dialect import Dialect, dialect_of
from proxy.core.policy.model import RoutePlan
from proxy.core.policy.replay import Looked
from proxy.core.redaction import AnswerRedactor
from proxy.core.redaction.names import NAME_KINDS
from proxy.flow.catalog import Snapshot
from proxy.flow.intake import parsed
from proxy.flow.second_look import look_again
from proxy.terms.errors import ProxyError
from proxy.terms.redaction import Action, DirectionPlan


class KeptWords:
    """Reads kept words under one set of policies; one per run."""

    def __init__(self, candidate: Snapshot) -> None:
        self._candidate = candidate
        self.read = 0
        """Exchanges whose request was read again, all of it."""
        self.unreadable = 0
        """Exchanges with words that were cut, that no key opens, or that are no JSON."""

    def look(self, row: Mapping[str, Any], plan: RoutePlan) -> Looked | None:
        """Return what the policy of ``plan`` finds in the words of a row; None when they say nothing."""
        pieces = row.get("content")
        if not pieces:
            return None
        looked = self._request(row, plan, pieces.get("request"))
        if looked is None:
            self.unreadable += 1
            return None
        self.read += looked.is_whole
        return looked._replace(answer_findings=self._answer(row, plan, pieces.get("answer")))

    def _request(self, row: Mapping[str, Any], plan: RoutePlan, piece: Mapping[str, Any] | None) -> Looked | None:
        if piece is None or "text" not in piece or piece["cut"]:
            return None
        body = str(piece["text"]).encode("utf-8", "surrogatepass")
        dialect = dialect_of(str(row["path"])) if row["method"] == "POST" else Dialect.OTHER
        redactor = self._candidate.route_of(plan).redactor
        seen = look_again(redactor, plan.redaction, body, dialect)
        if seen is None:
            return None
        found = dict(seen.findings)
        direction = plan.redaction.request
        is_full = piece["mode"] == "full"
        for kind, count in row["findings"].items():
            # Names come from a service that is not asked again; what was replaced is not in the words any more.
            is_gone = kind in NAME_KINDS or (not is_full and kind in row["sanitized"])
            if is_gone and direction.action_for(kind) is not Action.OFF:
                found[kind] = max(found.get(kind, 0), count)
        is_clamped = any(note.startswith("clamped:") for note in row["notes"])
        return Looked(
            found,
            seen.has_unscanned if is_full else bool(row["unscanned_bytes"]),
            None if is_clamped and not is_full else parsed(body),
            is_full or not row["sanitized"] or _takes_every_value(direction),
            len(body),
        )

    def _answer(
        self, row: Mapping[str, Any], plan: RoutePlan, piece: Mapping[str, Any] | None
    ) -> dict[str, int] | None:
        """Return what is found in the model's own words; None: the row's counts are all there is."""
        redactor = self._candidate.route_of(plan).answers
        if redactor is None or piece is None or "text" not in piece or piece["cut"]:
            return None
        if piece["mode"] == "full" and row["sanitized"]:
            return None  # the caller's own values stand in it again, and are nobody's finding
        found = _found_in(redactor, str(piece["text"]).encode("utf-8", "surrogatepass"))
        if found is None:
            return None
        for kind, count in row["response_findings"].items():
            if plan.redaction.response.action_for(kind) is not Action.OFF:
                found[kind] = max(found.get(kind, 0), count)
        return found


def _found_in(redactor: AnswerRedactor, body: bytes) -> dict[str, int] | None:
    marks = redactor.marks(is_error=True)  # what would end an answer is counted here, not refused
    try:
        redactor.whole(body, marks)
    except ProxyError:
        return None
    return marks.counts()[0]


def _takes_every_value(direction: DirectionPlan) -> bool:
    """Say whether a type alone decides, whatever the value: no allow list, no score."""
    lists = (direction.allow_values, direction.allow_patterns, direction.allow_domains, direction.allow_networks)
    return not any(lists) and not direction.min_score and not any(direction.scores.values())
