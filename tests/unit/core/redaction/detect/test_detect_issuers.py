"""Every form of key in the tables is found, in a sentence and in code, and nothing shorter is taken for one."""

from __future__ import annotations

import random
import re
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest

from proxy.core.redaction.detect import build_detector
from proxy.core.redaction.detect.secrets import union_patterns
from proxy.core.redaction.detect.tables.issuers import FORMS, ISSUERS

DETECTOR = build_detector()
PATTERNS = [(i.sub, re.escape(prefix) + "(?:" + i.tail + ")") for i in ISSUERS for prefix in i.prefixes] + [
    (form.sub, form.head + form.tail) for form in FORMS
]


def _sampled(tree: Any, rng: random.Random) -> str:
    """Return a random text of a pattern that knows classes, literals, groups and repetitions."""
    return "".join(_piece(op, value, rng) for op, value in tree)


def _piece(op: Any, value: Any, rng: random.Random) -> str:
    if op is codes.LITERAL:
        return chr(value)
    if op is codes.IN:
        return chr(rng.choice([c for of, v in value for c in ([v] if of is codes.LITERAL else range(v[0], v[1] + 1))]))
    if op is codes.BRANCH:
        return _sampled(rng.choice(value[1]), rng)
    if op is codes.SUBPATTERN:
        return _sampled(value[3], rng)
    least, most, inner = value
    return "".join(_sampled(inner, rng) for _ in range(rng.randint(least, min(most, least + 8))))


@pytest.mark.parametrize(("sub", "pattern"), PATTERNS, ids=[f"{sub}-{n}" for n, (sub, _) in enumerate(PATTERNS)])
def test_key_of_every_issuer_is_found(sub: str, pattern: str) -> None:
    """One typing mistake in a row of the table would let all keys of an issuer pass."""
    rng = random.Random(pattern)
    tree = parser.parse(pattern)
    found = 0
    for _ in range(12):
        key = _sampled(tree, rng).rstrip(".,")
        if key.startswith("xox"):  # Slack's always hold a number; words alone are an example
            key = f"{key}-{rng.randrange(10**11, 10**12)}"
        text = f"use {key} for it"
        found += any(
            f.start == 4 and f.end >= 2 + len(key) for f in DETECTOR.find(text) if f.kind in ("API_KEY", "JWT")
        )

    assert found >= 9


def test_no_issuer_swells_the_automaton() -> None:
    """A state for each of 86 repeated letters costs every start and every body; the issuer's own pattern counts them."""
    re2 = pytest.importorskip("re2")

    for pattern in union_patterns():
        prefixes = pattern.count(b"|") + 1
        assert re2.compile(pattern).programsize < 600 + 40 * prefixes, pattern
