"""Arithmetic shared by the validators: Luhn, weighted sums, real dates. Knows no country."""

from __future__ import annotations

from operator import mul

_DOUBLED = bytes.maketrans(b"0123456789", b"0246813579")
"""A digit to the digit sum of its double."""
ALNUM = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
VALUE = {c: i for i, c in enumerate(ALNUM)}
"""Letters as 10 to 35, the reading of ISO 7064 and ISO 13616."""
LESS_48 = bytes((c - 48) % 256 for c in range(256))
"""Digits (and letters, as CNPJ reads them) to their values, for ``bytes.translate``."""
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def luhn(value: str) -> bool:
    """Luhn (ISO/IEC 7812-1 annex B)."""
    digits = value.encode()
    total = sum(digits[-1::-2]) + sum(digits[-2::-2].translate(_DOUBLED)) - 48 * len(digits)
    return total % 10 == 0 and value.isdigit()


def weighted(value: str, weights: tuple[int, ...]) -> int:
    """Return the sum of character value times weight; characters beyond the weights are left out."""
    if value.isdigit():
        return sum(map(mul, value.encode().translate(LESS_48), weights))
    return sum([VALUE[c] * w for c, w in zip(value, weights, strict=False)])


def all_same(value: str) -> bool:
    """True for 000..., 111...: forms people type to fill a field."""
    return value == value[0] * len(value)


def is_date(year: int, month: int, day: int) -> bool:
    """True for a day of the calendar; a year below 100 has its century unknown."""
    if not 1 <= month <= 12 or not 1 <= day <= _DAYS[month - 1]:
        return False
    return month != 2 or day < 29 or (year % 4 == 0 and (year % 100 != 0 or year % 400 == 0 or year < 100))


def ymd(value: str) -> bool:
    """True when six digits are a date, year first."""
    return is_date(int(value[:2]), int(value[2:4]), int(value[4:6]))


def dmy(value: str) -> bool:
    """True when six digits are a date, day first."""
    return is_date(int(value[4:6]), int(value[2:4]), int(value[:2]))
