"""Seals kept content: on disk under a key of the sidecars, in the store under a key of the person.

Owns the cipher (AES-256-GCM) and what each text is bound to. A person's key is random, wrapped by the master key that
``audit.key`` gives; destroying it ends all their content at once. Never logs or returns a key.
"""

from __future__ import annotations

import hmac
import os
from hashlib import sha256
from typing import Any, Final

_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32
_WRONG: Final = "sealed with another key, or changed"


class Unopenable(Exception):
    """Sealed with another key, or changed since."""


class ContentKeys:
    """What seals and opens content, from the master key; ``name`` tells masters apart and tells nothing of them."""

    def __init__(self, wrapping: bytes) -> None:
        self._master = _cipher(wrapping)
        self._disk = _cipher(hmac.digest(wrapping, b"waiting", "sha256"))
        self.name = sha256(b"readygate content" + wrapping).hexdigest()[:16]

    def seal_waiting(self, exchange_id: str, plain: bytes) -> bytes:
        """Seal the content of one exchange while it waits on disk."""
        return _seal(self._disk, exchange_id.encode(), plain)

    def open_waiting(self, exchange_id: str, sealed: bytes) -> bytes:
        """Undo that. Raises Unopenable."""
        return _open(self._disk, exchange_id.encode(), sealed)

    def key_row(self, subject: str) -> str:
        """Return under which name the store keeps a person's key: one for each master."""
        return f"{subject}:{self.name}"

    def new_wrapped(self, subject: str) -> bytes:
        """Return a new key for a person, wrapped."""
        return _seal(self._master, subject.encode(), os.urandom(_KEY_BYTES))

    def unwrap(self, subject: str, wrapped: bytes) -> PersonKey:
        """Return a person's key. Raises Unopenable."""
        return PersonKey(_cipher(_open(self._master, subject.encode(), wrapped)), self.name)


class PersonKey:
    """Seals and opens one person's content."""

    def __init__(self, cipher: Any, master: str) -> None:
        self._cipher = cipher
        self._prefix = bytes.fromhex(master)

    def seal(self, exchange_id: str, part: str, plain: bytes) -> bytes:
        """Seal one piece; it opens in its own place alone."""
        return self._prefix + _seal(self._cipher, f"{exchange_id}/{part}".encode(), plain)

    def open(self, exchange_id: str, part: str, sealed: bytes) -> bytes:
        """Undo that. Raises Unopenable."""
        return _open(self._cipher, f"{exchange_id}/{part}".encode(), sealed[len(self._prefix) :])


def master_of(sealed: bytes) -> str:
    """Return the name of the master under which a piece in the store was sealed."""
    return sealed[:8].hex()


def _cipher(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - 15 MB that few need

    return AESGCM(key)


def _seal(cipher: Any, bound_to: bytes, plain: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    sealed: bytes = cipher.encrypt(nonce, plain, bound_to)
    return nonce + sealed


def _open(cipher: Any, bound_to: bytes, sealed: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as above

    try:
        plain: bytes = cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to)
    except (InvalidTag, ValueError) as exc:
        raise Unopenable(_WRONG) from exc
    return plain
