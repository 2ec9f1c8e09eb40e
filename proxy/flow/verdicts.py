"""What budgets answer, as values: granted, denied, too large; and how they look to a reader.

Owns the shapes. Knows neither counters nor HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from proxy.core.budget.central import Charge
from proxy.core.budget.dimensions import Dimension
from proxy.core.budget.ledger import Amounts, Reservation

Partition = tuple[tuple[str, str], ...]
"""Whose counters of a rule: scope and name, for each that the rule counts by."""
Scope = tuple[str, Partition]
"""A budget's id and partition."""


class SharedReservation(NamedTuple):
    """What one attempt holds in the shared counters until it is settled or cancelled."""

    rid: str
    charges: tuple[Charge, ...]


Held = Reservation | SharedReservation


@dataclass(slots=True)
class Granted:
    """The attempt may go. Settle or cancel ``reservation`` exactly when the attempt ends.

    The other numbers are those of the tightest request and token limit, for ``x-ratelimit-*``;
    a limit of -1 means that no such limit applies. ``reset`` is seconds until that window would be
    whole again.
    """

    reservation: Held
    limit_requests: int = -1
    remaining_requests: int = -1
    reset_requests_s: float = 0.0
    limit_tokens: int = -1
    remaining_tokens: int = -1
    reset_tokens_s: float = 0.0


class Denied(NamedTuple):
    """No room; nothing was charged anywhere.

    ``retry_after_s`` is when every limit will have room again if nobody else comes. When several
    budgets are exhausted, one that says ``refuse`` speaks for all, then the longest wait.
    """

    budget_id: str
    dimension: Dimension
    retry_after_s: float
    is_quota: bool
    """A day's, a month's or a cost budget is spent: no matter of pace."""
    when_exhausted: str
    limit: int
    scope: Scope = ("", ())
    """Which budget, and whose where it counts apart."""
    why: str = ""
    """Empty: no room. ``store_away``, ``closed`` (lost state) or ``paused`` (the provider's own limit)."""


class TooLarge(NamedTuple):
    """The request alone exceeds the limit: no wait will help."""

    budget_id: str
    limit: int
    dimension: Dimension
    when_exhausted: str


class Unpriced(NamedTuple):
    """The model has no price, and a budget of cost refuses that."""

    budget_id: str
    when_exhausted: str


class Ask(NamedTuple):
    """The shared counters have to be asked: hand it to ``Budgets.decide``."""

    binding: object
    rid: str
    tokens: int
    amounts: Amounts
    target: str = ""
    """``provider:model``, whose announced limits are to be obeyed."""


Verdict = Granted | Denied | TooLarge | Unpriced


class Who(NamedTuple):
    """Whose exchange it is; what budgets may be counted by, besides the provider."""

    model: str = ""
    """As asked of the provider."""
    route: str = ""
    app: str = ""
    caller: str = ""
    user: str = ""


NOBODY = Who()


class DimensionView(NamedTuple):
    """One limit as it stands. ``reset_s``: seconds until it is whole again without further use."""

    dimension: Dimension
    limit: int
    used: int
    remaining: int
    reset_s: float


class BudgetView(NamedTuple):
    """One budget in force as it stands. ``partition`` says whose it is where the rule counts apart."""

    budget_id: str
    provider: str | None
    when_exhausted: str
    dimensions: tuple[DimensionView, ...]
    partition: tuple[tuple[str, str], ...] = ()
