"""Secrets only their label tells: passwords, tokens and keys after "password:", "api_key =", "Bearer".

Owns the label words of secrets, the separators between label and value, and what a secret looks like. The words
stand in the automaton; everything after them is read here, within a bounded window.
"""

from __future__ import annotations

import re

from proxy.core.redaction.detect.context import LABELLED, Context
from proxy.core.redaction.detect.secrets import IssuerRules, entropy, is_placeholder, is_template

PASSWORD_WORDS = (
    "passwords?", "passwd", "passphrase", "passcode", "pwd", "senhas?", "contrase(?:\xf1a|na|\\?a)", "clave", "mot de passe", "mdp",
    "passwort", "kennwort", "wachtwoord", "has\\?o", "haslo", "l\xf6senord", "losenord", "salasana", "sifre", "\\?ifre", "parola",
    "adgangskode", "passord",
)  # fmt: skip
TOKEN_WORDS = (
    "api[ _.\\-]?keys?", "api[ _.\\-]?token", "apikey", "secret", "tokens?", "credentials?", "authorization", "bearer",
    "access[ _.\\-]?key", "auth[ _\\-]?key", "user[ _\\-]?auth", "private[ _\\-]?key", "encryption[ _\\-]?key", "signing[ _\\-]?key",
    "account[ _\\-]?key", "[a-z]{2,20}_(?:api_)?key", "[a-z0-9]{3,20}key", "[a-z]{3,20}[._]login", "x-api-key", "client[ _\\-]?srt", "access[ _.\\-]?id",
    "chave(?: secreta| da api| de api| de acesso)?", "clave(?: de)? api", "clave secreta", "cl[e\xe9] (?:d'?)?api", "cl[e\xe9] secr[e\xe8]te",
    "api[ \\-]?schl(?:\xfc|ue)ssel", "schl(?:\xfc|ue)ssel", "zugangstoken", "chiave (?:api|segreta)", "jeton", "klucz api",
    "api[ \\-]?sleutel",
)  # fmt: skip
_PASSWORD = b"|".join(w.encode("latin-1") for w in PASSWORD_WORDS)
_TOKEN = b"|".join(w.encode("latin-1") for w in TOKEN_WORDS)

LABEL_STEM = (
    rb"(?i:passw|passphrase|passcode|passord|pwd|senha|contrase|\bclave\b|mot de passe|\bmdp\b|kennwort|wachtwoord|has\?o|haslo"
    rb"|l[o\xf6]senord|salasana|\?ifre|sifre|parola|adgangskode|api[ _.\-]?key|api[ _.\-]?token|secret|token|credential|authorization|bearer"
    rb"|access[ _.\-]?key|auth[ _\-]?key|user[ _\-]?auth|private[ _\-]?key|encryption[ _\-]?key|signing[ _\-]?key|account[ _\-]?key"
    rb"|_key\b|[a-z]key[\"' ]{0,2}[:=]|[._]login\b|x-api-key|client_srt|access[ _.\-]?id|chave|cl[e\xe9] (?:d.?)?api|schl(?:\xfc|ue)ssel|chiave"
    rb"|jeton|klucz api|api[ \-]?sleutel)"
)

_NAME_TAIL = rb"(?:[_\-. ]?(?:base64|b64|value|key|token|secret|hash|prod|dev|test|staging|\d{1,3}|[0-9]))?"
_SEPARATOR = (
    rb"[\\\"'`\])*_]{0,4}\s{0,8}(?:(?:=>|:{1,3}=|\?=|[:=\xa0]|-|\|)\s{0,8}|\s(?:\xe9|es|is|est|ist|to|lautet|e|\xe8|:|on|x=)\s{1,2}"
    rb"|>|,\s?(?=[\"'])|\s+(?:value\s?=\s?)?)"
)
_QUOTE = rb"(?P<quote>\\*[\"'`]|\*\*)?"
_SCHEME = rb"(?:(?i:bearer|basic|token|key|apikey)\s{1,2})?"

_PASSWORD_AT = re.compile(
    rb"(?i:" + _PASSWORD + rb")" + rb"(?i:[_\-. ]?(?:prod|dev|test|staging|db|\d{1,3}))?"
    + rb"(?P<sep>" + _SEPARATOR + rb")" + _QUOTE + rb"(?P<value>[^\s\"'`<>]{4,72})"
)  # fmt: skip
_TOKEN_AT = re.compile(
    rb"(?i:" + _TOKEN + rb")" + rb"(?i:" + _NAME_TAIL + rb")"
    + rb"(?P<sep>" + _SEPARATOR + rb")" + _QUOTE + _SCHEME + rb"(?P<value>[A-Za-z0-9_\-.~+/=:%@#$!&*]{8,400})"
)  # fmt: skip
_BARE_KEY = re.compile(rb"(?i)(?:public|primary|foreign|partition|sort|cache|index|bucket|object|host|group|shortcut|hot|column|unique|idempotency)[ _\-]?key")
_CODE = re.compile(
    rb"^(?:[A-Za-z_]\w*(?:\.|->|::)[A-Za-z_][\w.]*|os\.environ.*|process\.env.*|[A-Za-z_]\w*[(\[].*|function|return|string|String|null|None)$"
)
_HAS_FORM = re.compile(rb"eyJ[A-Za-z0-9_\-]{8,}\.eyJ")
_REACH_BACK = 24


class Announced:
    """The handler of secret labels; a value with a form of its own is left to the handler of that form."""

    def __init__(self, issuers: IssuerRules) -> None:
        self._issuers = issuers

    def __call__(self, ctx: Context, start: int, end: int) -> int:
        """Judge what follows the label stem at [start, end); return where the scan goes on."""
        data = ctx.data
        left = start - min(_REACH_BACK, start)
        for at in _label_starts(data, left, start):
            found = _PASSWORD_AT.match(data, at, at + 220)
            if found and found.end() > end and self._password(ctx, found):
                return found.end("value")
            found = _TOKEN_AT.match(data, at, at + 520)
            if found is None or found.end() <= end:
                continue
            if _HAS_FORM.match(found["value"]):
                return max(end, found.start("value"))
            stop = self._issuers(ctx, found.start("value"))
            if stop or self._token(ctx, found):
                return stop or found.end("value")
        ctx.orphans = True
        return end

    def _password(self, ctx: Context, found: re.Match[bytes]) -> bool:
        value = _unquoted(found)
        explicit = bool(found["sep"].strip())
        if len(value) < 6 or is_template(value) or _CODE.match(value) or set(value) <= set(b"*xX.-_"):
            return False
        has_digit = any(48 <= c <= 57 for c in value)
        has_letter = any(chr(c).isalpha() for c in value)
        has_symbol = any(c in b"!@#$%^&*()_-+=[]{}|;:,.?/~" for c in value)
        mixed = value.lower() != value and value.upper() != value
        good = (has_digit and (has_letter or has_symbol)) or (has_symbol and has_letter and mixed and explicit)
        if not explicit:
            good = has_digit and has_letter and (has_symbol or mixed) and len(value) >= 7
        if not good or is_placeholder(value) and not has_symbol:
            return False
        ctx.add(found.start("value"), found.start("value") + len(value), "PASSWORD", 3, LABELLED)
        return True

    def _token(self, ctx: Context, found: re.Match[bytes]) -> bool:
        value = _unquoted(found)
        explicit = bool(found["sep"].strip()) or len(value) >= 24
        if len(value) < 16 or not explicit or is_template(value) or is_placeholder(value) or _CODE.match(value):
            return False
        if not any(48 <= c <= 57 for c in value) or not any(chr(c).isalpha() for c in value) or entropy(value) < 3.3:
            return False
        if _BARE_KEY.search(ctx.data, max(0, found.start() - 12), found.end()) is not None:
            return False
        ctx.add(found.start("value"), found.start("value") + len(value), "API_KEY", 4, LABELLED, "LABELLED")
        return True


def _label_starts(data: bytes, left: int, start: int) -> list[int]:
    """Return where the whole label may begin: at the stem, or at the start of the name the stem ends."""
    name = start
    while name > left and (chr(data[name - 1]).isalnum() or data[name - 1] in b"_-.") and data[name - 1] < 128:
        name -= 1
    return [start] if name == start else [start, name]


def _unquoted(found: re.Match[bytes]) -> bytes:
    """Return the value without what closes the sentence, the quote or the markup around it."""
    value = found["value"]
    quote = found["quote"]
    if quote is not None and quote[-1:] == b"*":
        value = value.split(b"**")[0]
    if b"\\" in value:
        value = value[: value.index(b"\\")]
    if quote is None:
        value = value.split(b",")[0] if b"," in value[1:] else value
        value = value.split(b";")[0] or value
        value = value.split(b"&")[0] or value
        value = value.rstrip(b".,;:)]}")
    return value
