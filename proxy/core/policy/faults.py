"""Faults that a policy lets a team rehearse: how they are written and what they mean.

Owns the little language of ``x-readygate-fault-inject`` and of ``routes[].inject.fault``. Breaks nothing itself.

    latency=2s        the provider is asked that much later; longer than the first-byte limit, and it is a timeout
    status=503        the provider is not asked; this status is its answer
    refuse            no connection to the provider can be made
    cut=200           the answer breaks off after so many bytes of its body
    stall=200         the answer stops after so many bytes and stays silent until the idle limit

``;target=first`` (the first link of the chain: the default), ``all``, or a provider's name says whom it hits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from proxy.core.config.units import UnitMissing, UnitUnknown, parse_duration

HEADER = b"x-readygate-fault-inject"
SYNTAX = "latency=2s, status=503, refuse, cut=200 or stall=200, then perhaps ;target=first, all or a provider"
MAX_LATENCY_S = 600.0


class FaultKind(StrEnum):
    """What goes wrong."""

    LATENCY = "latency"
    STATUS = "status"
    REFUSE = "refuse"
    CUT = "cut"
    STALL = "stall"


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """One fault."""

    kind: FaultKind
    amount: float = 0.0
    """Seconds of latency, an HTTP status, or bytes of the body before it breaks."""
    target: str = "first"
    share: float = 1.0
    """How many of the attempts it hits, from 0 to 1."""

    def hits(self, provider: str, index: int) -> bool:
        """True for an attempt at this provider, ``index`` links into the chain."""
        return self.target in ("all", provider) or (self.target == "first" and index == 0)


@dataclass(frozen=True, slots=True)
class InjectPlan:
    """What a route lets be rehearsed."""

    fault: InjectedFault | None = None
    """Hits every exchange of the route."""
    takes_header: bool = False
    """Callers may ask for a fault with the header."""


def parse_fault(text: str) -> InjectedFault:
    """Read one fault. Raises ValueError with the syntax."""
    main, *options = (part.strip() for part in text.strip().split(";"))
    target = "first"
    for option in options:
        name, _, value = option.partition("=")
        if name.strip() != "target" or not value.strip():
            raise ValueError(f"expected {SYNTAX}")
        target = value.strip()
    word, has_value, value = (part.strip() for part in main.partition("="))
    try:
        return InjectedFault(FaultKind(word), _amount(FaultKind(word), value, bool(has_value)), target)
    except (ValueError, UnitMissing, UnitUnknown):
        raise ValueError(f"expected {SYNTAX}") from None


def _amount(kind: FaultKind, value: str, is_given: bool) -> float:
    match kind:
        case FaultKind.LATENCY:
            seconds = parse_duration(value)
            if not 0 < seconds <= MAX_LATENCY_S:
                raise ValueError
            return seconds
        case FaultKind.STATUS:
            if not (value.isdecimal() and 400 <= int(value) <= 599):
                raise ValueError
            return float(int(value))
        case FaultKind.REFUSE:
            if is_given:
                raise ValueError
            return 0.0
        case FaultKind.CUT | FaultKind.STALL:
            if is_given and not (value.isdecimal() and len(value) <= 9):
                raise ValueError
            return float(value or 0)
