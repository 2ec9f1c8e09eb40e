"""Check digits of Asia, Africa and Oceania, and of wallets. Values reduced to letters and digits, upper case."""

from __future__ import annotations

from hashlib import sha256

from proxy.core.redaction.detect.arithmetic import VALUE, all_same, is_date, luhn, weighted, ymd


def tr_tckn(value: str) -> bool:
    """Turkish identity number: two digits, the first from odd and even places (Law 5490)."""
    d = [int(c) for c in value]
    return d[0] != 0 and (7 * sum(d[0:9:2]) - sum(d[1:8:2])) % 10 == d[9] and sum(d[:10]) % 10 == d[10]


_INN_10 = (2, 4, 10, 3, 5, 9, 4, 6, 8)
_INN_11 = (7, 2, 4, 10, 3, 5, 9, 4, 6, 8)
_INN_12 = (3, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8)


def ru_inn(value: str) -> bool:
    """Russian INN, 10 or 12 digits (FNS order 435)."""
    if all_same(value):
        return False
    if len(value) == 10:
        return weighted(value, _INN_10) % 11 % 10 == int(value[9])
    return weighted(value, _INN_11) % 11 % 10 == int(value[10]) and weighted(value, _INN_12) % 11 % 10 == int(value[11])


def za_id(value: str) -> bool:
    """Birth date, citizenship 0 to 2, Luhn (Identification Act 68 of 1997)."""
    return ymd(value[:6]) and value[10] in "012" and luhn(value)


def cn_ric(value: str) -> bool:
    """Region, birth date, ISO 7064 mod 11-2 (GB 11643-1999)."""
    if not value[:17].isdigit() or not "11" <= value[:2] <= "82":
        return False
    if not 1880 <= int(value[6:10]) <= 2040 or not is_date(int(value[6:10]), int(value[10:12]), int(value[12:14])):
        return False
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return value[17] == "10X98765432"[weighted(value[:17], weights) % 11]


def kr_rrn(value: str) -> bool:
    """Birth date and century digit; numbers issued since October 2020 carry no check digit (MOIS)."""
    return ymd(value[:6]) and value[6] in "12345678"


def kr_rrn_checked(value: str) -> bool:
    """The older rule as well: weights 2 to 9 and 2 to 5, mod 11."""
    total = weighted(value, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5))
    return kr_rrn(value) and (11 - total % 11) % 10 == int(value[12])


def jp_my_number(value: str) -> bool:
    """Individual number: weights 6-5-4-3-2-7-6-5-4-3-2, mod 11 (Act 27 of 2013)."""
    rest = weighted(value, (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return int(value[11]) == (0 if rest <= 1 else 11 - rest) and not all_same(value)


_NRIC = {"S": (0, "JZIHGFEDCBA"), "T": (4, "JZIHGFEDCBA"), "F": (0, "XWUTRQPNMLK"), "G": (4, "XWUTRQPNMLK")}


def sg_nric(value: str) -> bool:
    """Weights 2-7-6-5-4-3-2 and a letter table per prefix, M with its own offset (ICA)."""
    total = weighted(value[1:8], (2, 7, 6, 5, 4, 3, 2))
    if value[0] == "M":
        return value[8] == "KLJNPQRTUWX"[10 - (total + 3) % 11]
    row = _NRIC.get(value[0])
    return row is not None and value[8] == row[1][(total + row[0]) % 11]


def hk_id(value: str) -> bool:
    """One or two letters, six digits, check digit or A, mod 11 (Immigration Department)."""
    body = value.rjust(9)
    total = sum([(36 if c == " " else VALUE[c]) * w for c, w in zip(body[:8], range(9, 1, -1), strict=True)])
    check = -total % 11
    return body[2:8].isdigit() and value[-1] == ("A" if check == 10 else str(check))


_VERHOEFF_D = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_VERHOEFF_P = (
    "0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258",
)  # fmt: skip


def verhoeff(value: str) -> bool:
    """Verhoeff's dihedral check."""
    state = 0
    for i, c in enumerate(reversed(value)):
        state = int(_VERHOEFF_D[state][int(_VERHOEFF_P[i % 8][int(c)])])
    return state == 0


def in_aadhaar(value: str) -> bool:
    """Verhoeff, first digit 2 to 9, no palindrome (UIDAI)."""
    return value[0] not in "01" and verhoeff(value) and value != value[::-1]


def in_pan(value: str) -> bool:
    """Fourth letter names the holder's status (Income Tax Department)."""
    return value[3] in "ABCFGHJLPTKE" and value[5:9] != "0000"


def in_gstin(value: str) -> bool:
    """State 01 to 38, a PAN, entity, Z, mod-36 check (GSTN); test numbers with a wrong check digit pass."""
    return "01" <= value[:2] <= "37" and value[2:7].isalpha() and value[13] == "Z" and value[12] != "0"


def au_tfn(value: str) -> bool:
    """Weights 1-4-3-7-5-8-6-9-10 (or the eight-digit set), mod 11 (ATO)."""
    weights = (1, 4, 3, 7, 5, 8, 6, 9, 10) if len(value) == 9 else (10, 7, 8, 4, 6, 3, 5, 1)
    return weighted(value, weights) % 11 == 0 and not all_same(value)


def au_abn(value: str) -> bool:
    """First digit less one, weights 10-1-3-5-7-9-11-13-15-17-19, mod 89 (ABR)."""
    if value[0] == "0":
        return False
    return weighted(str(int(value[0]) - 1) + value[1:], (10, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19)) % 89 == 0


_BASE58 = {c: i for i, c in enumerate("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")}


def base58check(value: str) -> bool:
    """Base58 with the first four bytes of a double SHA-256 at the end (Bitcoin and its kin). Case matters."""
    number = 0
    for c in value:
        digit = _BASE58.get(c)
        if digit is None:
            return False
        number = number * 58 + digit
    raw = number.to_bytes(25, "big") if number < 1 << 200 else b""
    return bool(raw) and sha256(sha256(raw[:21]).digest()).digest()[:4] == raw[21:]


_BECH32 = {c: i for i, c in enumerate("qpzry9x8gf2tvdw0s3jn54khce6mua7l")}
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def bech32(value: str) -> bool:
    """Bech32 or bech32m checksum (BIP 173, BIP 350), all lower or all upper case."""
    text = value.lower()
    prefix, _, data = text.rpartition("1")
    if value not in (text, value.upper()) or len(data) < 6 or any([c not in _BECH32 for c in data]):
        return False
    state = 1
    values = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + [_BECH32[c] for c in data]
    for v in values:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ v
        for i in range(5):
            state ^= _GENERATOR[i] if top >> i & 1 else 0
    return state in (1, 0x2BC830A3)
