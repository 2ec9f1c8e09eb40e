"""The automaton: one leftmost-longest search over many patterns, on RE2 or, where it is missing, on stdlib re.

Owns the choice of engine and its options. Knows no kind: patterns come in, spans go out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

try:
    import re2
except ImportError:  # the fallback below finds the same spans, several times slower
    re2 = None  # type: ignore[assignment,unused-ignore]

Span = tuple[int, int]
NextFrom = Callable[[int, int], list[Span]]
"""Position to look from (never decreasing) and to look up to (always the same) -> the next span, or NO_SPAN, in a list by itself."""
Scan = Callable[[bytes], NextFrom]
Search = Callable[[bytes, int], Span]
"""Bytes and where to look from -> the next span, or NO_SPAN."""

NO_SPAN: Span = (-1, -1)
_MAX_MEM_BYTES = 32 << 20


def compile_union(patterns: tuple[bytes, ...], engine: str = "auto") -> Scan:
    """Compile patterns to one scan: the leftmost match of any and, at one start, the longest.

    Patterns must mean the same to RE2 and to ``re`` and be greedy throughout: no look-around, no lazy quantifier,
    no back-reference, alternatives longest first.

    Args:
        engine: ``re2``, ``re`` or ``auto`` (RE2 where it imports).

    Raises:
        ValueError: A pattern is not valid, or ``re2`` was asked for and is not installed.
    """
    if engine == "re2" and re2 is None:
        raise ValueError("google-re2 is not installed")
    if engine == "re" or re2 is None:
        return _fallback(patterns)
    return partial(
        partial, _match_of(_compiled(patterns)), re2._Anchor.UNANCHORED
    )  # no frame of ours on the way to RE2


def _compiled(patterns: tuple[bytes, ...]) -> Any:
    """Compile patterns to one automaton of RE2."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.longest_match = True
    options.never_capture = True
    options.max_mem = _MAX_MEM_BYTES
    options.log_errors = False
    try:
        return re2.compile(b"|".join([b"(?:%s)" % p for p in patterns]), options)
    except re2.error as exc:
        raise ValueError(f"not a linear-time pattern: {exc}") from exc


def compile_search(patterns: tuple[bytes, ...], engine: str = "auto") -> Search:
    """Compile patterns as ``compile_union`` does, to a search for those who look once or twice into the same bytes.

    Raises:
        ValueError: As for ``compile_union``.
    """
    if engine == "re" or re2 is None:
        scan = compile_union(patterns, engine)
        return lambda data, start: scan(data)(start, len(data))[0]
    match, anchor = _match_of(_compiled(patterns)), re2._Anchor.UNANCHORED

    def search(data: bytes, start: int) -> Span:
        return match(anchor, data, start, len(data))[0]

    return search


def _match_of(compiled: Any) -> Callable[[Any, bytes, int, int], list[Span]]:
    """Return the search (anchor, bytes, start, end -> one span) without the wrapper's match objects: 0.4 µs a match."""
    try:
        match: Callable[[Any, bytes, int, int], Any] = compiled._regexp.Match
        probe = match(re2._Anchor.UNANCHORED, b"", 0, 0)
        if not isinstance(probe, list) or len(probe[0]) != 2:
            raise TypeError("spans have another layout")
    except (AttributeError, TypeError):  # another release of the binding: its public face stays the same
        return partial(_public_match, compiled)
    return match


def _public_match(compiled: Any, _: Any, data: bytes, start: int, end: int) -> list[Span]:
    found = compiled.search(data, start, end)
    return [found.span() if found else NO_SPAN]


def _fallback(patterns: tuple[bytes, ...]) -> Scan:
    """Return the same scan on stdlib re: each pattern's next match is kept until the scan has passed it."""
    try:
        searches = [re.compile(p).search for p in patterns]
    except re.error as exc:
        raise ValueError(f"not a valid pattern: {exc}") from exc

    def scan(data: bytes) -> NextFrom:
        ahead: list[Span] = [(-1, 0)] * len(searches)
        exhausted = (len(data) + 1, 0)

        def next_from(start: int, end: int) -> list[Span]:
            best = exhausted
            for i, search in enumerate(searches):
                if ahead[i][0] < start:
                    found = search(data, start, end)
                    ahead[i] = found.span() if found else exhausted
                if ahead[i][0] < best[0] or (ahead[i][0] == best[0] and ahead[i][1] > best[1]):
                    best = ahead[i]
            return [NO_SPAN if best is exhausted else best]

        return next_from

    return scan


HAS_RE2 = re2 is not None


def compile_text(pattern: str) -> Any:
    """Compile one pattern of a policy for text, by RE2 alone: what RE2 refuses is not linear in time.

    Raises:
        ValueError: RE2 is missing or refuses the pattern.
    """
    if re2 is None:
        raise ValueError("google-re2 is not installed")
    options = re2.Options()
    options.max_mem = 16 << 20
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as exc:
        raise ValueError(f"not a linear-time pattern: {exc}") from exc


Test = Callable[[str], bool]


def compile_any(patterns: list[str]) -> tuple[Test, Test]:
    """Compile patterns of a policy to two tests: whether a text as a whole is any of them, and whether it holds any.

    Raises:
        ValueError: RE2 is missing, refuses a pattern, or they cannot stand together.
    """
    compiled = compile_text("|".join([f"(?:{pattern})" for pattern in patterns]))
    try:
        match, whole, anywhere = compiled._regexp.Match, re2._Anchor.ANCHOR_BOTH, re2._Anchor.UNANCHORED
        if match(whole, b"", 0, 0)[0][0] > 0:
            raise TypeError("spans have another layout")
    except (AttributeError, TypeError, IndexError):  # another release of the binding: its public face stays the same
        return (lambda text: compiled.fullmatch(text) is not None), (lambda text: compiled.search(text) is not None)

    def is_whole(text: str) -> bool:
        data = text.encode("utf-8", "replace")
        return bool(match(whole, data, 0, len(data))[0][0] >= 0)

    def occurs(text: str) -> bool:
        data = text.encode("utf-8", "replace")
        return bool(match(anywhere, data, 0, len(data))[0][0] >= 0)

    return is_whole, occurs


def compile_set(patterns: list[str]) -> Callable[[str], list[int]]:
    """Compile patterns of a policy to one pass that says which of them match somewhere in a text.

    Raises:
        ValueError: RE2 is missing, refuses a pattern, or they are too much together.
    """
    if re2 is None:
        raise ValueError("google-re2 is not installed")
    options = re2.Options()
    options.max_mem = _MAX_MEM_BYTES
    options.log_errors = False
    try:
        chosen = re2.Set.SearchSet(options)
        for pattern in patterns:
            chosen.Add(pattern)
        chosen.Compile()
    except (re2.error, RuntimeError) as exc:
        raise ValueError(f"the patterns are too much together: {exc}") from exc

    def which(text: str) -> list[int]:
        return sorted(chosen.Match(text) or ())

    return which
