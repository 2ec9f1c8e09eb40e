"""Types of the policy file: linear-time patterns or terms, labels, a validator by name, examples checked at load.

Owns the refusal of what is unsafe or does not do what its examples say. Knows no YAML.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from proxy.core.redaction.detect.context import LABELLED, Context
from proxy.core.redaction.detect.engine import HAS_RE2, compile_set, compile_text
from proxy.core.redaction.detect.fold import to_bytes
from proxy.core.redaction.detect.labels import LabelIndex, is_usable_label
from proxy.core.redaction.detect.validators import VALIDATORS
from proxy.terms.redaction import CustomType, Finding

MAX_TYPES = 100
MAX_PATTERN = 1000
MAX_TERMS = 5000
MAX_TERM = 200
_PRIORITY = 1
_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,39}")
_ANCHORED = re.compile(r"(?<!\\)[\^$]|\\[AzZ]")
_PUNCTUATION = re.compile(r"[\W_]+")
_WORD = re.compile(r"[^\W_]+")


class _Ready(NamedTuple):
    """One type, compiled."""

    row: CustomType
    spans: Callable[[str], Iterator[tuple[int, int]]]


class CustomTypes:
    """The policy's own types, found in one more pass when there are any."""

    def __init__(self, types: tuple[CustomType, ...], known: frozenset[str]) -> None:
        """Compile and refuse.

        Raises:
            ValueError: A name is taken or malformed, a validator is unknown, a pattern is too long or not linear.
        """
        self.types = types
        self.names = frozenset(t.name for t in types)
        if len(types) > MAX_TYPES or len(self.names) < len(types):
            raise ValueError(f"custom types: at most {MAX_TYPES}, each name once")
        if types and not HAS_RE2:
            raise ValueError("custom types need google-re2: stdlib patterns are not linear in time")
        for row in types:
            reason = why_unsound(row, known)
            if reason:
                raise ValueError(f"custom type {row.name!r}: {reason}")
        self._each = [_Ready(row, _spans(row)) for row in types]
        self._which = compile_set([_source(row) for row in types]) if types else None
        self.is_anchored = any(_ANCHORED.search(row.pattern) for row in types)

    def search(self, ctx: Context, text: str) -> None:
        """Report every custom value of the text: one pass says which types may be there, each of those is then cut out."""
        for at in self._which(text) if self._which is not None else ():
            row, spans = self._each[at]
            for start, end in spans(text):
                if start < end and self._holds(ctx, row, text, start, end):
                    ctx.add(start, end, row.name, _PRIORITY, LABELLED if row.labels else row.score)

    def could_match(self, text: str) -> bool:
        """True when some custom pattern matches anywhere, or may only match at an edge the caller cannot see."""
        return self.is_anchored or (self._which is not None and bool(self._which(text)))

    def _holds(self, ctx: Context, row: CustomType, text: str, start: int, end: int) -> bool:
        if row.labels:
            label = ctx.label(start)
            if label is None or row.name not in label.kinds:
                return False
        return not row.validator or _passes(row.validator, _PUNCTUATION.sub("", text[start:end]).upper())

    def check_examples(self, find: Callable[[str], list[Finding]]) -> None:
        """Hold each type to its examples.

        Raises:
            ValueError: An example that must match does not, or one that must not does.
        """
        for row in self.types:
            for wanted, examples in ((True, row.must_match), (False, row.must_not_match)):
                for number, example in enumerate(examples, 1):
                    if any(f.kind == row.name for f in find(example)) is not wanted:
                        verb = "must match" if wanted else "must not match"
                        raise ValueError(
                            f"custom type {row.name}: example {number} of those that {verb} does otherwise"
                        )


def finder_of(row: CustomType) -> Callable[[str], bool]:
    """Return a test whether a text holds a value of a sound type, all other types left aside."""
    types = CustomTypes((row,), frozenset())
    labels = LabelIndex(dict.fromkeys(row.labels, (row.name,)) or {"value": (row.name,)})

    def holds(text: str) -> bool:
        ctx = Context(text, to_bytes(text), labels)
        types.search(ctx, text)
        return bool(ctx.found)

    return holds


def why_unsound(row: CustomType, known: frozenset[str]) -> str:
    """Say what is wrong with a type of the policy, or return an empty string; examples are not tried here."""
    if not _NAME.fullmatch(row.name):
        return "a name has letters, digits and underscores, a letter first, at most 40"
    if row.name in known:
        return "a built-in type has that name"
    if bool(row.pattern) is bool(row.terms):
        return "give either a pattern or terms"
    if row.validator and row.validator not in VALIDATORS:
        return f"no validator {row.validator!r}; known: {', '.join(sorted(VALIDATORS))}"
    unusable = [label for label in row.labels if not is_usable_label(label)]
    if unusable:
        return f"context {unusable[0]!r} has no letter or digit to look for"
    return _why_bad_terms(row) if row.terms else _why_bad_pattern(row.pattern)


def _why_bad_terms(row: CustomType) -> str:
    if row.labels or row.validator:
        return "terms stand for themselves: context and validator go with a pattern"
    if len(row.terms) > MAX_TERMS or any(len(term) > MAX_TERM for term in row.terms):
        return f"at most {MAX_TERMS} terms of at most {MAX_TERM} characters"
    if any(len(_PUNCTUATION.sub("", term)) < 2 for term in row.terms):
        return "a term has two letters or digits at least"
    return ""


def _why_bad_pattern(pattern: str) -> str:
    if len(pattern) > MAX_PATTERN:
        return f"a pattern has 1 to {MAX_PATTERN} characters"
    try:
        compiled = compile_text(pattern)
    except ValueError as exc:
        return str(exc)
    return "the pattern matches the empty text" if compiled.fullmatch("") else ""


def _source(row: CustomType) -> str:
    """Return the RE2 source that says whether a type may be in a text."""
    return (
        row.pattern if not row.terms else "(?i)(?:" + "|".join(_words_of(term, re.escape) for term in row.terms) + ")"
    )


def _words_of(term: str, escape: Callable[[str], str]) -> str:
    return r"\s+".join([escape(word) for word in term.split()])


def _spans(row: CustomType) -> Callable[[str], Iterator[tuple[int, int]]]:
    """Return what cuts the values of a type out of a text."""
    if row.terms:
        return _term_spans(row.terms)
    pattern = compile_text(row.pattern)

    def spans(text: str) -> Iterator[tuple[int, int]]:
        return (found.span() for found in pattern.finditer(text))

    return spans


def _term_spans(terms: tuple[str, ...]) -> Callable[[str], Iterator[tuple[int, int]]]:
    """Cut terms out by their first word: an automaton of thousands of them would not fit its memory and crawl."""
    groups: dict[str, dict[int, list[str]]] = {}
    for term in sorted({t.strip() for t in terms}, key=lambda t: (-len(t), t)):
        first = _WORD.search(term)
        if first is not None:
            groups.setdefault(first[0].lower(), {}).setdefault(first.start(), []).append(_alone(term))
    tries = {
        word: [(offset, re.compile("(?i:" + "|".join(sources) + ")")) for offset, sources in by_offset.items()]
        for word, by_offset in groups.items()
    }

    def spans(text: str) -> Iterator[tuple[int, int]]:
        reach = 0
        for word in _WORD.finditer(text):
            for offset, pattern in tries.get(word[0].lower(), ()):
                start = word.start() - offset
                found = pattern.match(text, start) if start >= reach else None
                if found is not None:
                    reach = found.end()
                    yield found.span()
                    break

    return spans


def _alone(term: str) -> str:
    """Return the pattern of one term: literal words, blanks between them, no letter or digit going on beside it."""
    before = r"(?<![^\W_])" if term[0].isalnum() else ""
    after = r"(?![^\W_])" if term[-1].isalnum() else ""
    return before + _words_of(term, re.escape) + after


def _passes(validator: str, value: str) -> bool:
    """Apply a validator to a value that may have another length or alphabet than it was written for."""
    try:
        return VALIDATORS[validator](value)
    except (ValueError, IndexError, KeyError):
        return False
