"""Who is calling: the caller key, or the identity headers, and nothing else.

Owns the table of caller keys (as SHA-256 digests). A refusal is the same for a wrong, foreign or missing
key and repeats nothing of it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from proxy.core.config.settings import CallerKey
from proxy.terms.http import RequestHead

MAX_IDENTITY_CHARS = 256
BY_JWT: Final = "jwt"
"""What rows call the key of a caller who came with a token."""
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
    groups: tuple[str, ...] = ()


ANONYMOUS = Caller()


def _clean(value: bytes | None) -> str:
    """Make an identity header safe to store: text of at most 256 characters without controls."""
    if value is None:
        return ""
    text = value.decode("utf-8", "replace")[:MAX_IDENTITY_CHARS]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class Verified(NamedTuple):
    """What a good token says."""

    app: str
    user: str
    groups: tuple[str, ...]
    until_s: float
    """Unix seconds from which it says nothing."""


class Tokens(Protocol):
    """Verifies callers' tokens; ``sources.tokens`` does."""

    def verify(self, token: bytes) -> Verified | None:
        """Return whose token this is, or None."""
        ...

    def may_learn(self, token: bytes) -> bool:
        """Say whether keys that are not here yet might make it a good one."""
        ...

    async def learn(self, token: bytes) -> None:
        """Wait, a bounded time, for keys that are not here yet."""
        ...


class _Remembered(NamedTuple):
    """A caller that a head was found to be of, for as long as that is sure."""

    caller: Caller
    generation: int
    until_s: float


class CallerBook:
    """Names the caller of a request head, or refuses it."""

    def __init__(
        self,
        keys: Iterable[CallerKey],
        *,
        demands_key: bool = False,
        unix_s: Callable[[], float] = lambda: 0.0,
        tokens: Tokens | None = None,
    ) -> None:
        """Begin with the keys of config.yaml.

        Args:
            keys: They stay for the life of the process.
            demands_key: Also without any key nobody is let in: keys may come later.
            unix_s: Unix seconds; asked only where keys may end.
            tokens: Verifies what is no key; None: no token opens anything.
        """
        self._own = {key.sha256: key for key in keys}
        self._by_digest = self._own
        self._unix_s = unix_s
        self._generation = 0
        self._tokens = tokens
        self._may_change = demands_key
        self.demands_key = demands_key or bool(self._own)
        """True when callers have to show who they are."""

    def accept(self, keys: Iterable[CallerKey]) -> None:
        """Put these keys beside config.yaml's, instead of those that were accepted before."""
        self._by_digest = {**{key.sha256: key for key in keys}, **self._own}
        self.forget()

    def forget(self) -> None:
        """Believe nothing that was found before: keys have changed."""
        self._generation += 1

    def named(self, app: str, user: str, conversation: str, groups: tuple[str, ...] = ()) -> Caller:
        """Return the caller that somebody with a key of this app would be; for rehearsals, which hold no keys."""
        key_name = next((key.name for key in self._by_digest.values() if key.app == app), "")
        return Caller(app, user, conversation, key_name, groups)

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

    async def identify_late(self, head: RequestHead) -> Caller | None:
        """As ``identify``, after waiting for the key of a token that names one not known yet."""
        if not self.may_learn(head):
            return None
        presented = _presented_key(head.fields)
        assert presented is not None
        assert self._tokens is not None
        await self._tokens.learn(presented)
        return self.identify(head)

    def may_learn(self, head: RequestHead) -> bool:
        """Say whether ``identify_late`` might know better."""
        presented = None if self._tokens is None else _presented_key(head.fields)
        return presented is not None and self._tokens is not None and self._tokens.may_learn(presented)

    def _by_token(self, presented: bytes | None, fields: dict[bytes, bytes]) -> tuple[Caller, float] | None:
        verified = self._tokens.verify(presented) if self._tokens is not None and presented is not None else None
        if verified is None:
            return None
        conversation = _clean(fields.get(b"x-readygate-conversation"))
        return Caller(verified.app, verified.user, conversation, BY_JWT, verified.groups), verified.until_s

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
                return self._by_token(presented, fields)
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


def groups_of(head: RequestHead) -> tuple[str, ...]:
    """Return the groups of the caller that a head was found to be of; none when nobody has looked."""
    known = head.memo.get(_MEMO)
    caller = known.caller if isinstance(known, _Remembered) else known
    return caller.groups if isinstance(caller, Caller) else ()


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
