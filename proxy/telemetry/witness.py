"""The ear of the sidecar: turns what flow reports into metrics and log lines.

Owns no state but the two it was given. Knows the vocabulary of events, not what led to them.
"""

from __future__ import annotations

import logging
from typing import Final

from proxy.telemetry.log import LOGGER
from proxy.telemetry.metrics import Metrics
from proxy.terms.exchange import ExchangeFacts
from proxy.terms.outcomes import Fault

_LEVELS = dict.fromkeys(
    (
        "policy_refused",
        "breaker_open",
        "breaker_alarm",
        "budget_store_away",
        "members_exceed_max",
        "budget_slots_lost",
        "policy_case_failed",
        "policy_taken_back",
        "policy_base_refused",
    ),
    logging.WARNING,
)
"""Notices that somebody should look at; the rest is information."""

_OURS: Final = Fault.GATEWAY
"""Looking a member up on its class costs more than the comparison it is for."""


class Telemetry:
    """Implements ``flow.ports.Witness``."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def exchange_ended(self, facts: ExchangeFacts) -> None:
        """Count the exchange; log it only when the sidecar itself was at fault (quiet by default)."""
        self.metrics.exchange_ended(facts)
        if facts.fault is _OURS:
            LOGGER.warning(
                "exchange_refused",
                extra={
                    "fields": {"id": facts.id, "code": facts.error_code, "route": facts.route, "path": facts.path[:200]}
                },
            )

    def fault(self, what: str, **fields: object) -> None:
        """Something of ours failed."""
        self.metrics.fault(what)
        LOGGER.error(what, extra={"fields": fields})

    def notice(self, what: str, **fields: object) -> None:
        """Something operators want to see."""
        if what == "fault_injected":
            self.metrics.fault_injected(str(fields["kind"]), str(fields["provider"]))
        LOGGER.log(_LEVELS.get(what, logging.INFO), what, extra={"fields": fields})
