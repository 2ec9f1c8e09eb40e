"""What budgets need from a store that sidecars share, as a Protocol; ``stores/redis_budgets.py`` implements it.

Owns nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from proxy.core.budget.central import CentralCounter, CentralVerdict, Charge


class Central(Protocol):
    """Counters outside this process. Every call is idempotent by reservation id."""

    @property
    def is_open(self) -> bool:
        """True while the store does not answer and is not asked: the local breaker is open."""
        ...

    def outage_s(self, now_s: float) -> float:
        """Return for how long the store has not answered; 0 when it does."""
        ...

    def acquire(self, rid: str, charges: Sequence[Charge], pauses: Sequence[str]) -> Awaitable[CentralVerdict | None]:
        """Charge all counters or none; None when the outcome is not known, and then it will be cancelled.

        ``pauses`` names whose announced limits are to be obeyed, such as ``groq`` or ``groq:llama``.
        """
        ...

    def settle(self, rid: str, charges: Sequence[Charge], spent: Sequence[int]) -> None:
        """Correct the charges to what was spent, soon; never waits and never fails."""
        ...

    def cancel(self, rid: str, charges: Sequence[Charge]) -> None:
        """Take the charges back, soon."""
        ...

    async def look(self, counters: Sequence[CentralCounter]) -> Sequence[tuple[int, float]] | None:
        """Return what is used of each and the seconds until it is whole again; None when the store does not say."""
        ...

    def pause(self, whom: str, for_s: float) -> None:
        """Tell the other sidecars that a provider takes nothing for so long, soon."""
        ...


class BudgetStore(Protocol):
    """How the store of shared budgets is."""

    members: int
    """Sidecars heard of lately."""
    max_sidecars: int
    latency_s: float

    @property
    def is_open(self) -> bool: ...

    @property
    def trouble(self) -> str:
        """Why it is not asked; empty when it is."""
        ...
