"""Values of conversations between their turns, sealed, in the Redis or Valkey that budgets are shared in.

Owns the cipher (AES-256-GCM under a key made from ``redaction_key``), to what each text is bound, and its own connections. The
store sees names made by ``flow.kept_values`` and sealed bytes, never a value, a placeholder or a conversation's id.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from hashlib import sha256
from typing import Any, Final

from proxy.stores.redis_client import STORE_ERRORS, connect
from proxy.terms.errors import ValuesUnavailable

TIMEOUT_S: Final = 0.3
"""For one command, dialling included. Longer than a budget may wait: a turn that is not recalled is a worse answer, not a later one."""
_NONCE_BYTES: Final = 12
_FIELD_BYTES: Final = 16


class RedisValues:
    """Satisfies ``flow.kept_values.ValueStore``; one hash for each history, one field for each turn."""

    def __init__(self, url: str, namespace: str, key: bytes) -> None:
        """Dial nothing yet; ``url`` as for ``redis_client.connect``."""
        self._client = connect(url, TIMEOUT_S, TIMEOUT_S)
        self._prefix = f"readygate:{namespace}:values:"
        self._key = hmac.digest(key, b"kept values", "sha256")
        self._made: Any = None

    async def read(self, history: str) -> list[bytes]:
        """Return everything kept under a name. Raises ValuesUnavailable: no answer, or sealed under another key."""
        cipher = await self._cipher()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                sealed: list[bytes] = await self._client.hvals(self._prefix + history)
        except (*STORE_ERRORS, RuntimeError) as exc:  # uvloop's word for a connection that closed before we wrote
            raise ValuesUnavailable(type(exc).__name__) from exc
        return [_open(cipher, history, one) for one in sealed]

    async def write(self, history: str, rows: bytes, keep_s: float) -> None:
        """Add to what is kept under a name, and keep all of it for so long from now. Raises ValuesUnavailable."""
        name = self._prefix + history
        field = hmac.digest(self._key, rows, sha256)[:_FIELD_BYTES]
        sealed = _seal(await self._cipher(), history, rows)
        try:
            async with asyncio.timeout(TIMEOUT_S), self._client.pipeline() as pipe:
                pipe.hset(name, field, sealed)
                pipe.pexpire(name, int(keep_s * 1000))
                await pipe.execute()
        except (*STORE_ERRORS, RuntimeError) as exc:
            raise ValuesUnavailable(type(exc).__name__) from exc

    async def close(self) -> None:
        """Let the connections go."""
        await self._client.aclose()

    async def _cipher(self) -> Any:
        if self._made is None:
            self._made = await asyncio.to_thread(_cipher_of, self._key)
        return self._made


def _cipher_of(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - 15 MB that few need

    return AESGCM(key)


def _seal(cipher: Any, history: str, rows: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    sealed: bytes = cipher.encrypt(nonce, rows, history.encode())
    return nonce + sealed


def _open(cipher: Any, history: str, sealed: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as above

    try:
        rows: bytes = cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], history.encode())
    except (InvalidTag, ValueError) as exc:
        raise ValuesUnavailable("sealed with another key, or changed") from exc
    return rows
