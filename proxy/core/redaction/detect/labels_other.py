"""Label words in other scripts than Latin: ``身份证号``, ``телефон``, ``هاتف``, ``เบอร์โทร``.

Owns how they are looked for in the text itself, for the bytes of the automaton show question marks where they stand.
Most such scripts set no blanks between words or glue small words to them, so a label counts wherever it stands; Greek
and Cyrillic have words, and there a label begins one. Knows no kind's rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property

_WINDOW = 40
"""Characters before a value in which a label is looked for."""
_BEHIND = 24
_SHORT_WORD = 3
"""Of a label no longer than this the word has to end where it ends: ``тел``, ``инн``, ``κιν``."""
_OPENERS = " (\uff08_"
_PLAIN = str.maketrans(
    "_\u03ac\u03ad\u03ae\u03af\u03cc\u03cd\u03ce\u03ca\u03cb\u0390\u03b0\u0451\u0623\u0625\u0622\u0649\u0629\u06cc\u06a9",
    " \u03b1\u03b5\u03b7\u03b9\u03bf\u03c5\u03c9\u03b9\u03c5\u03b9\u03c5\u0435\u0627\u0627\u0627\u064a\u0647\u064a\u0643",
)
"""Letters that are written with and without their marks: Greek with accents, Cyrillic yo, the forms of Arabic and Persian."""
_IN_WORDS = "\u0370", "\u052f"
"""First and last letter of Greek and Cyrillic."""


class OtherLabels:
    """The labels in other scripts, compiled when the first text with such letters is met."""

    def __init__(self, kinds: Mapping[str, frozenset[str]], decisive: frozenset[str]) -> None:
        """Take label in lower case -> kinds it names, and the labels that may open a gate."""
        self._kinds: dict[str, frozenset[str]] = {}
        for label, named in kinds.items():
            self._kinds[_lower(label)] = self._kinds.get(_lower(label), frozenset()) | named
        self._openers = tuple({_lower(label): None for label in decisive})

    @cached_property
    def _scan(self) -> re.Pattern[str]:
        return re.compile(_pattern(tuple(self._kinds)))

    @cached_property
    def _decisive(self) -> re.Pattern[str]:
        return re.compile(_pattern(self._openers))

    def before(self, text: str, start: int) -> tuple[frozenset[str], str] | None:
        """Return what the last label before ``start`` names, and the text between both."""
        window = text[max(0, start - _WINDOW) : start]
        if window.isascii():
            return None
        lower = _lower(window)
        best = None
        at = 0
        while found := self._scan.search(lower, at):
            at = found.start() + 1
            if _is_word(window, *found.span()):
                at = found.end()
                best = found
        return None if best is None else (self._kinds[best[0]], window[best.end() :])

    def behind(self, text: str, end: int) -> frozenset[str] | None:
        """Return what a label right behind a value names."""
        found = self._scan.match(_lower(text[end : end + _BEHIND].lstrip(_OPENERS)))
        return self._kinds[found[0]] if found else None

    def any_in(self, text: str) -> bool:
        """True when a decisive label stands anywhere in the text."""
        return self._decisive.search(_lower(text)) is not None


def _lower(text: str) -> str:
    """Return the text in lower case, character by character, in plain letters, keys' joints (``номер_телефона``) as blanks."""
    lower = text.lower()
    return (lower if len(lower) == len(text) else text).translate(_PLAIN)


def _is_word(window: str, start: int, end: int) -> bool:
    if not _IN_WORDS[0] <= window[start] <= _IN_WORDS[1]:
        return True
    if start and window[start - 1].isalpha() and not (window[start].isupper() and window[start - 1].islower()):
        return False
    return end - start > _SHORT_WORD or not window[end : end + 1].isalpha()


def _pattern(words: tuple[str, ...]) -> str:
    """Return a pattern of all words that reads each character of a text once, the longest word first."""
    if not words:
        return r"(?!)"
    root: dict[str, dict] = {}  # type: ignore[type-arg]
    for word in words:
        node = root
        for char in word:
            node = node.setdefault(char, {})
        node[""] = {}
    return _branches(root)


def _branches(node: dict[str, dict]) -> str:  # type: ignore[type-arg]
    rest = [re.escape(char) + _branches(child) for char, child in node.items() if char]
    if not rest:
        return ""
    if len(rest) == 1 and "" not in node:
        return rest[0]
    return "(?:" + "|".join(rest) + ")" + ("?" if "" in node else "")


__all__ = ["OtherLabels"]
