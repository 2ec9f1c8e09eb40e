"""What the process is made of that needs a decision of its own: which store, which service, whose keys.

Owns ``ProviderKeys``; the rest builds one thing each from settings and secrets. Nothing here touches the network.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from proxy.core.budget.shares import Shares
from proxy.core.config.budget_store import MEMORY_STORE, parse_budget_store
from proxy.core.config.load import MAIN_ADMIN
from proxy.core.config.settings import AdminToken, SecretRef, Settings
from proxy.flow.key_source import KeySource
from proxy.server.admin_access import Credential
from proxy.sources.secrets import Secrets
from proxy.stores.memory_values import MemoryValues
from proxy.terms.admin import Role

if TYPE_CHECKING:
    from proxy.flow.kept_values import ValueStore
    from proxy.flow.names import Names
    from proxy.sources.tokens import Tokens
    from proxy.stores.redis_budgets import RedisBudgets


@dataclass(slots=True)
class ProviderKeys:
    """Provider name -> key, over the secrets of this process; implements ``upstream.providers.Credentials``."""

    secrets: Secrets
    refs: Mapping[str, SecretRef | None]
    now_s: Callable[[], float]

    def current(self, provider: str) -> str | None:
        """Return the provider's key now."""
        ref = self.refs.get(provider)
        secret = self.secrets.current(ref) if ref is not None else None
        return secret.reveal() if secret is not None else None

    async def refresh(self, provider: str) -> bool:
        """Re-read the provider's key off the loop."""
        ref = self.refs.get(provider)
        if ref is None:
            return False
        return await asyncio.to_thread(self.secrets.refresh, ref, self.now_s())


def names_service(settings: Settings, secrets: Secrets) -> Names | None:
    """Return what finds names in free text, when config.yaml names a service for it."""
    service = settings.names
    if service is None:
        return None
    from proxy.flow.names import Names  # noqa: PLC0415 - only who asks a service pays for its client
    from proxy.upstream.names import NamesClient  # noqa: PLC0415 - the same

    ref = service.api_key

    def key() -> str | None:
        secret = None if ref is None else secrets.current(ref)
        return None if secret is None else secret.reveal()

    return Names(service, NamesClient(service, key), time.monotonic, random.random)


CALLER_KEYS: Final = "caller_keys"
"""What the component of the callers' file is called."""


def key_sources(settings: Settings, tokens: Tokens | None) -> dict[str, KeySource]:
    """Return where callers' keys come from, by the component's name."""
    found = {CALLER_KEYS: KeySource()} if settings.callers_file is not None else {}
    return found if tokens is None else {**found, "jwt_keys": tokens.source}


def token_verifier(settings: Settings, notice: Callable[..., None]) -> Tokens | None:
    """Return the verifier of callers' tokens, when config.yaml names an issuer."""
    if settings.jwt is None:
        return None
    from proxy.sources.tokens import Tokens  # noqa: PLC0415 - only who takes tokens pays for the library

    return Tokens(
        settings.jwt,
        unix_s=time.time,  # noqa: TID251 - this is its one owner
        now_s=time.monotonic,
        notice=notice,
    )


def value_store(settings: Settings, secrets: Secrets, key: bytes) -> ValueStore:
    """Return where values wait between turns: beside the shared budgets, or in this process."""
    url = _store_url(settings, secrets)
    if not url:
        return MemoryValues(time.monotonic)
    from proxy.stores.redis_values import RedisValues  # noqa: PLC0415 - as below

    return RedisValues(url, settings.budgets.namespace, key)


def _store_url(settings: Settings, secrets: Secrets) -> str:
    """Return the URL of the store that sidecars share, or nothing."""
    url = settings.budgets.url
    if isinstance(url, SecretRef):
        secret = secrets.current(url)
        url = parse_budget_store(secret.reveal()) if secret is not None else ""
    return "" if not url or url == MEMORY_STORE else url


def shared_budget_store(
    settings: Settings, secrets: Secrets, sidecar: str, notice: Callable[..., None]
) -> RedisBudgets | None:
    """Return the shared counters, when config.yaml names a store for them."""
    budgets = settings.budgets
    url = _store_url(settings, secrets)
    if not url:
        return None
    from proxy.stores.redis_budgets import RedisBudgets  # noqa: PLC0415 - only who shares budgets pays for the driver

    return RedisBudgets(
        url,
        sidecar=sidecar,
        namespace=budgets.namespace,
        max_sidecars=budgets.shares.max_sidecars,
        lease_s=budgets.lease_s,
        unix_s=time.time,  # noqa: TID251 - this is its one owner
        now_s=time.monotonic,
        notice=notice,
    )


def budget_store_shown(store: RedisBudgets | None, shares: Shares) -> dict[str, Any]:
    """How budgets are shared, and how their store is."""
    if store is None:
        return {"kind": "memory"}
    shown = {"kind": "shared", "state": "away" if store.is_open else "ok", "reason": store.trouble}
    return {**shown, "members": store.members, **shares._asdict()}


def admin_credentials(settings: Settings, secrets: Secrets) -> list[Credential]:
    """The admin tokens of this moment; one whose secret is replaced is right for an overlap, old and new."""
    now_s = time.monotonic()
    tokens = list(settings.admin_tokens)
    if settings.admin_token is not None:
        tokens.append(AdminToken(MAIN_ADMIN, Role.ADMIN, settings.admin_token))
    return [
        Credential(t.name, t.role, tuple(text.reveal() for text in secrets.accepted(t.token, now_s))) for t in tokens
    ]
