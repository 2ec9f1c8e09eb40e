"""How much of a growing text may still become a value of the policy's own types.

Owns the widths of patterns. Patterns are RE2's; what stdlib's parser cannot read counts as wide. Compiles nothing.
"""

from __future__ import annotations

import re
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, Final

from proxy.terms.redaction import CustomType

MAX_REACH: Final = 256
"""A value that is longer may be found too late in a stream; the policy's author is told by the docs."""
_BREAKS: Final = frozenset(map(ord, " \t\r\n\x0b\x0c\"'<>`\xa0"))
"""What ends the run of a text that a stream holds back anyway."""


def reach_of(types: tuple[CustomType, ...]) -> int:
    """Return how many characters at the end of a text may belong to a value that is not all there."""
    return max((_reach(row) for row in types), default=0)


def _reach(row: CustomType) -> int:
    if row.terms:
        long = [len(term) for term in row.terms if any(ord(c) in _BREAKS for c in term)]
        return min(max(long, default=0), MAX_REACH)
    try:
        tree = parser.parse(row.pattern)
    except (re.error, RecursionError, OverflowError):
        return MAX_REACH
    return 0 if _is_one_run(tree) else min(int(tree.getwidth()[1]), MAX_REACH)


def _is_one_run(tree: Any) -> bool:
    """True when no match can hold a blank or a quote."""
    return all(_is_dense(op, value) for op, value in tree)


def _is_dense(op: Any, value: Any) -> bool:
    if op is codes.LITERAL:
        return value not in _BREAKS
    if op is codes.AT:
        return True
    if op is codes.IN:
        return all(_is_dense_member(member, of) for member, of in value)
    if op is codes.BRANCH:
        return all(_is_one_run(branch) for branch in value[1])
    if op is codes.SUBPATTERN:
        return _is_one_run(value[3])
    if op in (codes.MAX_REPEAT, codes.MIN_REPEAT):
        return _is_one_run(value[2])
    return False


def _is_dense_member(op: Any, value: Any) -> bool:
    if op is codes.LITERAL:
        return value not in _BREAKS
    if op is codes.RANGE:
        return not any(value[0] <= c <= value[1] for c in _BREAKS)
    return op is codes.CATEGORY and value in (codes.CATEGORY_DIGIT, codes.CATEGORY_WORD)
