"""Patterns of policies: ``*`` stands for any characters (also ``/``), ``?`` for one. Nothing else is special.

Owns matching, how specific a pattern is, and whether two patterns can match the same text.
"""

from __future__ import annotations

import functools
import re


def is_glob(pattern: str) -> bool:
    """Say whether a pattern is more than an exact name."""
    return "*" in pattern or "?" in pattern


def compile_glob(pattern: str) -> re.Pattern[str]:
    """Return the pattern as an expression for ``match``; runs of ``*`` count as one, so matching stays fast."""
    parts = re.split(r"(\*+|\?)", pattern)
    translated = (".*" if part.startswith("*") else "." if part == "?" else re.escape(part) for part in parts)
    return re.compile("".join(translated) + r"\Z", re.DOTALL)


@functools.lru_cache(maxsize=4096)
def specificity(pattern: str | None) -> tuple[bool, int, int]:
    """Order patterns from vague to exact: exact before glob, then by the letters before the first wildcard, then all.

    None (no pattern given) is as vague as ``*``.
    """
    if pattern is None:
        return (False, 0, 0)
    literal = len(pattern) - pattern.count("*") - pattern.count("?")
    head = len(re.split(r"[*?]", pattern, maxsplit=1)[0])
    return (not is_glob(pattern), head, literal)


def may_overlap(one: str | None, other: str | None) -> bool:
    """Say whether some text matches both patterns (None matches everything)."""
    if one is None or other is None:
        return True
    reachable = {(0, 0)}
    frontier = [(0, 0)]
    while frontier:
        i, j = frontier.pop()
        if i == len(one) and j == len(other):
            return True
        for step in _steps(one, other, i, j):
            if step not in reachable:
                reachable.add(step)
                frontier.append(step)
    return False


def _steps(one: str, other: str, i: int, j: int) -> list[tuple[int, int]]:
    a = one[i] if i < len(one) else ""
    b = other[j] if j < len(other) else ""
    steps = []
    if a == "*":
        steps.append((i + 1, j))
        if b:
            steps.append((i, j + 1))
    if b == "*":
        steps.append((i, j + 1))
        if a:
            steps.append((i + 1, j))
    if a and b and a != "*" and b != "*" and (a == b or "?" in (a, b)):
        steps.append((i + 1, j + 1))
    return steps
