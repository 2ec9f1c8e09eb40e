"""Which member of a chain step goes first: asked once per exchange on routes that share load, never on others.

Owns the turns of each step; loads belong to the deployments of a snapshot, health to ``Fleet``. What cannot be asked now
(an open breaker, cooling, no key) goes to the back of its step, so that the walk finds it last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from proxy.core.policy.model import ShareBy
from proxy.core.routing.shares import Load, WeightedTurns, by_affinity, two_choices

if TYPE_CHECKING:
    from proxy.flow.catalog import Deployment
    from proxy.flow.intake import Request


class StepShare:
    """One step of a chain with several members, ``chain[start:stop]``."""

    __slots__ = ("_turns", "by", "is_sticky", "names", "start", "stop", "weights")

    def __init__(self, start: int, members: Sequence[Deployment], by: ShareBy, *, is_sticky: bool) -> None:
        self.start = start
        self.stop = start + len(members)
        self.by = by
        self.is_sticky = is_sticky
        self.names = tuple(member.name for member in members)
        self.weights = tuple(member.weight for member in members)
        self._turns = WeightedTurns(self.weights)

    def arrange(
        self,
        members: Sequence[Deployment],
        key: bytes,
        is_available: Callable[[Deployment], bool],
        now_s: float,
        dice: Callable[[], float],
    ) -> list[Deployment]:
        """Return the members in the order in which they are to be tried."""
        indices = range(len(members))
        well = [index for index in indices if is_available(members[index])] or list(indices)
        if key:
            order = by_affinity(key, self.names, self.weights)
        else:
            first, costs = self._first(members, well, now_s, dice)
            order = [first, *sorted((index for index in indices if index != first), key=costs.__getitem__)]
        present = set(well)
        return [members[i] for i in order if i in present] + [members[i] for i in order if i not in present]

    def _first(
        self, members: Sequence[Deployment], well: list[int], now_s: float, dice: Callable[[], float]
    ) -> tuple[int, list[float]]:
        """Choose the first, and say what each would cost."""
        by_latency = self.by is ShareBy.LATENCY
        costs = [
            (member.load or Load()).cost(weight, now_s, by_latency=by_latency)
            for member, weight in zip(members, self.weights, strict=True)
        ]
        if self.by is ShareBy.WEIGHT:
            return self._turns.take(well), costs
        if by_latency:
            return well[two_choices([costs[index] for index in well], dice(), dice())], costs
        least = min(costs[index] for index in well)
        # Among equals the turns decide, or an idle step would always ask its first member.
        return self._turns.take([index for index in well if costs[index] <= least]), costs


def arrange(
    deployments: tuple[Deployment, ...],
    shares: tuple[StepShare, ...],
    key: bytes,
    is_available: Callable[[Deployment], bool],
    now_s: float,
    dice: Callable[[], float],
) -> tuple[Deployment, ...]:
    """Return a chain with the members of each sharing step in the order of this exchange."""
    ordered = list(deployments)
    for share in shares:
        members = deployments[share.start : share.stop]
        ordered[share.start : share.stop] = share.arrange(
            members, key if share.is_sticky else b"", is_available, now_s, dice
        )
    return tuple(ordered)


def conversation_key(conversation: str, request: Request) -> bytes:
    """Return what stays the same over the turns of a conversation; empty when nothing does.

    The caller's own name for it, or the beginning that every turn repeats: what comes up to and with the first
    message of a user. Only a digest is kept, and only while the exchange is arranged.
    """
    if conversation:
        return b"c" + conversation.encode("utf-8", "surrogatepass")
    document = request.document
    if not isinstance(document, dict):
        return b""
    messages = document.get("messages", document.get("input"))
    if isinstance(messages, list):
        opening = _opening(messages)
    else:
        opening = [messages] if isinstance(messages, str) else []
    if not opening:
        return b""
    try:
        text = orjson.dumps([document.get("system"), document.get("instructions"), opening])
    except (TypeError, ValueError):
        return b""
    return b"m" + hashlib.blake2b(text, digest_size=16).digest()


def _opening(messages: list[Any]) -> list[Any]:
    for index, message in enumerate(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            return messages[: index + 1]
    return messages[:1]
