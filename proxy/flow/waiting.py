"""Waiting lines before exhausted budgets: first come, first served, within the priorities of the routes.

Owns the lines, one per budget and whoever it counts apart. Whoever is in front tries again when room may have come;
the others do not overtake. Knows neither counters nor providers: trying is the waiter's own affair.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Awaitable, Callable
from itertools import count

from proxy.core.policy.model import Priority
from proxy.flow.verdicts import Denied, Granted, Scope, Verdict

_RANKS = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}
LEAST_WAIT_S = 0.1
"""What whoever stands behind others is taken to have to wait at least."""
_LOOK_AGAIN_S = 0.25
"""Room that other sidecars free is not announced: whoever is in front looks again after so long at the latest."""


class _Ticket:
    """One place in a line."""

    __slots__ = ("denied", "order", "room_at_s", "woken")

    def __init__(self, order: tuple[int, int], denied: Denied, now_s: float) -> None:
        self.order = order
        self.told(denied, now_s)
        self.woken = asyncio.Event()

    def told(self, denied: Denied, now_s: float) -> None:
        """Remember why there was no room, and when there will be."""
        self.denied = denied
        self.room_at_s = now_s + denied.retry_after_s

    def __lt__(self, other: _Ticket) -> bool:
        return self.order < other.order


class WaitingLines:
    """Everybody who waits in this process."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._numbers = count()
        self.lines: dict[Scope, list[_Ticket]] = {}
        """Only lines with somebody in them; empty almost always, and then this is all that is looked at."""
        self.waited = 0
        """Exchanges that waited and were granted."""
        self.gave_up = 0
        """Exchanges whose wait was in vain."""

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return sum(map(len, self.lines.values()))

    def ahead(self, scope: Scope, priority: Priority) -> int:
        """Return how many would be served before a newcomer of that priority."""
        rank = _RANKS[priority]
        return sum(ticket.order[0] <= rank for ticket in self.lines.get(scope, ()))

    def denial_in_front(self, scope: Scope) -> Denied | None:
        """Return why whoever is in front of a line waits, and for how long yet: nobody behind is served before."""
        line = self.lines.get(scope)
        if not line:
            return None
        front = line[0]
        return front.denied._replace(retry_after_s=max(LEAST_WAIT_S, front.room_at_s - self._now_s()))

    def freed(self) -> None:
        """Room may have come: let those in front try."""
        for line in self.lines.values():
            line[0].woken.set()

    async def wait(
        self,
        scope: Scope,
        priority: Priority,
        until_s: float,
        denied: Denied,
        try_again: Callable[[], Awaitable[Verdict]],
    ) -> Verdict:
        """Stand in line until it is our turn and there is room; return the last verdict when time is up."""
        ticket = _Ticket((_RANKS[priority], next(self._numbers)), denied, self._now_s())
        line = self.lines.setdefault(scope, [])
        insort(line, ticket)
        verdict: Verdict = denied
        try:
            while (left_s := until_s - self._now_s()) > 0.0:
                nap_s = left_s
                if line[0] is ticket and isinstance(verdict, Denied):
                    nap_s = min(left_s, max(0.001, verdict.retry_after_s), _LOOK_AGAIN_S)
                ticket.woken.clear()
                try:
                    async with asyncio.timeout(nap_s):
                        await ticket.woken.wait()
                except TimeoutError:
                    pass
                if line[0] is not ticket:
                    continue
                verdict = await try_again()
                if not (isinstance(verdict, Denied) and verdict.when_exhausted == "wait"):
                    self.waited += isinstance(verdict, Granted)
                    return verdict
                ticket.told(verdict, self._now_s())
        finally:
            line.remove(ticket)
            if line:
                line[0].woken.set()
            else:
                del self.lines[scope]
        self.gave_up += 1
        return verdict
