"""What stands behind the label of a secret and is none: code, paths, names of algorithms, entities, addresses.

Owns the shapes of such values. Knows no label and no entropy; what a secret looks like is ``announced``'s.
"""

from __future__ import annotations

import re

_NAME = rb"[A-Za-z_]+[0-9]?"
CODE = re.compile(
    rb"(?:(?:self|this|cls|"
    + _NAME
    + rb")(?:(?:\.|->|::)"
    + _NAME
    + rb")+|(?:self|this|_lib)\.[\w.]+|os\.environ.*|process\.env.*"
    rb"|[A-Z][A-Z_]+|https?://.*|arn:aws.*"
    rb"|[A-Za-z_][\w.]*(?:Key|Token|Secret|Type|Provider|Manager|Config|Credential|Client|Handler|Factory|Option|Param|Error|Hasher)s?"
    rb"|function|return|string|String|null|None)[;,)]*"
)
"""Expressions and names of programs, as they stand where a value would."""
_PART = rb"(?:[A-Z]+|[a-z]+|[A-Z]?[a-z]+(?:[A-Z][a-z]+)*)[0-9]{0,4}"
_IDENTIFIER = re.compile(rb"_{0,2}" + _PART + rb"(?:_{1,2}(?:" + _PART + rb"|[0-9]{1,3})){2,}_{0,2}")
"""Three words and more joined by underscores, each of one case: ``PKCS7_ISSUER_AND_SERIAL``."""
_ALGORITHM = re.compile(
    rb"(?i)(?:(?:base|sha|md|aes|utf|rfc|pkcs|hmac|scram|pbkdf|argon|rsa|oauth|ipv|iso|tls|ssl|ntlm)[ _#\-]?){1,3}[0-9]{1,5}"
    rb"(?:[._/\-][A-Za-z0-9]{1,8}){0,2}|(?i:[rhep]s256|x\.?509|x25519|ed25519|p-?256|secp[0-9]{3}[kr]1)"
)
_PATH = re.compile(
    rb"(?:[A-Za-z]:|[a-z_.~\-]*[0-9]{0,3})(?:[/\\](?:[a-z_.\-]+[0-9]{0,3}|[0-9]{1,4}(?:-[0-9]{1,2}){0,2}|[A-Za-z_\-]+[0-9]{0,2}(?:\.[A-Za-z0-9]{1,5})?)){2,}[/\\]?"
)
_PLACE = re.compile(
    rb"(?:localhost|[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)+):[0-9]{2,5}/?|@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)+[/:].*"
    rb"|[0-9]{1,5}/(?:tcp|udp|sctp|dccp)|[0-9A-F]{40}"
)
"""A host and its port, a host whose user was a placeholder, a port of a list, a fingerprint."""
_MARKUP = re.compile(
    rb"&(?:[a-z]{2,8};|#x?[0-9A-Fa-f]{1,6};?).*|\[?#[0-9]{1,7}[\])].*|\([A-Z][a-z]+\)?|\{[A-Za-z_][\w.\[\]|]*\}?|\[?\[[A-Za-z_]+\]*|[A-Za-z]+=|pass:(?:env|file|fd|stdin).*|unix:/.*"
    rb"|(?:env|file|fd|stdin|op|vault|ref|awssm|gcpsm):.*|\[?[a-z_]{3,}=[a-z0-9_]{1,10}(?:,[a-z_]{2,}=[a-z0-9_]{1,10}){0,4}\]?|#?/?\$defs/.*|-{1,2}[a-z][a-z\-]*[0-9]{0,2}(?:=.*)?"
    rb"|[0-9]+(?:\.[0-9]+)+(?:-[0-9.]*)?"
)
_WORDS = re.compile(rb"[A-Za-z]+(?:['.,\-][A-Za-z]+)*[:?.,;!\"]{1,3}|[A-Za-z]+(?:[/'\-][A-Za-z]+)+")
_ENVIRONMENT = re.compile(rb"[A-Z][A-Z0-9]*_[A-Z0-9_]{2,40}=.{6}")
"""The name of another variable and its value: ``service account: OP_SERVICE_ACCOUNT_TOKEN=...``."""


_CALL = re.compile(rb"\$?[A-Za-z_]\w*(?:(?:\.|::|->)\w+)*[(\[][\w$().,\[\]:;=+*/<> \-]*")
_WORD = re.compile(rb"\w+")
_PIECE = re.compile(rb"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def _is_call(value: bytes) -> bool:
    """True for a call or an index whose names are made of words: ``getPassword(``, not ``whGcTZc(1U``."""
    if _CALL.fullmatch(value) is None:
        return False
    return all([_is_name(word) for word in _WORD.findall(value)])


def _is_name(word: bytes) -> bool:
    """True for a number, and for a name of lower case or of pieces long enough to be words."""
    if word[:1].isdigit():
        return word.isdigit()
    return word.islower() or len(word.strip(b"_")) >= 2.4 * len(_PIECE.findall(word))


def is_no_secret(value: bytes) -> bool:
    """True for what a program, a page or a list writes where a secret would stand."""
    return (
        CODE.fullmatch(value) is not None
        or _is_call(value)
        or _ALGORITHM.fullmatch(value) is not None
        or _PLACE.fullmatch(value) is not None
        or _MARKUP.fullmatch(value) is not None
        or _ENVIRONMENT.match(value) is not None
        or (value.find(b"_") >= 0 and _IDENTIFIER.fullmatch(value) is not None)
        or ((value.find(b"/") >= 0 or value.find(b"\\") >= 0) and _PATH.fullmatch(value) is not None)
    )


def is_words(value: bytes) -> bool:
    """True for words of letters with the punctuation of prose or of labels: ``Password:``, ``BCrypt-encoded``."""
    return _WORDS.fullmatch(value) is not None
