"""JSON Web Tokens of callers, verified with their issuer's public keys.

Owns the keys (from a file or a URL, the last good ones kept) and a bounded memory of tokens that were verified. Keys are
fetched by ``run`` in the background, never by a request; a token that names an unknown key may ask for one fetch ahead
of time. Does not know what an app may do.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Callable
from http.client import HTTPException
from typing import IO, Any, Final

import jwt
import orjson

from proxy.core.config.settings import JwtSettings
from proxy.flow.callers import Verified
from proxy.flow.key_source import KeySource

MAX_TOKEN_BYTES: Final = 8192
MAX_KEYS_BYTES: Final = 1024 * 1024
MAX_KNOWN: Final = 4096
MAX_GROUPS: Final = 200
MAX_TEXT_CHARS: Final = 256
MIN_RSA_BITS: Final = 2048
FETCH_S: Final = 5.0
FILE_LOOK_EVERY_S: Final = 1.0
RETRY_S: Final = 5.0
"""While there is no key at all, a fetch is tried so often."""
PAUSE_S: Final = 10.0
"""Tokens with unknown keys cause one fetch in so long at most."""
_UNREADABLE: Final = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)
"""What strangers can make the library raise."""
_KINDS: Final = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Keys come from the address that was configured, or not at all."""

    def redirect_request(self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


class Tokens:
    """Implements ``flow.callers.Tokens``."""

    def __init__(
        self,
        settings: JwtSettings,
        *,
        unix_s: Callable[[], float],
        now_s: Callable[[], float],
        notice: Callable[..., None],
    ) -> None:
        self._settings = settings
        self._unix_s = unix_s
        self._now_s = now_s
        self._notice = notice
        self._keys: dict[str, jwt.PyJWK] = {}
        self._digest = b""
        self.source = KeySource(FILE_LOOK_EVERY_S if settings.jwks_file is not None else settings.refresh_s)
        self._known: OrderedDict[bytes, Verified] = OrderedDict()
        self._wanted = asyncio.Event()
        self._fetched: asyncio.Future[None] | None = None
        self._may_fetch_s = 0.0
        self.on_change: Callable[[], None] = lambda: None
        """Called when keys have come or gone, so that nothing older is believed."""

    # --- a token ----------------------------------------------------------------------------------------

    def verify(self, token: bytes) -> Verified | None:
        """Return whose token this is, or None; the second time within its life it costs a look-up."""
        if len(token) > MAX_TOKEN_BYTES or token.count(b".") != 2:
            return None
        digest = hashlib.sha256(token).digest()
        known = self._known.get(digest)
        if known is not None:
            if self._unix_s() < known.until_s:
                self._known.move_to_end(digest)
                return known
            del self._known[digest]
        verified = self._verify(token)
        if verified is not None:
            self._known[digest] = verified
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return verified

    def _verify(self, token: bytes) -> Verified | None:
        key = self._keys.get(self._key_id(token) or "")
        if key is None:
            return None
        settings = self._settings
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],  # what the key is for, whatever the token says of itself
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.leeway_s,
                options={"require": ["exp", "iss", "aud"]},
            )
            until_s = float(claims["exp"]) + settings.leeway_s
        except _UNREADABLE:
            return None
        app = _text(_claim(claims, settings.app_claim))
        if not app:
            return None
        groups = () if settings.groups_claim is None else _texts(_claim(claims, settings.groups_claim))
        return Verified(app, _text(_claim(claims, settings.user_claim)), groups, until_s)

    def _key_id(self, token: bytes) -> str | None:
        """Return the name of the key a token says it is signed with; without one, the only key there is."""
        try:
            header = jwt.get_unverified_header(token)
        except _UNREADABLE:
            return None
        name = header.get("kid")
        if name is None and len(self._keys) == 1:
            return next(iter(self._keys))
        return name if isinstance(name, str) else None

    def may_learn(self, token: bytes) -> bool:
        """Say whether a fetch of keys might make this token a good one."""
        if len(token) > MAX_TOKEN_BYTES or token.count(b".") != 2:
            return False
        name = self._key_id(token)
        is_allowed = self._fetched is not None or self._now_s() >= self._may_fetch_s
        return name is not None and name not in self._keys and is_allowed

    async def learn(self, token: bytes) -> None:
        """Wait for one fetch of keys, shared by all who wait; a bounded time, and not again soon."""
        if not self.may_learn(token):
            return
        if self._fetched is None:
            self._may_fetch_s = self._now_s() + PAUSE_S
            self._fetched = asyncio.get_running_loop().create_future()
            self._wanted.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FETCH_S + 1.0):
                await asyncio.shield(self._fetched)

    # --- keys ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the keys fresh for ever."""
        while True:
            self._wanted.clear()
            usual_s = FILE_LOOK_EVERY_S if self._settings.jwks_file is not None else self._settings.refresh_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(usual_s if self._keys else min(RETRY_S, usual_s)):
                    await self._wanted.wait()
            await self.refresh()

    async def refresh(self) -> None:
        """Fetch the keys once; what cannot be used leaves the last good ones in place, and is told."""
        try:
            data = await asyncio.to_thread(self._read)
            digest = hashlib.sha256(data).digest()
            if digest != self._digest:
                self._keys, self._digest = read_keys(data, self._settings.algorithms), digest
                self._known.clear()
                self._notice("jwt_keys_in_force", keys=len(self._keys))
                self.on_change()
            self.source.good(len(self._keys), self._now_s())
        except (OSError, HTTPException, ValueError, jwt.PyJWTError) as exc:
            known, trouble = self.source.trouble, why_not(exc)
            self.source.bad(trouble)
            if known != trouble:
                self._notice("jwt_keys_refused", error=trouble, kept=len(self._keys))
        finally:
            if self._fetched is not None:
                self._fetched.set_result(None)
                self._fetched = None

    def _read(self) -> bytes:
        return fetch_keys(self._settings)


def why_not(exc: Exception) -> str:
    """Return why keys could not be had, in a few words that hold nothing of them or of the address."""
    if isinstance(exc, urllib.error.HTTPError):
        return f"the issuer answers {exc.code}"
    reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
    if isinstance(reason, OSError) and reason.strerror:
        return f"{type(reason).__name__}: {reason.strerror}"
    said = "" if not isinstance(exc, ValueError) or isinstance(exc, orjson.JSONDecodeError) else f": {exc}"
    return type(reason).__name__ + said if isinstance(reason, Exception) else type(exc).__name__


def fetch_keys(settings: JwtSettings) -> bytes:
    """Return the key set as it is now; blocks. Raises OSError, HTTPException, ValueError."""
    if settings.jwks_file is not None:
        with settings.jwks_file.open("rb") as file:
            data = file.read(MAX_KEYS_BYTES + 1)
    else:
        opener = urllib.request.build_opener(_NoRedirect)
        headers = {"accept": "application/json"}
        request = urllib.request.Request(settings.jwks_url or "", headers=headers)  # noqa: S310 - http(s) by the schema
        with opener.open(request, timeout=FETCH_S) as answer:
            data = answer.read(MAX_KEYS_BYTES + 1)
    if len(data) > MAX_KEYS_BYTES:
        raise ValueError("more than 1 MiB of keys")
    return data


def read_keys(data: bytes, algorithms: tuple[str, ...]) -> dict[str, jwt.PyJWK]:
    """Return the usable keys of a key set by name: public, for signatures of these algorithms, long enough.

    Raises:
        ValueError: It is no key set, or has no such key.
    """
    document = orjson.loads(data)
    rows = document.get("keys") if isinstance(document, dict) else None
    keys: dict[str, jwt.PyJWK] = {}
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, dict) or row.get("use", "sig") != "sig":
            continue
        usual = _KINDS.get(str(row.get("kty")))
        if usual not in algorithms or row.get("alg", usual) != usual:
            continue
        with contextlib.suppress(jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
            key = jwt.PyJWK(row, usual)
            if usual != "RS256" or key.key.key_size >= MIN_RSA_BITS:
                keys[str(row.get("kid", ""))] = key
    if not keys:
        raise ValueError("no usable key")
    return keys


def _claim(claims: dict[str, Any], name: str) -> Any:
    """Return a claim by its name, or a.b as b within a."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str:
    is_good = isinstance(value, str) and len(value) <= MAX_TEXT_CHARS and value.isprintable()
    return value if is_good else ""


def _texts(value: Any) -> tuple[str, ...]:
    rows = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(text for text in map(_text, rows[:MAX_GROUPS]) if text)
