"""Redacts answers: what the model itself wrote, before any value is put back.

Owns the plan of one route's answers, compiled once, and the way whole answers take; streams take the lanes of
``stream.py`` with the same marks. Does not restore, and does not know sockets or policies' files.
"""

from __future__ import annotations

import codecs
from dataclasses import replace
from functools import partial
from typing import Any

from proxy.core.dialect import Dialect
from proxy.core.redaction.actions import StandIns
from proxy.core.redaction.edits import Renames, apply_edits, moved
from proxy.core.redaction.jsonio import dumps, keeping_digits, loads
from proxy.core.redaction.marks import GrowingDetector, Marks
from proxy.core.redaction.normal import Allowlist
from proxy.core.redaction.restore import ANNOTATED, shift_annotations
from proxy.core.redaction.scan import Scan
from proxy.core.redaction.sites import Site
from proxy.core.redaction.stream import StreamRestorer
from proxy.core.redaction.vault import Vault
from proxy.terms.errors import ProxyError, RedactionFault
from proxy.terms.redaction import Action, DirectionPlan, RedactionPlan, StreamMode

_LEAVES_TEXT = frozenset({Action.OFF, Action.OBSERVE})


class AnswerRedactor:
    """The answer side of one route's redaction plan, compiled once."""

    __slots__ = ("_allow", "_detector", "_hash_key", "_mode", "_plan", "_reads_words", "is_buffered", "is_observing")

    def __init__(self, plan: RedactionPlan, detector: GrowingDetector, *, hash_key: bytes = b"") -> None:
        """Compile the plan.

        Args:
            plan: The plan; with ``observe_only`` every action but ``off`` only counts.
            detector: What looks.
            hash_key: Secret of the tenant for ``hash`` pseudonyms.

        Raises:
            ValueError: A pattern is not RE2, ``hash`` is used without a key, or ``restore`` is used at all.
        """
        response = _observing(plan.response) if plan.observe_only else plan.response
        actions = {response.default, *response.actions.values()}
        if Action.HASH in actions and not hash_key:
            raise ValueError("action 'hash' needs a key")
        if Action.RESTORE in actions:
            raise ValueError("action 'restore' is for requests")
        self._plan = response
        self._mode = plan.stream_mode
        self._detector = detector
        self._hash_key = hash_key
        self._allow = Allowlist(response)
        self._reads_words = bool(plan.custom)
        self.is_buffered = plan.stream_mode is StreamMode.BUFFER
        """Texts of streams are judged when they are whole."""
        self.is_observing = actions <= _LEAVES_TEXT
        """Nothing is ever changed: answers are counted beside their way."""

    def marks(self, *, is_error: bool = False) -> Marks:
        """Return the tally of one answer.

        Args:
            is_error: The answer is a provider's error: what would end an answer is taken out of it instead.
        """
        plan = _redacting_blocked(self._plan) if is_error else self._plan
        makes = StandIns(plan, Vault(), self._hash_key, are_stable=True)
        return Marks(self._detector, plan, self._allow, makes, self._mode)

    def whole(self, body: bytes, marks: Marks) -> bytes:
        """Return a whole answer without what policy replaces; the very same bytes when that is nothing.

        About 5 µs per KiB when the gate is silent. From some 256 KiB on, call it in a worker thread.

        Args:
            body: JSON of any shape, or text.
            marks: The tally of this answer.

        Raises:
            AnswerBlocked: Policy forbids what the answer holds.
            RedactionFault: The detector or the walk failed; the answer must not be trusted.
        """
        if not self._detector.may_contain(body) and b"\\u" not in body and b"\\/" not in body:
            return body
        try:
            return self._redacted(body, marks)
        except ProxyError:
            raise
        except Exception as exc:
            raise RedactionFault(f"redacting an answer failed: {type(exc).__name__}") from exc

    def _redacted(self, body: bytes, marks: Marks) -> bytes:
        if body.startswith(codecs.BOM_UTF8):
            return codecs.BOM_UTF8 + self._redacted(body[len(codecs.BOM_UTF8) :], marks)
        try:
            holder = [keeping_digits(loads(body), body)]
        except ValueError:
            return self._text(body, marks)
        scan = Scan(self._detector, marks.plan, self._allow, reads_words=self._reads_words)
        scan.answer(holder)
        changed = False
        renames = Renames()
        for site in sorted(scan.sites, key=lambda site: site.is_key):  # keys last: the others know their places by them
            moves = apply_edits(site, marks.settle, renames)
            if moves:
                changed = True
                _mend(holder[0], site, moves)
        renames.carry_out()
        return dumps(holder[0]) if changed else body

    @staticmethod
    def _text(body: bytes, marks: Marks) -> bytes:
        """Redact a body that is no JSON, as text."""
        text = body.decode("utf-8", "surrogateescape")
        pieces: list[str] = []
        done = 0
        for found in marks.find_whole(text):
            stand_in = marks.settle(found.kind, text[found.start : found.end])
            if stand_in is not None:
                pieces += (text[done : found.start], stand_in)
                done = found.end
        if not pieces:
            return body
        return ("".join(pieces) + text[done:]).encode("utf-8", "surrogateescape")


class StreamObserver:
    """Counts what a stream holds, beside its way: nothing waits and nothing changes."""

    __slots__ = ("_inner", "has_failed")

    def __init__(self, dialect: Dialect, marks: Marks) -> None:
        self._inner = StreamRestorer(Vault(), dialect, marks, only_counts=True)
        self.has_failed = False
        """Something in here failed, so the counts are too low."""

    def feed(self, data: bytes) -> bytes:
        """Look at the next bytes and return them."""
        if not self.has_failed:
            try:
                self._inner.feed(data)
            except ProxyError:
                self.has_failed = True
        return data

    def finish(self, broken: bool = False) -> bytes:
        """Look at what was still undecided; nothing is added to the stream."""
        if not self.has_failed:
            try:
                self._inner.finish(broken)
            except ProxyError:
                self.has_failed = True
        return b""


def _observing(plan: DirectionPlan) -> DirectionPlan:
    def harmless(action: Action) -> Action:
        return Action.OFF if action is Action.OFF else Action.OBSERVE

    return replace(
        plan, default=harmless(plan.default), actions={kind: harmless(action) for kind, action in plan.actions.items()}
    )


def _redacting_blocked(plan: DirectionPlan) -> DirectionPlan:
    def milder(action: Action) -> Action:
        return Action.REDACT if action is Action.BLOCK else action

    return replace(
        plan, default=milder(plan.default), actions={kind: milder(action) for kind, action in plan.actions.items()}
    )


def _mend(document: Any, site: Site, moves: list[tuple[int, int]]) -> None:
    """Correct what stands beside a changed text and would now disagree with it: offsets and log probabilities."""
    parent = site.parent
    if isinstance(parent, dict):
        if site.key in ANNOTATED and isinstance(parent.get("annotations"), list):
            shift_annotations(parent["annotations"], partial(moved, moves=moves))
        if parent.get("logprobs"):
            parent["logprobs"] = []
    if len(site.path) > 1 and site.path[0] == "choices" and isinstance(document, dict):
        choice = document["choices"][site.path[1]]
        if isinstance(choice, dict) and choice.get("logprobs"):
            choice["logprobs"] = None
