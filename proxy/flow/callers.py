"""Who is calling: the caller key, or the identity headers, and nothing else.

Owns the table of caller keys (as SHA-256 digests). A refusal is the same for a wrong, foreign or missing
key and repeats nothing of it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from proxy.core.config.settings import CallerKey
from proxy.terms.http import RequestHead

MAX_IDENTITY_CHARS = 256
_MEMO = "caller"
"""Under which a head remembers its caller: for good where keys never change, else for as long as they do not."""
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


class _Remembered(NamedTuple):
    """A caller that a head was found to be of, for as long as that is sure."""

    caller: Caller
    generation: int
    until_s: float


class CallerBook:
    """Names the caller of a request head, or refuses it."""

    def __init__(
        self, keys: Iterable[CallerKey], *, demands_key: bool = False, unix_s: Callable[[], float] = lambda: 0.0
    ) -> None:
        """Begin with the keys of config.yaml.

        Args:
            keys: They stay for the life of the process.
            demands_key: Also without any key nobody is let in: keys may come later.
            unix_s: Unix seconds; asked only where keys may end.
        """
        self._own = {key.sha256: key for key in keys}
        self._by_digest = self._own
        self._unix_s = unix_s
        self._generation = 0
        self._may_change = demands_key
        self.demands_key = demands_key or bool(self._own)
        """True when callers have to show who they are."""

    def accept(self, keys: Iterable[CallerKey]) -> None:
        """Put these keys beside config.yaml's, instead of those that were accepted before."""
        self._by_digest = {**{key.sha256: key for key in keys}, **self._own}
        self._generation += 1

    def named(self, app: str, user: str, conversation: str) -> Caller:
        """Return the caller that somebody with a key of this app would be; for rehearsals, which hold no keys."""
        key_name = next((key.name for key in self._by_digest.values() if key.app == app), "")
        return Caller(app, user, conversation, key_name)

    def holder(self, sha256: str) -> tuple[str, str] | None:
        """Return the name and the app of the key with this digest, or None."""
        key = self._valid(sha256)
        return None if key is None else (key.name, key.app)

    def identify(self, head: RequestHead) -> Caller | None:
        """Return the caller, or None when a key is demanded and this is not one.

        The presented key is hashed before it is looked up, so timing says nothing about a stored one.
        """
        known = head.memo.get(_MEMO)
        if type(known) is Caller:
            return known
        if type(known) is _Remembered and known.generation == self._generation and self._unix_s() < known.until_s:
            return known.caller
        found = self._identify(head.fields)
        if found is None:
            return None
        caller, until_s = found
        head.memo[_MEMO] = _Remembered(caller, self._generation, until_s) if self._may_change else caller
        return caller

    def _valid(self, sha256: str) -> CallerKey | None:
        key = self._by_digest.get(sha256)
        if key is None or (key.until_s is not None and key.until_s <= self._unix_s()):
            return None
        return key

    def _identify(self, fields: dict[bytes, bytes]) -> tuple[Caller, float] | None:
        key_name = app = ""
        until_s = math.inf
        if self.demands_key:
            presented = _presented_key(fields)
            key = self._valid(hashlib.sha256(presented).hexdigest()) if presented else None
            if key is None:
                return None
            key_name, app = key.name, key.app
            until_s = math.inf if key.until_s is None else key.until_s
        elif not any(name in fields for name in _IDENTITY_HEADERS):
            return ANONYMOUS, until_s
        caller = Caller(
            app=app or _clean(fields.get(b"x-readygate-app")),
            user=_clean(fields.get(b"x-readygate-user")),
            conversation=_clean(fields.get(b"x-readygate-conversation")),
            key_name=key_name,
        )
        return caller, until_s


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
