"""What one answer's findings come to: which count, which are replaced and by what, which end the answer.

Owns the tally of an exchange's answer. It keeps no value: what was seen is remembered by a hash of this process. Does not
know where a text begins or ends (``judge.py``) nor any document.
"""

from __future__ import annotations

from typing import Protocol

from proxy.core.redaction.actions import StandIns, is_own_mark
from proxy.core.redaction.detectors import Detector
from proxy.core.redaction.jsonio import without_lone_surrogates
from proxy.core.redaction.normal import Allowlist
from proxy.terms.errors import AnswerBlocked
from proxy.terms.redaction import Action, DirectionPlan, Finding, StreamMode

LONG = 448
"""A value longer than this is replaced before its end is known. Labelled values are shorter (400), so what is left is
private keys, tokens and keys without a limit."""


class GrowingDetector(Detector, Protocol):
    """A detector that can also judge a text before it is all there."""

    def find(self, text: str, *, local: bool = False) -> list[Finding]:
        """Return disjoint findings; ``local`` decides by a bounded neighbourhood, as a stream must."""
        ...

    def live_start(self, text: str, *, is_hasty: bool = False) -> int:
        """Return the leftmost position from which a value could still grow past the end of the text."""
        ...


class Marks:
    """The findings of one answer, settled one by one."""

    __slots__ = ("_allow", "_detector", "_makes", "_replaced", "_seen", "is_buffered", "is_hasty", "plan")

    def __init__(
        self,
        detector: GrowingDetector,
        plan: DirectionPlan,
        allow: Allowlist,
        makes: StandIns,
        mode: StreamMode = StreamMode.STRICT,
    ) -> None:
        self._detector = detector
        self.plan = plan
        self._allow = allow
        self._makes = makes
        self._seen: dict[str, set[int]] = {}
        self._replaced: dict[str, set[int]] = {}
        self.is_buffered = mode is StreamMode.BUFFER
        self.is_hasty = mode is StreamMode.LOW_LATENCY

    def find(self, text: str) -> list[Finding]:
        """Return what policy looks for in a text, without stand-ins of ours and allowed values."""
        readable = without_lone_surrogates(text)
        found = self._detector.find(readable, local=not self.is_buffered)
        return [f for f in found if self._counts(text, f)] if found else found

    def find_whole(self, text: str) -> list[Finding]:
        """The same for a text that is all there."""
        readable = without_lone_surrogates(text)
        return [f for f in self._detector.find(readable) if self._counts(text, f)]

    def find_labelled(self, text: str, label: str) -> list[Finding]:
        """The same for a text under a name."""
        return [f for f in self._detector.find_labelled(text, label) if self._counts(text, f)]

    def live_start(self, text: str) -> int:
        """Return where the part of a growing text begins that cannot be judged yet."""
        return self._detector.live_start(text, is_hasty=self.is_hasty)

    def _counts(self, text: str, found: Finding) -> bool:
        plan = self.plan
        if found.score < plan.scores.get(found.kind, plan.min_score) or plan.action_for(found.kind) is Action.OFF:
            return False
        if "[" in text and is_own_mark(text, found.start, found.end):
            return False
        value = text[found.start : found.end]
        return self._allow.is_empty or not self._allow.allows(found.kind, value, 0, len(value))

    def settle(self, kind: str, value: str) -> str | None:
        """Count a value and return what stands in its place; None leaves it.

        Raises:
            AnswerBlocked: Policy forbids answers with values of this type.
        """
        if self.plan.action_for(kind) is Action.BLOCK:
            self._note(self._seen, kind, value)
            raise AnswerBlocked(kind)
        stand_in = self.stand_in(kind, value)
        self._note(self._seen, kind, value)
        if stand_in is not None:
            self._note(self._replaced, kind, value)
        return stand_in

    def stand_in(self, kind: str, value: str) -> str | None:
        """Return the stand-in alone. A long value is known by its beginning: streams do not wait for its end."""
        if len(value) > LONG:
            if self.plan.action_for(kind) is Action.MASK:
                return f"[{kind}_REDACTED]"
            value = value[:LONG]
        return self._makes.for_value(kind, value)

    @staticmethod
    def _note(where: dict[str, set[int]], kind: str, value: str) -> None:
        where.setdefault(kind, set()).add(hash(value[:LONG]))

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return type -> distinct values seen, and the same for those replaced; may be asked while another thread finds."""
        seen, replaced = list(self._seen.items()), list(self._replaced.items())
        return {kind: len(values) for kind, values in seen}, {kind: len(values) for kind, values in replaced}
