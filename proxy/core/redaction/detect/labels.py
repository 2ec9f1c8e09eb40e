"""Words that announce a value ("CPF:", "phone_number", "mi DNI es"): found in the text before it.

Owns how a window of text is normalised and which label counts as standing beside a value. Knows no kind's rules:
a label names kinds, what they accept is decided elsewhere.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from proxy.core.redaction.detect.engine import Search, compile_search
from proxy.core.redaction.detect.labels_other import OtherLabels
from proxy.core.redaction.detect.stand_ins import OWN_MARK, holds_one_of, is_mark, without_names

WINDOW = 64
"""Characters looked at before a value; a label must end at most ``REACH`` before it."""
REACH = 48
NEGATIVE = "-"
"""What words like "order" or "invoice" name: something that is no personal value."""
NEGATIVE_ALONE = frozenset((NEGATIVE,))

_FOLD_FROM = "ÀÁÂÃÄÅàáâãäåÇçÈÉÊËèéêëÌÍÎÏìíîïÑñÒÓÔÕÖØòóôõöøÙÚÛÜùúûüÝýÿßº°ª"
_FOLD_TO = "aaaaaaaaaaaacceeeeeeeeiiiiiiiinnoooooooooooouuuuuuuuyyysooa"


def _normal_table() -> bytes:
    table = bytearray(b" " * 256)
    for c in b"abcdefghijklmnopqrstuvwxyz0123456789":
        table[c] = c
    for c in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        table[c] = c + 32
    for source, target in zip(_FOLD_FROM, _FOLD_TO, strict=True):
        table[ord(source)] = ord(target)
    return bytes(table)


_NORMAL = _normal_table()
_LATIN_BLOCKS = (*range(0x100, 0x250), *range(0x1E00, 0x1F00))


def _base_letters() -> dict[int, str]:
    """Return the letters of Latin beyond Latin-1 with what they are without their marks."""
    plain = {ord(c): to for c, to in zip("đĐłŁıħĦŧŦ", "dDlLihHtT", strict=True)}
    for point in _LATIN_BLOCKS:
        base = unicodedata.normalize("NFD", chr(point))[0]
        if base.isascii() and base.isalpha():
            plain[point] = base
    return plain


_LATIN_EXTENDED = _base_letters()
_CASE = bytes(0x61 if 0x61 <= c <= 0x7A else 0x41 if 0x41 <= c <= 0x5A else 0x20 for c in range(256))
"""Small letters, capitals, the rest: humps are searched for only where this shows one."""
_EXTENDED = re.compile("[\u0100-\u024f\u1e00-\u1eff]")
_HUMP = re.compile(rb"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


_FOLLOWS = re.compile(
    rb" {0,2}[(\[\-=>\xa0]{0,2} ?(?:\(|(?:(?:is|that's|c'est|as|are|e|es|\xe9|ist|est|\xe8|er|\xe4r|on|en|jest|to)(?![A-Za-z\xc0-\xff]) ?)?"
    rb"(?:(?:my|the|your|his|her|our|mi|su|tu|meu|minha|o|a|seu|sua|mein|meine|die|der|mon|ma|son|sa|le|la|il|mio|mia|mijn|mitt|min"
    rb"|el|m\xf3j)(?![A-Za-z\xc0-\xff]) ?){0,2})"
)


_OWN_VALUE = re.compile(rb"[ \"')]{0,3}[:=]|[^,;.)]{0,6}(?:[0-9]|" + OWN_MARK.encode() + b")")
_WORDS = re.compile(rb"[a-z0-9]+")
_GLUED_TAILS = frozenset((b"no", b"nr", b"id"))
_MAX_LABEL_WORDS = 4
_AFTER_WINDOW = 56
_HEAD_CHARS = 32
_LEADS = frozenset((b" ", b"(", b"[", b"-", b"\xa0"))
"""What may stand right behind a value that a label follows."""
_OF_WORDS = frozenset("EMAIL PASSWORD API_KEY JWT PRIVATE_KEY URL_CREDENTIALS PERSON ADDRESS".split())
_NOT_DECISIVE = frozenset((NEGATIVE, "IP_ADDRESS"))
"""What a label may name and yet open no gate by itself: nothing, or addresses, of which those that need it open it anyway."""


class Label(NamedTuple):
    """A label beside a value: the kinds it names and how many characters lie between."""

    kinds: frozenset[str]
    distance: int
    gap: bytes


class LabelIndex:
    """All label words, compiled once; looks from a value to the left (or to the right, when asked)."""

    def __init__(self, words: Mapping[str, Iterable[str]], engine: str = "auto") -> None:
        """Take label -> kind names; labels are written as people write them, in any script."""
        self._latin: dict[bytes, frozenset[str]] = {}
        other: dict[str, frozenset[str]] = {}
        for label, kinds in _with_dotted(words):
            latin = _to_latin(label)
            if b"?" in latin:
                other[label.lower()] = other.get(label.lower(), frozenset()) | frozenset(kinds)
                continue
            key = _squeeze(normalise(latin))
            self._latin[key] = self._latin.get(key, frozenset()) | frozenset(kinds)
        self._other = OtherLabels(other, frozenset(label for label in other if other[label] - _NOT_DECISIVE))
        self._glued = {key.replace(b" ", b""): kinds for key, kinds in self._latin.items() if _may_be_glued(key)}
        self._numbers = frozenset[str]().union(*self._latin.values()) - _OF_WORDS
        """Kinds of digits: one between a label and a value parts them, and so does its stand-in."""
        self._heads = frozenset(key.split(b" ")[0] for key in self._latin)
        """First words of labels: most words behind a value are none of them."""
        backwards = sorted(self._latin, key=lambda key: (len(key.replace(b" ", b"")), len(key)), reverse=True)
        self._search = _compile(backwards, engine)
        decisive = [key for key in backwards if self._latin[key] - _NOT_DECISIVE]
        self._search_positive = _compile(decisive, engine, glued=rb"[0-9]*")  # "birth1990-05-03", value and all

    def before(self, text: str, data: bytes, start: int) -> Label | None:
        """Return the nearest label that ends within ``REACH`` characters before ``start``."""
        window = data[max(0, start - WINDOW) : start]
        if window.find(b"?") >= 0 and not text.isascii():
            named = self._other.before(text, start)
            other = named and Label(named[0], len(named[1]), named[1].encode("latin-1", "replace"))
            latin = self._nearest(_latin_window(text, start))
            return latin if other is None or (latin is not None and latin.distance < other.distance) else other
        return self._nearest(window)

    def after(self, text: str, data: bytes, end: int) -> Label | None:
        """Return a label that follows a value at once ("… 5555 (fax)", "… är mitt personnummer")."""
        if data.find(b"?", end, end + 4) >= 0 and not text.isascii():
            kinds = self._other.behind(text, end)
            if kinds is not None:
                return Label(kinds, 1, b" ")
            following = text[end : end + _AFTER_WINDOW]
            data, end = following.translate(_LATIN_EXTENDED).encode("latin-1", "replace"), 0
        if data[end : end + 1] not in _LEADS:
            return None
        lead = _FOLLOWS.match(data, end, end + _AFTER_WINDOW)
        if lead is None or not data[lead.end() : lead.end() + 1].isalpha() or is_mark(data, lead.end() - 1):
            return None
        heads = normalise(data[lead.end() : lead.end() + _HEAD_CHARS]).split(None, 2)
        owner = normalise(lead[0]).split()[-1:]
        owned = self._latin.get(b" ".join((*owner, heads[0]))) if owner else None
        if owned:  # "is my number", which the word alone would not be
            return Label(owned, lead.end() - end, lead[0])
        if heads[0] not in self._heads and not (lead[0].strip() and len(heads) > 1 and heads[1] in self._heads):
            return None
        return self._following(
            data[end : end + _AFTER_WINDOW].split(b"\n")[0], lead.end() - end, is_said=bool(lead[0].strip())
        )

    def _following(self, window: bytes, lead: int, *, is_said: bool) -> Label | None:
        """Return the label among the words behind a value, the first or, after a verb or an owner, the second on."""
        words = normalise(window)
        spans = [found.span() for found in islice(_WORDS.finditer(words, lead), _MAX_LABEL_WORDS + 1)]
        for first, (start, _) in enumerate(
            spans[:3]
        ):  # an adjective or an owner before it: "is the patient's NHS number"
            for _, stop in reversed(spans[first : first + _MAX_LABEL_WORDS]):
                named = self._latin.get(_squeeze(words[start:stop]))
                if named:
                    return None if _OWN_VALUE.match(window, stop) else Label(named, start, window[:start])
            if not is_said:
                return None
        return None

    def _nearest(self, window: bytes) -> Label | None:
        if window.find(b"[") < 0:
            return self._nearest_word(window)
        found = self._nearest_word(without_names(window))
        if found is None or holds_one_of(window, len(window) - found.distance, found.kinds | self._numbers):
            return None
        return found._replace(gap=window[len(window) - found.distance :])

    def _nearest_word(self, window: bytes) -> Label | None:
        case = window.translate(_CASE)
        if case.find(b"aA") >= 0 or case.find(b"AAa") >= 0:
            window = _HUMP.sub(b" ", window)
        backwards = window.translate(_NORMAL)[::-1]
        start, end = self._search(backwards, 0)
        if start < 0 or start > REACH:
            return None
        words = window[len(window) - end : len(window) - start]
        if (
            words.find(b"\n") >= 0
        ):  # "...@mail.co.id", line break, "Card no": the words of a line are a label before those of two
            of_line = self._latin.get(_squeeze(normalise(words.rpartition(b"\n")[2])))
            if of_line:
                return Label(of_line, start, window[len(window) - start :])
        return Label(self._kinds(backwards[start:end]), start, window[len(window) - start :])

    def any_in(self, text: str, data: bytes) -> bool:
        """True when a label of any kind stands anywhere in the text."""
        if text and not text.isascii():
            if self._other.any_in(text):
                return True
            if _EXTENDED.search(text):
                data = text.translate(_LATIN_EXTENDED).encode("latin-1", "replace")
        case = data.translate(_CASE)
        if case.find(b"aA") >= 0 or case.find(b"AAa") >= 0:
            data = _HUMP.sub(b" ", data)
        return self._search_positive(data.translate(_NORMAL)[::-1], 0)[0] >= 0

    def _kinds(self, backwards: bytes) -> frozenset[str]:
        key = _squeeze(backwards[::-1].rstrip(b"0123456789"))
        known = self._latin.get(key) or self._latin.get(key.removesuffix(b"s"))
        if known:
            return known
        glued = key.replace(b" ", b"")
        return self._glued.get(glued) or self._glued.get(glued.removesuffix(b"s")) or frozenset()

    def named_by(self, label: str) -> frozenset[str]:
        """Return the kinds a JSON key or column header names, empty when none."""
        found = self.before(label + ":", (label + ":").encode("latin-1", "replace"), len(label) + 1)
        return found.kinds if found else frozenset()


def _compile(keys: list[bytes], engine: str, glued: bytes = rb"[0-9]{0,2}") -> Search:
    """Compile normalised labels, longest first, to a search in text read backwards."""
    alternatives = b"|".join([key[::-1].replace(b" ", b" *" if _may_be_glued(key) else b" +") for key in keys])
    return compile_search((rb"\b" + glued + rb"s?(?:" + alternatives + rb")\b",), engine)


def _to_latin(label: str) -> bytes:
    """Return a label in Latin-1, with question marks for the letters of other scripts."""
    return label.encode() if label.isascii() else label.translate(_LATIN_EXTENDED).encode("latin-1", "replace")


def _may_be_glued(key: bytes) -> bool:
    """True for labels that keys and headers also write in one word: phonenumber, dateofbirth, taxid."""
    letters = len(key.replace(b" ", b""))
    return b" " in key and (letters > 6 or (letters > 4 and key.rsplit(b" ", 1)[1] in _GLUED_TAILS))


def _with_dotted(words: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, Iterable[str]]]:
    """Short words are also written with dots: R.F.C., D.O.B."""
    for label, kinds in words.items():
        yield label, kinds
        if label.isascii() and label.isalpha() and 2 < len(label) < 6:
            yield " ".join(label), kinds


def is_usable_label(label: str) -> bool:
    """True when something of a label is left to look for once case, accents and signs are taken away."""
    latin = _to_latin(label)
    return b"?" in latin or bool(_squeeze(normalise(latin)))


def normalise(window: bytes) -> bytes:
    """Return the window in lower case without accents, everything but letters and digits as a blank."""
    return window.translate(_NORMAL)


def _squeeze(words: bytes) -> bytes:
    return b" ".join(words.split())


def _latin_window(text: str, start: int) -> bytes:
    return text[max(0, start - WINDOW) : start].translate(_LATIN_EXTENDED).encode("latin-1", "replace")


__all__ = ["NEGATIVE", "NEGATIVE_ALONE", "REACH", "Label", "LabelIndex", "normalise"]
