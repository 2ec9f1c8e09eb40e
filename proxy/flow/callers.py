"""Who is calling: the caller key, or the identity headers, and nothing else.

Owns the table of caller keys (as SHA-256 digests). A refusal is the same for a wrong, foreign or missing
key and repeats nothing of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from proxy.core.config.settings import CallerKey
from proxy.terms.http import RequestHead

MAX_IDENTITY_CHARS = 256
_MEMO = "caller"
"""Under which a head remembers its caller; keys never change while the process lives."""
_IDENTITY_HEADERS = (b"x-readygate-app", b"x-readygate-user", b"x-readygate-conversation")


@dataclass(frozen=True, slots=True)
class Caller:
    """The identity of one exchange; empty strings where nothing was said."""

    app: str = ""
    user: str = ""
    conversation: str = ""
    key_name: str = ""


ANONYMOUS = Caller()


def _clean(value: bytes | None) -> str:
    """Make an identity header safe to store: text of at most 256 characters without controls."""
    if value is None:
        return ""
    text = value.decode("utf-8", "replace")[:MAX_IDENTITY_CHARS]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class CallerBook:
    """Names the caller of a request head, or refuses it."""

    def __init__(self, keys: Iterable[CallerKey]) -> None:
        self._by_digest = {key.sha256: key for key in keys}

    @property
    def demands_key(self) -> bool:
        """True when caller keys are configured: then every request needs one."""
        return bool(self._by_digest)

    def named(self, app: str, user: str, conversation: str) -> Caller:
        """Return the caller that somebody with a key of this app would be; for rehearsals, which hold no keys."""
        key_name = next((key.name for key in self._by_digest.values() if key.app == app), "")
        return Caller(app, user, conversation, key_name)

    def holder(self, sha256: str) -> tuple[str, str] | None:
        """Return the name and the app of the key with this digest, or None."""
        key = self._by_digest.get(sha256)
        return None if key is None else (key.name, key.app)

    def identify(self, head: RequestHead) -> Caller | None:
        """Return the caller, or None when a key is demanded and this is not one.

        The presented key is hashed before it is looked up, so timing says nothing about a stored one.
        """
        known = head.memo.get(_MEMO)
        if isinstance(known, Caller):
            return known
        caller = self._identify(head.fields)
        if caller is not None:
            head.memo[_MEMO] = caller
        return caller

    def _identify(self, fields: dict[bytes, bytes]) -> Caller | None:
        key_name = app = ""
        if self._by_digest:
            presented = _presented_key(fields)
            key = self._by_digest.get(hashlib.sha256(presented).hexdigest()) if presented else None
            if key is None:
                return None
            key_name, app = key.name, key.app
        elif not any(name in fields for name in _IDENTITY_HEADERS):
            return ANONYMOUS
        return Caller(
            app=app or _clean(fields.get(b"x-readygate-app")),
            user=_clean(fields.get(b"x-readygate-user")),
            conversation=_clean(fields.get(b"x-readygate-conversation")),
            key_name=key_name,
        )


def _presented_key(fields: dict[bytes, bytes]) -> bytes | None:
    authorization = fields.get(b"authorization")
    if authorization is not None:
        scheme, _, credentials = authorization.partition(b" ")
        return credentials.strip() if scheme.lower() == b"bearer" else None
    return fields.get(b"x-api-key") or fields.get(b"api-key") or _subprotocol_key(fields)


def _subprotocol_key(fields: dict[bytes, bytes]) -> bytes | None:
    """Browsers cannot set headers on a websocket; their key comes as a subprotocol name."""
    for item in fields.get(b"sec-websocket-protocol", b"").split(b","):
        name = item.strip()
        if name.startswith(b"openai-insecure-api-key."):
            return name[len(b"openai-insecure-api-key.") :]
    return None
