"""What every ``audit`` verb needs first: the store and the keys that ``config.yaml`` names.

Owns the exit codes of these verbs and their one exception.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from proxy.core.config.settings import SecretRef, Settings
from proxy.core.config.texts import parse_store_url
from proxy.sources.files import read_config
from proxy.sources.secrets import Secrets
from proxy.stores.audit_keys import KEY_FILE, AuditKeys, HmacKeys

EXIT_GOOD: Final = 0
EXIT_FINDING: Final = 1
EXIT_UNUSABLE: Final = 2


class Unusable(Exception):
    """What was asked cannot be done as it stands; the message says what to change."""


def find_settings(config: Path) -> Settings:
    """Return the settings of a config file. Raises Unusable."""
    result = read_config(config)
    if result.settings is None:
        problems = "\n".join(f"  {problem}" for problem in result.problems)
        raise Unusable(f"{config} cannot be used:\n{problems}")
    return result.settings


def find_store(config: Path) -> str:
    """Return the URL of the audit store a config names. Raises Unusable."""
    store = find_settings(config).audit.store
    if not isinstance(store, SecretRef):
        return store
    try:
        return parse_store_url(_reveal(store, "audit.store"), config.absolute().parent)
    except ValueError as exc:
        raise Unusable(f"audit.store: {exc}") from None


def find_keys(settings: Settings) -> AuditKeys | HmacKeys | None:
    """Return the keys of ``audit.key``, else those of the file beside the spool, else None. Raises Unusable."""
    ref = settings.audit.key
    if ref is not None:
        return AuditKeys(_reveal(ref, "audit.key").encode())
    try:
        return HmacKeys((settings.audit.spool / KEY_FILE).read_bytes().strip())
    except OSError:
        return None


def _reveal(ref: SecretRef, what: str) -> str:
    secrets = Secrets()
    secrets.load([ref])
    text = secrets.current(ref)
    if text is None:
        raise Unusable(f"{what}: {secrets.trouble(ref)}")
    return text.reveal()
