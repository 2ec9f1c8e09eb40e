"""When two spellings mean the same value, and which values a policy lets through.

Owns normal forms and allowlists. Does not know JSON or actions.
"""

from __future__ import annotations

import re2

from proxy.terms.redaction import DirectionPlan

_EXACT = frozenset({"PASSWORD", "API_KEY", "JWT", "PRIVATE_KEY", "URL_CREDENTIALS", "CRYPTO_WALLET"})
_FOLDED = frozenset({"EMAIL", "IP_ADDRESS", "MAC_ADDRESS", "DATE_OF_BIRTH"})


def normal_form(kind: str, value: str) -> str:
    """Return the form in which two spellings of one value are equal.

    Secrets count letter by letter; e-mail and network addresses without case; numbers and identifiers by their
    letters and digits alone, so ``529.982.247-25`` equals ``52998224725``.
    """
    if kind in _EXACT:
        return value
    folded = value.strip().lower()
    if kind in _FOLDED or "@" in folded:
        return folded
    return "".join(filter(str.isalnum, folded)) or folded


class Allowlist:
    """The values and patterns of one direction that are nobody's business."""

    __slots__ = ("_patterns", "_values", "is_empty")

    def __init__(self, plan: DirectionPlan) -> None:
        """Compile the patterns.

        Raises:
            ValueError: A pattern is not RE2 (the message names it; it comes from the policy, not from traffic).
        """
        self._values = {value.strip() for value in plan.allow_values}
        self._values |= {value.lower() for value in self._values}
        self._values |= {form for value in self._values if (form := normal_form("", value))}
        self._patterns = [_compile(pattern) for pattern in plan.allow_patterns]
        self.is_empty = not self._values and not self._patterns

    def allows(self, kind: str, text: str, start: int, end: int) -> bool:
        """Tell whether ``text[start:end]`` is allowed: by value, or because a pattern's match covers all of it."""
        value = text[start:end]
        normal = normal_form(kind, value)
        if value in self._values or normal in self._values:
            return True
        for pattern in self._patterns:
            if pattern.fullmatch(value) or pattern.fullmatch(normal):
                return True
            if any(found.start() <= start and end <= found.end() for found in pattern.finditer(text)):
                return True
        return False


def _compile(pattern: str) -> re2._Regexp[str]:
    try:
        return re2.compile(pattern)
    except re2.error as exc:
        raise ValueError(f"allow pattern {pattern!r} is not valid RE2: {exc}") from exc
