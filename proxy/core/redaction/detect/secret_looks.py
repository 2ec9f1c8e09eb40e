"""What a password, a passphrase or a token looks like once its label stands before it.

Owns the looks of values: letters, signs, entropy. Knows no label and no text around them.
"""

from __future__ import annotations

import re

from proxy.core.redaction.detect.secrets import has_entropy, is_placeholder

_HUMP = re.compile(rb"[a-z][A-Z]")
_PASSPHRASE = re.compile(rb"[a-z]{3,12}(?:-[a-z]{3,12}){2,6}")
_SAYS_WHAT = re.compile(
    rb"pass|secret|token|key|your|example|sample|name|value|none|not|with|from|case|auto|gener|required|change|reset|default|form|input"
    rb"|field|text|read|write|only|user|admin|current|new-|old-|prod|file|data|time|type|based|string|config|auth|login|account"
)
_NEXT_FIELD = re.compile(rb"[,;&](?:(?<=,)|$|[A-Za-z_][\w.\-]*=)")
_TOKEN_CHARS = re.compile(rb"[A-Za-z0-9_\-.~+/=:%@#$!&*|^?()]+")
DIGITS = b"0123456789"
_ALL_LETTERS = bytes(c for c in range(256) if chr(c).isalpha())
_SIGNS = b"!@#$%^&*()_-+=[]{}|;:,.?/~"
_BLOTS = b"*xX.-_#"
"""What blots out a value."""
_HEX = b"0123456789abcdefABCDEF-"
"""Sixteen different characters at most: their entropy is lower by nature."""
_WORDS_AND_DIGIT = re.compile(rb"[a-z]+(?:[-._/:][a-z]*)*[0-9]?")
"""No password without a sign before it: ``prefer-ipv4``."""
_PASSWORD_CHARS = re.compile(rb"[A-Za-z0-9!@#$%^&*+=?~._\-]{10,40}")
_BASE32 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def humps(value: bytes) -> int:
    return len(_HUMP.findall(value))


def has_no_words(value: bytes) -> bool:
    """True for eight letters and more in mixed case with too few vowels for any language: ``iLrRcISJtl``."""
    size = len(value)
    return size > 7 and humps(value) > 1 and (size - len(value.translate(None, b"aeiouAEIOU"))) * 5 < size


def is_passphrase(value: bytes) -> bool:
    """True for three words and more joined by hyphens that say nothing of what they are: ``amber-falcon-lake``."""
    return _PASSPHRASE.fullmatch(value) is not None and _SAYS_WHAT.search(value) is None


def is_password(value: bytes, *, explicit: bool) -> bool:
    """True for what may be a password once a label (``explicit``: and a sign) stands before it."""
    if not value.translate(None, _BLOTS) or (is_placeholder(value) and len(value) < 12):
        return False
    digit, letter, mixed = _has(value, DIGITS), _has(value, _ALL_LETTERS), _is_mixed(value)
    if explicit and not digit:
        telling = _has(value, b"!@#$%^&*+=?~")
        return letter and ((telling and mixed) or has_no_words(value) or is_passphrase(value))
    if explicit:
        return letter or _has(value, _SIGNS)
    if not (digit and letter and len(value) >= 7):
        return False
    return mixed or (_has(value, _SIGNS) and _WORDS_AND_DIGIT.fullmatch(value) is None)


def _has(value: bytes, chars: bytes) -> bool:
    return len(value.translate(None, chars)) < len(value)


def is_strong_password(value: bytes) -> bool:
    """True for what is a password whatever its label calls it: letters of both cases, digits and telling signs."""
    if _PASSWORD_CHARS.fullmatch(value) is None or is_placeholder(value) or not _is_mixed(value):
        return False
    return _has(value, DIGITS) and _has(value, b"!@#$%^&*+?~")


def is_token(value: bytes, explicit: bool) -> bool:
    """True for what may be a token or key once a label (``explicit``: and a sign) stands before it."""
    if len(value) < 16 and not (
        explicit and len(value) >= 12 and sum([0x30 <= c <= 0x39 for c in value]) > 1 and _is_mixed(value)
    ):
        return False
    if not (explicit or len(value) >= 24) or is_placeholder(value):
        return False
    if not _has(value, DIGITS) or not _has(value, _ALL_LETTERS):
        return False
    if len(value) < 33 and not value.translate(None, _BASE32):
        floor = 2.6
    elif len(value) > 19 and not value.translate(None, _HEX):
        floor = 3.0 if len(value) > 31 else 2.8
    else:
        floor = 3.3 if len(value) > 15 else 3.2
    return _TOKEN_CHARS.fullmatch(value) is not None and has_entropy(value, floor)


def _is_mixed(value: bytes) -> bool:
    return value.lower() != value and value.upper() != value


def cut_value(value: bytes) -> bytes:
    """Return the part of an unquoted run that is the value: no next field, nothing that closes a sentence."""
    cut = _NEXT_FIELD.search(value, 1)
    return (value[: cut.start()] if cut else value).rstrip(b".,;:)]}")
