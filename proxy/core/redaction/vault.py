"""The vault of one exchange: which placeholder stands for which value, and how a placeholder is recognised.

Owns the form of placeholders (``[EMAIL-1]``), their numbering and the tolerance towards models that rewrite them. It
lives and dies with its exchange and never leaves memory. Does not know JSON documents, streams or policy.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache

from proxy.core.redaction.normal import normal_form
from proxy.core.redaction.sites import count_kinds
from proxy.terms.errors import RedactionFault
from proxy.terms.redaction import Finding

_MAX_BODY = 56
"""Longest text between the brackets that is looked at, in characters."""
SLACK = 8
"""How many characters a model may add inside a placeholder (escapes, spaces) before it is no longer recognised."""

_OPEN = r"(?:[\[\uff3b]|\\{1,4}u(?:005[bB]|[fF]{2}3[bB]))"
_CLOSE = r"(?:[\]\uff3d]|\\{1,4}u(?:005[dD]|[fF]{2}3[dD]))"
_BODY = rf"[ \u00a0]?[A-Za-z][A-Za-z0-9 \u00a0\\_\-\u2010-\u2014\u2212\uff0d]{{0,{_MAX_BODY}}}"
_OPENER = re.compile(_OPEN)
_INSIDE = re.compile(rf"({_BODY}?){_CLOSE}")
"""What follows an opener; ``fold`` and a look-up decide whether it is one of ours."""
_PARTIAL_BODY = re.compile(rf"{_BODY}\Z")
_PARTIAL_ESCAPE = re.compile(r"\\+(?:u[0-9a-fA-F]{0,4})?\Z")
_PLAIN_INSIDE = re.compile(rb"( ?[A-Za-z][A-Za-z0-9 _-]{0,%d})\]" % _MAX_BODY)
_ODD_INSIDE = re.compile(rb" ?[A-Za-z][A-Za-z0-9 _-]{0,%d}[\\\x80-\xff]|[\x80-\xff]| ?\\+u" % _MAX_BODY)
"""What may be the inside of a placeholder in raw JSON too, but with an escape or a character beyond ASCII in it."""
_STRUCTURE = frozenset(b'{["]\n0123456789-\r\t')
"""What stands behind a bracket of JSON itself and behind that of no placeholder."""
_ESCAPED_OPENER = re.compile(rb"\\u(?:005[bB]|[fF]{2}3[bB])")
_DROPPED = dict.fromkeys(map(ord, " \u00a0\\_-\u2010\u2011\u2012\u2013\u2014\u2212\uff0d"))
_NOT_IN_NAME = re.compile(r"[^A-Z0-9]+")
_ESCAPED = re.compile(r'["\\\x00-\x1f]')
_NO_SOURCE = re.compile(r'["\\\x00-\x1f\x7f\ud800-\udfff]')
_SLICE = 1 << 16
_OVERLAP = 128
_KIN, _OWN, _STEP = 5, 3, 2
"""Characters (of five bits) of a keyed placeholder: shared by a value's spellings, its own, and more of these on collision."""
_VARIANTS = "bcdefghijklmnopqrstuvwxyz"


def _letters(key: bytes, kind: str, text: str) -> str:
    message = f"{kind}\0{text}".encode("utf-8", "surrogatepass")
    return base64.b32encode(hmac.digest(key, message, "sha256")).decode()


def _needs_escaping(value: str) -> bool:
    """Tell whether a value cannot stand in JSON source, or in UTF-8, as it is."""
    if value.isprintable() and '"' not in value and "\\" not in value:
        return False
    return _NO_SOURCE.search(value) is not None


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


def folded_tags(text: str) -> list[str]:
    """Return the folded insides of everything in ``text`` that could be read as a placeholder."""
    if len(text) <= _SLICE:
        return [fold(inside[1]) for _, inside in _candidates(text)]
    insides: list[str] = []
    for start in range(0, len(text), _SLICE):  # in slices: a search through megabytes keeps other threads waiting
        insides += folded_tags(text[start : start + _SLICE - _OVERLAP])
        insides += folded_tags(text[start + _SLICE - 2 * _OVERLAP : start + _SLICE + _OVERLAP])
    return insides


def _candidates(text: str) -> Iterator[tuple[int, re.Match[str]]]:
    """Yield, for each opener with something like a placeholder behind it, its offset and that something."""
    if "\\u" in text or "\uff3b" in text:
        for opener in _OPENER.finditer(text):
            inside = _INSIDE.match(text, opener.end())
            if inside is not None:
                yield opener.start(), inside
        return
    at = text.find("[")
    while at >= 0:
        inside = _INSIDE.match(text, at + 1)
        if inside is not None:
            yield at, inside
        at = text.find("[", at + 1)


class Vault:
    """Placeholders and the values they stand for.

    A value keeps its placeholder; another spelling of the same value (``52998224725`` for ``529.982.247-25``) gets the
    same number with a letter (``[CPF-1b]``), so the model sees that they are kin and each comes back as it was.
    """

    __slots__ = (
        "_by_folded",
        "_by_value",
        "_counts",
        "_first",
        "_is_numbered",
        "_key",
        "_longest",
        "_needs_escaping",
        "_numbers",
        "_reserved",
        "_sorted",
    )

    def __init__(self, reserved: Iterable[str] = (), key: bytes = b"") -> None:
        """Begin empty.

        Args:
            reserved: Folded insides (``folded_tags``) that the exchange's own text already uses.
            key: Placeholders come from the values under this key, not from their order.
        """
        self._key = key
        self._by_folded: dict[str, str] = {}
        self._by_value: dict[tuple[str, str], str] = {}
        self._first: dict[str, tuple[str, str] | None] = {}
        """Name -> type and value of number one, whose normal form nobody has asked for; None once that was done."""
        self._numbers: dict[tuple[str, str], list[int]] = {}
        self._counts: dict[str, int] = {}
        self._reserved = frozenset(reserved)
        self._is_numbered = not key and not self._reserved
        self._sorted: list[str] | None = None
        self._longest = 0
        self._needs_escaping = False

    @property
    def needs_escaping(self) -> bool:
        """Some value holds a quote, a backslash, a control character or half a surrogate pair."""
        if self._sorted is None:
            self._prepare()
        return self._needs_escaping

    def _prepare(self) -> list[str]:
        """Work out what only the way back needs to know."""
        self._needs_escaping = _needs_escaping("".join(self._by_folded.values()))
        self._longest = max(map(len, self._by_value.values()), default=2) - 2 + SLACK
        self._sorted = sorted(self._by_folded)
        return self._sorted

    @property
    def is_empty(self) -> bool:
        return not self._by_folded

    def __len__(self) -> int:
        return len(self._by_folded)

    def __repr__(self) -> str:
        return f"<Vault {len(self._by_folded)} placeholders>"

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("a vault is never written down")

    def put_away(self, text: str, findings: list[Finding]) -> str:
        """Return a text with placeholders in place of its findings, which are disjoint and in order."""
        pieces: list[str] = []
        done = 0
        made, first, folded = self._by_value, self._first, self._by_folded
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
        self._sorted = None
        pieces.append(text[done:])
        return "".join(pieces)

    def counts(self) -> dict[str, int]:
        """Return how many different values of each type are in here."""
        return count_kinds(self._by_value)

    def tag(self, kind: str, value: str) -> str:
        """Return the placeholder of a value, making one at its first appearance."""
        return self._by_value.get((kind, value)) or self.put_away(value, [Finding(0, len(value), kind, 1.0)])

    def _another(self, kind: str, value: str) -> str:
        """Make a placeholder where other values, or the exchange's own text, have to be looked at."""
        name = tag_name(kind)
        if self._key:
            return self._keep(kind, value, f"[{self._keyed(name, kind, value)}]")
        first = self._first.get(name)
        if first is not None:
            self._first[name] = None
            self._counts[name] = 1
            self._numbers[first[0], normal_form(*first)] = [1, 0]
        identity = (kind, normal_form(kind, value))
        inside = self._numbered(name, identity) if identity not in self._numbers else self._variant(name, identity)
        return self._keep(kind, value, f"[{inside}]")

    def _keep(self, kind: str, value: str, tag: str) -> str:
        self._by_value[kind, value] = tag
        self._by_folded[fold(tag[1:-1])] = value
        self._sorted = None
        return tag

    def _keyed(self, name: str, kind: str, value: str) -> str:
        """Return a name that only this value has: five characters its spellings share, three or more of its own."""
        kin = _letters(self._key, kind, normal_form(kind, value))[:_KIN]
        own = _letters(self._key, kind, "=" + value)
        for size in range(_OWN, len(own), _STEP):
            inside = f"{name}-{kin}{own[:size]}"
            folded = fold(inside)
            if folded not in self._by_folded and folded not in self._reserved:
                return inside
        raise RedactionFault("no placeholder is left for a value")  # 2 ** 80 values later

    def rows(self) -> list[tuple[str, str, str]]:
        """Return type, value and placeholder of everything in here, for the other end of a private pipe."""
        return [(kind, value, tag) for (kind, value), tag in self._by_value.items()]

    def take(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Take in what another vault gave away; it is then for restoring alone."""
        for kind, value, tag in rows:
            self._keep(kind, value, tag)

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

    def value_of(self, body: str, depth: int = 0) -> str:
        """Return the value behind a placeholder's inside (of ``tags_in``), escaped for ``depth`` levels of JSON strings."""
        value = self._by_folded[fold(body)]
        if not depth or not _ESCAPED.search(value):
            return value
        for _ in range(depth):
            value = json.dumps(value, ensure_ascii=False)[1:-1]
        return value

    def splice(self, data: bytes) -> bytes | None:
        """Put the values back into JSON (or text) by its bytes alone, wherever in it they stand.

        Returns:
            The very same bytes when no placeholder is in them; None when that is for a parser to say: a value or a
            placeholder has escapes or rare characters.
        """
        is_plain = data.isascii() and data.find(b"\\") < 0
        if not is_plain and (
            data.find(b"\xef\xbc\xbb") >= 0 or (data.find(b"\\u") >= 0 and _ESCAPED_OPENER.search(data) is not None)
        ):
            return None
        pieces: list[bytes] = []
        known = self._by_folded
        done, last = 0, len(data) - 1
        at = data.find(b"[")
        while 0 <= at < last:
            if data[at + 1] not in _STRUCTURE:
                found = _PLAIN_INSIDE.match(data, at + 1)
                if found is not None:
                    inside = found[1].decode()
                    value = known.get(inside.replace("-", "")) or known.get(fold(inside))
                    if value is not None and (len(inside) <= SLACK or not self._is_too_long(inside)):
                        if _needs_escaping(value):
                            return None
                        pieces += (data[done:at], value.encode())
                        done = found.end()
                elif not is_plain and _ODD_INSIDE.match(data, at + 1) is not None:
                    return None
            at = data.find(b"[", at + 1)
        if not pieces:
            return data
        pieces.append(data[done:])
        return b"".join(pieces)

    def _is_too_long(self, inside: str) -> bool:
        if self._sorted is None:
            self._prepare()
        return len(inside) > self._longest

    def restore_text(self, text: str) -> str:
        """Put the values back into one plain text. What was put in is not read again."""
        if not self._by_folded or not may_hold_tag(text):
            return text
        pieces: list[str] = []
        done = 0
        for start, end, body in self.tags_in(text):
            pieces += (text[done:start], self.value_of(body))
            done = end
        return "".join(pieces) + text[done:] if pieces else text

    def tags_in(self, text: str) -> Iterator[tuple[int, int, str]]:
        r"""Yield start, end and inside of each placeholder of this vault, as written in ``text``.

        Brackets that Markdown escapes as a pair (``\[EMAIL-1\]``) belong to it.
        """
        done = 0
        if self._sorted is None:
            self._prepare()
        longest = self._longest
        for start, inside in _candidates(text):
            body = inside[1]
            if start < done or len(body) > longest or fold(body) not in self._by_folded:
                continue
            if body[-1] == "\\" and start > done and text[start - 1] == "\\" != text[start - 2 : start - 1]:
                start -= 1
            done = inside.end()
            yield start, done, body

    def hold_from(self, text: str) -> int:
        """Return the offset in ``text`` from which it may still become a placeholder; ``len(text)`` when nothing may.

        At most the length of the longest placeholder plus ``SLACK`` and two escaped brackets is ever held.
        """
        size = len(text)
        if self._sorted is None:
            self._prepare()
        floor = max(0, size - self._longest - 24)
        if "\\" in text or "\uff3b" in text:
            return self._hold_escaped(text, floor)
        at = text.find("[", floor)
        while at >= 0:
            if self._may_grow(text[at + 1 :]):
                return at
            at = text.find("[", at + 1)
        return size

    def _hold_escaped(self, text: str, at: int) -> int:
        """The same for a text in which an opener may be written as an escape or stand behind a backslash."""
        while found := _OPENER.search(text, at):
            if self._may_grow(text[found.end() :]):
                return _before_backslashes(text, found.start())
            at = found.start() + 1
        partial = _PARTIAL_ESCAPE.search(text, max(0, len(text) - 12))
        return partial.start() if partial else len(text)

    def _may_grow(self, body: str) -> bool:
        """Tell whether the text after an opener is the beginning of a known placeholder's inside."""
        if "\\" in body and (closing := _PARTIAL_ESCAPE.search(body)):
            body = body[: closing.start()]
        if len(body) <= 1 and body in ("", " ", "\u00a0"):
            return True
        if len(body) > self._longest or not _PARTIAL_BODY.match(body):
            return False
        folded = fold(body)
        known = self._sorted if self._sorted is not None else self._prepare()
        at = bisect_left(known, folded)
        return at < len(known) and known[at].startswith(folded)

    def close(self) -> None:
        """Forget everything; the vault is empty afterwards."""
        self._by_folded.clear()
        self._by_value.clear()
        self._first.clear()
        self._numbers.clear()
        self._sorted = None


def may_hold_tag(text: str) -> bool:
    """Tell cheaply whether a text could hold the opening of a placeholder, or the first part of one."""
    return "[" in text or "\\" in text or "\uff3b" in text


def _before_backslashes(text: str, at: int) -> int:
    """Step back over the backslashes in front of an opener, at most eight."""
    floor = max(0, at - 8)
    while at > floor and text[at - 1] == "\\":
        at -= 1
    return at
