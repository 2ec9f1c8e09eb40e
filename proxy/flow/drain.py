"""One polite exit: not ready at once, still serving for a while, then finishing, then gone.

Owns the order and the deadlines of a drain. Knows the doors and the delivery only by Protocol.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from proxy.flow.ports import Clock, Witness
from proxy.flow.vitals import Vitals


class Door(Protocol):
    """The data door, as a drain sees it."""

    @property
    def live_exchanges(self) -> int: ...

    def begin_drain(self) -> None: ...

    def refuse_new(self) -> None: ...

    async def wait_until_idle(self, deadline_s: float, hurry: asyncio.Event) -> bool: ...

    async def close(self) -> None: ...


class Rows(Protocol):
    """The delivery of audit rows, as a drain sees it."""

    async def drain(self, deadline_s: float) -> bool: ...


async def drain(
    door: Door,
    rows: Rows,
    vitals: Vitals,
    clock: Clock,
    witness: Witness,
    *,
    grace_s: float,
    deadline_s: float,
    hurry: asyncio.Event,
) -> None:
    """Leave in order within ``deadline_s``; ``hurry`` (a second signal) skips the waiting.

    Rows that do not reach the store in time stay in the spool for the next start.
    """
    began_s = clock.monotonic_s()
    end_s = began_s + deadline_s
    vitals.is_draining = True
    door.begin_drain()
    witness.notice("drain_began", live_exchanges=door.live_exchanges, grace_s=grace_s, deadline_s=deadline_s)
    await _wait(hurry, min(grace_s, deadline_s))
    door.refuse_new()
    if not hurry.is_set():
        await door.wait_until_idle(end_s - min(1.0, deadline_s / 5), hurry)
    cut = door.live_exchanges
    await door.close()
    delivered = await rows.drain(max(0.2, end_s - clock.monotonic_s()))
    witness.notice(
        "drain_ended", seconds=round(clock.monotonic_s() - began_s, 2), cut_exchanges=cut, all_rows_delivered=delivered
    )


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
