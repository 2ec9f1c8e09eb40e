"""Secrets that show their form: issuers' keys, tokens, private keys, credentials in URLs.

Owns placeholders (what only looks like a secret) and the entropy floor. Knows no label; see ``announced``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import cache
from re import _parser as parser  # type: ignore[attr-defined]

from proxy.core.redaction.detect.context import STRONG, Context
from proxy.core.redaction.detect.stand_ins import end_of_mark
from proxy.core.redaction.detect.tables.issuers import FORMS, ISSUERS

JWT = rb"\beyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{4,}\.[A-Za-z0-9_\-]{6,}"
PEM = rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
URL_CREDENTIALS = rb"://[^\x00-\x20/:@\"'<>`|\\]*:[^\x00-\x20/@\"'<>`\\]+@"
_MORE_SECRET = re.compile(rb"(?:[^\x00-\x20/@\"'<>`\\?#&,;]{0,64}@){1,3}")
"""A secret may hold at signs of its own (``%40``): the last one before the path parts it from the host."""
SOURCE = rb"@(?:(?:tcp|unix)\(|//[A-Za-z0-9])"
"""The middle of a data source name: ``user:secret@tcp(host:port)/db`` of Go, ``user/secret@//host`` of Oracle."""
_BRACKETS = b"[]{}()"
_SOURCE_USER = re.compile(rb"[A-Za-z0-9_.\-]{1,64}[:/][^\s\"'`@/]{3,128}\Z")

_TELLING = 4
"""Shorter prefixes are found behind a hyphen in random text itself."""
_TELLING_TAIL = 20
"""So many characters behind a prefix are enough to look closer."""
_LEAST_FORM = 36
"""Characters of the shortest of ``FORMS``."""

_TABLED = 512
_N_LOG_N = [0.0, *(n * math.log2(n) for n in range(1, _TABLED + 1))]
_DIGIT = re.compile(rb"[0-9]")
_LONG_NUMBER = re.compile(rb"[0-9]{6}")
_ARMOUR = re.compile(rb"(?:[A-Za-z0-9+/=:,.\s]|\\+[nrt]|-[^-])*")
_PLACEHOLDER = re.compile(rb"xxxx|\*\*\*|\.\.\.|example|placeholder|your[_-]|changeme|redacted|dummy|abcdefghijkl")
_SEQUENCE = re.compile(rb"1234567890|0123456789|abcdefghij")
_SHORT = 30
"""A counted-up sequence makes a placeholder of a value no longer than this."""
_LONG = 80
"""Longer ones may begin with a run of one letter and be a key all the same."""
_REGULAR_STARTS = (b"aaaaaaaa", b"00000000", b"11111111")
_TEMPLATE = re.compile(
    rb"<|%(?:[sdifrxvq](?:[^A-Za-z0-9]|$)|\([A-Za-z_]|[A-Za-z_]+%|\{)|\$[A-Za-z_]+(?:$|[/:;,])|\[[A-Za-z_ ]+\]$|\{[A-Za-z_.]+\}$|@@"
)
"""How a value begins that is filled in later."""
_IN_TEMPLATES = (b"${", b"$(", b"{{", b"}}")
"""What shows the same wherever it stands."""
_NO_SECRET = frozenset(
    b"password passwd pass pwd secret user username token key null none true false undefined".split()
)


@cache
def _compiled(source: bytes) -> re.Pattern[bytes]:
    """Compile an issuer's pattern when its prefix is first met: most never are, and start-up need not pay for them."""
    return re.compile(source)


class IssuerRules:
    """Issuers' patterns, by their first three characters."""

    def __init__(self) -> None:
        self._by_first: dict[bytes, list[tuple[bytes, int, str, float]]] = {}
        for issuer in ISSUERS:
            for prefix in issuer.prefixes:
                pattern = re.escape(prefix.encode()) + rb"(?:" + issuer.tail.encode() + rb")"
                self._by_first.setdefault(prefix[:3].encode(), []).append(
                    (pattern, len(prefix), issuer.sub, issuer.min_entropy)
                )
        self._forms = [(re.compile((form.head + form.tail).encode()), form.sub) for form in FORMS]
        marks = [(form.tail.replace("\\", "")[:2].encode(), _width(form.head)) for form in FORMS]
        self._marked = {mark: (width, row) for (mark, width), row in zip(marks, self._forms, strict=True) if width}
        for form in FORMS:
            if not form.head and form.tail[0].isalpha():  # letters, which are looked up by their first three
                row = (form.tail.encode(), _TELLING, form.sub, 3.0)
                self._by_first.setdefault(form.tail[:3].encode(), []).append(row)
        self.mark_starts = frozenset(mark[0] for mark in self._marked)

    def key_at(self, ctx: Context, start: int) -> int:
        """Report the key whose issuer's prefix or whose form starts here; return its end, or 0 when there is none."""
        return self.prefixed(ctx, start) or self._formed(ctx, start, self._forms)

    def marked(self, ctx: Context, start: int) -> int:
        """Report the key that has its mark here; return its end, or 0 when there is none."""
        width, row = self._marked.get(ctx.data[start : start + 2], (0, None))
        first = start - width
        if row is None or first < 0 or (ctx.found and ctx.found[-1][0] <= 1 and ctx.found[-1][3].end > first):
            return 0  # none, or the characters before it belong to another key
        return self._formed(ctx, first, [row])

    def prefixed(self, ctx: Context, start: int) -> int:
        """Report the key whose issuer's prefix starts here; return its end, or 0 when there is none."""
        head = ctx.data[start : start + 3]
        by_first = self._by_first
        rows = (*by_first.get(head, ()), *by_first.get(head[:2], ()), *by_first.get(head[:1], ()))
        if not rows or _is_part(ctx, start):
            return 0
        best, sub = 0, ""
        least = _TELLING if start > 1 and ctx.data[start - 1] == 0x2D and ctx.is_glued_left(start - 1) else 0
        for source, size, name, floor in rows:
            found = _compiled(source).match(ctx.data, start)
            if found and size >= least and found.end() > best and _is_random(found[0], size, floor):
                best, sub = found.end(), name
        return _report(ctx, start, best, sub) if best else 0

    def _formed(self, ctx: Context, start: int, rows: Iterable[tuple[re.Pattern[bytes], str]]) -> int:
        for pattern, name in rows if ctx.size - start >= _LEAST_FORM else ():
            found = pattern.match(ctx.data, start)
            if found and _is_random(found[0], 0, 3.0):
                return 0 if _is_part(ctx, start) else _report(ctx, start, found.end(), name)
        return 0


def _is_part(ctx: Context, start: int) -> bool:
    """True where a word goes on, perhaps over a dot; not behind the ``/bot`` of a path."""
    if ctx.is_glued_left(start):
        return ctx.data[start - 4 : start] != b"/bot"
    return start > 1 and ctx.data[start - 1] == 0x2E and ctx.is_glued_left(start - 1)


def _report(ctx: Context, start: int, end: int, sub: str) -> int:
    """Report a key unless letters follow it; return its end, or 0."""
    data = ctx.data
    if end < ctx.size and chr(data[end]).isalnum() and data[end] < 128:
        return 0
    end = start + len(data[start:end].rstrip(b".,"))
    ctx.add(start, end, "API_KEY", 1, STRONG, sub)
    return end


def _is_random(key: bytes, prefix: int, floor: float) -> bool:
    """True unless the key is words, a placeholder or too regular."""
    if is_placeholder(key) or not has_entropy(key, floor):
        return False
    tail = key[prefix:]
    if key[:3] == b"xox":
        return len(key) >= 100 or _LONG_NUMBER.search(key) is not None
    return _DIGIT.search(tail) is not None or (not tail.islower() and not tail.isupper() and key[:2] != b"s.")


def union_patterns() -> tuple[bytes, ...]:
    """Return what the automaton looks for: telling prefixes with a few characters, short prefixes in full."""
    return (*_prefixed(), *(_least(form.tail) for form in FORMS), JWT, PEM, URL_CREDENTIALS)


def _width(pattern: str) -> int:
    return int(parser.parse(pattern).getwidth()[1])


def _prefixed() -> tuple[bytes, ...]:
    telling: list[bytes] = []
    patterns: list[bytes] = []
    for issuer in ISSUERS:
        least = _least(issuer.tail)
        for prefix in issuer.prefixes:
            escaped = re.escape(prefix.encode())
            if len(prefix) >= 5:
                telling.append(escaped)
            else:
                patterns.append((rb"\b" if prefix[0].isalnum() else b"") + escaped + rb"(?:" + least + rb")")
    words = b"|".join(t for t in telling if t[:1] != b"\\")
    other = b"|".join(t for t in telling if t[:1] == b"\\")
    patterns.append(rb"\b(?:" + words + rb")[A-Za-z0-9_\-/+.]{8}")
    if other:
        patterns.append(rb"(?:" + other + rb")[A-Za-z0-9_\-/+.]{8}")
    return tuple(patterns)


def _least(pattern: str) -> bytes:
    """Return the pattern with its last repetition at the least, and no count too large: enough to know where a key starts.

    An automaton has a state for every repetition; the issuer's own pattern has the last word.
    """
    least = re.sub(r"\{(\d+)(?:,\d*)?\}(?:=\{0,\d\})?$", _capped, pattern)
    return re.sub(r"\{(\d+),(\d+)\}", _unbounded, least).encode()


def _capped(times: re.Match[str]) -> str:
    return f"{{{min(int(times[1]), _TELLING_TAIL)}}}"


def _unbounded(times: re.Match[str]) -> str:
    return times[0] if int(times[2]) - int(times[1]) <= _TELLING_TAIL else f"{{{times[1]},}}"


def entropy(value: bytes) -> float:
    """Return the Shannon entropy of the characters, in bits each."""
    size = len(value)
    if not size:
        return 0.0
    if size > _TABLED:
        return math.log2(size) - sum([n * math.log2(n) for n in map(value.count, set(value))]) / size
    return math.log2(size) - sum([_N_LOG_N[n] for n in map(value.count, set(value))]) / size


def has_entropy(value: bytes, floor: float) -> bool:
    """Tell whether the entropy reaches a floor; so many different characters often settle it without counting each."""
    size = len(value)
    if 0 < size <= _TABLED and math.log2(size) - _N_LOG_N[size - len(set(value)) + 1] / size >= floor:
        return True
    return entropy(value) >= floor


def is_placeholder(value: bytes) -> bool:
    """True for xxxx, EXAMPLE, 1234567890 and their kin."""
    lower = value.lower()
    if len(lower) <= _SHORT and _SEQUENCE.search(lower) is not None:
        return True
    return (len(lower) <= _LONG and lower.startswith(_REGULAR_STARTS)) or _PLACEHOLDER.search(lower) is not None


def is_template(value: bytes) -> bool:
    """True for ${VAR}, <token>, {{ value }}, %s and plain words that only name the field."""
    if _TEMPLATE.match(value) is not None or value.endswith((b">", b">\n")) or value.lower() in _NO_SECRET:
        return True
    return any([value.find(sign) >= 0 for sign in _IN_TEMPLATES])


def jwt(ctx: Context, start: int, end: int) -> int:
    """Report a token of three base64url parts; the automaton has checked its form."""
    if not ctx.is_glued_left(start):
        ctx.add(start, end, "JWT", 1, STRONG)
    return end


def private_key(ctx: Context, start: int, end: int) -> int:
    """Report the armour to its END line, or as far as it reads like armour."""
    data = ctx.data
    body = _ARMOUR.match(data, end)
    stop = body.end() if body else end
    if data.startswith(b"-----END", stop) or data.startswith(b"----END", stop):
        close = data.find(b"-----", stop + 8, stop + 80)
        if stop - end < 24:
            return end
        stop = close + 5 if close >= 0 else stop + 8
    else:
        stop = end + len(data[end:stop].rstrip())
    ctx.add(start, stop, "PRIVATE_KEY", 0, STRONG)
    return stop


def url_credentials(ctx: Context, start: int, end: int) -> int:
    """Report ``user:secret`` between :// and @, unless it is a template."""
    more = _MORE_SECRET.match(ctx.data, end)
    end = more.end() if more else end
    first, last = start + 3, end - 1
    user, _, secret = ctx.data[first:last].partition(b":")
    if is_template(user) or is_template(secret.strip(_BRACKETS)) or is_placeholder(secret) or len(secret) < 3:
        return end
    if not start or not chr(ctx.data[start - 1]).isalpha():
        return end
    ctx.add(first, last, "URL_CREDENTIALS", 1, STRONG)
    return end


def source_credentials(ctx: Context, start: int, end: int) -> int:
    """Report ``user:secret`` before the middle of a data source name."""
    lead = _SOURCE_USER.search(ctx.data, max(0, start - 200), start)
    if (
        lead is not None
        and not end_of_mark(ctx.data, start - 1, start - 1)
        and not is_template(lead[0].replace(b"/", b":").partition(b":")[2])
    ):
        ctx.add(lead.start(), start, "URL_CREDENTIALS", 1, STRONG)
    return end
