"""Types of the policy file: linear-time patterns, labels, a validator by name, examples checked at load.

Owns the refusal of what is unsafe or does not do what its examples say. Knows no YAML.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from proxy.core.redaction.detect.context import LABELLED, Context
from proxy.core.redaction.detect.engine import HAS_RE2, compile_text
from proxy.core.redaction.detect.kinds import CustomType
from proxy.core.redaction.detect.validators import VALIDATORS
from proxy.terms.redaction import Finding

MAX_TYPES = 100
MAX_PATTERN = 1000
_PRIORITY = 1
_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,39}")
_ANCHORED = re.compile(r"(?<!\\)[\^$]|\\[AzZ]")
_PUNCTUATION = re.compile(r"[\W_]+")


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
        for row in types:
            _check(row, known)
        if types and not HAS_RE2:
            raise ValueError("custom types need google-re2: stdlib patterns are not linear in time")
        self._each = [(row, compile_text(row.pattern)) for row in types]
        self._all = compile_text("|".join(f"(?:{row.pattern})" for row in types)) if types else None
        self.is_anchored = any(_ANCHORED.search(row.pattern) for row in types)

    def search(self, ctx: Context, text: str) -> None:
        """Report every custom value of the text."""
        for start, end in self._spans(text):
            for row, pattern in self._each:
                if pattern.fullmatch(text[start:end]) and self._holds(ctx, row, text[start:end], start):
                    score = LABELLED if row.labels else row.score
                    ctx.add(start, end, row.name, _PRIORITY, score)
                    break

    def could_match(self, text: str) -> bool:
        """True when some custom pattern matches anywhere, or may only match at an edge the caller cannot see."""
        return self.is_anchored or next(self._spans(text), None) is not None

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        for found in self._all.finditer(text) if self._all is not None else ():
            if found.end() > found.start():
                yield found.span()

    def _holds(self, ctx: Context, row: CustomType, value: str, start: int) -> bool:
        if row.labels:
            label = ctx.label(start)
            if label is None or row.name not in label.kinds:
                return False
        return not row.validator or _passes(row.validator, _PUNCTUATION.sub("", value).upper())

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


def _passes(validator: str, value: str) -> bool:
    """Apply a validator to a value that may have another length or alphabet than it was written for."""
    try:
        return VALIDATORS[validator](value)
    except (ValueError, IndexError, KeyError):
        return False


def _check(row: CustomType, known: frozenset[str]) -> None:
    if not _NAME.fullmatch(row.name) or row.name in known:
        raise ValueError(f"custom type {row.name!r}: capital letters, digits and underscores, and no built-in name")
    if len(row.pattern) > MAX_PATTERN or not row.pattern:
        raise ValueError(f"custom type {row.name}: a pattern has 1 to {MAX_PATTERN} characters")
    if row.validator and row.validator not in VALIDATORS:
        raise ValueError(
            f"custom type {row.name}: no validator {row.validator!r}; known: {', '.join(sorted(VALIDATORS))}"
        )
    if compile_text(row.pattern).fullmatch(""):
        raise ValueError(f"custom type {row.name}: the pattern matches the empty text")
