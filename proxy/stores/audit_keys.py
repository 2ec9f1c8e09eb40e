"""The keys of the audit, all derived from one secret: the one that signs, the one that wraps content keys.

Owns the derivation and the key file of a sidecar that was given no secret. A configured secret signs with
Ed25519, so that anybody with the public half can verify; ``cryptography`` (15 MB of memory) is imported for that
and not before. Without one, a key made here signs with HMAC: verifying then needs the key file. Never logs or
returns the secret.
"""

from __future__ import annotations

import hmac
import os
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from proxy.stores.content_keys import ContentKeys
from proxy.terms.errors import SpoolUnavailable

KEY_FILE: Final = "audit.key"
"""In the spool's folder, made for a sidecar whose config names no ``audit.key``."""
_SALT: Final = b"readygate audit keys, 1"


class HmacKeys:
    """Signs with a key of this sidecar's own; satisfies ``flow.checkpoints.Signer``."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"sign", "sha256")
        self.key = "hmac-" + sha256(self._key).hexdigest()[:16]

    def sign(self, body: bytes) -> bytes:
        """Return the HMAC-SHA256 of a statement."""
        return hmac.digest(self._key, body, "sha256")


class AuditKeys:
    """What follows from a configured secret; satisfies ``flow.checkpoints.Signer``."""

    def __init__(self, secret: bytes) -> None:
        """``secret`` is any text that cannot be guessed: 32 random bytes in hex, for instance."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - see module

        self._private = Ed25519PrivateKey.from_private_bytes(_derive(secret, b"sign"))
        self.public = self._private.public_key().public_bytes_raw()
        self.wrapping = _derive(secret, b"content")
        """Wraps the content key of each person."""
        self.key = key_name(self.public)

    def sign(self, body: bytes) -> bytes:
        """Return the Ed25519 signature of a statement."""
        return self._private.sign(body)


class TrustedKeys:
    """Keys whose signatures count."""

    def __init__(self, *, public_keys: list[bytes] | None = None, own: list[HmacKeys] | None = None) -> None:
        """Raises ValueError: not the 32 bytes of an Ed25519 public key."""
        self._own = {keys.key: keys for keys in own or []}
        self._keys: dict[str, Any] = {}
        if public_keys:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - see module

            self._keys = {key_name(raw): Ed25519PublicKey.from_public_bytes(raw) for raw in public_keys}

    def knows(self, key: str) -> bool:
        """Say whether this key is trusted."""
        return key in self._keys or key in self._own

    def is_signed(self, key: str, body: bytes, signature: bytes) -> bool:
        """Say whether a trusted key of this name signed these bytes."""
        own = self._own.get(key)
        if own is not None:
            return hmac.compare_digest(own.sign(body), signature)
        trusted = self._keys.get(key)
        if trusted is None:
            return False
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - see module

        try:
            trusted.verify(signature, body)
        except InvalidSignature:
            return False
        return True


def content_keys(secret: str) -> ContentKeys:
    """Return what seals kept content, from the text of ``audit.key``."""
    return ContentKeys(AuditKeys(secret.encode()).wrapping)


def key_name(public: bytes) -> str:
    """Return the name of a public key: 16 hex digits."""
    return sha256(public).hexdigest()[:16]


def read_or_make_key(folder: Path) -> bytes:
    """Return the secret in a folder's key file, made when there is none, readable by its owner alone.

    Raises:
        SpoolUnavailable: The file can be neither read nor made.
    """
    path = folder / KEY_FILE
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            beside = path.with_suffix(f".{os.getpid()}")
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, os.urandom(32).hex().encode())
                os.fsync(fd)
            finally:
                os.close(fd)
            beside.rename(path)
        return path.read_bytes().strip()
    except OSError as exc:
        raise SpoolUnavailable(f"audit key {path}: {exc.strerror}") from exc


def _derive(secret: bytes, purpose: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - see module
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415 - see module

    return HKDF(SHA256(), 32, _SALT, purpose).derive(secret)
