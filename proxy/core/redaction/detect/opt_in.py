"""Kinds without form or check, found by their label alone: names, addresses, card security codes.

Owns what may follow such a label. Off unless a rule names the kind: free text is guessed at here. Streams do without,
because the end of a name cannot be known before what follows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from proxy.core.redaction.detect.context import WEAK, Context
from proxy.core.redaction.detect.engine import HAS_RE2, compile_text
from proxy.core.redaction.detect.tables.opt_in import KINDS, SINGLE_WORD_LABELS

_PRIORITY = {kind.name: kind.priority for kind in KINDS}
_ACCENTS = {"a": "[aáàâãä]", "e": "[eéèêë]", "i": "[iíìîï]", "o": "[oóòôõö]", "u": "[uúùûü]", "c": "[cç]", "n": "[nñ]"}
_CAPITALISED = r"[A-ZÀ-ÖØ-Þ][\w'\u2019.\-]{0,30}"
_LINK = r"(?:(?:de|da|do|dos|das|del|della|di|du|la|le|van|von|der|den|ter|bin|al|e|y|of) ){0,2}"
_SEPARATOR = r"[\"'`*_]{0,3}[ \t]{0,4}(?:[:=|\t>]|=>|[ \t](?:is|é|es|ist|est|è)[ \t])(?:\*\*|</[A-Za-z]{1,8}>)?[ \t]{0,4}\\?[\"'`*]{0,2}"
_ADDRESS = r"(?=[^\"\n<>{}|;]{0,80}[0-9])(?=[^\"\n<>{}|;]{0,80}[A-Za-zÀ-ÿ]{3})[^\s\"<>{}|;][^\"\n<>{}|;\\]{6,118}[^\s\"<>{}|;\\.,]"
_VALUES = {
    "PERSON": rf"{_CAPITALISED}(?:[ ]{_LINK}{_CAPITALISED}){{1,5}}",
    "SINGLE": rf"{_CAPITALISED}(?:[ ]{_LINK}{_CAPITALISED}){{0,5}}",
    "ADDRESS": _ADDRESS,
    "CVV": r"[0-9]{3,4}(?![0-9.\-/])",
}


def _spelled(label: str) -> str:
    """Return the pattern of a label in any accents, words joined as keys join them."""
    return "".join("[ _.-]?" if c == " " else _ACCENTS.get(c, c) for c in label)


def _heads(labels: list[str]) -> Any:
    """Compile labels with what parts them from their value; on RE2 where there is one, for prose is read with it."""
    words = "|".join(_spelled(label) for label in sorted(labels, key=lambda w: (-len(w), w)))
    source = rf"(?i:{words}){_SEPARATOR}"
    return compile_text(source) if HAS_RE2 else re.compile(source)


class _Finder(NamedTuple):
    """One kind's labels, and what may follow them."""

    kind: str
    heads: Any
    value: re.Pattern[str]


class OptIn:
    """The finders of the opt-in kinds that were asked for."""

    def __init__(self, kinds: frozenset[str]) -> None:
        self.kinds = kinds & _PRIORITY.keys()
        self._finders: list[_Finder] = []
        for kind in KINDS if self.kinds else ():
            if kind.name not in self.kinds:
                continue
            single = [label for label in kind.labels if label in SINGLE_WORD_LABELS]
            other = [label for label in kind.labels if label not in SINGLE_WORD_LABELS]
            self._finders.append(_Finder(kind.name, _heads(other), re.compile(_VALUES[kind.name])))
            if single:
                self._finders.append(_Finder(kind.name, _heads(single), re.compile(_VALUES["SINGLE"])))

    def search(self, ctx: Context, text: str) -> None:
        """Report what follows the labels."""
        for kind, start, end in self._values(text):
            ctx.add(start, end, kind, _PRIORITY[kind], WEAK)

    def could_match(self, text: str) -> bool:
        """True when some label with a value stands in the text."""
        return next(self._values(text), None) is not None

    def _values(self, text: str) -> Iterator[tuple[str, int, int]]:
        for kind, heads, value in self._finders:
            for head in heads.finditer(text):
                found = value.match(text, head.end()) if _begins_word(text, head.start()) else None
                if found is not None:
                    yield kind, found.start(), found.end()


def _begins_word(text: str, start: int) -> bool:
    """True at the start of a word, or of a hump (``billingAddress``)."""
    before = text[start - 1 : start]
    return not before.isalnum() or (before.islower() and text[start].isupper())
