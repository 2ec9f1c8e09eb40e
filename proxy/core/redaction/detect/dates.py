"""Dates of birth: any calendar date after a birth label.

Owns the ways dates are written. Knows the labels only through the context.
"""

from __future__ import annotations

import re

from proxy.core.redaction.detect.arithmetic import is_date
from proxy.core.redaction.detect.context import LABELLED, Context

_REACH = 26
_FIRST_YEAR, _LAST_YEAR = 1900, 2030

_MONTH_STEMS = (
    ("jan", "ene", "gen", "stycz", "ledn", "led"), ("feb", "fev", "f\xe9v", "lut", "helmi"), ("mar", "m\xe4r", "mrt", "mrz", "maa"),
    ("apr", "abr", "avr", "kwie", "huhti"), ("may", "mai", "mag", "mei", "maj", "touko"), ("jun", "giu", "juin", "czerw", "kes\xe4"),
    ("jul", "lug", "juil", "lip", "hein\xe4"), ("aug", "ago", "aou", "ao\xfb", "sierp", "elo"), ("sep", "set", "wrze", "syys"),
    ("oct", "okt", "out", "ott", "pa\xbc", "pa\\?dz", "loka"), ("nov", "lis", "marras"), ("dec", "dez", "dic", "d\xe9c", "des", "gru", "joulu"),
)  # fmt: skip
_STEMS = sorted({s for month in _MONTH_STEMS for s in month}, key=lambda s: (-len(s), s))
MONTH_NAME = rb"(?i:" + b"|".join(s.encode("latin-1") for s in _STEMS) + rb")[A-Za-z\xe0-\xff]{0,8}\.?"

DAY_FIRST = (
    rb"\b[0-9]{1,2}(?:st|nd|rd|th|\.|\xba|er)?[ \-/,]{1,2}(?:de |of |di |d')?"
    + MONTH_NAME
    + rb"[ \-/,]{1,2}(?:de |del |of )?[0-9]{4}\b"
)
MONTH_FIRST = rb"\b" + MONTH_NAME + rb" {1,2}[0-9]{1,2}(?:st|nd|rd|th)?,? {1,2}[0-9]{4}\b"
SHORT = rb"\b[0-9]{1,2}[/.\-][0-9]{1,2}[/.\-](?:19|20)?[0-9]{2}\b"
"""Dates with fewer digits than a digit run has."""
CJK = rb"\b[0-9]{4} ?\? ?[0-9]{1,2} ?\? ?[0-9]{1,2} ?\?"

BIRTH = (
    rb"(?i:(?:\b|_)dob(?:\b|_)|\bd[._ ] ?o[._ ] ?b|birth|(?:\b|_)born|nascid|nasciment|\bnasc|nacimi|nacid|naissance|\bn[e\xe9]e?[ _]le\b|\bddn\b|geboren|geburt|(?:\b|_)geb\b"
    rb"|nascita|\bnat[oa][ _]il\b|geboorte|urodz|\bur[.:]|f[o\xf8\xf6]d(?:t|d|sels|else)|syntym|syntyn|do[\?g]um|dogum|narozen|sz[u\xfc]let|n\?scut|na\?ter|naster"
    rb"|[a-z]_?dob\b|aniversario|anivers\xe1rio|\bnaci\b|\bnasci\b|nasceu"
    rb"|\bnaci\xf3|\bnacio\b|\bn[e\xe9] e le\b|\bng[a\xe0]y sinh|\bf(?:ec(?:ha)?)?[._ ]{0,2}nac\b|\bn[e\xe9]\(e\) le|\bdn[:=]|\bbday\b|foed(?:t|sels))"
)
"""Words that make the scan look at dates at all."""

_NUMERIC = re.compile(rb"([0-9]{1,4})([-/. ])([0-9]{1,2})\2([0-9]{2,4})")
_COMPACT = re.compile(rb"(?:19|20)[0-9]{6}")
_LINK = re.compile(rb" (?:is|was|\xe9|es|est|ist|era) (?:[A-Za-z\xc0-\xff]{1,8} ){0,4}\Z")
_ENDS_HERE = re.compile(
    rb"(?:(?P<number>\b[0-9]{1,4}([-/.])[0-9]{1,2}\2[0-9]{2,4})|(?P<named>" + DAY_FIRST + b"|" + MONTH_FIRST + rb"))\Z"
)
_LINK_CHARS, _DATE_CHARS = 44, 28


def named_date(ctx: Context, start: int, end: int) -> int:
    """Judge a date with its month in words."""
    if not ctx.birth and ctx.data[end : end + 2] != b" (":
        return end
    year = re.search(rb"[0-9]{4}", ctx.data[start:end])
    if year and _FIRST_YEAR <= int(year[0]) <= _LAST_YEAR:
        ctx.orphans = not report(ctx, start, end) or ctx.orphans
    return end


def short_date(ctx: Context, start: int, end: int) -> int:
    """Judge a date of four to eight digits, when a word of birth was seen."""
    if ctx.birth and is_calendar_date(ctx.data[start:end]) and not report(ctx, start, end):
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
        return _COMPACT.fullmatch(text) is not None and is_date(int(text[:4]), int(text[4:6]), int(text[6:]))
    a, b, c = int(found[1]), int(found[3]), int(found[4])
    if len(found[1]) == 4:
        return _FIRST_YEAR <= a <= _LAST_YEAR and is_date(a, b, c) and len(found[4]) <= 2
    if len(found[1]) == 3 or len(found[4]) == 3 or (len(found[4]) == 4 and not _FIRST_YEAR <= c <= _LAST_YEAR):
        return False
    year = c if len(found[4]) == 4 else 1900 + c
    return is_date(year, b, a) or is_date(year, a, b)


def report(ctx: Context, start: int, end: int) -> bool:
    """Report a date that a birth label announces."""
    label = ctx.label(start)
    if label is None and ctx.data[end : end + 2] == b" (":
        label = ctx.label_after(end)
    if label is None or "DATE_OF_BIRTH" not in label.kinds or label.distance > _REACH:
        return False
    ctx.add(start, end, "DATE_OF_BIRTH", 3, LABELLED)
    return True
