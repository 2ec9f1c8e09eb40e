"""Check digits of the Americas, and of payment cards. Takes values reduced to letters and digits, upper case."""

from __future__ import annotations

from operator import mul

from proxy.core.redaction.detect.arithmetic import LESS_48, all_same, luhn, weighted, ymd

_CPF_1 = (10, 9, 8, 7, 6, 5, 4, 3, 2)
_CPF_2 = (11, 10, 9, 8, 7, 6, 5, 4, 3, 2)


def cpf(value: str) -> bool:
    """Brazilian CPF: two mod-11 digits (Receita Federal, IN RFB 2172/2024)."""
    d = value.encode().translate(LESS_48)
    first = sum(map(mul, d, _CPF_1)) * 10 % 11 % 10
    return first == d[9] and sum(map(mul, d, _CPF_2)) * 10 % 11 % 10 == d[10] and not all_same(value)


_CNPJ_1 = (5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)
_CNPJ_2 = (6, *_CNPJ_1)


def cnpj(value: str) -> bool:
    """Brazilian CNPJ, numeric or alphanumeric: character value is its ASCII code minus 48 (IN RFB 2229/2024)."""
    if not value[12:].isdigit():
        return False
    v = value.encode().translate(LESS_48)
    first = 11 - sum(map(mul, v, _CNPJ_1)) % 11
    second = 11 - sum(map(mul, v, _CNPJ_2)) % 11
    return (first if first < 10 else 0) == v[12] and (second if second < 10 else 0) == v[13] and not all_same(value)


_LONG = (16, 17, 18, 19)
_CARD_RANGES: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("4", "4", (13, 16, 19)),  # Visa
    ("51", "55", (16,)), ("2221", "2720", (16,)),  # Mastercard
    ("34", "34", (15,)), ("37", "37", (15,)),  # American Express
    ("6011", "6011", _LONG), ("644", "649", _LONG), ("65", "65", _LONG),  # Discover
    ("300", "305", (14, 16)), ("309", "309", (14, 16)), ("36", "36", (14, 16, 19)), ("38", "39", (14, 16, 19)),  # Diners Club
    ("3528", "3589", _LONG), ("2131", "2131", (15, 16)), ("1800", "1800", (15, 16)),  # JCB
    ("62", "62", _LONG), ("81", "81", _LONG),  # UnionPay
    ("5019", "5019", (16,)), ("6759", "6759", (16, 18, 19)), ("6763", "6763", (16, 18, 19)),  # Dankort, Maestro
    ("606282", "606282", (13, 16, 19)), ("637095", "637095", (16,)), ("637568", "637568", (16,)),  # Hipercard
    ("637599", "637599", (16,)), ("637609", "637609", (16,)), ("637612", "637612", (16,)),
    ("384100", "384100", (16, 19)), ("384140", "384140", (16, 19)), ("384160", "384160", (16, 19)),
    ("636368", "636368", (16,)), ("636297", "636297", (16,)), ("504175", "504175", (16,)), ("627780", "627780", (16,)),  # Elo
    ("5067", "5067", (16,)), ("5090", "5090", (16,)),
    ("1220", "1229", (15,)),  # UATP
    ("9792", "9792", (16,)), ("2200", "2204", _LONG), ("6521", "6522", (16,)),  # Troy, Mir, RuPay
)  # fmt: skip
"""(first prefix, last prefix, lengths). Source: the schemes' published ranges, extracts of the ISO/IEC 7812 register."""
_RANGES_BY_DIGIT: dict[str, tuple[tuple[str, str, tuple[int, ...]], ...]] = {
    digit: tuple(row for row in _CARD_RANGES if row[0][0] == digit) for digit in "0123456789"
}


def _is_issued(value: str) -> bool:
    """True when a scheme issues numbers of this prefix in this length."""
    size = len(value)
    return any([low <= value[: len(low)] <= high and size in sizes for low, high, sizes in _RANGES_BY_DIGIT[value[0]]])


def card(value: str) -> bool:
    """Payment card: issuer range with its lengths, then Luhn (ISO/IEC 7812; ranges as published by the schemes)."""
    return _is_issued(value) and luhn(value) and not all_same(value)


def card_labelled(value: str) -> bool:
    """Payment card beside a card word: any issuer, any length from 12 (Maestro), Luhn."""
    return 12 <= len(value) <= 19 and not all_same(value) and luhn(value)


_STATES = frozenset("AC AL AP AM BA CE DF ES GO MA MT MS MG PA PB PR PE PI RJ RN RS RO RR SC SP SE TO".split())


def br_rg(value: str) -> bool:
    """No common check digit; letters before the number must be a state (or one letter), X may end it."""
    head = value.rstrip("X").rstrip("0123456789")
    return not all_same(value) and (len(head) < 2 or head in _STATES)


_TITULO = (2, 3, 4, 5, 6, 7, 8, 9)


def br_titulo(value: str) -> bool:
    """Voter number: 8 serial digits, state 01-28, two mod-11 digits (TSE resolution 21.538/2003)."""
    state = int(value[8:10])
    if not 1 <= state <= 28:
        return False
    first = weighted(value, _TITULO) % 11
    first = 1 if first == 0 and state in (1, 2) else 0 if first == 10 else first
    second = (int(value[8]) * 7 + int(value[9]) * 8 + first * 9) % 11
    second = 1 if second == 0 and state in (1, 2) else 0 if second == 10 else second
    return value[10:] == f"{first}{second}"


def br_cnh(value: str) -> bool:
    """Driving licence: two weighted mod-11 digits (Denatran ordinance 47/1999)."""
    if all_same(value):
        return False
    first = weighted(value, (9, 8, 7, 6, 5, 4, 3, 2, 1)) % 11
    carry = 2 if first > 9 else 0
    second = weighted(value, (1, 2, 3, 4, 5, 6, 7, 8, 9)) % 11 - carry
    second = second + 11 if second < 0 else second
    return value[9:] == f"{0 if first > 9 else first}{0 if second > 9 else second}"


def br_pis(value: str) -> bool:
    """PIS/PASEP/NIT: one mod-11 digit (Caixa)."""
    rest = 11 - weighted(value, (3, 2, 9, 8, 7, 6, 5, 4, 3, 2)) % 11
    return int(value[10]) == (0 if rest > 9 else rest) and not all_same(value)


def br_cns(value: str) -> bool:
    """Health card: weights 15 to 1, divisible by 11, first digit 1, 2, 7, 8 or 9 (DATASUS)."""
    return value[0] in "12789" and weighted(value, tuple(range(15, 0, -1))) % 11 == 0


_SSN_DUMMIES = frozenset(("078051120", "219099999", "123456789", "987654320"))


def us_ssn(value: str) -> bool:
    """Area not 000, 666 or 9xx, group and serial not zero, not a published dummy (SSA)."""
    return value[0] != "9" and us_ssn_form(value)


def us_ssn_form(value: str) -> bool:
    """As it is issued, or in the areas 9xx that hold no ITIN: test data and slips of the pen look like that."""
    return (
        value[:3] not in ("000", "666")
        and not us_itin(value)
        and value[3:5] != "00"
        and value[5:] != "0000"
        and value not in _SSN_DUMMIES
        and not all_same(value)
    )


def us_ssn_labelled(value: str) -> bool:
    """Social security number beside its label: areas never issued too, as people mistype and tests use them."""
    return value[:3] not in ("000", "666") and value[3:5] != "00" and value[5:] != "0000" and not all_same(value)


def us_itin(value: str) -> bool:
    """9xx with a group of 50-65, 70-88, 90-92 or 94-99 (IRS publication 4757)."""
    group = int(value[3:5])
    return value[0] == "9" and (50 <= group <= 65 or 70 <= group <= 88 or 90 <= group <= 92 or 94 <= group <= 99)


_EIN_PREFIXES = frozenset(
    "01 02 03 04 05 06 10 11 12 13 14 15 16 20 21 22 23 24 25 26 27 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 "
    "50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 71 72 73 74 75 76 77 80 81 82 83 84 85 86 87 88 90 91 92 93 94 "
    "95 98 99".split()
)


def us_ein(value: str) -> bool:
    """Campus prefix in use (IRS, valid EIN prefixes)."""
    return value[:2] in _EIN_PREFIXES


def us_routing(value: str) -> bool:
    """ABA: 3-7-1 weights and a Federal Reserve prefix (00-12, 21-32, 61-72, 80)."""
    prefix = int(value[:2])
    if not (prefix <= 12 or 21 <= prefix <= 32 or 61 <= prefix <= 72 or prefix == 80) or all_same(value):
        return False
    return weighted(value, (3, 7, 1, 3, 7, 1, 3, 7, 1)) % 10 == 0


def us_npi(value: str) -> bool:
    """Luhn over 80840 and the number, which starts with 1 or 2 (CMS)."""
    return value[0] in "12" and luhn("80840" + value) and not all_same(value)


_MBI = ("123456789", "ACDEFGHJKMNPQRTUVWXY", "0123456789ACDEFGHJKMNPQRTUVWXY", "0123456789") * 2
_MBI_PLACES = (0, 1, 2, 3, 1, 2, 3, 1, 1, 3, 3)


def us_mbi(value: str) -> bool:
    """Medicare beneficiary: fixed places for digits and letters without S L O I B Z (CMS)."""
    return all([c in _MBI[place] for c, place in zip(value, _MBI_PLACES, strict=True)])


def ca_sin(value: str) -> bool:
    """Luhn; first digit not 0 or 8, not one digit repeated (Service Canada)."""
    return value[0] not in "08" and luhn(value) and not all_same(value)


_CURP_STATES = frozenset(
    "AS BC BS CC CS CH CL CM DF DG GT GR HG JC MC MN MS NT NL OC PL QT QR SP SL SR TC TS TL VZ YN ZS NE".split()
)
_CURP_ALPHABET = {c: i for i, c in enumerate("0123456789ABCDEFGHIJKLMN\u00d1OPQRSTUVWXYZ")}


def mx_curp(value: str) -> bool:
    """Real birth date, sex, state and a mod-10 digit over the alphabet with N-tilde (RENAPO)."""
    if not value[4:10].isdigit() or not ymd(value[4:10]) or value[10] not in "HMX" or value[11:13] not in _CURP_STATES:
        return False
    total = sum([_CURP_ALPHABET[c] * w for c, w in zip(value[:17], range(18, 1, -1), strict=True)])
    return value[17] == str(-total % 10)


def mx_rfc(value: str) -> bool:
    """Three or four letters and a date; the check character is not always kept to, so it only has to be one (SAT)."""
    date = value[-9:-3]
    return date.isdigit() and ymd(date) and value[-1] in "0123456789A"


def ar_cuit(value: str) -> bool:
    """CUIT/CUIL: type prefix and weighted mod 11 (AFIP)."""
    if value[:2] not in ("20", "23", "24", "25", "26", "27", "30", "33", "34", "50", "51", "55"):
        return False
    check = 11 - weighted(value, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return int(value[10]) == {11: 0, 10: 9}.get(check, check)


def cl_rut(value: str) -> bool:
    """RUT: weights 2 to 7 from the right, mod 11, K for ten (SII)."""
    body, check = value[:-1], value[-1]
    if not body.isdigit():
        return False
    total = sum([int(c) * (2 + i % 6) for i, c in enumerate(reversed(body))])
    return check == "0123456789K"[-total % 11] and not all_same(body)
