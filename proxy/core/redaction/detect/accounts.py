"""Identifiers of letters and digits: IBAN, VAT numbers, wallets, and every shape of the tables that holds letters.

Owns how a shape becomes a pattern and how such a value is cut from its surroundings. Knows no country's rule.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import groupby

from proxy.core.redaction.detect.catalog import Catalog, Rule
from proxy.core.redaction.detect.context import LABELLED, NEAR, SOFT, STRONG, WEAK, Context
from proxy.core.redaction.detect.digits import SHAPE
from proxy.core.redaction.detect.labels import NEGATIVE
from proxy.core.redaction.detect.validators_asia import base58check, bech32
from proxy.core.redaction.detect.validators_europe import IBAN_LENGTHS, VAT_LENGTHS, eu_vat, iban

UUID = rb"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b"
CNPJ_ALNUM = (
    rb"\b[0-9A-Za-z]{2}\.[0-9A-Za-z]{3}\.[0-9A-Za-z]{3}/[0-9A-Za-z]{4}-[0-9]{2}\b",
    rb"\b[0-9A-Z]{8}/[0-9A-Z]{4}-[0-9]{2}\b",
    rb"\b[0-9A-Z]{12}[0-9]{2}\b",
)
WALLET = (
    rb"\b[13LMDT][1-9A-HJ-NP-Za-km-z]{25,34}\b",
    rb"\b(?:bc1|tb1|ltc1|BC1)[02-9ac-hj-np-zAC-HJ-NP-Z]{8,87}\b",
    rb"\b0x[0-9a-fA-F]{40}\b",
)
_COUNTRIES = b"|".join(sorted(c.encode() for c in IBAN_LENGTHS))
IBAN = rb"\b(?i:" + _COUNTRIES + rb")[0-9]{2}(?:[ \-\xa0+]? ?[A-Za-z0-9]){7}"
VAT = (
    rb"\b(?:" + b"|".join(sorted(c.encode() for c in VAT_LENGTHS)) + rb")[ \-\xa0]?[A-Z0-9]{1,2}(?:[ .\-\xa0]?[0-9]){6}"
)

_WORD = re.compile(rb"[A-Za-z0-9]+")
_UUID = re.compile(UUID)
_V4_UUID = re.compile(rb"(?i)[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_CNPJ = re.compile(b"|".join(CNPJ_ALNUM))
_WALLET = re.compile(b"|".join(WALLET))
_IBAN_START = re.compile(rb"(?i:" + _COUNTRIES + rb")[0-9]{2}")
_IBAN_COUNTRIES = frozenset(country.encode() for country in IBAN_LENGTHS)
_HASH = re.compile(rb"[0-9a-f]+")
"""In small letters a number of hex digits alone is the name of a commit before it is anything else."""
_VAT_START = re.compile(VAT)
_CALLED_IBAN = re.compile(rb"(?i)iban[^0-9\n]{0,14}\Z")
_UUID_SIZE = 36
_LEAST_WALLET = 11
"""Characters of the shortest form of a wallet's address: ``bc1`` and eight more."""
_HEX = b"0123456789abcdef"
"""Of these alone, and no capital among them, digests and short commits are made."""
_PUNCTUATION = bytes(c for c in range(256) if not (chr(c).isascii() and chr(c).isalnum()))


def shape_patterns(catalog: Catalog) -> tuple[bytes, ...]:
    """Return one pattern for every shape of the tables that holds a letter."""
    return tuple(rb"\b" + _pattern(shape) for shape in sorted(_lettered(catalog)))


def shape_signs(catalog: Catalog) -> tuple[bytes, ...]:
    """Return what none of these values is without: its shape from the last of its first letters on."""
    return tuple(_pattern(shape) for shape in sorted({s[max(_leads(s) - 1, 0) :] for s in _lettered(catalog)}))


def _lettered(catalog: Catalog) -> set[bytes]:
    return {s for index in (catalog.strong, catalog.soft, catalog.labelled) for s in index if b"A" in s}


def _leads(shape: bytes) -> int:
    return len(shape) - len(shape.lstrip(b"A"))


def _pattern(shape: bytes) -> bytes:
    parts: list[bytes] = []
    for char, run in groupby(shape):
        size = len(list(run))
        times = b"" if size == 1 else b"{%d}" % size
        if char == 0x30:
            parts.append(b"[0-9]" + times)
        elif char == 0x41:
            parts.append(b"[A-Za-z]" + times)
        else:
            parts.append((rb"[ \xa0]" if char == 0x20 else re.escape(bytes([char]))) * size)
    return b"".join(parts) + (rb"\b" if shape[-1:].isalnum() else b"")


class Accounts:
    """The handler of values that hold letters, over one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._strong, self._soft, self._labelled = catalog.strong, catalog.soft, catalog.labelled
        self._cnpj = catalog.rules.get("CNPJ")
        self._pix = catalog.rules.get("BR_PIX_KEY")

    def judge(self, ctx: Context, start: int, end: int) -> int:
        """Judge the candidate at [start, end); return its end when reported, 0 when nothing here is a value."""
        value = ctx.data[start:end]
        size = end - start
        if size == _UUID_SIZE and _UUID.fullmatch(value):
            self._uuid(ctx, start, end, value)
            return end
        if size >= _LEAST_WALLET and _WALLET.fullmatch(value) and self._wallet(ctx, start, end, value):
            return end
        shape = value.translate(SHAPE)
        if shape[:2] == b"AA":  # a country
            stop = self._by_country(ctx, start, value)
            if stop:
                return stop
        if self._by_shape(ctx, start, end, value, shape):
            return end
        if self._cnpj and _CNPJ.fullmatch(value) and self._alnum_cnpj(ctx, start, end, value):
            return end
        word = _WORD.match(value)
        if word is None or word.end() == len(value):
            return 0
        stop = start + word.end()  # the automaton's longest match may hide a shorter value at the same place
        return stop if self._by_shape(ctx, start, stop, word[0], word[0].translate(SHAPE)) else 0

    def account(self, ctx: Context, start: int, candidate: bytes) -> int:
        """Report the account that begins here like no other value; return its end, or 0 when ``judge`` has to look closer."""
        if candidate[:2].upper() not in _IBAN_COUNTRIES or len(candidate) == _UUID_SIZE or candidate.find(b".") >= 0:
            return 0
        return self._iban(ctx, start)

    def _by_country(self, ctx: Context, start: int, value: bytes) -> int:
        stop = self._iban(ctx, start) if _IBAN_START.match(value) else 0
        return stop or (self._vat(ctx, start) if _VAT_START.match(value) else 0)

    def _by_shape(self, ctx: Context, start: int, end: int, value: bytes, shape: bytes) -> bool:
        strong, soft, labelled = self._strong.get(shape, ()), self._soft.get(shape, ()), self._labelled.get(shape, ())
        if not (strong or soft or labelled) or _is_inside(ctx, start, end):
            return False
        plain = value.translate(None, _PUNCTUATION).upper().decode()
        several = len(strong) + len(soft) + len(labelled) > 1
        is_hash = _HASH.fullmatch(value) is not None
        label = (ctx.label(start) or ctx.label_after(end)) if several or is_hash or not strong else None
        named = label.kinds if label else frozenset()
        for rule in (*strong, *soft, *labelled) if named else ():
            if rule.name in named and (rule.loose is None or rule.loose(plain)):
                ctx.add(start, end, rule.name, rule.priority, LABELLED if rule.loose else WEAK)
                return True
        if is_hash:
            return False
        for rule in strong:
            if rule.check is None or rule.check(plain):
                ctx.add(start, end, rule.name, rule.priority, STRONG)
                return True
        for rule in soft if NEGATIVE not in named else ():
            if rule.check is not None and rule.check(plain):
                ctx.add(start, end, rule.name, rule.priority, SOFT)
                return True
        ctx.orphans = ctx.orphans or bool(labelled)
        label = label or ctx.label(start)
        for rule in (*strong, *soft, *labelled) if label and label.distance <= NEAR else ():
            if label and rule.name in label.kinds and (rule.name != "UK_NINO" or plain[:2] == "QQ"):
                ctx.add(start, end, rule.name, rule.priority, WEAK)
                return True
        return False

    def _uuid(self, ctx: Context, start: int, end: int, value: bytes) -> None:
        if self._pix is None:
            return
        label = ctx.label(start) or ctx.label_after(end)
        is_random = _V4_UUID.fullmatch(value) is not None
        if label is not None and "BR_PIX_KEY" in label.kinds and (is_random or label.distance <= NEAR):
            ctx.add(start, end, "BR_PIX_KEY", self._pix.priority, LABELLED)
        else:
            ctx.orphans = True

    def _alnum_cnpj(self, ctx: Context, start: int, end: int, value: bytes) -> bool:
        plain = value.translate(None, _PUNCTUATION).upper().decode()
        rule: Rule | None = self._cnpj
        if rule is None or rule.check is None or not rule.check(plain) or _is_inside(ctx, start, end):
            return False
        if value.find(b"-") < 0:
            label = ctx.label(start)
            if label is None or rule.name not in label.kinds:
                return False
        ctx.add(start, end, rule.name, rule.priority, STRONG)
        return True

    def _wallet(self, ctx: Context, start: int, end: int, value: bytes) -> bool:
        text = value.decode()
        if text.startswith("0x"):
            if value.lower() == value or value[2:].upper() == value[2:]:
                label = ctx.label(start) or ctx.label_after(end)
                if label is None or "CRYPTO_WALLET" not in label.kinds:
                    ctx.orphans = True
                    return False
        elif not (bech32(text) if text[:3].lower() in ("bc1", "tb1", "ltc") else base58check(text)):
            return False
        ctx.add(start, end, "CRYPTO_WALLET", 2, STRONG)
        return True

    def _iban(self, ctx: Context, start: int) -> int:
        """Take as many characters as the country's IBAN has, single separators between them."""
        data = ctx.data
        length = IBAN_LENGTHS[data[start : start + 2].upper().decode()]
        stop = _take(data, start, length, b" -\xa0.+")
        if not stop and not ctx.local:
            stop = _take(data, start, length, b" \n")  # a line of print ends inside
        if not stop or ctx.is_glued_right(stop) or ctx.is_glued_left(start):
            return 0
        if _is_of_words(data[start:stop]):
            return 0
        is_right = iban(data[start:stop].translate(None, _PUNCTUATION).upper().decode())
        if not is_right and _CALLED_IBAN.search(data, max(0, start - 20), start) is None:
            return 0
        ctx.add(start, stop, "IBAN", 2, STRONG if is_right else WEAK)
        return stop

    def _vat(self, ctx: Context, start: int) -> int:
        data = ctx.data
        for length in VAT_LENGTHS[data[start : start + 2].decode()]:
            stop = _take(data, start, length + 2, b" .-\xa0")
            if not stop or ctx.is_glued_right(stop):
                continue
            plain = data[start:stop].translate(None, _PUNCTUATION).upper().decode()
            if _is_inside(ctx, start, stop):
                continue
            if eu_vat(plain):
                ctx.add(start, stop, "EU_VAT", 4, STRONG)
                return stop
            label = ctx.label(start)
            if label is not None and label.distance <= NEAR and "EU_VAT" in label.kinds and plain[-7:].isdigit():
                ctx.add(start, stop, "EU_VAT", 4, WEAK)
                return stop
        return 0


@cache
def _spaced(count: int, separators: bytes) -> re.Pattern[bytes]:
    """Compile ``count`` letters and digits with at most one separator and a blank between two; lengths are those of the tables."""
    return re.compile(rb"[A-Za-z0-9](?:[%b]? ?[A-Za-z0-9]){%d}" % (re.escape(separators), count - 1))


def _take(data: bytes, start: int, count: int, separators: bytes) -> int:
    """Return the end of ``count`` letters and digits with at most one separator between two, or 0."""
    found = _spaced(count, separators).match(data, start)
    return 0 if found is None else found.end()


def _is_of_words(value: bytes) -> bool:
    """True for small letters in groups unlike those an account is written in: ``be16 and be32 types``."""
    if value.isalnum():
        return False
    groups = re.split(rb"[ \-\xa0.+]", value)
    return len(groups) > 1 and not value.isupper() and any([len(group) != 4 for group in groups[:-1]])


def _is_inside(ctx: Context, start: int, end: int) -> bool:
    """True when the value is a part of something longer: a dashed id, a path, a mail address."""
    data = ctx.data
    if start > 1 and data[start - 1] in b"-./@\\+" and chr(data[start - 2]).isalnum() and data[start - 2] < 128:
        return data[start - 1] != 0x5C
    return end + 1 < ctx.size and data[end] in b"-@/+.:" and chr(data[end + 1]).isalnum() and data[end + 1] < 128
