"""Dates of birth: any calendar date after a birth label.

Owns the ways dates are written. Knows the labels only through the context.
"""

from __future__ import annotations

import re

from proxy.core.redaction.detect.arithmetic import is_date
from proxy.core.redaction.detect.context import LABELLED, Context
from proxy.core.redaction.detect.labels import Label

_REACH = 26
_YEARS = ((1900, 2030), (2440, 2573), (1250, 1460))
"""Of our calendar, the Buddhists', and the two that count from the Hijra by the sun and by the moon."""
_ERAS = frozenset(
    ("\u660e\u6cbb", "\u5927\u6b63", "\u662d\u548c", "\u5e73\u6210", "\u4ee4\u548c", "\u6c11\u570b", "\u6c11\u56fd")
)
_ERA_CHARS = 2
_BORN = ("\u751f", "\uc0dd")
"""What stands right behind a date of birth in Chinese, Japanese and Korean, and before many other things."""
_BEHIND = 6

_MONTH_STEMS = (
    ("jan", "tam", "ene", "gen", "sty", "ledn", "led"), ("feb", "fev", "f\xe9v", "lut", "hel"), ("mar", "m\xe4r", "mrt", "mrz", "maa"),
    ("apr", "abr", "avr", "kwi", "huh"), ("may", "mai", "mag", "mei", "maj", "tou"), ("jun", "giu", "juin", "cze", "kes"),
    ("jul", "lug", "juil", "lip", "hei"), ("aug", "ago", "aou", "ao\xfb", "sie", "elo"), ("sep", "set", "wrz", "syy"),
    ("oct", "okt", "out", "ott", "pa\xbc", "pa\\?dz", "lok"), ("nov", "lis", "marras"), ("dec", "dez", "dic", "d\xe9c", "des", "gru", "jou"),
)  # fmt: skip
_MONTH_STEMS_BEHIND_DAYS = (
    ("oca", "ian", "sau", "sije"), ("\\?ub", "sub", "\xfano", "unor", "pebr", "vas", "velj"), ("m\xe1r", "b\\?ez", "brez", "kov", "o\\?uj"),
    ("nis", "dub", "\xe1pr", "bal", "trav"), ("m\xe1j", "kv\\?t", "kvet", "geg", "svib"), ("j\xfan", "haz", "iun", "\\?erv", "cerv", "bir", "j\\?n"),
    ("j\xfal", "tem", "iul", "liep", "srp", "j\\?l"), ("a\\?us", "agu", "rugp", "kolo", "ogos"), ("sze", "eyl", "z\xe1\\?", "zari", "rugs", "ruj"),
    ("eki", "\\?\xedj", "rij", "spal"), ("noi", "kas", "nop", "lap", "stud"), ("ara", "pros", "dis", "dets"),
)  # fmt: skip
"""Of languages that set the month behind the day or the year, as the automaton sees them: a letter beyond Latin-1 is ``?``."""


def _stem(months: tuple[tuple[str, ...], ...]) -> bytes:
    stems = sorted({s for month in months for s in month}, key=lambda s: (-len(s), s))
    return rb"(?i:" + b"|".join(s.encode("latin-1") for s in stems) + rb")[A-Za-z?\xe0-\xff]{0,8}\.?"


_MONTH_NAME = _stem(_MONTH_STEMS)
MONTH_NAME = _stem((*_MONTH_STEMS, *_MONTH_STEMS_BEHIND_DAYS))
OTHER_MONTH = rb"\?{3,12}\.?"
"""A month in another script; which one is not looked up, for the word of birth before it is evidence enough."""
DAY_FIRST = (
    rb"\b[0-9]{1,2}(?:(?:st|nd|rd|th|\.|\xba|er)?[ +\-/,]{1,2}(?:de[ +]|of |di |d')?(?:"
    + MONTH_NAME
    + b"|"
    + OTHER_MONTH
    + rb")[ +\-/,]{1,2}(?:de[ +]|del |of )?| th(?:\xe1|a)ng [0-9]{1,2}(?:,| n(?:\?|a)m) |"
    rb"(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec))[0-9]{4}\b"
)
YEAR_FIRST = rb"\b[0-9]{4}\.? {1,2}" + MONTH_NAME + rb" {1,2}[0-9]{1,2}\b"
MONTH_FIRST = rb"\b" + _MONTH_NAME + rb" {1,2}[0-9]{1,2}(?:st|nd|rd|th)?,? {1,2}[0-9]{4}\b"
SHORT = (
    rb"\b[0-9]{1,2}[/.\-][0-9]{1,2}[/.\-](?:19|20)?[0-9]{2}\b"
    rb"|\b[0-9]{1,2}\. [0-9]{1,2}\. [0-9]{4}\b|\b[0-9]{4}[.,] [0-9]{1,2}[.,] [0-9]{1,2}\b"
)
"""Dates with fewer digits than a digit run has, or with dots and blanks."""
CJK = rb"\b[0-9]{1,4} ?\? ?[0-9]{1,2} ?\? ?[0-9]{1,2} ?\?"

BIRTH = (
    rb"(?i:(?:\b|_)dob(?:\b|_)|\bd[._ ] ?o[._ ] ?b|birth|(?:\b|_)born|nascid|nasciment|(?:\b|_)nasc|[a-z]nasc\b|nacimi|nacid|naiss|\bn[e\xe9]e?[ _](?:le\b|[a\xe0][ :])|\bddn\b|geboren|geburt|(?:\b|_)geb(?:\b|_|dat)"
    rb"|nascita|\bnat[oa](?:/[oa]|\(a\))?[ _](?:il|a)\b|geboorte|urodz|\bur[.:]|f[o\xf8\xf6]d(?:t|d|sels|else)|syntym|syntyn|do[\?g]um|dogum|narozen|sz[u\xfc]let|n\?scut|na\?ter|naster"
    rb"|[a-z]_?dob\b|aniversario|anivers\xe1rio|\bnaci\b|\bnasci\b|nasceu"
    rb"|lahir|kapanganak|kaarawan|ipinanganak|zaliwa\b|ng[a\xe0]y[ _]?sinh|sinh[ _]ng[a\xe0]y|nam[ _]sinh|(?:\b|_)nar(?:o|\b)|(?:\b|_)ro[dj]en|rojst|(?:\b|_)sz[u\xfc]l|gimimo|dzim|s[u\xfc]n(?:ni|dinud)|janm|janam"
    rb"|\bdogul|anadan[ _]ol|\bd[._ ]{1,2}tarihi"
    rb"|\bnaci\xf3|\bnacio\b|\bn[e\xe9] e le\b|\bng[a\xe0]y sinh|\bf(?:ech?(?:a)?)?[._ ]{0,2}(?:de[._ ])?nac\b|\bn[e\xe9]\(e\) le|\bdn[:=]|\bbday\b|foed(?:t|sels))"
)
"""Words that make the scan look at dates at all."""

_NUMERIC = re.compile(rb"([0-9]{1,4})([-/. ]|[.,] )([0-9]{1,2})\2([0-9]{1,4})")
_COMPACT = re.compile(rb"(?:19|20)[0-9]{6}")
_COMPACT_LAST = re.compile(rb"([0-3][0-9])([01][0-9])((?:19|20)[0-9]{2})")
_LINK = re.compile(rb" (?:is|was|as|\xe9|es|est|ist|era) (?:[A-Za-z\xc0-\xff]{1,8} ){0,4}\Z")
_ENDS_HERE = re.compile(
    rb"(?:(?P<number>\b[0-9]{1,4}([-/.])[0-9]{1,2}\2[0-9]{2,4})|(?P<named>" + DAY_FIRST + b"|" + MONTH_FIRST + rb"))\Z"
)
_LINK_CHARS, _DATE_CHARS = 44, 28


def named_date(ctx: Context, start: int, end: int) -> int:
    """Judge a date with its month in words, or with signs for year, month and day."""
    if not ctx.birth and ctx.data[end : end + 2] != b" (":
        return end
    year = re.search(rb"[0-9]{4}", ctx.data[start:end])
    if year is None and ctx.text[max(0, start - _ERA_CHARS) : start] in _ERAS:
        start -= _ERA_CHARS
    if year is None or _is_birth_year(int(year[0])):
        ctx.orphans = not report(ctx, start, end) or ctx.orphans
    return end


def short_date(ctx: Context, start: int, end: int) -> int:
    """Judge a date of four to eight digits, when a word of birth was seen."""
    may_be = ctx.birth or ctx.data[end : end + 2] == b" ("
    if may_be and is_calendar_date(ctx.data[start:end]) and not report(ctx, start, end):
        ctx.orphans = True
    return end


def said_before(ctx: Context, start: int) -> None:
    """Report the date of "1990-05-03 is my birthday", whose word of birth starts here."""
    link = None if ctx.local else _LINK.search(ctx.data, max(0, start - _LINK_CHARS), start)
    if link is None:
        return
    found = _ENDS_HERE.search(ctx.data, max(0, link.start() - _DATE_CHARS), link.start())
    if found is not None and (found["number"] is None or is_calendar_date(found["number"])):
        ctx.add(*found.span("number" if found["named"] is None else "named"), "DATE_OF_BIRTH", 3, LABELLED)


def is_calendar_date(text: bytes) -> bool:
    """True for year-month-day, day-month-year or month-day-year with one separator, or eight digits year first."""
    found = _NUMERIC.fullmatch(text)
    if found is None:
        if _COMPACT.fullmatch(text) is not None and is_date(int(text[:4]), int(text[4:6]), int(text[6:])):
            return True
        last = _COMPACT_LAST.fullmatch(text)
        return last is not None and is_date(int(last[3]), int(last[2]), int(last[1]))
    a, b, c = int(found[1]), int(found[3]), int(found[4])
    if len(found[1]) == 4:
        return _is_birth_year(a) and _is_day(a, b, c) and len(found[4]) <= 2
    if len(found[1]) == 3 or len(found[4]) in (1, 3) or (len(found[4]) == 4 and not _is_birth_year(c)):
        return False
    year = c if len(found[4]) == 4 else 1900 + c
    return _is_day(year, b, a) or _is_day(year, a, b)


def _is_birth_year(year: int) -> bool:
    """True for the years of people's births, of whichever calendar their papers are written in."""
    return any([first <= year <= last for first, last in _YEARS])


def _is_day(year: int, month: int, day: int) -> bool:
    """True for a date of our calendar; of the others, whose months are of other lengths, for what may be one."""
    if _YEARS[0][0] <= year <= _YEARS[0][1]:
        return is_date(year, month, day)
    return 1 <= month <= 12 and 1 <= day <= 31


def report(ctx: Context, start: int, end: int) -> bool:
    """Report a date that a birth label announces."""
    label = ctx.label(start)
    if not _is_of_birth(label):
        following = ctx.data[end : end + _BEHIND]
        if following[:2] != b" (" and following.find(b"?") < 0:
            return False
        if not _is_of_birth(ctx.label_after(end)) and (ctx.local or ctx.text[end : end + 1] not in _BORN):
            return False
    ctx.add(start, end, "DATE_OF_BIRTH", 3, LABELLED)
    return True


def _is_of_birth(label: Label | None) -> bool:
    if label is None or "DATE_OF_BIRTH" not in label.kinds:
        return False
    return label.distance <= _REACH or label.gap.find(b"?") >= 0  # a question, answered by the next speaker
