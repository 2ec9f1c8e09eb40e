"""Check digits of Europe and of the IBAN. Takes values reduced to letters and digits, upper case."""

from __future__ import annotations

from collections.abc import Callable

from proxy.core.redaction.detect.arithmetic import VALUE, all_same, dmy, is_date, luhn, weighted, ymd

IBAN_LENGTHS: dict[str, int] = {
    cell[:2]: int(cell[2:])
    for cell in (
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 "
        "ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 "
        "LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 "
        "PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
    ).split()
}
"""Country -> length. Source: SWIFT IBAN registry, release 98."""


_NUMERALS = {ord(letter): str(number) for letter, number in VALUE.items()}


def iban(value: str) -> bool:
    """Length of the country and remainder 1 modulo 97 (ISO 13616)."""
    if IBAN_LENGTHS.get(value[:2]) != len(value) or not value[2:4].isdigit():
        return False
    return int((value[4:] + value[:4]).translate(_NUMERALS)) % 97 == 1


def uk_nino(value: str) -> bool:
    """Letters allowed in the prefix, suffix A to D (HMRC NIM39110)."""
    first, second = value[0], value[1]
    if first in "DFIQUV" or second in "DFIOQUV" or value[:2] in ("BG", "GB", "NK", "KN", "TN", "NT", "ZZ"):
        return False
    return value[8] in "ABCD" and value[2:8] != "000000"


def uk_nhs(value: str) -> bool:
    """Weights 10 to 2, mod 11 (NHS data dictionary)."""
    check = -weighted(value, (10, 9, 8, 7, 6, 5, 4, 3, 2)) % 11
    return check == int(value[9]) and not all_same(value)


def de_tax_id(value: str) -> bool:
    """Steuer-ID: one digit two or three times among the first ten, then ISO 7064 mod 11,10 (BZSt)."""
    body = value[:10]
    if value[0] == "0" or max([body.count(c) for c in set(body)]) not in (1, 2, 3):
        return False
    return _mod_11_10(value)


def _mod_11_10(value: str) -> bool:
    product = 10
    for c in value[:-1]:
        total = (int(c) + product) % 10 or 10
        product = total * 2 % 11
    return (11 - product) % 10 == int(value[-1])


def fr_nir(value: str) -> bool:
    """Sex, year, month, department (2A and 2B for Corsica), key 97 (INSEE)."""
    number, key = value[:13].replace("2A", "19").replace("2B", "18"), value[13:]
    if not (number + key).isdigit() or value[0] not in "123478":
        return False
    month = int(value[3:5])
    return (1 <= month <= 12 or 20 <= month <= 42 or month >= 50) and 97 - int(number) % 97 == int(key)


def fr_siret(value: str) -> bool:
    """Luhn over SIREN and over the whole; La Poste sums its digits instead (INSEE)."""
    if value.startswith("356000000"):
        return sum([int(c) for c in value]) % 5 == 0
    return luhn(value) and luhn(value[:9]) and not all_same(value)


_NIF_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"


def es_nif(value: str) -> bool:
    """Number modulo 23 gives the letter (Real Decreto 1553/2005)."""
    return value[:-1].isdigit() and value[-1] == _NIF_LETTERS[int(value[:-1]) % 23]


def es_nie(value: str) -> bool:
    """X, Y, Z stand for 0, 1, 2 before the number modulo 23."""
    return value[0] in "XYZ" and es_nif(str("XYZ".index(value[0])) + value[1:])


_IT_ODD = dict(zip("0123456789", (1, 0, 5, 7, 9, 13, 15, 17, 19, 21), strict=True)) | dict(
    zip(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
        strict=True,
    )
)


def it_fiscal_code(value: str) -> bool:
    """Odd and even places through the published table; month and day letters are checked too (DM 23/12/1976)."""
    day = "".join([str("LMNPQRSTUV".find(c)) if c.isalpha() else c for c in value[9:11]])
    if value[8] not in "ABCDEHLMPRST" or "-" in day or not 1 <= int(day) % 40 <= 31:
        return False
    total = sum([_IT_ODD[c] for c in value[:15:2]])
    total += sum([int(c) if c.isdigit() else ord(c) - 65 for c in value[1:15:2]])
    return value[15] == chr(65 + total % 26)


def pt_nif(value: str) -> bool:
    """Weights 9 to 2, mod 11 (Portaria 386/98)."""
    check = -weighted(value, (9, 8, 7, 6, 5, 4, 3, 2)) % 11
    return value[0] != "0" and int(value[8]) == check % 10 and not all_same(value)


def nl_bsn(value: str) -> bool:
    """Eleven test with weight -1 for the last digit (RvIG); eight digits lack their leading zero."""
    padded = value.zfill(9)
    return (weighted(padded, (9, 8, 7, 6, 5, 4, 3, 2)) - int(padded[8])) % 11 == 0 and not all_same(value)


def be_nrn(value: str) -> bool:
    """Birth date, serial, key 97; a 2 goes before the number for people born from 2000 (Koninklijk besluit 1984)."""
    body, key = int(value[:9]), int(value[9:])
    return (
        key in (97 - body % 97, 97 - (2_000_000_000 + body) % 97)
        and int(value[2:4]) % 20 <= 12
        and int(value[4:6]) <= 31
    )


def pl_pesel(value: str) -> bool:
    """Century in the month, weights 1-3-7-9 (Ustawa o ewidencji ludno\u015bci)."""
    month = int(value[2:4]) % 20
    return is_date(int(value[:2]), month, int(value[4:6])) and -weighted(
        value, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)
    ) % 10 == int(value[10])


def se_personnummer(value: str) -> bool:
    """Date (day plus 60 for a coordination number) and Luhn over the last ten digits (Skatteverket)."""
    ten = value[-10:]
    day = int(ten[4:6])
    if len(value) == 12 and value[:2] not in ("18", "19", "20"):
        return False
    year = int(value[:4]) if len(value) == 12 else int(ten[:2])
    return is_date(year, int(ten[2:4]), day - 60 if day > 60 else day) and luhn(ten)


def fi_hetu(value: str) -> bool:
    """Date, serial and modulo 31 (DVV); the century sign is in ``value`` only when it is a letter."""
    digits = value[:6] + value[-4:-1]
    if len(value) == 11 and value[6] not in "ABCDEFUVWXY":
        return False
    return digits.isdigit() and dmy(value[:6]) and value[-1] == "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(digits) % 31]


def no_fnr(value: str) -> bool:
    """Date (day plus 40 for a D-number, month plus 40 or 80 in tests) and two mod-11 digits (Skatteetaten)."""
    day, month = int(value[:2]), int(value[2:4])
    if not is_date(int(value[4:6]), month % 40, day - 40 if day > 40 else day):
        return False
    first = -weighted(value, (3, 7, 6, 1, 8, 9, 4, 5, 2)) % 11
    second = -weighted(value, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return first == int(value[9]) and second == int(value[10])


def dk_cpr(value: str) -> bool:
    """Real date only: the check digit was given up in 2007 (CPR-kontoret)."""
    return dmy(value[:6])


def ch_ahv(value: str) -> bool:
    """756 and the EAN-13 check digit (ZAS)."""
    return value.startswith("756") and weighted(value, (1, 3) * 6 + (1,)) % 10 == 0


def ie_pps(value: str) -> bool:
    """Weights 8 to 2, mod 23, with nine times the second letter in numbers since 2013 (DEASP)."""
    if not value[:7].isdigit() or not value[7:].isalpha():
        return False
    total = weighted(value[:7], (8, 7, 6, 5, 4, 3, 2))
    extra = 9 * (ord(value[8]) - 64) if len(value) == 9 else 0
    letters = "WABCDEFGHIJKLMNOPQRSTUV"
    return value[7] in (letters[total % 23], letters[(total + extra) % 23])


def ro_cnp(value: str) -> bool:
    """Sex and century, date, county, weights 279146358279 (Legea 105/1996)."""
    check = weighted(value, (2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9)) % 11
    return value[0] in "123456789" and ymd(value[1:7]) and int(value[12]) == (1 if check == 10 else check)


_IE_SIGNS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ+*"


def _de_vat(number: str) -> bool:
    return number[0] != "0" and _mod_11_10(number)


def _at_vat(number: str) -> bool:
    total = sum([sum(divmod(int(c) * (1 + i % 2), 10)) for i, c in enumerate(number[1:8])])
    return int(number[8]) == (6 - total) % 10


def _fr_vat(number: str) -> bool:
    siren = number[2:]
    if not siren.isdigit() or not luhn(siren):
        return False
    return not number[:2].isdigit() or int(number[:2]) == (12 + 3 * (int(siren) % 97)) % 97


def it_vat(number: str) -> bool:
    """Partita IVA: Luhn and a province code (Agenzia delle Entrate)."""
    office = int(number[7:10])
    return luhn(number) and (1 <= office <= 100 or office in (120, 121, 888, 999)) and number[:7] != "0000000"


def _be_vat(number: str) -> bool:
    return number[0] in "01" and (int(number[:8]) + int(number[8:])) % 97 == 0


def _nl_vat(number: str) -> bool:
    text = "NL" + number
    by_97 = int("".join([str(VALUE[c]) for c in text])) % 97 == 1
    return number[9] == "B" and (by_97 or (number[:9].isdigit() and nl_bsn(number[:9])))


def _es_vat(number: str) -> bool:
    if number[0].isdigit():
        return es_nif(number)
    if number[0] in "XYZ":
        return es_nie(number)
    return es_cif(number)


def es_cif(number: str) -> bool:
    """Company number: letter, seven digits, control digit or letter (Orden EHA/451/2008)."""
    digits = number[1:8]
    if number[0] not in "ABCDEFGHJNPQRSUVW" or not digits.isdigit():
        return False
    total = sum([int(c) for c in digits[1::2]]) + sum([sum(divmod(2 * int(c), 10)) for c in digits[::2]])
    check = -total % 10
    return number[8] in (str(check), "JABCDEFGHI"[check])


def _pl_vat(number: str) -> bool:
    return weighted(number, (6, 5, 7, 2, 3, 4, 5, 6, 7)) % 11 == int(number[9])


def _dk_vat(number: str) -> bool:
    return weighted(number, (2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0


def _fi_vat(number: str) -> bool:
    return weighted(number, (7, 9, 10, 5, 8, 4, 2, 1)) % 11 == 0


def _lu_vat(number: str) -> bool:
    return int(number[:6]) % 89 == int(number[6:])


def _se_vat(number: str) -> bool:
    return luhn(number[:10]) and number[10:] == "01"


def _cz_vat(number: str) -> bool:
    if len(number) != 8:
        return len(number) in (9, 10)
    check = (11 - weighted(number, (8, 7, 6, 5, 4, 3, 2)) % 11) % 11
    return (1 if check == 0 else 0 if check == 10 else check) == int(number[7]) or check == int(number[7])


def _ee_vat(number: str) -> bool:
    return weighted(number, (3, 7, 1, 3, 7, 1, 3, 7, 1)) % 10 == 0


def _el_vat(number: str) -> bool:
    return weighted(number, (256, 128, 64, 32, 16, 8, 4, 2)) % 11 % 10 == int(number[8])


def _hu_vat(number: str) -> bool:
    return weighted(number, (9, 7, 3, 1, 9, 7, 3, 1)) % 10 == 0


def _mt_vat(number: str) -> bool:
    return weighted(number, (3, 4, 6, 7, 8, 9, 10, 1)) % 37 == 0


def _ro_vat(number: str) -> bool:
    return 10 * weighted(number.zfill(10), (7, 5, 3, 2, 1, 7, 5, 3, 2)) % 11 % 10 == int(number[-1])


def _si_vat(number: str) -> bool:
    return (11 - weighted(number, (8, 7, 6, 5, 4, 3, 2)) % 11) % 10 == int(number[7]) and number[0] != "0"


def _gb_vat(number: str) -> bool:
    return weighted(number, (8, 7, 6, 5, 4, 3, 2, 10, 1)) % 97 in (0, 42, 55)


def _ie_vat(number: str) -> bool:
    """Seven digits, or (before 2013) a sign in the second place; the letter is that of the personal number."""
    if number[:7].isdigit():
        return ie_pps(number)
    return len(number) == 8 and number[1] in _IE_SIGNS and ie_pps("0" + number[2:7] + number[0] + number[7])


def _lt_vat(number: str) -> bool:
    body = number[:-1]
    total = sum([int(c) * (1 + i % 9) for i, c in enumerate(body)]) % 11
    if total == 10:
        total = sum([int(c) * (1 + (i + 2) % 9) for i, c in enumerate(body)]) % 11 % 10
    return number[-2] == "1" and total == int(number[-1])


def _any(number: str) -> bool:
    return not all_same(number)


_VAT: dict[str, tuple[tuple[int, ...], Callable[[str], bool]]] = {
    "AT": ((9,), _at_vat), "BE": ((10,), _be_vat), "BG": ((9, 10), _any), "CY": ((9,), _any), "CZ": ((8, 9, 10), _cz_vat),
    "DE": ((9,), _de_vat), "DK": ((8,), _dk_vat), "EE": ((9,), _ee_vat), "EL": ((9,), _el_vat), "ES": ((9,), _es_vat),
    "FI": ((8,), _fi_vat), "FR": ((11,), _fr_vat), "HR": ((11,), _mod_11_10), "HU": ((8,), _hu_vat), "IE": ((8, 9), _ie_vat),
    "IT": ((11,), it_vat), "LT": ((9, 12), _lt_vat), "LU": ((8,), _lu_vat), "LV": ((11,), _any), "MT": ((8,), _mt_vat),
    "NL": ((12,), _nl_vat), "PL": ((10,), _pl_vat), "PT": ((9,), pt_nif), "RO": ((8, 9, 10), _ro_vat), "SE": ((12,), _se_vat),
    "SI": ((8,), _si_vat), "SK": ((10,), _any), "XI": ((9,), _gb_vat), "GB": ((9,), _gb_vat),
}  # fmt: skip
"""Country prefix -> lengths, check. Source: European Commission, VIES FAQ 11; python-stdnum as oracle."""


VAT_LENGTHS: dict[str, tuple[int, ...]] = {country: row[0] for country, row in _VAT.items()}
"""Country prefix -> characters after it."""


def vat_digits(value: str) -> bool:
    """A VAT number without its prefix, after a label: Italian, Polish or German check."""
    check = {11: it_vat, 10: _pl_vat, 9: _de_vat}.get(len(value))
    return check is not None and check(value)


def eu_vat(value: str) -> bool:
    """VAT number with its country prefix."""
    row = _VAT.get(value[:2])
    number = value[2:]
    if row is None or len(number) not in row[0]:
        return False
    needs_digits = value[:2] not in ("AT", "CY", "ES", "FR", "IE", "NL")
    if value[:2] == "AT":
        return number[0] == "U" and number[1:].isdigit() and row[1](number)
    return (not needs_digits or number.isdigit()) and row[1](number)
