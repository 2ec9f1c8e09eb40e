"""Names and addresses that a service finds in free text: what it is asked, and what of its answer is believed.

Owns how the texts of one request become a few questions, the check of offsets, and how findings of the service join
those of the detector. Knows no socket: ``flow.names`` asks.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Final, NamedTuple

from proxy.core.redaction.detect.catalog import KIND_BY_NAME
from proxy.core.redaction.detect.context import resolve
from proxy.core.redaction.detectors import Detector
from proxy.terms.redaction import Finding

KIND_OF: Final = {
    "PERSON": "PERSON",
    "PER": "PERSON",
    "ADDRESS": "ADDRESS",
    "STREET_ADDRESS": "ADDRESS",
    "LOCATION": "ADDRESS",
    "LOC": "ADDRESS",
    "GPE": "ADDRESS",
    "FAC": "ADDRESS",
}
"""What a service calls an entity -> the type of ours; everything else it names is found better without it."""
NAME_KINDS: Final = frozenset(KIND_OF.values())
_SEPARATOR: Final = "\n\n"
_QUESTION_CHARS: Final = 16_384
"""Texts are joined up to this length: a service's price is mostly that of the call, and of the longest text."""
_PIECE_CHARS: Final = 4_096
_MAX_SPAN_CHARS: Final = 400
_MAX_SPANS: Final = 5_000
_HAS_WORD = re.compile(r"[^\W\d_]{2}")
_FIRST_ASTRAL: Final = "\U00010000"

Found = Mapping[str, list[Finding]]
"""Text -> what the service found in it."""


class Implausible(Exception):
    """An answer says something that cannot be."""


class Collector:
    """A detector that finds nothing and keeps every text it is shown, once, in order."""

    def __init__(self) -> None:
        self.texts: dict[str, None] = {}

    def find(self, text: str) -> list[Finding]:
        if _HAS_WORD.search(text):
            self.texts[text] = None
        return []

    def find_labelled(self, text: str, label: str) -> list[Finding]:
        return self.find(text)

    def may_contain(self, raw: bytes) -> bool:
        return True

    def is_silent(self, raw: bytes) -> bool:
        return False


class WithNames:
    """A detector whose findings are joined by those of the service, under the same rules of overlap."""

    __slots__ = ("_found", "_inner", "_kinds")

    def __init__(self, inner: Detector, found: Found, kinds: frozenset[str]) -> None:
        self._inner = inner
        self._found = found
        self._kinds = kinds

    def find(self, text: str) -> list[Finding]:
        return self._joined(self._inner.find(text), text)

    def find_labelled(self, text: str, label: str) -> list[Finding]:
        return self._joined(self._inner.find_labelled(text, label), text)

    def may_contain(self, raw: bytes) -> bool:
        return any(self._found.values()) or self._inner.may_contain(raw)

    def is_silent(self, raw: bytes) -> bool:
        return not any(self._found.values()) and self._inner.is_silent(raw)

    def _joined(self, own: list[Finding], text: str) -> list[Finding]:
        named = [finding for finding in self._found.get(text, ()) if finding.kind in self._kinds]
        if not named:
            return own
        kept = resolve([_ranked(finding) for finding in own + named])
        rest = [piece for finding in named for piece in _outside(finding, kept, text)]
        return sorted(kept + rest) if rest else kept


def _outside(named: Finding, kept: list[Finding], text: str) -> list[Finding]:
    """Return what the winners of an overlap leave of a name that lost it: each piece with a letter or digit of its own."""
    over = [other for other in kept if other.start < named.end and named.start < other.end]
    if any(other.start <= named.start and named.end <= other.end for other in over):
        return []
    found: list[Finding] = []
    edges = [named.start, *(edge for other in over for edge in other[:2]), named.end]
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        while start < end and not text[start].isalnum():
            start += 1
        while end > start and not text[end - 1].isalnum():
            end -= 1
        if start < end:
            found.append(named._replace(start=start, end=end))
    return found


def _ranked(finding: Finding) -> tuple[int, int, int, Finding]:
    kind = KIND_BY_NAME.get(finding.kind)
    return 1 if kind is None else kind.priority, finding.start - finding.end, finding.start, finding


def pieces(text: str) -> list[tuple[int, str]]:
    """Cut a long text at the ends of lines, sentences or words: each piece is asked about, and remembered, for itself.

    So a document that is longer than what one request may ask about is read further with every turn.
    """
    found: list[tuple[int, str]] = []
    at = 0
    while len(text) - at > _PIECE_CHARS:
        limit = at + _PIECE_CHARS
        end = next(
            (cut for sign in ("\n", ". ", " ") if (cut := text.rfind(sign, at, limit) + len(sign)) > at + len(sign)),
            limit,
        )
        found.append((at, text[at:end]))
        at = end
    found.append((at, text[at:]))
    return found


class Selection(NamedTuple):
    """The texts that are asked about, and how many bytes of text are not."""

    asked: list[str]
    shortened: dict[str, str]
    """Text -> its beginning, which stands for it."""
    cut_bytes: int


def select(texts: list[str], max_bytes: int) -> Selection:
    """Choose texts in order until the limit is reached; the one that crosses it is asked about up to a blank."""
    asked: list[str] = []
    shortened: dict[str, str] = {}
    left, cut_bytes = max_bytes, 0
    for text in texts:
        size = len(text.encode())
        if size <= left:
            asked.append(text)
            left -= size
            continue
        head = text.encode()[:left].decode(errors="ignore")
        head = head[: max(head.rfind(" "), head.rfind("\n"), 0)]
        if head:
            asked.append(head)
            shortened[text] = head
        cut_bytes += size - len(head.encode())
        left = 0
    return Selection(asked, shortened, cut_bytes)


class Question(NamedTuple):
    """Several texts asked about in one call: joined, with what parts paragraphs between them."""

    text: str
    parts: tuple[str, ...]

    def share(self, spans: list[Finding]) -> dict[str, list[Finding]]:
        """Give each part its own findings; one that reaches over a seam is clipped to both sides."""
        found: dict[str, list[Finding]] = {part: [] for part in self.parts}
        starts = list(accumulate((len(part) + len(_SEPARATOR) for part in self.parts[:-1]), initial=0))
        for span in spans:
            at = max(bisect_right(starts, span.start) - 1, 0)
            while at < len(starts) and starts[at] < span.end:
                part, shift = self.parts[at], starts[at]
                start, end = max(span.start - shift, 0), min(span.end - shift, len(part))
                if start < end:
                    found[part].append(span._replace(start=start, end=end))
                at += 1
        return found


def questions(texts: list[str]) -> list[Question]:
    """Join different texts into as few questions as their length allows."""
    made: list[Question] = []
    parts: list[str] = []
    length = 0
    for text in texts:
        if parts and length + len(text) > _QUESTION_CHARS:
            made.append(Question(_SEPARATOR.join(parts), tuple(parts)))
            parts, length = [], 0
        parts.append(text)
        length += len(text) + len(_SEPARATOR)
    if parts:
        made.append(Question(_SEPARATOR.join(parts), tuple(parts)))
    return made


def read_answer(answer: Any, text: str) -> list[Finding]:
    """Return the names an analyzer's answer tells of, each grown to whole words, disjoint and in order.

    Args:
        answer: Parsed JSON: ``[{entity_type, start, end, score}]``; offsets count characters, or UTF-16 units where
            only these fall on the edges of words.

    Raises:
        Implausible: It says something impossible; none of it is to be believed.
    """
    if not isinstance(answer, list) or len(answer) > _MAX_SPANS:
        raise Implausible("not a list of findings")
    rows = [_row(row) for row in answer]
    spans = [(start, end) for start, end, _, _ in rows]
    if max(text, default="") >= _FIRST_ASTRAL:
        spans = _in_characters(spans, text)
    found: list[tuple[int, int, int, Finding]] = []
    for (start, end), (_, _, name, score) in zip(spans, rows, strict=True):
        if end > len(text):
            raise Implausible("an offset lies outside the text")
        kind = KIND_OF.get(name)
        if kind is None:
            continue
        start, end = _whole_words(text, start, end)
        if end - start > _MAX_SPAN_CHARS:
            raise Implausible("a name is too long")
        if start < end:
            found.append(_ranked(Finding(start, end, kind, score)))
    return resolve(found) if found else []


def _row(row: Any) -> tuple[int, int, str, float]:
    if not isinstance(row, dict):
        raise Implausible("a finding is no object")
    start, end, name, score = row.get("start"), row.get("end"), row.get("entity_type"), row.get("score")
    if type(start) is not int or type(end) is not int or not 0 <= start < end:
        raise Implausible("an offset is no offset")
    if not isinstance(name, str) or isinstance(score, bool) or not isinstance(score, (int, float)):
        raise Implausible("a finding lacks its type or score")
    if not (math.isfinite(score) and 0 <= score <= 1):
        raise Implausible("a score is not from 0 to 1")
    return start, end, name.upper(), float(score)


def _in_characters(spans: list[tuple[int, int]], text: str) -> list[tuple[int, int]]:
    """Return the spans in characters, whichever of the two ways of counting the service has."""
    units = list(accumulate((2 if char >= _FIRST_ASTRAL else 1 for char in text), initial=0))
    if any(end > units[-1] for _, end in spans):
        raise Implausible("an offset lies outside the text")
    counted = [(bisect_right(units, start) - 1, bisect_right(units, end - 1)) for start, end in spans]
    if any(end > len(text) for _, end in spans):
        return counted
    return counted if _clean_edges(counted, text) > _clean_edges(spans, text) else spans


def _clean_edges(spans: list[tuple[int, int]], text: str) -> int:
    """Count the ends of spans that have a word on their inside and something else on their outside."""
    starts = sum(1 for start, _ in spans if text[start : start + 1].isalnum() and not text[start - 1 : start].isalnum())
    return starts + sum(1 for _, end in spans if text[end - 1 : end].isalnum() and not text[end : end + 1].isalnum())


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """Move both ends to the edges of words: no half of a name stays behind, and no blank goes with it."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    limit = max(0, start - _MAX_SPAN_CHARS)
    while start > limit and text[start].isalnum() and text[start - 1].isalnum():
        start -= 1
    limit = min(len(text), end + _MAX_SPAN_CHARS)
    while start < end < limit and text[end - 1].isalnum() and text[end].isalnum():
        end += 1
    return start, end
