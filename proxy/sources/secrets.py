"""Secrets: resolved from the environment or files, re-read when a file changes or a provider says 401.

Owns the values, and with them the rule that they leave by ``reveal`` alone: no repr, str, message, log line or
pickle holds one. After a change the old value stays acceptable for an overlap. Does not know what a secret is
for. Blocking reads of small files: call ``load`` before the loop runs, ``refresh`` and ``poll`` from a thread.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from proxy.core.config.problem import Mark, Problem, error, lint
from proxy.core.config.settings import SecretRef, Settings, endpoints_of

MAX_SECRET_BYTES = 64 * 1024
OVERLAP_S = 300.0
_SAFE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?\Z")


class SecretText:
    """One secret value. It compares in constant time and never shows itself."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value, to put it on the wire."""
        return self._value

    def matches(self, text: str) -> bool:
        """Compare with what a caller sent, in time that does not depend on where they differ."""
        return hmac.compare_digest(self._value.encode(), text.encode("utf-8", "surrogatepass"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretText) and self.matches(other._value)

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "SecretText(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


@dataclass(slots=True)
class _Slot:
    """What is known of one reference."""

    current: SecretText | None = None
    previous: SecretText | None = None
    overlap_ends_s: float = 0.0
    digest: bytes = b""
    trouble: str = ""


class Secrets:
    """The values behind all references of a process."""

    def __init__(self, environ: Mapping[str, str] | None = None, overlap_s: float = OVERLAP_S) -> None:
        """Take the environment to look in (the process's by default) and the overlap in seconds."""
        self._environ = os.environ if environ is None else environ
        self._overlap_s = overlap_s
        self._slots: dict[SecretRef, _Slot] = {}

    def load(self, refs: Iterable[SecretRef], now_s: float = 0.0) -> None:
        """Resolve references for the first time; what cannot be resolved stays unset."""
        for ref in refs:
            self._slots.setdefault(ref, _Slot())
            self._read(ref, now_s)

    def current(self, ref: SecretRef) -> SecretText | None:
        """Return the value to send now; None: not set."""
        slot = self._slots.get(ref)
        return None if slot is None else slot.current

    def accepted(self, ref: SecretRef, now_s: float) -> tuple[SecretText, ...]:
        """Return the values that are right at this moment: the current one, then the old one in its overlap."""
        slot = self._slots.get(ref)
        if slot is None or slot.current is None:
            return ()
        if slot.previous is not None and now_s < slot.overlap_ends_s:
            return (slot.current, slot.previous)
        return (slot.current,)

    def trouble(self, ref: SecretRef) -> str:
        """Say why a reference has no (new) value, or return an empty string. Never holds a value."""
        slot = self._slots.get(ref)
        return "not loaded" if slot is None else slot.trouble

    def refresh(self, ref: SecretRef, now_s: float) -> bool:
        """Read one reference again, as after a provider's 401. True: there is a new value."""
        self._slots.setdefault(ref, _Slot())
        return self._read(ref, now_s)

    def poll(self, now_s: float) -> tuple[SecretRef, ...]:
        """Read every file again and return the references whose value is new."""
        return tuple(ref for ref in list(self._slots) if ref.file is not None and self._read(ref, now_s))

    def _read(self, ref: SecretRef, now_s: float) -> bool:
        """Take the value if it is a new and usable one. A vanished or broken source leaves the old value in force."""
        slot = self._slots[ref]
        raw, slot.trouble = self._raw(ref)
        digest = hashlib.sha256(raw.encode("utf-8", "surrogatepass")).digest()
        if slot.trouble or digest == slot.digest:
            return False
        slot.digest = digest
        if slot.current is not None:
            slot.previous, slot.overlap_ends_s = slot.current, now_s + self._overlap_s
        slot.current = SecretText(raw)
        return True

    def _raw(self, ref: SecretRef) -> tuple[str, str]:
        """Return the value, or an empty string and what is wrong."""
        if ref.env is not None:
            value, trouble = self._environ.get(ref.env, ""), f"environment variable {ref.env} is not set"
        elif ref.file is not None:
            value, trouble = _read_file(ref.file)
        else:
            return "", "the reference names neither env nor file"
        value = value.strip()
        if not value:
            return "", trouble or f"{ref} is empty"
        if not _SAFE.match(value):
            return "", f"{ref} holds a line break, a control character or a letter outside ASCII"
        return value, ""


def _read_file(path: Path) -> tuple[str, str]:
    try:
        # O_NONBLOCK: a FIFO in this place must not stop the start
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return "", f"{path} is not a regular file"
            data = file.read(MAX_SECRET_BYTES + 1)
    except OSError as exc:
        return "", f"file {path} cannot be read: {(exc.strerror or type(exc).__name__).lower()}"
    if len(data) > MAX_SECRET_BYTES:
        return "", f"file {path} is larger than {MAX_SECRET_BYTES} bytes"
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError:
        return "", f"file {path} is not UTF-8 text"


def references(settings: Settings) -> tuple[SecretRef, ...]:
    """Return every reference that settings hold."""
    refs = [provider.api_key for provider in endpoints_of(settings.providers).values()]
    refs.append(settings.admin_token)
    refs += [token.token for token in settings.admin_tokens]
    if isinstance(settings.audit.store, SecretRef):
        refs.append(settings.audit.store)
    refs += [settings.audit.key, settings.redaction_key, None if settings.names is None else settings.names.api_key]
    if isinstance(settings.budgets.url, SecretRef):
        refs.append(settings.budgets.url)
    return tuple(dict.fromkeys(ref for ref in refs if ref is not None))


def usable_providers(settings: Settings, secrets: Secrets) -> frozenset[str]:
    """Return the providers that take no key or whose key is known."""
    return frozenset(
        name
        for name, provider in settings.providers.items()
        if provider.api_key is None
        or any(secrets.current(ref) is not None for ref in (provider.api_key, *provider.api_keys.values()))
    )


def secret_problems(settings: Settings, secrets: Secrets) -> list[Problem]:
    """Say which secrets are missing and what that costs.

    A provider without its key is a lint as long as another one can be used; a missing admin token or audit
    store URL is an error.
    """
    found: list[Problem] = []
    for name, provider in endpoints_of(settings.providers).items():
        ref = provider.api_key
        if ref is not None and secrets.current(ref) is None and not provider.api_keys:
            text = f"provider {name} cannot be used: {secrets.trouble(ref)}"
            found.append(lint(ref.mark, "unset-secret", text, _remedy(ref)))
    tokens = [(f"admin_tokens: {token.name}", token.token) for token in settings.admin_tokens]
    for what, owner in (
        ("admin_token", settings.admin_token),
        *tokens,
        ("audit.store", settings.audit.store),
        ("budgets.store", settings.budgets.url),
        ("audit.key", settings.audit.key),
        ("redaction_key", settings.redaction_key),
        ("names.api_key", None if settings.names is None else settings.names.api_key),
    ):
        if isinstance(owner, SecretRef) and secrets.current(owner) is None:
            found.append(error(owner.mark, "unset-secret", f"`{what}`: {secrets.trouble(owner)}", _remedy(owner)))
    if found and not usable_providers(settings, secrets):
        at = Mark(found[0].file, found[0].line, found[0].column)
        hint = "set one of the keys named here, or add a local server without a key"
        found.append(error(at, "no-usable-provider", "no provider can be used: every key is missing", hint))
    return found


def _remedy(ref: SecretRef) -> str:
    return f"export {ref.env}=…" if ref.env is not None else "mount the file or correct the path"
