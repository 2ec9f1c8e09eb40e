"""What is asked of a counter that many sidecars share: its name, its window, its part of the limit.

Owns the description alone. The sums are kept by whoever implements ``flow.budget_ports.Central`` with the same
arithmetic as ``window`` and ``calendar``.
"""

from __future__ import annotations

from typing import NamedTuple

from proxy.core.budget.dimensions import Dimension, Shape


class CentralCounter(NamedTuple):
    """One shared counter."""

    rule: str
    """The rule's id: what survives edits of the policy."""
    partition: str
    """Whose share it is where a rule counts apart, else empty."""
    dimension: Dimension
    shape: Shape | None
    """None: slots."""
    zone: str
    limit: int


class Charge(NamedTuple):
    """What one reservation asks of one counter."""

    counter: CentralCounter
    amount: int


class CentralVerdict(NamedTuple):
    """What the shared counters said."""

    is_granted: bool
    wait_s: float = 0.0
    """Until there is room, when denied."""
    short: int = -1
    """Which of the charges had no room; -1: another reason, see ``why``."""
    why: str = ""
    """``closed`` after lost state, ``paused`` by the provider's own word."""
    left: tuple[int, ...] = ()
    """What each counter still has."""
