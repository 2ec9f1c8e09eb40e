"""Where shared budgets are kept, as config.yaml says it: ``memory``, a URL, or a reference to one.

Owns which URLs are understood and what to say of others. Dials nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from proxy.core.config.problem import error
from proxy.core.config.schema import Kind, Problems, scalar
from proxy.core.config.texts import Secret, holds_password
from proxy.core.config.yaml_text import BAD, Map, Node

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


@dataclass(frozen=True, eq=False)
class BudgetStoreText(Kind):
    """The budget store: ``memory``, a URL without password, or a reference to one that has it."""

    what = "memory, redis://host:6379/0, {env: NAME} or {file: PATH}"

    def read(self, node: Node, path: str, problems: Problems) -> Any:
        """Return ``memory``, the URL or the reference."""
        if isinstance(node, Map):
            return Secret().read(node, path, problems)
        found = scalar(node, path, problems, self.what)
        if found is None:
            return BAD
        text = str(found.text)
        if holds_password(text):
            message = f"`{path}` must not hold a password"
            hint = f"put the URL in a secret: {path}: {{env: NAME}}"
            problems.append(error(node.mark, "inline-secret", message, hint))
            return BAD
        try:
            return parse_budget_store(text)
        except ValueError as exc:
            problems.append(error(node.mark, "bad-value", f"`{path}` expects {self.what}", str(exc)))
            return BAD

    def json_schema(self) -> dict[str, Any]:
        """Return a URL or a reference to one."""
        return {"anyOf": [{"type": "string", "minLength": 1}, Secret().json_schema()]}
