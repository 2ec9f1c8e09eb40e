"""The story of rows that are too old: look once an hour, delete a little at a time, say what went.

Owns the pace. Knows the store by a Protocol and the ages as whatever policies say now. Several sidecars of one
store may look at once: the store lets one of them work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from proxy.core.audit.pruning import Ages
from proxy.core.policy.model import Policy
from proxy.flow.ports import Witness
from proxy.terms.errors import SinkUnavailable

FIRST_LOOK_S: Final = 60.0
LOOK_EVERY_S: Final = 3600.0
_PAUSE_S: Final = 0.05


class Pruner(Protocol):
    """Deletes rows of one store. All raise SinkUnavailable."""

    async def prune(self, ages: Ages, now_ms: int) -> int:
        """Delete some rows that are too old, in a transaction that blocks nobody for long; return how many.

        0: nothing (more) to do, or another sidecar is at it.
        """
        ...

    async def note(self, rows: int, now_ms: int, actor: str) -> None:
        """Write the entry of what was deleted."""
        ...


def ages_of(policies: Iterable[Policy]) -> Ages:
    """Return how long these policies let rows stay."""
    by_policy: dict[str, float | None] = {}
    for policy in policies:
        plans = [*policy.routes, *([policy.pass_through] if policy.pass_through is not None else [])]
        by_policy[policy.name] = plans[0].audit.retention_s if plans else None
    return Ages.of(by_policy)


async def prune_all(pruner: Pruner, ages: Ages, unix_ms: Callable[[], int], actor: str) -> int:
    """Delete everything that is too old now; return how many rows. Raises SinkUnavailable."""
    rows = 0  # also where every row stays for ever: kept words do not
    try:
        while some := await pruner.prune(ages, unix_ms()):
            rows += some
            await asyncio.sleep(_PAUSE_S)
    finally:
        if rows:
            await pruner.note(rows, unix_ms(), actor)
    return rows


async def keep_pruning(
    pruner: Pruner,
    ages: Callable[[], Ages],
    unix_ms: Callable[[], int],
    witness: Witness,
    jitter: Callable[[], float],
) -> None:
    """Do so for ever, about once an hour; a store that is away is asked again next time."""
    await asyncio.sleep(FIRST_LOOK_S * (1.0 + jitter()))
    while True:
        try:
            rows = await prune_all(pruner, ages(), unix_ms, "retention")
        except SinkUnavailable as exc:
            witness.notice("audit_retention_failed", reason=str(exc))
        else:
            if rows:
                witness.notice("audit_retention", rows=rows)
        await asyncio.sleep(LOOK_EVERY_S * (1.0 + jitter() / 10))
