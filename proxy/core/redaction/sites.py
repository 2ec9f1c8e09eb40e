"""What a walk has found, and where: the places of a document and the pieces of their texts that would be replaced.

Owns these nouns and their counts. Does not know how a document is walked (``scan.py``) nor what is put in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any, NamedTuple

from proxy.terms.redaction import Finding

_KIND_OF = itemgetter(2)


class Edit(NamedTuple):
    """One finding in one text: what would be replaced."""

    start: int
    end: int
    kind: str
    value: str
    depth: int = 0
    """How many levels of JSON strings the place is in."""
    is_number: bool = False
    """The value is a JSON number; a stand-in needs quotes."""
    is_rest: bool = False
    """The value began in the text before; what is here just goes."""


class Site:
    """A place in the document with findings. ``parent[key]`` holds ``text``, or ``text`` is the key itself."""

    __slots__ = ("_edits", "findings", "is_key", "key", "parent", "path", "text")

    def __init__(
        self,
        parent: Any,
        key: Any,
        text: str,
        path: tuple[Any, ...],
        found: list[Edit] | None,
        is_key: bool = False,
        findings: list[Finding] | None = None,
    ) -> None:
        """Note what was found: as edits, or as findings of a text that is read as it is written."""
        self.parent = parent
        self.key = key
        self.text = text
        self.path = path
        self._edits = found
        self.findings = findings
        """The findings of ordinary prose as they came, disjoint and in order; None where ``edits`` say more."""
        self.is_key = is_key

    @property
    def edits(self) -> list[Edit]:
        """What would be replaced; whoever asks may change it, so it alone counts from then on."""
        if self._edits is None:
            text = self.text
            self._edits = [Edit(f[0], f[1], f[2], text[f[0] : f[1]]) for f in self.findings or ()]
            self.findings = None
        return self._edits

    def kinds(self) -> Iterable[str]:
        """Return the type of each finding."""
        found: list[Finding] | list[Edit] = self.edits if self.findings is None else self.findings
        return map(_KIND_OF, found)

    def values(self) -> Iterator[tuple[str, str]]:
        """Yield type and value of each finding."""
        if self.findings is None:
            for edit in self.edits:
                yield edit.kind, edit.value
        else:
            text = self.text
            for start, end, kind, _, _ in self.findings:
                yield kind, text[start:end]


def distinct(sites: list[Site]) -> dict[str, int]:
    """Return how many different values of each type were found."""
    return count_kinds(dict.fromkeys([value for site in sites for value in site.values()]))


def count_kinds(values: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Return how often each type occurs among (type, value) pairs."""
    counts: dict[str, int] = {}
    for kind, _ in values:
        counts[kind] = counts.get(kind, 0) + 1
    return counts
