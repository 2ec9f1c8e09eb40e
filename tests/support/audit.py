"""Builders for audit tests: exchanges with typical facts, and a clock that is told the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from proxy.terms.exchange import AttemptFacts, ExchangeFacts, Usage
from proxy.terms.outcomes import Outcome

TS_MS = 1_795_300_000_000
"""2026-11-21, the millisecond the ids below begin with."""


def exchange_id(number: int, ts_ms: int = TS_MS) -> str:
    """Return a UUIDv7 for a moment and a number."""
    stamp = f"{ts_ms:012x}"
    return f"{stamp[:8]}-{stamp[8:]}-7{number >> 48 & 0xFFF:03x}-8000-{number & 0xFFFFFFFFFFFF:012x}"


def typical_exchange(number: int = 1, ts_ms: int = TS_MS, **changes: Any) -> ExchangeFacts:
    """Return the facts of a finished chat exchange; keyword arguments replace fields."""
    facts = ExchangeFacts(
        id=exchange_id(number, ts_ms),
        ts_ms=ts_ms,
        method="POST",
        path="/v1/chat/completions",
        app="checkout",
        user=f"user-{number % 50}",
        conversation="conversation-9",
        caller="checkout-key",
        route="fast",
        policy="default",
        policy_revision="9f31ab20",
        provider="openai",
        model_asked="fast",
        model_served="gpt-4o-mini",
        http_status=200,
        request_bytes=1100,
        response_bytes=800,
        usage=Usage(100, 50),
        cost_usd=0.000125,
        latency_ms=512.25,
        first_token_ms=200.125,
        upstream_ms=510.0,
        findings={"EMAIL": 1},
        sanitized={"EMAIL": 1},
        budget={"requests_left": 29},
    )
    facts.attempts.append(AttemptFacts("openai", "gpt-4o-mini", 0.5, Outcome.OK, 200, 511.0))
    for name, value in changes.items():
        setattr(facts, name, value)
    return facts


@dataclass
class SetClock:
    """A clock that stands still until it is moved."""

    now_s: float = 1000.0
    now_ms: int = TS_MS

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_ms(self) -> int:
        return self.now_ms

    def stamp(self) -> tuple[str, int]:
        return exchange_id(1, self.now_ms), self.now_ms
