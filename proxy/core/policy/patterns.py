"""Patterns of policy authors: accepted only when they are linear-time (RE2) expressions.

Owns the test. Compiles nothing for the data path: ``core.redaction`` does.
"""

from __future__ import annotations

from typing import Any

import re2

MAX_PATTERN_CHARS = 1000

_OPTIONS: Any = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.max_mem = 1 << 20


def why_refused(pattern: str) -> str:
    """Say why a pattern is not accepted, or return an empty string."""
    if len(pattern) > MAX_PATTERN_CHARS:
        return f"longer than {MAX_PATTERN_CHARS} characters"
    try:
        compiled = re2.compile(pattern, _OPTIONS)
    except re2.error as exc:
        reason = exc.args[0] if exc.args else "not an RE2 expression"
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        return f"RE2 says: {text}"
    if compiled.fullmatch("") is not None:
        return "it matches the empty text, so it would allow nearly anything"
    return ""


def allows_everything(pattern: str) -> bool:
    """Say whether a pattern matches values of quite different kinds."""
    compiled = re2.compile(pattern, _OPTIONS)
    return all(compiled.fullmatch(text) is not None for text in ("a", "jane@example.com", "4111 1111 1111 1111", "~"))
