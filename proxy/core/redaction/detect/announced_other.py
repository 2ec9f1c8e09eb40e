"""Secrets announced in other scripts than Latin: ``пароль: …``, ``密码是…``, ``パスワード「…」``.

Owns those words and what may stand between them and a value. The automaton reads one byte a character and sees none
of them, so they are looked for in the text, and only where it holds such letters. What a secret looks like is
``announced``'s.
"""

from __future__ import annotations

import re

from proxy.core.redaction.detect.announced import GENERIC_KEY, LABEL_STEM
from proxy.core.redaction.detect.context import LABELLED, Context
from proxy.core.redaction.detect.secret_looks import cut_value, is_password, is_token
from proxy.core.redaction.detect.secrets import IssuerRules, is_template

_PASSWORDS = (
    "пароль", "пароля", "паролем", "密码", "密碼", "口令", "暗証番号", "パスワード", "비밀번호", "패스워드", "암호", "סיסמה", "סיסמא",
    "كلمة المرور", "كلمة السر", "पासवर्ड", "रหัสผ่าน", "κωδικός", "گذرواژه",
)  # fmt: skip
_TOKENS = (
    "токен", "ключ api", "api-ключ", "api ключ", "секретный ключ", "ключ доступа", "密钥", "密鑰", "秘钥", "令牌", "トークン", "apiキー",
    "シークレット", "アクセスキー", "토큰", "api 키", "api키", "مفتاح api", "टोकन",
)  # fmt: skip
WORDS: dict[str, bool] = {**dict.fromkeys(_PASSWORDS, True), **dict.fromkeys(_TOKENS, False)}
"""Word in lower case -> True for a password."""

_FIND = re.compile("|".join(re.escape(word) for word in sorted(WORDS, key=lambda word: -len(word))))
_VALUE = re.compile(
    r"(?P<gap>(?:[^\x00-\x7f]|[ \t:=>\-.\"'`*|(\[#]|\r?\n|</?[a-z]{1,10}[^<>]{0,24}>){0,32}?)(?P<value>[A-Za-z0-9!@$%&^+~?][!-~]{5,399})"
)
_SAID = re.compile(r"[:=|>]|[^\x00-\x7f\s]|\n")
"""What in a gap makes plain that the value follows: a sign, or letters of the sentence (``密码是``)."""
_ENDS_CELL = re.compile(r"[\"'`]? {0,2}(?:[,;|\t\n]|$)")
_NAME = re.compile(LABEL_STEM + b"|" + GENERIC_KEY)
_QUOTE = re.compile(r"[\"'`<>\\]")


def has_word(text: str) -> bool:
    """True when one of the words stands in the text."""
    if text.isascii():
        return False
    lower = text.lower()
    return any([word in lower for word in WORDS])


def search(ctx: Context, issuers: IssuerRules) -> None:
    """Report the secrets that such words announce."""
    text = ctx.text
    lower = text.lower()
    if len(lower) != len(text):
        return
    for word in _FIND.finditer(lower):
        if _ENDS_CELL.match(text, word.end()):
            ctx.orphans = ctx.header = True
        found = _VALUE.match(text, word.end())
        if found is not None:
            _judge(ctx, issuers, found, of_password=WORDS[word[0]])


def _judge(ctx: Context, issuers: IssuerRules, found: re.Match[str], *, of_password: bool) -> None:
    start = found.start("value")
    raw = _QUOTE.split(found["value"], maxsplit=1)[0]
    value = cut_value(raw.encode("latin-1"))
    if (
        len(value) < 6
        or value.isalpha()
        or is_template(value)
        or raw[-1:] == ":"
        or _NAME.match(value)
        or b"://" in value
    ):
        return
    explicit = not found["gap"] or _SAID.search(found["gap"]) is not None
    if of_password and is_password(value, explicit=explicit):
        ctx.add(start, start + len(value), "PASSWORD", 3, LABELLED)
    elif not of_password and not issuers.key_at(ctx, start) and is_token(value, explicit):
        ctx.add(start, start + len(value), "API_KEY", 4, LABELLED, "LABELLED")
