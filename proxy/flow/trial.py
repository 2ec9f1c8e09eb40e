"""A canary beside the revision in force, as an exchange meets it: which of the two decides this one.

Owns the choice and what it sticks to. Asked only while a rollout is under way. Counts nothing and ends nothing:
``rollouts`` does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from proxy.core.dialect import Dialect
from proxy.core.policy.rollout import RolloutBy, is_in
from proxy.flow.intake import Request, parsed
from proxy.flow.sharing import conversation_key

if TYPE_CHECKING:
    from proxy.flow.catalog import Snapshot
    from proxy.flow.exchange import Exchange

Offload = Callable[[Callable[[], Any]], Awaitable[Any]]


class Trial:
    """One canary at one share."""

    __slots__ = ("by", "canary", "share", "stable")

    def __init__(self, canary: Snapshot, stable: Snapshot, share: float, by: RolloutBy) -> None:
        self.canary = canary
        self.stable = stable
        self.share = share
        self.by = by

    async def choose(self, snapshot: Snapshot, exchange: Exchange, request: Request, offload: Offload) -> Snapshot:
        """Return the canary or the snapshot at hand, and put its revision into the facts."""
        key = await self._key(exchange, request, offload)
        chosen = self.canary if is_in(self.canary.revision, key, self.share) else snapshot
        exchange.facts.policy_revision = chosen.revision
        return chosen

    async def _key(self, exchange: Exchange, request: Request, offload: Offload) -> bytes:
        """Return what keeps to one revision: the conversation, else the user, else the app; empty for nobody."""
        facts = exchange.facts
        if self.by is RolloutBy.CONVERSATION:
            key = conversation_key(facts.conversation, request)
            if not key and request.document is None and request.body and exchange.dialect is not Dialect.OTHER:
                key = await offload(partial(_opening_of, request.body))  # a large body, not parsed here so far
            if key:
                return key
        if facts.user and self.by is not RolloutBy.APP:
            return b"u" + facts.user.encode("utf-8", "surrogatepass")
        return b"a" + facts.app.encode("utf-8", "surrogatepass") if facts.app else b""


def _opening_of(body: bytes) -> bytes:
    return conversation_key("", Request(b"", parsed(body)))
