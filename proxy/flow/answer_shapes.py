"""Answer heads whose names are known from answers before: one pattern reads them, and says what crosses.

Owns a few shapes per provider. A provider's answers carry the same names in the same order, and only some values change;
such a head is taken apart once, and after that by a single match. Knows no connection: a head that has another shape is
read in the ordinary way, with the same result.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from typing import Final

from proxy.flow.headers import PASSED
from proxy.terms.http import TELLING, AnswerHead

_MAX_SHAPES: Final = 8
_MAX_SEEN: Final = 32
"""Orders of names that were met once; a shape is made when one is met again."""
_MAX_LINES: Final = 64
_NAME: Final = re.compile(rb"\r\n([!-9;-~]+):")
_PLAIN_CONNECTION: Final = frozenset({b"keep-alive", b"close", b""})


class AnswerShape:
    """Header lines of these names in this order."""

    __slots__ = ("_match", "_telling", "kept")

    def __init__(self, names: tuple[bytes, ...]) -> None:
        self._telling: list[tuple[bytes, int]] = []
        runs: list[tuple[int, tuple[bool, ...]]] = []
        pattern, group = [], 0
        for passes, run in groupby(names, lambda name: tuple(keeps[name] for keeps in PASSED.values())):
            group += 1
            runs.append((group - 1, passes))
            pattern.append(rb"(")
            for name in run:
                lower = name.lower()
                value = rb"[^\r\n]*"
                if lower in TELLING:
                    group += 1
                    self._telling.append((lower, group - 1))
                    value = rb"[ \t]*([^\r\n]*)"
                pattern.append(rb"\r\n" + re.escape(name) + rb":" + value + rb"(?<![ \t])")
            pattern.append(rb")")
        self._match = re.compile(b"".join(pattern)).fullmatch
        self.kept = {
            flags: _picker(tuple(place for place, passes in runs if passes[at])) for at, flags in enumerate(PASSED)
        }

    def read(self, status: int, reason: bytes, lines: bytes) -> AnswerHead | None:
        """Return the head these lines make; None when they have another shape."""
        found = self._match(lines)
        if found is None:
            return None
        pieces = found.groups()
        telling = {name: pieces[place].lower() for name, place in self._telling}
        if telling.get(b"connection", b"") not in _PLAIN_CONNECTION:
            return None
        return AnswerHead(status, reason, lines, telling, pieces, self.kept)


def _picker(places: tuple[int, ...]) -> Callable[[tuple[bytes, ...]], tuple[bytes, ...]]:
    """Return what picks the pieces at these places, in C where there are several."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda pieces: tuple(pieces[place] for place in places)


class AnswerShapes:
    """The shapes of one provider's answers, the one that fitted last in front."""

    __slots__ = ("_seen", "_shapes")

    def __init__(self) -> None:
        self._shapes: list[AnswerShape] = []
        self._seen: set[tuple[bytes, ...]] = set()

    def head(self, status: int, reason: bytes, lines: bytes) -> AnswerHead:
        """Read the field lines of an answer, each with its CRLF in front."""
        for at, shape in enumerate(self._shapes):
            head = shape.read(status, reason, lines)
            if head is not None:
                if at:
                    self._shapes.insert(0, self._shapes.pop(at))
                return head
        if len(self._shapes) < _MAX_SHAPES:
            self._learn(lines)
        return AnswerHead(status, reason, lines)

    def _learn(self, lines: bytes) -> None:
        names = tuple(_NAME.findall(lines))
        if not names or len(names) > _MAX_LINES or len(names) != lines.count(b"\n"):
            return
        if names not in self._seen:
            if len(self._seen) >= _MAX_SEEN:
                self._seen.clear()
            self._seen.add(names)
            return
        self._seen.discard(names)
        self._shapes.insert(0, AnswerShape(names))
