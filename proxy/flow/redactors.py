"""Redaction plans made ready: detectors and redactors, compiled once per plan.

Owns the detectors of a process. Knows no snapshot and no exchange; also the process for large bodies has one.
"""

from __future__ import annotations

from typing import Final

from proxy.core.dialect import Dialect
from proxy.core.redaction import AnswerRedactor, RequestRedactor
from proxy.core.redaction.detect import Detector, build_detector, kinds_of
from proxy.terms.redaction import Action, CustomType, DirectionPlan, RedactionPlan, Unscanned

MAX_DETECTORS: Final = 32
WARM_UP: Final = (
    b'{"model":"m","messages":[{"role":"user","content":"ana@example.com +55 11 98765-4321 529.982.247-25 token: x"}]}'
)


class Redactors:
    """Compiles redaction plans; detectors of the same kinds are shared."""

    def __init__(self, hash_key: bytes) -> None:
        self._hash_key = hash_key
        self._detectors: dict[tuple[frozenset[str], tuple[CustomType, ...]], Detector] = {}

    def build(self, plan: RedactionPlan) -> RequestRedactor | None:
        """Return the redactor of a plan, or None when it looks for nothing in requests and refuses nothing."""
        request = plan.request
        if not request.is_active and plan.unscanned is Unscanned.PASS:
            return None
        redactor = RequestRedactor(plan, self._detector(request, plan), hash_key=self._hash_key)
        # Automata are built lazily by their engines: let nobody's first request pay for it.
        redactor.redact(WARM_UP, Dialect.CHAT)
        return redactor

    def build_answers(self, plan: RedactionPlan) -> AnswerRedactor | None:
        """Return the redactor of a plan's answers, or None when it looks for nothing there."""
        if not plan.response.is_active:
            return None
        answers = AnswerRedactor(plan, self._detector(plan.response, plan), hash_key=self._hash_key)
        answers.whole(WARM_UP, answers.marks(is_error=True))
        return answers

    def _detector(self, direction: DirectionPlan, plan: RedactionPlan) -> Detector:
        own = tuple(own for own in plan.custom if direction.action_for(own.name) is not Action.OFF)
        key = (kinds_of(direction), own)
        detector = self._detectors.get(key)
        if detector is None:
            if len(self._detectors) >= MAX_DETECTORS:  # those of policies long gone
                self._detectors.clear()
            detector = self._detectors[key] = build_detector(*key)
        return detector
