"""Kinds without form or check, found by their label alone: names, addresses, card security codes.

Owns what may follow such a label. Off unless a rule names the kind: free text is guessed at here. Streams do without,
because the end of a name cannot be known before what follows it.
"""

from __future__ import annotations

import re

from proxy.core.redaction.detect.context import WEAK, Context
from proxy.core.redaction.detect.tables.opt_in import KINDS, SINGLE_WORD_LABELS

_PRIORITY = {kind.name: kind.priority for kind in KINDS}
_ACCENTS = {"a": "[aáàâãä]", "e": "[eéèêë]", "i": "[iíìîï]", "o": "[oóòôõö]", "u": "[uúùûü]", "c": "[cç]", "n": "[nñ]"}
_CAPITALISED = r"[A-ZÀ-ÖØ-Þ][\w'\u2019.\-]{0,30}"
_LINK = r"(?:(?:de|da|do|dos|das|del|della|di|du|la|le|van|von|der|den|ter|bin|al|e|y|of) ){0,2}"
_SEPARATOR = r"[\"'`*_]{0,3}[ \t]{0,4}(?:[:=|\t>]|=>|[ \t](?:is|é|es|ist|est|è)[ \t])[ \t]{0,4}\\?[\"'`*]{0,2}"
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


def _pattern(labels: list[str], value: str) -> re.Pattern[str]:
    words = "|".join(_spelled(label) for label in sorted(labels, key=lambda w: (-len(w), w)))
    return re.compile(rf"(?:(?<![^\W_])|(?<=[a-z])(?=[A-Z]))(?i:{words}){_SEPARATOR}({value})")


class OptIn:
    """The finders of the opt-in kinds that were asked for."""

    def __init__(self, kinds: frozenset[str]) -> None:
        self.kinds = kinds & _PRIORITY.keys()
        self._patterns: list[tuple[str, re.Pattern[str]]] = []
        for kind in KINDS if self.kinds else ():
            if kind.name not in self.kinds:
                continue
            single = [label for label in kind.labels if label in SINGLE_WORD_LABELS]
            other = [label for label in kind.labels if label not in SINGLE_WORD_LABELS]
            self._patterns.append((kind.name, _pattern(other, _VALUES[kind.name])))
            if single:
                self._patterns.append((kind.name, _pattern(single, _VALUES["SINGLE"])))

    def search(self, ctx: Context, text: str) -> None:
        """Report what follows the labels."""
        for kind, pattern in self._patterns:
            for found in pattern.finditer(text):
                ctx.add(*found.span(1), kind, _PRIORITY[kind], WEAK)

    def could_match(self, text: str) -> bool:
        """True when some label with a value stands in the text."""
        return any(pattern.search(text) is not None for _, pattern in self._patterns)
