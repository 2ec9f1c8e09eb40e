"""How placeholders are spelled, and which one a value gets.

Owns names of types, numbers, variants and keyed names. Does not know what becomes of a placeholder on its way back
(``vault.py``).
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable
from functools import cache, lru_cache
from operator import itemgetter
from typing import NamedTuple

from proxy.core.redaction.normal import normal_form
from proxy.terms.errors import RedactionFault
from proxy.terms.redaction import Counts, Finding

_DROPPED = dict.fromkeys(map(ord, " \u00a0\\_-\u2010\u2011\u2012\u2013\u2014\u2212\uff0d"))
_NOT_IN_NAME = re.compile(r"[^A-Z0-9]+")
_KIN, _OWN, _STEP = 5, 3, 2
"""Characters (of five bits) of a keyed placeholder: shared by a value's spellings, its own, and more of these on collision."""
_MAX_PREPARED = 16
"""Texts with more findings are taken apart piece by piece each time, so that what is kept of them stays small."""
_VARIANTS = "bcdefghijklmnopqrstuvwxyz"


def fold(body: str) -> str:
    r"""Return what is left of a placeholder's inside when spelling does not count: ``email\-1`` -> ``EMAIL1``."""
    return body.translate(_DROPPED).upper()


@lru_cache(maxsize=1024)
def tag_name(kind: str) -> str:
    """Return how a type is spelled inside a placeholder: no underscore (Markdown escapes it), a letter at the end."""
    name = _NOT_IN_NAME.sub("-", kind.upper()).strip("-") or "VALUE"
    return name if name[-1].isalpha() else name + "-X"


@cache  # types are those of the tables and of policies
def _first_of(kind: str) -> tuple[str, str, str]:
    """Return the name of a type, its first placeholder and that one's inside, folded."""
    name = tag_name(kind)
    return name, f"[{name}-1]", fold(f"{name}1")


class Opening(NamedTuple):
    """What an exchange's first values get when no two of them share a name: number one, whatever they are."""

    kinds: tuple[str, ...]
    tags: tuple[str, ...]
    """The placeholder of each."""
    places: dict[bytes, int]
    """The inside of each placeholder -> which of them it is."""
    counts: Counts


class Spans(list[Finding]):
    """The findings of one text, disjoint and in order, with what can be said of them before any exchange."""

    __slots__ = ("_cut", "_is_used", "is_ordinary", "opening")

    def __init__(self, findings: list[Finding], *, is_ordinary: bool = False) -> None:
        """``is_ordinary``: what ``seen.is_ordinary`` says of the text."""
        super().__init__(findings)
        self.is_ordinary = is_ordinary
        self._cut: Callable[[str], tuple[str, ...]] | None = None
        self._is_used = False
        self.opening = _opening(tuple([found[2] for found in findings]))
        """None when two values share a name: then it depends on the values what they get."""

    def take_apart(self, text: str) -> list[str]:
        """Return what stands before the first value, that value, what stands between, and so on."""
        if self._cut is not None:
            return list(self._cut(text))
        pieces: list[str] = []
        done = 0
        for start, end, _, _, _ in self:
            pieces += (text[done:start], text[start:end])
            done = end
        pieces.append(text[done:])
        if self._is_used and len(self) <= _MAX_PREPARED:  # the text comes again: prepared, it takes half the time
            self._prepare()
        self._is_used = True
        return pieces

    def _prepare(self) -> None:
        cuts: list[slice] = []
        done = 0
        for start, end, _, _, _ in self:
            cuts += (slice(done, start), slice(start, end))
            done = end
        self._cut = itemgetter(*cuts, slice(done, None))


@lru_cache(maxsize=1024)
def _opening(kinds: tuple[str, ...]) -> Opening | None:
    firsts = [_first_of(kind) for kind in kinds]
    if not kinds or len({name for name, _, _ in firsts}) < len(firsts):
        return None
    tags = tuple([tag for _, tag, _ in firsts])
    return Opening(
        kinds, tags, {tag[1:-1].encode(): at for at, tag in enumerate(tags)}, Counts(dict.fromkeys(kinds, 1))
    )


class Numbers:
    """The placeholders of one exchange, given out one by one.

    A value keeps its placeholder; another spelling of the same value (``52998224725`` for ``529.982.247-25``) gets the
    same number with a letter (``[CPF-1b]``), so the model sees that they are kin and each comes back as it was.
    """

    __slots__ = ("_counts", "_first", "_folded", "_is_numbered", "_key", "_numbers", "_reserved", "tags")

    def __init__(self, folded: dict[str, str], reserved: frozenset[str], key: bytes) -> None:
        """Begin with none.

        Args:
            folded: Folded inside -> value; every placeholder given out is put there.
            reserved: Folded insides that are not to be given out.
            key: Placeholders come from the values under this key, not from their order.
        """
        self._folded = folded
        self._reserved = reserved
        self._key = key
        self._is_numbered = not key and not reserved
        self.tags: dict[tuple[str, str], str] = {}
        """Type and value -> placeholder."""
        self._first: dict[str, tuple[str, str] | None] = {}
        """Name -> type and value of number one, whose normal form nobody has asked for; None once that was done."""
        self._numbers: dict[tuple[str, str], list[int]] = {}
        self._counts: dict[str, int] = {}

    def put_away(self, text: str, findings: list[Finding]) -> str:
        """Return a text with placeholders in place of its findings, which are disjoint and in order."""
        pieces: list[str] = []
        done = 0
        made, first, folded = self.tags, self._first, self._folded
        is_numbered = self._is_numbered
        for start, end, kind, _, _ in findings:
            value = text[start:end]
            identity = (kind, value)
            tag = made.get(identity)
            if tag is None:
                name, tag, inside = _first_of(kind)
                if is_numbered and name not in first:
                    first[name] = identity
                    folded[inside] = value
                    made[identity] = tag
                else:
                    tag = self._another(kind, value)
            pieces.append(text[done:start])
            pieces.append(tag)
            done = end
        pieces.append(text[done:])
        return "".join(pieces)

    def tag(self, kind: str, value: str) -> str:
        """Return the placeholder of a value, making one at its first appearance."""
        return self.tags.get((kind, value)) or self.put_away(value, [Finding(0, len(value), kind, 1.0)])

    def keep(self, kind: str, value: str, tag: str) -> str:
        """Note the placeholder of a value, and return it."""
        self.tags[kind, value] = tag
        self._folded[fold(tag[1:-1])] = value
        return tag

    def _another(self, kind: str, value: str) -> str:
        """Make a placeholder where other values, or the exchange's own text, have to be looked at."""
        name = tag_name(kind)
        if self._key:
            return self.keep(kind, value, f"[{self._keyed(name, kind, value)}]")
        first = self._first.get(name)
        if first is not None:
            self._first[name] = None
            self._counts[name] = 1
            self._numbers[first[0], normal_form(*first)] = [1, 0]
        identity = (kind, normal_form(kind, value))
        inside = self._numbered(name, identity) if identity not in self._numbers else self._variant(name, identity)
        return self.keep(kind, value, f"[{inside}]")

    def _keyed(self, name: str, kind: str, value: str) -> str:
        """Return a name that only this value has: five characters its spellings share, three or more of its own."""
        kin = _letters(self._key, kind, normal_form(kind, value))[:_KIN]
        own = _letters(self._key, kind, "=" + value)
        for size in range(_OWN, len(own), _STEP):
            inside = f"{name}-{kin}{own[:size]}"
            folded = fold(inside)
            if folded not in self._folded and folded not in self._reserved:
                return inside
        raise RedactionFault("no placeholder is left for a value")  # 2 ** 80 values later

    def _variant(self, name: str, identity: tuple[str, str]) -> str:
        """Return the known number with the next free letter; a number of its own when there is none."""
        numbered = self._numbers[identity]
        number, used = numbered
        while used < len(_VARIANTS):
            letter = _VARIANTS[used]
            used += 1
            numbered[1] = used
            if fold(f"{name}{number}{letter}") not in self._reserved:
                return f"{name}-{number}{letter}"
        return self._numbered(name, identity)

    def _numbered(self, name: str, identity: tuple[str, str]) -> str:
        number = self._counts.get(name, 0) + 1
        while self._reserved and fold(f"{name}{number}") in self._reserved:
            number += 1
        self._counts[name] = number
        self._numbers[identity] = [number, 0]
        return f"{name}-{number}"


def _letters(key: bytes, kind: str, text: str) -> str:
    message = f"{kind}\0{text}".encode("utf-8", "surrogatepass")
    return base64.b32encode(hmac.digest(key, message, "sha256")).decode()
