"""Where shared budgets are kept, as config.yaml says it: ``memory``, a URL, or a reference to one.

Owns which URLs are understood and what to say of others. Dials nothing.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from proxy.core.config.texts import StoreUrl

MEMORY_STORE = "memory"
_REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")


def parse_budget_store(text: str) -> str:
    """Return the budget store's URL, or ``memory``.

    ``redis+cluster://host:6379`` is a cluster, ``redis+sentinel://a:26379,b:26379/service`` asks sentinels;
    ``valkey`` may stand for ``redis`` everywhere.

    Raises:
        ValueError: Not such a URL; the message never repeats it.
    """
    if text == MEMORY_STORE:
        return text
    scheme, colon, rest = text.partition("://")
    scheme = scheme.replace("valkeys", "rediss").replace("valkey", "redis")
    if not colon or scheme not in _REDIS_SCHEMES:
        raise ValueError("write memory, redis://host:6379/0, rediss://…, redis+cluster://… or redis+sentinel://…")
    if not rest.strip("/"):
        raise ValueError("name a host: redis://host:6379/0")
    if scheme.endswith("+sentinel") and not urlsplit(text).path.strip("/"):
        raise ValueError("name the service: redis+sentinel://host:26379/service")
    return f"{scheme}://{rest}"


class BudgetStoreText(StoreUrl):
    """The budget store: ``memory``, or the store's URL."""

    what = "memory, redis://host:6379/0, {env: NAME} or {file: PATH}"

    def accept(self, text: str) -> str:
        """Return ``memory`` or the URL."""
        return parse_budget_store(text)
