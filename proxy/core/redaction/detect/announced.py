"""Secrets only their label tells: passwords, tokens and keys after "password:", "api_key =", "Bearer".

Owns the label words of secrets and the separators between label and value; what a secret looks like is ``secret_looks``'s.
The words stand in the automaton; everything after them is read here, within a bounded window.
"""

from __future__ import annotations

import re

from proxy.core.redaction.detect.context import LABELLED, Context
from proxy.core.redaction.detect.labels import NEGATIVE
from proxy.core.redaction.detect.lookalikes import is_no_secret, is_words
from proxy.core.redaction.detect.secret_looks import (
    DIGITS,
    cut_value,
    has_no_words,
    humps,
    is_passphrase,
    is_password,
    is_strong_password,
    is_token,
)
from proxy.core.redaction.detect.secrets import IssuerRules, is_template
from proxy.core.redaction.detect.stand_ins import end_of_mark

_PASSWORDS = (
    "password passwd passphrase passcode passord pwd senha contrase\xf1a contrasena contrase?a clave mot_de_passe mdp passwort "
    "kennwort wachtwoord has?o haslo l\xf6senord losenord salasana requirepass masterauth rootpw psk securestring identified_by access_code zugangscode c\xf3digo_de_acesso codigo_de_acesso c\xf3digo_de_acceso codigo_de_acceso code_d'acc\xe8s code_wifi wifi_code parola_d'ordine ?ifre sifre parola adgangskode pword passwrd"
)
_TOKENS = (
    "api_key api_token apikey secret token credential authorization bearer access_key auth_key user_auth private_key encryption_key "
    "signing_key account_key master_key service_key shared_key secret_key secret_access_key x-api-key client_srt access_id accessid "
    "accesskey chave cl\xe9_api cl\xe9_d'api cle_api cle_d'api cl\xe9_secr\xe8te cle_secrete schl\xfcssel schluessel chiave jeton jeton_d'acc\xe8s "
    "jeton_d'acces jeton_d'api klucz_api klucz_dost?pu api_sleutel clave_api clave_de_api clave_secreta clave_de_acceso chave_de_api "
    "chave_api chave_secreta chave_de_acesso token_de_acesso token_de_acceso token_de_api token_d'accesso token_d'acc\xe8s sumologic license_key licence_key activation_key product_key dockerconfigjson credenciales credenciais credenziali zugangsdaten identifiants jsessionid phpsessid sessionid connect.sid asp.net_sessionid"
)
STEMS: dict[bytes, bool] = {}
"""Label stem in lower case, words joined by underscores -> True for a password."""
for _words, _of_password in ((_PASSWORDS, True), (_TOKENS, False)):
    STEMS.update({w.encode("latin-1"): _of_password for w in _words.split()})
JOINERS = b" _.-'"
PASSWORD_STEMS: dict[bytes, bool] = {stem.translate(None, JOINERS): kind for stem, kind in STEMS.items()}


def _stem_pattern(stem: bytes) -> bytes:
    parts = [re.escape(part) for part in stem.replace(b"-", b"_").split(b"_")]
    start = (
        rb"\b"
        if stem
        in (
            b"clave",
            b"mdp",
            b"chave",
            b"parola",
            b"chiave",
            b"haslo",
            b"sifre",
            b"psk",
            b"rootpw",
            b"pword",
            b"sessionid",
        )
        else b""
    )
    return start + rb"[ _.\-]?".join(parts)


GENERIC_KEY = (
    rb"[A-Za-z0-9]_(?:key|KEY|login|LOGIN|pat|PAT)\b|[a-z](?:Key|Login)\b|[._](?:key|login|LOGIN)[\"']? ?[:=?]|[?&;](?:sig|key|appid)=|\b_auth ?=|[\"']auth\\{0,3}[\"'] ?:"
    rb"|[A-Za-z0-9]-(?:key|Key|KEY)[\"'\])]{0,3} ?[:=]|[A-Z]_AUTH ?=|\b[Ll]ogin: ?|(?:\b|_)(?:pass|pw|PASS|PW|Pass|Pw)[\"'\])*]{0,3}(?: ?(?:[:=>|]|->)|[\"'] | [\"'])|_(?:pass|pw|PASS|PW)\b|-(?:pass|pw) [\"']|[a-z]Pass\b"
)
"""Names that end in "key": HEROKU_KEY, lokiKey, sonar.login."""
LABEL_STEM = rb"(?i:" + b"|".join(_stem_pattern(s) for s in sorted(STEMS, key=lambda s: (-len(s), s))) + rb")"

_VERB = rb"(?:\xe9|es|is|est|ist|are|to|lautet|e|\xe8|was|er|on|jest|este|je|\xe4r|wordt|ser\xe1|sera|of|olarak)"
_WORD = rb"(?:\([^()\r\n]{1,20}\)|[A-Za-z\xc0-\xff?'./#\-]{1,14})"
_VALUE_AT = re.compile(
    rb"(?P<tail>[A-Za-z0-9_.\-]{0,24})"
    rb"(?P<sep>[\\\"'`\])*_]{0,8}[ \t\xa0]{0,8}(?:"
    rb"[\\\"']{0,3},?\s{1,24}[\\\"']{0,3}[vV]alue[\\\"']{0,3}[ \t]{0,2}[:=][ \t]{0,4}"
    rb"|(?:[\\\"']{1,3})?(?:,[\\\"']{1,3}|: ?\{ ?[\\\"']{1,3})[vV]alue[\\\"']{1,3} ?: ?"
    rb"|\??: ?(?:&(?:'[a-z]{1,8} )?)?[A-Za-z_.\[\]<>|]{2,24} ?= ?(?=\\{0,4}[\"'`])"
    rb"|[\"'] ?\{[^{}]{0,160}?\bdefault[ \t]{0,12}= ?(?=[\"'])| (?:\|\||\?\?|or) (?=[\"'])"
    rb"| -{1,2}(?i:value|body)[ =](?=[\"'])|[)\]]{0,2}\.(?:type|fill|sendKeys|send_keys|setValue)\((?=[\"'])"
    rb"|(?i: for )(?:the )?(?:user |account |login )?(?P<mark>[\"'`])[^\"'`\n]{1,32}(?P=mark)(?:@[\"'`][^\"'`\n]{1,40}[\"'`])? ?(?:=|:|is|to) "
    rb"|(?:=>|->|<-|:{1,3}=|\?=|[:=>]|- |# |\| (?=[^|\r\n]{4,200}\|)|,(?=[ \t]{0,16}[\\\"']))(?:\*\*|__|</[A-Za-z]{1,8}>)?[ \t\xa0]{0,16}(?:(?:\r?\n[ \t]{0,8}){1,2}(?:- )?)?"
    rb"|</[A-Za-z]{1,12}>\s{0,8}<[A-Za-z]{1,12}[^<>]{0,32}>|\r?\n"
    rb"|(?: [A-Za-z\xc0-\xff]{1,12}){1,4} (?:to|is|as|para|zu|a|\xe9|es|ist|est|\xe8) "
    rb"|(?<![:=,;])[ \xa0]" + _VERB + rb"(?: ?:)?[ \xa0]{1,2}"
    rb"|(?<![:=,;])(?P<phrase>(?:(?<= )|[ _])"
    + _WORD
    + rb"(?: "
    + _WORD
    + rb"){0,3})\*?[ \xa0]?(?:[:=]|->|=>)(?:\*\*|__|</[A-Za-z]{1,8}>)?[ \t\xa0]{1,8}"
    rb"|[ \t]{1,2}[0579][ \t](?=[^\s:=]{6})|[ \t\xa0]{1,2}(?:value=)?))"
    rb"(?:[\[({] ?(?=\\{0,4}[\"'])|\[(?=[^\]\s]{6,80}\]))?"
    rb"(?P<quote>[\"']\\{1,2}[\"']|\\{0,4}[\"'`]|[fFbBrRuU@]{1,2}[\"']|\*\*|\xab[ \xa0]?)?"
    rb"(?P<scheme>(?i:(?:bearer|basic|token|key|apikey|digest)[ \xa0]{1,2}|x=))?"
    rb"(?P<value>[^\s\"'`<>=][^\s\"'`<>]{3,399})"
)
_PLAIN = rb" \(?(?:[a-z\xc0-\xff'\-]+|[A-Za-z\xc0-\xff']+|[0-9]{1,4})\)?"
_PROSE = re.compile(
    rb"[A-Za-z]{0,12}[,;.?!]?(?:(?:"
    + _PLAIN
    + rb"[,;]?){6}(?![A-Za-z0-9])|(?:"
    + _PLAIN
    + rb"[,;]?){0,5}(?:\Z|[.?!](?:\Z|[\"\\\n]| [A-Z][a-z]* [a-z])))"
)
"""A sentence that goes on in plain words, or ends: no value can follow within reach. Most of all mentions are such."""
_NO_SECRET_NAME = re.compile(
    rb"(?:(?<![A-Za-z])|(?<=[a-z0-9])(?=[A-Z]))(?i:public|primary|foreign|partition|sort|cache|index|bucket|object|host|group"
    rb"|shortcut|hot|column|unique|idempotency|max|min|prompt|completion|total|input|output|num|n|stop|eos|bos|pad|special|csrf"
    rb"|authenticity|next|page|continuation)[ _.\-]?(?i:key|token|secret|api[ _.\-]?key)"
    rb"|(?i:(?:Name|_name|[_.\-]?url|[_.\-]path|[_.\-]type|Type|count"
    rb"|limit|length|tokeni[sz]\w*|file|format|policy|hint|reset|field|manager|ref|arn|hash"
    rb"|version|expir\w*|provider|endpoint|less|callback|handler|label|placeholder|pattern|validat\w*|message|error|strength|mgr|hasher)s?$"
    rb"|\.(?:txt|json|ya?ml|toml|ini|cfg|conf|md|html?|css|xml|csv|pyc?|[cm]?[jt]sx?|go|rs|rb|php|java|cc?|h|sh|pl|so|log)\W*$)"
    rb"|(?i:websocket|(?:proxy|fastcgi|uwsgi|scgi|grpc)_pass)|(?:Mgr|Hasher|Validat|Callback)[A-Z]"
)
"""Names that hold the word of a secret and mean none: public keys, counts of tokens, where a secret lies."""
_NO_SECRET_PHRASE = re.compile(
    rb"(?i)\b(?:polic\w+|lengths?|expir\w+|reset\w*|hints?|links?|urls?|rules?|requirements?|must|should|can|may|will|changed?|updated?|created?"
    rb"|attempts?|fields?|formats?|counts?|limits?|usage|used|types?|files?|paths?|versions?|ages?|since|dates?|times?|errors?|failed|invalid"
    rb"|incorrect|min\w*|max\w*|status|managers?|generators?|hash\w*|rotation|endpoints?|providers?|budgets?|prices?|costs?|per|ids?|names?"
    rb"|see|example|e\.g|page|section|chapter|step|issue|ticket)\b"
)
"""Words between the name of a secret and a colon after which something else is told: "password last changed:"."""
_SIGNED = re.compile(rb"[:=>|#,\n]|- ")
_SIGN_OR_WORD = re.compile(_SIGNED.pattern + rb"|[A-Za-z\xe8\xe9]")
_FIELD = re.compile(rb"[?&;][A-Za-z_.\-]{2,24}=\Z")
"""A field of a query or of a connection string: what follows is a value whatever it is made of."""
_KEY_OF_LINE = re.compile(rb"(?:\A|\n)[ \t]{0,16}[a-z][a-z0-9.]{0,24}[_\-][a-z0-9_.\-]{2,28}\Z")
_ENDS_LINE = (b"", b"\n", b"\r")
_ENDS_VALUE = (b"", b"\n", b"\r", b'"', b"'", b"`")
_SHORT_STEM = 3
_IS_NAME = re.compile(rb"[A-Za-z_.\-]+")
_HAS_WORD = re.compile(rb"[A-Za-z\xc0-\xff]{2}")
_LETTER_AND_DIGIT = re.compile(rb"[A-Za-z][^0-9]*[0-9]|[0-9][^A-Za-z]*[A-Za-z]")
_SCHEMED = re.compile(rb"[ \xa0]{1,2}([^\s\"'`<>,;=]{12,400}={0,2})")
_ASSIGNED = re.compile(rb"[A-Za-z_\-]{2,30}=[^=]")
_PAIR = re.compile(rb"\([\w., ]{1,60}\)=\(")
"""What a database says of a key: ``Key (email)=(ana@example.com) already exists``."""
_WHERE_SECRETS_ARE_FOR = frozenset((NEGATIVE, "IP_ADDRESS", "PHONE", "CREDIT_CARD", "EMAIL"))
"""Labels that also say what a secret opens: "password for the server:", "senha do cart\xe3o:"."""
_OWNERS = frozenset(
    b"my your his her our their meu minha seu sua mi su tu mein meine dein deine mon ma votre mio mia mijn".split()
)
_SAYS = frozenset(b"is as was that's it's \xe9 es ist est \xe8".split())
_OWNER_CHARS = 24
_SAID = re.compile(
    rb"(?<![^\s\"'`(])(?P<value>[^\s\"'`<>()][^\s\"'`<>]{7,127}?)[\"'`]?(?:(?P<paren> \()|[,;.]? (?:-{1,2} |\? )?(?:(?:that |this |it )?(?:is|as|was)|(?:that|it)'?s|\xe9|es|ist|est|\xe8)"
    rb" (?:(?:the|la|le|il|o|a|el) )?[a-z]{2,6} (?:[A-Za-z]{1,10} )?)\Z"
)
_CLOSES = re.compile(rb"[A-Za-z \xc0-\xff]{0,16}\)")
_LOOK_BACK = 170
_USER_BEFORE = re.compile(
    rb"(?i)(?<![A-Za-z])(?:id|user|user ?name|login|account|acc|email|usuario|usu\xe1rio|benutzer|utilisateur|utente)\)? ?[/&|+,] ?\(?\Z"
)
_USER_CHARS = 20
_PAIR_SIGNS = frozenset((b"/", b"&", b"|", b"+", b","))
_PAIR_STEMS = frozenset(b"login credential credenciales credenciais credenziali zugangsdaten identifiants".split())
_ANNOUNCE_MORE = _PAIR_STEMS | {b"authorization"}
"""Names of two words, a user and a password or a scheme and a token: the first tells nothing of the second."""
_COLON = re.compile(rb"[A-Za-z]{0,3} ?: ?")
_USER_AND_SECRET = re.compile(
    rb"[\w.@\-]{2,40}(?: ?[/:|] ?|,| ?\()([^\s\"'`<>/|,()=][^\s\"'`<>/|,=]{4,62}[^\s\"'`<>/|,.;)=])"
)
_IS_KEY = re.compile(rb"[\"']?[ \t]{0,4}(?:=(?!=)|:)")
_SMALL_NUMBER = re.compile(rb"s?[\"'\\]{0,3} ?[:=] ?[0-9]{1,5}(?:,|[)\]}.;:]{0,3}(?:[\s\"'`<>]|\Z))")
"""A count stands where a value would (``max_tokens: 512``): nothing is announced."""
_HEADER_END = re.compile(rb"[A-Za-z0-9_\-]{0,24}[\"'`]? {0,2}(?:[,;|\t)\n\r]|</[a-zA-Z]|$)")
_HAS_FORM = re.compile(rb"eyJ[A-Za-z0-9_\-]{8,}\.eyJ")
_NAME_BEFORE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."
_PIX = re.compile(rb"(?i)(?:\b|_)pix(?:\b|_|key)|[a-z]Pix|pixKey")
_OPEN = b"["
_REACH_BACK = 32
_REACH = 460
_LOCAL_REACH = 64
"""A stream knows 96 characters to the left of a value; the whole name of its label must be among them."""
_LONG = 64


class Announced:
    """The handler of secret labels; a value with a form of its own is left to the handler of that form."""

    def __init__(self, issuers: IssuerRules) -> None:
        self._issuers = issuers

    def judge(self, ctx: Context, start: int, end: int, of_password: bool) -> int:
        """Judge what follows the label stem at [start, end); return where the scan goes on."""
        data = ctx.data
        if (start < ctx.barren and not of_password) or _is_inside(data, start, end):
            return end
        mark = end_of_mark(data, start, end)
        if mark:
            return mark
        is_count = _SMALL_NUMBER.match(data, end) is not None and not _announces_more(data, start, end)
        found = None if is_count or _PROSE.match(data, end) else _VALUE_AT.match(data, end, end + _REACH)
        if not is_count and _HEADER_END.match(data, end):
            ctx.orphans = ctx.header = True
        if not ctx.local and _is_owned(data, start):
            self._said_before(ctx, start, end, of_password=of_password)
        if found is None:
            return (not is_count and _second_of_pair(ctx, start, end, 0)) or end
        value = _unquoted(found)
        at = found.start("value")
        stop = _second_of_pair(ctx, start, end, at)
        if (
            stop
            or data[start:end].lower() == b"login"
            or (_OPEN in data[at - 1 : at + 1] and end_of_mark(data, at, at))
        ):
            return stop or end
        if len(value) < 6 or not _is_dense(value, found) or _is_another_key(ctx, found, value):
            return self._schemed(ctx, start, end, found.end("value")) or end
        name = _name_before(ctx.data, start) + ctx.data[start:end] + found["tail"]
        if _means_no_secret(name, found["tail"], value) or not _may_announce(ctx, found, start):
            return end
        if _HAS_WORD.search(found["sep"]) and _names_another(ctx, end, at):
            return end
        if _HAS_FORM.match(value) or (value.count(b"-") == 4 and (_PIX.search(found[0], 0, 40) or _PIX.search(name))):
            return at
        stop = self._password(ctx, found, value) if of_password else self._token(ctx, found, value)
        return stop or self._schemed(ctx, start, end, found.end("value")) or end

    def _password(self, ctx: Context, found: re.Match[bytes], value: bytes) -> int:
        """Report what stands behind the name of a password; return its end, or 0."""
        at = found.start("value")
        stop = self._issuers.key_at(ctx, at)
        if not stop and (value.isalpha() or is_password(value, explicit=_is_explicit(found))):
            stop = at + len(value)
            ctx.add(at, stop, "PASSWORD", 3, LABELLED)
        return stop

    def _token(self, ctx: Context, found: re.Match[bytes], value: bytes) -> int:
        """Report what stands behind the name of a token or key; return its end, or 0."""
        at = found.start("value")
        if value.translate(None, DIGITS) == value:
            ctx.barren = at + len(value)
            return 0
        stop = self._issuers.key_at(ctx, at)
        if not stop and is_token(value, _is_explicit(found)):
            stop = at + len(value)
            ctx.add(at, stop, "API_KEY", 4, LABELLED, "LABELLED")
        elif not stop and found["quote"] is not None and is_strong_password(value):
            stop = at + len(value)
            ctx.add(at, stop, "PASSWORD", 4, LABELLED)
        if not stop and len(value) > _LONG:
            ctx.barren = at + len(value)
        return stop

    def _said_before(self, ctx: Context, start: int, end: int, *, of_password: bool) -> None:
        """Report the value of "… is my password" and "… (token)"."""
        found = _SAID.search(ctx.data, max(0, start - _LOOK_BACK), start)
        if found is None or (found["paren"] and not _CLOSES.match(ctx.data, end)):
            return
        value: bytes = found["value"]
        if is_template(value) or is_no_secret(value) or _HAS_FORM.match(value):
            return
        if of_password and len(value) < 65 and is_password(value, explicit=False):
            ctx.add(*found.span("value"), "PASSWORD", 3, LABELLED)
        elif not of_password and is_token(value, explicit=len(value) > 19):
            ctx.add(*found.span("value"), "API_KEY", 4, LABELLED, "LABELLED")

    def _schemed(self, ctx: Context, start: int, end: int, at: int) -> int:
        """Judge the token behind a scheme of any name after "Authorization"; return its end, or 0."""
        if ctx.data[start:end].lower() != b"authorization":
            return 0
        found = _SCHEMED.match(ctx.data, at)
        if found is None or is_template(found[1]) or not is_token(found[1], explicit=True):
            return 0
        ctx.add(*found.span(1), "API_KEY", 4, LABELLED, "LABELLED")
        return found.end()


def _is_owned(data: bytes, start: int) -> bool:
    """True where a secret is named ("my password", "is the new token"), or one in brackets: its value may stand before."""
    before = data[start - 1 : start]
    if before != b" ":
        return before == b"("
    words = data[max(0, start - _OWNER_CHARS) : start].split(b" ")[-4:-1]
    return not _OWNERS.isdisjoint(words[-2:]) or not _SAYS.isdisjoint(words)


def _is_inside(data: bytes, start: int, end: int) -> bool:
    """True for three letters amid others, as keys and certificates hold them (``MSpwDp``), and for the command ``pwd``."""
    if end - start != _SHORT_STEM or not start:
        return False
    stem, before, after = data[start:end], data[start - 1 : start], data[end : end + 1]
    if not (stem.islower() or stem.isupper() or stem.istitle()):
        return True
    if before.isalpha() and after.isalpha() and not (stem.istitle() and before.islower()):
        return True
    return stem == b"pwd" and (before == b"`" or data[start - 2 : start] in (b"$(", b"& "))


def _name_before(data: bytes, start: int) -> bytes:
    """Return the part of a name before its stem; the letter of a written-out line break is none of it."""
    lead = data[max(0, start - _REACH_BACK) : start]
    size = len(lead.rstrip(_NAME_BEFORE))
    return lead[size + 1 :] if lead[size - 1 : size] == b"\\" else lead[size:]


def _is_explicit(found: re.Match[bytes]) -> bool:
    """True when a sign, a word or a scheme stands between label and value, or the two alone fill a line."""
    if found["scheme"] is not None or _SIGN_OR_WORD.search(found["sep"]) is not None:
        return True
    text: bytes = found.string
    if text[found.end("value") : found.end("value") + 1] not in _ENDS_LINE:
        return False
    return _KEY_OF_LINE.search(text, max(0, found.start() - _REACH_BACK), found.start()) is not None


def _announces_more(data: bytes, start: int, end: int) -> bool:
    return _is_of_pair(data, start) or data[start:end].lower() in _ANNOUNCE_MORE


def _is_of_pair(data: bytes, start: int) -> bool:
    return data[start - 1 : start] in _PAIR_SIGNS


def _second_of_pair(ctx: Context, start: int, end: int, at: int) -> int:
    """Report the password of ``id/pw: master/secret9`` and ``credentials: admin / secret9``; return its end, or 0.

    Args:
        at: Where the user stands; 0 for what is too short to be a value, behind a colon.
    """
    if _is_of_pair(ctx.data, start):
        if not _USER_BEFORE.search(ctx.data, max(0, start - _USER_CHARS), start):
            return 0
    elif ctx.data[start:end].lower() not in _PAIR_STEMS:
        return 0
    if not at:
        sign = _COLON.match(ctx.data, end)
        at = sign.end() if sign else 0
    found = _USER_AND_SECRET.match(ctx.data, at) if at else None
    if found is None or (ctx.local and found.start(1) - start > _LOCAL_REACH):
        return 0
    if is_template(found[1]) or is_no_secret(found[1]) or not is_password(found[1], explicit=True):
        return 0
    ctx.add(*found.span(1), "PASSWORD", 3, LABELLED)
    return found.end()


def _means_no_secret(name: bytes, tail: bytes, value: bytes) -> bool:
    """True where the name means something else than a secret, or the value shows that it is none."""
    is_id = tail[-2:].lower() == b"id" and len(tail) < 5
    return is_id or _NO_SECRET_NAME.search(name) is not None or is_template(value) or is_no_secret(value)


def _names_another(ctx: Context, end: int, at: int) -> bool:
    """True where the words between name and value name another kind: "clave CURP:", "chave aleatoria:"."""
    label = ctx.label(at)
    return label is not None and label.distance < at - end and bool(label.kinds - _WHERE_SECRETS_ARE_FOR)


def _may_announce(ctx: Context, found: re.Match[bytes], start: int) -> bool:
    """False where the words between a name and its colon tell of something else, or a stream would no longer see the name."""
    tail = found["tail"]
    if not found["sep"].strip(b" \xa0") and tail[:1].islower() and tail != b"s":
        return False
    if ctx.local and (found.start("value") - start > _LOCAL_REACH or b"|" in found["sep"]):
        return False
    phrase = found["phrase"]
    return phrase is None or (
        _NO_SECRET_PHRASE.search(phrase) is None and _LETTER_AND_DIGIT.search(found["value"]) is not None
    )


def _is_another_key(ctx: Context, found: re.Match[bytes], value: bytes) -> bool:
    """True when what stands where a value would is the next key (``[credentials]``, line break, ``client_secret =``)."""
    if _PAIR.match(value):
        return True
    if found["sep"].find(b"\n") >= 0 and found["value"][-1:] in b":=":
        return True
    if not ctx.local and _IS_NAME.fullmatch(value):  # a stream may not wait for the sign behind it
        return _IS_KEY.match(ctx.data, found.start("value") + len(value)) is not None
    return not found["sep"].strip(b" \xa0") and _ASSIGNED.match(value) is not None


def _is_dense(value: bytes, found: re.Match[bytes]) -> bool:
    """True when the value is no word: a digit or a sign is in it, or its letters make none."""
    if value.isalpha():
        lead = found.string[max(0, found.start() - _REACH_BACK) : found.start("value")]
        return has_no_words(value) or (_FIELD.search(lead) is not None and humps(value) > 1)
    return not is_words(value) or _is_lone_passphrase(value, found)


def _is_lone_passphrase(value: bytes, found: re.Match[bytes]) -> bool:
    """True for three words and more joined by hyphens where a value stands alone behind its sign."""
    if not is_passphrase(value) or not _SIGNED.search(found["sep"]):
        return False
    return found.string[found.end("value") : found.end("value") + 1] in _ENDS_VALUE


def _unquoted(found: re.Match[bytes]) -> bytes:
    """Return the value without what closes the sentence, the quote or the markup around it."""
    value: bytes = found["value"]
    quote = found["quote"]
    if quote == b"**":
        value = value.split(b"**")[0]
    if value.find(b"\\") >= 0:
        value = value[: value.index(b"\\")]
    return cut_value(value) if quote is None else value
