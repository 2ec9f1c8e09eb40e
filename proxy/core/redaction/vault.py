"""The vault of one exchange: which placeholder stands for which value, and how a placeholder is recognised.

Owns the values and the tolerance towards models that rewrite placeholders (``[EMAIL-1]``; ``tags.py`` gives them out).
It lives and dies with its exchange; its rows alone may go elsewhere: through a private pipe or, where policy keeps
values, sealed. Does not know JSON documents, streams or policy.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from proxy.core.redaction.sites import count_kinds
from proxy.core.redaction.tags import Numbers, Opening, Spans, fold
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
_CLOSED = ord("]")
_NO_PLACES: Final[dict[bytes, int]] = {}
_NOBODYS: Final[frozenset[str]] = frozenset()
_ESCAPED = re.compile(r'["\\\x00-\x1f]')
_NO_SOURCE = re.compile(r'["\\\x00-\x1f\x7f\ud800-\udfff]')
_SLICE = 1 << 16
_OVERLAP = 128


def _needs_escaping(value: str) -> bool:
    """Tell whether a value cannot stand in JSON source, or in UTF-8, as it is."""
    if value.isprintable() and '"' not in value and "\\" not in value:
        return False
    return _NO_SOURCE.search(value) is not None


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
    """Placeholders and the values they stand for."""

    __slots__ = (
        "_by_folded",
        "_is_fresh",
        "_key",
        "_longest",
        "_needs_escaping",
        "_numbers",
        "_opening",
        "_reserved",
        "_sorted",
        "_values",
    )

    def __init__(self, reserved: Iterable[str] = (), key: bytes = b"") -> None:
        """Begin empty.

        Args:
            reserved: Folded insides (``folded_tags``) that the exchange's own text already uses.
            key: Placeholders come from the values under this key, not from their order.
        """
        self._key = key
        self._reserved = frozenset(reserved) if reserved else _NOBODYS
        self._is_fresh = not key and not reserved
        """Nothing is in here yet, and numbers begin with one."""
        self._by_folded: dict[str, str] = {}
        self._numbers: Numbers | None = None
        self._opening: Opening | None = None
        """What the values of the first text got, while nobody has asked for more than these; then they are ``_values``."""
        self._values: list[str] = []
        self._sorted: list[str] | None = None

    @property
    def needs_escaping(self) -> bool:
        """Some value holds a quote, a backslash, a control character or half a surrogate pair."""
        if self._sorted is None:
            self._prepare()
        return self._needs_escaping

    def _prepare(self) -> list[str]:
        """Work out what only the way back of other than common answers needs to know."""
        numbers = self._one_by_one()
        self._needs_escaping = _needs_escaping("".join(self._by_folded.values()))
        self._longest = max(map(len, numbers.tags.values()), default=2) - 2 + SLACK
        self._sorted = sorted(self._by_folded)
        return self._sorted

    @property
    def is_empty(self) -> bool:
        return not self._by_folded and self._opening is None

    def __len__(self) -> int:
        return len(self._by_folded) or len(self._values)

    def __repr__(self) -> str:
        return f"<Vault {len(self)} placeholders>"

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("a vault is never written down")

    def put_away(self, text: str, findings: list[Finding]) -> str:
        """Return a text with placeholders in place of its findings, which are disjoint and in order."""
        self._sorted = None
        if self._is_fresh:
            spans = findings if type(findings) is Spans else Spans(findings)
            opening = spans.opening
            if opening is not None:
                self._is_fresh = False
                self._opening = opening
                pieces = spans.take_apart(text)
                self._values = pieces[1::2]
                pieces[1::2] = opening.tags
                return "".join(pieces)
        return self._one_by_one().put_away(text, findings)

    def _one_by_one(self) -> Numbers:
        """Return what numbers the values: there are more than the first, or somebody asks for all of them."""
        numbers = self._numbers
        if numbers is None:
            self._is_fresh = False
            numbers = self._numbers = Numbers(self._by_folded, self._reserved, self._key)
            if self._opening is not None:
                for kind, value in zip(self._opening.kinds, self._values, strict=True):
                    numbers.tag(kind, value)
                self._opening, self._values = None, []
        return numbers

    def counts(self) -> dict[str, int]:
        """Return how many different values of each type are in here; nobody may change it."""
        return count_kinds(self._one_by_one().tags) if self._opening is None else self._opening.counts

    def tag(self, kind: str, value: str) -> str:
        """Return the placeholder of a value, making one at its first appearance."""
        self._sorted = None
        return self._one_by_one().tag(kind, value)

    def rows(self) -> list[tuple[str, str, str]]:
        """Return type, value and placeholder of everything in here, for the other end of a private pipe."""
        return [(kind, value, tag) for (kind, value), tag in self._one_by_one().tags.items()]

    def take(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Take in what another vault gave away; it is then for restoring alone."""
        self._sorted = None
        numbers = self._one_by_one()
        for kind, value, tag in rows:
            numbers.keep(kind, value, tag)

    def value_of(self, body: str, depth: int = 0) -> str:
        """Return the value behind a placeholder's inside (of ``tags_in``), escaped for ``depth`` levels of JSON strings."""
        value = self._by_folded[fold(body)]
        if not depth or not _ESCAPED.search(value):
            return value
        for _ in range(depth):
            value = json.dumps(value, ensure_ascii=False)[1:-1]
        return value

    def splice(self, data: bytes, has_company: Callable[[bytes], bool]) -> bytes | None:
        """Put the values back into JSON (or text) by its bytes alone, wherever in it they stand.

        Args:
            data: The bytes.
            has_company: Tells whether something stands beside the texts that has to change with them; asked where
                there are more lists than that of the texts.

        Returns:
            The very same bytes when no placeholder is in them; None when that is for a parser to say: a value or a
            placeholder has escapes or rare characters, or there is company.
        """
        is_plain = data.isascii() and data.find(b"\\") < 0
        if not is_plain and (
            data.find(b"\xef\xbc\xbb") >= 0 or (data.find(b"\\u") >= 0 and _ESCAPED_OPENER.search(data) is not None)
        ):
            return None
        places, values = _NO_PLACES if self._opening is None else self._opening.places, self._values
        pieces: list[bytes] = []
        done, last, lists = 0, len(data) - 1, 0
        at = data.find(b"[")
        while 0 <= at < last:
            begin = at + 1
            if data[begin] in _STRUCTURE:
                lists += data[begin] != _CLOSED
            elif (found := _PLAIN_INSIDE.match(data, begin)) is None:
                if not is_plain and _ODD_INSIDE.match(data, begin) is not None:
                    return None
                lists += 1
            else:
                place = places.get(found[1])
                value = self._value_in(found[1]) if place is None else values[place]
                if value is None:
                    lists += 1
                elif (value.isprintable() and '"' not in value and "\\" not in value) or not _needs_escaping(value):
                    pieces += (data[done:at], value.encode())
                    done = found.end()
                else:
                    return None
            at = data.find(b"[", begin)
        if not pieces:
            return data
        if lists > 1 and has_company(data):
            return None
        pieces.append(data[done:])
        return b"".join(pieces)

    def _value_in(self, inside: bytes) -> str | None:
        """Return the value behind what may be a placeholder's inside, however it is spelled."""
        self._one_by_one()
        body = inside.decode()
        value = self._by_folded.get(body.replace("-", "")) or self._by_folded.get(fold(body))
        if value is None or len(body) <= SLACK:
            return value
        if self._sorted is None:
            self._prepare()
        return None if len(body) > self._longest else value

    def restore_text(self, text: str) -> str:
        """Put the values back into one plain text. What was put in is not read again."""
        if self.is_empty or not may_hold_tag(text):
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
        self._values.clear()
        self._opening = self._numbers = self._sorted = None


def may_hold_tag(text: str) -> bool:
    """Tell cheaply whether a text could hold the opening of a placeholder, or the first part of one."""
    return "[" in text or "\\" in text or "\uff3b" in text


def _before_backslashes(text: str, at: int) -> int:
    """Step back over the backslashes in front of an opener, at most eight."""
    floor = max(0, at - 8)
    while at > floor and text[at - 1] == "\\":
        at -= 1
    return at
