"""Patterns of policy authors: linear-time or refused."""

from __future__ import annotations

import time

import pytest
import re2

from proxy.core.policy.patterns import MAX_PATTERN_CHARS, allows_everything, why_refused


@pytest.mark.parametrize("pattern", [r"ORD-\d{8}", r"[a-z]+@example\.com", r"(?i)support", r"(x+x+)+y"])
def test_linear_pattern_is_accepted(pattern: str) -> None:
    """What kills a backtracking engine is harmless in RE2."""
    assert "" == why_refused(pattern)
    assert not allows_everything(pattern)


@pytest.mark.parametrize(
    "pattern", [r"(a)\1", "(?=a)b", "(?<!a)b", "(a", "[", "a**", "a{1001}", "a*", "", "x" * (MAX_PATTERN_CHARS + 1)]
)
def test_other_pattern_is_refused_with_a_reason(pattern: str) -> None:
    """At load, not at the first request (SE-07)."""
    assert "" != why_refused(pattern)


def test_catastrophic_pattern_stays_fast() -> None:
    """The pattern that takes `re` half a minute on 29 characters (SE-07)."""
    started_s = time.perf_counter()
    re2.compile(r"(\w+\s?)*X").fullmatch("a" * 100_000)

    assert time.perf_counter() - started_s < 1.0
