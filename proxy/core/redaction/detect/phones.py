"""Which digit groups are telephone numbers: international by plan, national by shape and first digits.

Owns the rules of national formats. Knows no text around the number and no label.
"""

from __future__ import annotations

import re

from proxy.core.redaction.detect.tables.phone_plan import phone_plan, split_international

_BR_AREAS = frozenset(
    "11 12 13 14 15 16 17 18 19 21 22 24 27 28 31 32 33 34 35 37 38 41 42 43 44 45 46 47 48 49 51 53 54 55 61 62 63 64 "
    "65 66 67 68 69 71 73 74 75 77 79 81 82 83 84 85 86 87 88 89 91 92 93 94 95 96 97 98 99".split()
)
_AREA_SHAPES = frozenset((b"(000) 000-0000", b"(000)000-0000"))
_YEAR = re.compile(r"(?:19|20)[0-9]{2}")
_TRUNK = re.compile(rb"0{2,6}(?:[ .\-/]0{2,8}){1,4}")


def is_international(digits: str) -> bool:
    """True when the digits after ``+`` are a calling code and a number of its plan."""
    return split_international(digits) is not None


def is_brazilian(digits: str) -> bool:
    """True for an area code with a mobile (9 digits from 9) or a landline (8 digits from 2 to 5)."""
    if digits[:2] not in _BR_AREAS:
        return False
    return (len(digits) == 11 and digits[2] == "9") or (len(digits) == 10 and digits[2] in "2345")


def is_nanp(digits: str) -> bool:
    """True for area code and exchange of the North American plan, as assigned."""
    if digits[:3] == "555" and len(digits) == 10:
        return True  # nobody's, and in every example
    if len(digits) != 10 or digits[0] in "01" or digits[3] in "01" or digits[1:3] == "11" or digits[4:6] == "11":
        return False
    return bool(phone_plan()["1"][10] >> int(digits[:2]) & 1)


def _starts(*prefixes: str) -> re.Pattern[str]:
    return re.compile("|".join(prefixes))


_BY_AREA = (b"00 ", b"00-", b"00.")
_NATIONAL: dict[bytes, tuple[re.Pattern[str] | None, bool]] = {
    # shape: (digits must start so, North American or Brazilian rules instead)
    b"000-000-0000": (None, True),
    b"000.000.0000": (None, True),
    b"000 000 0000": (None, True),
    b"0-000-000-0000": (None, True),
    b"0.000.000.0000": (None, True),
    b"0 000-000-0000": (None, True),
    b"00 00000-0000": (None, True),
    b"00 0000-0000": (None, True),
    b"00-00000-0000": (None, True),
    b"00.00000.0000": (None, True),
    b"00 00 00 00 00": (_starts("0[1-9]"), False),
    b"00.00.00.00.00": (_starts("0[1-9]"), False),
    b"00-00-00-00-00": (_starts("0[1-9]"), False),
    b"0 000 000 00 00": (_starts("0[2-5]", "8[3-9]"), False),
    b"0-000-000-00-00": (_starts("0[2-5]", "8[3-9]"), False),
    b"0 000 000-00-00": (_starts("8[3-9]"), False),
    b"000 0000 0000": (_starts("1[3-9]", "0[1-9]"), False),
    b"000-0000-0000": (_starts("1[3-9]", "0[1-9]"), False),
    b"000-000 00 00": (_starts("0[1-9]"), False),
    b"00-000 00 00": (_starts("08"), False),
    b"0000-00 00 00": (_starts("0[1-9]"), False),
    b"000 00000-0000": (_starts("0[1-9][1-9]9"), False),
    b"000 0000-0000": (_starts("0[1-9][1-9]"), False),
    b"0 (000) 0000000": (_starts("0[2-9]"), False),
    b"0 (000) 000 0000": (_starts("0[2-9]"), False),
    b"0 (000) 000-0000": (_starts("0[2-9]", "1[2-9]"), False),
    b"0 (000) 000-00-00": (_starts("[078]"), False),
    b"0 (000) 000 00 00": (_starts("[078]"), False),
    b"0(000)000-00-00": (_starts("8[3-9]", "0[2-5]"), False),
    b"0(000)0000000": (_starts("8[3-9]", "0[2-5]"), False),
    b"0 000 0000000": (_starts("8[3-9]"), False),
    b"0000-0000-0000": (_starts("08[1-9]"), False),
    b"0000 0000 0000": (_starts("08[1-9]"), False),
    b"00)000-0000": (_starts("02"), False),
    b"00)0000-0000": (_starts("02"), False),
    b"000)000-0000": (_starts("0[3-7]"), False),
    b"000)0000-0000": (_starts("0[3-7]"), False),
}
NATIONAL_SHAPES = frozenset(_NATIONAL)
"""National formats told from their shape alone. Source: number formats of libphonenumber (Apache-2.0)."""


def is_national_shape(shape: bytes, digits: str) -> bool:
    """True when shape and first digits are a national format that needs no label."""
    rule = _NATIONAL.get(shape)
    if rule is not None:
        starts, american = rule
        if american and (digits[0] != "0" or len(digits) != 10):
            if shape[:3] in _BY_AREA:
                return is_brazilian(digits)
            return is_nanp(digits[1:] if digits[0] == "1" and len(digits) == 11 else digits)
        if not american:
            return starts is None or starts.match(digits) is not None
    if shape[:1] == b"(":
        return _is_area_shape(shape, digits)
    if digits[0] == "0" and 9 <= len(digits) <= 11 and digits[1] != "0":
        if shape in (b"00000-0000", b"000-00000-000") or shape.count(b"/") > 1:
            return False  # a postal code of the United States; a part of a machine; a path
        return _TRUNK.fullmatch(shape) is not None and len(set(shape) - {0x30}) == 1
    return False


def _is_area_shape(shape: bytes, digits: str) -> bool:
    """``(area) number``: 9 to 12 digits, or 8 with a trunk zero; a bracketed year is not an area."""
    close = shape.find(b")")
    if not 2 <= close <= 6 or not 9 <= len(digits) <= 12:
        return False
    area = digits[: close - 1]
    if _YEAR.fullmatch(area):
        return False
    if len(digits) == 10 and len(area) == 3:
        return is_nanp(digits) or area[0] == "0" or (shape in _AREA_SHAPES and area[0] != "9")
    return is_brazilian(digits.removeprefix("0")) or area[0] == "0" or len(area) == 2


def is_plausible(digits: str) -> bool:
    """True for what may be a telephone number once a label says so: 7 to 13 digits, or a whole international one."""
    if digits == digits[0] * len(digits):
        return False
    subscriber = digits.removeprefix("00")
    return 7 <= len(digits) <= 13 or 7 <= len(subscriber) <= 12 or is_international(subscriber)
