"""A candidate revision beside the one in force: it decides the same real exchanges, without effect, after they have ended.

Owns the candidate, a bounded queue of ended exchanges and the report. The request path only appends to the queue; everything
else happens in idle slices of the event loop. Texts of requests are held only while the candidate redacts otherwise than the
policies in force, and only until they were read once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, NamedTuple

from proxy.core.budget.prices import PriceTable
from proxy.core.dialect import Dialect
from proxy.core.policy.changes import Changes, cost_under
from proxy.core.policy.decide import (
    DECIDED_CODES,
    Facts,
    decide_plan,
    differences,
    is_partly_known,
    noted_rule,
    plan_for,
)
from proxy.core.policy.model import NoRoute, RoutePlan
from proxy.flow.callers import groups_of
from proxy.flow.catalog import Catalog, Snapshot
from proxy.flow.exchange import Exchange
from proxy.flow.intake import OFFLOAD_ABOVE_BYTES, parsed
from proxy.flow.second_look import look_again
from proxy.terms.admin import AdminAnswer, AdminCall, AdminRoute, Role

MAX_WAITING: Final = 4096
MAX_HELD_BYTES: Final = 16 * 1024 * 1024
LOOK_EVERY_S: Final = 0.05
SLICE_S: Final = 0.001
"""So long the event loop is held at most, but for the last exchange of a slice."""

_Plan = RoutePlan | NoRoute


class _Pair(NamedTuple):
    """What the two revisions do with one kind of request."""

    live: _Plan
    candidate: _Plan
    is_same: bool
    reads: bool
    """The candidate redacts or limits otherwise, so bodies may have to be looked at."""
    redacts_otherwise: bool


class Shadow:
    """The candidate of one process; made only where config.yaml names one."""

    def __init__(
        self,
        catalog: Catalog,
        prices: Callable[[], PriceTable | None],
        now_s: Callable[[], float],
        unix_ms: Callable[[], int],
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._catalog = catalog
        self._prices = prices
        self._now_s = now_s
        self._unix_ms = unix_ms
        self._max_waiting = max_waiting
        self._candidate: Snapshot | None = None
        self._live: Snapshot | None = None
        self._pairs: dict[tuple[int, int], _Pair] = {}
        self._queue: deque[Exchange] = deque()
        self._held_bytes = 0
        self._since_ms = unix_ms()
        self.changes = Changes()
        self.trouble = ""
        """Why the newest candidate cannot be used; empty when it is compared."""
        self.dropped = 0
        """Exchanges that were not compared, for want of room."""
        self.undecided = 0
        """Exchanges that no policy decided."""
        self.unread = 0
        """Exchanges with a body that only the candidate would have to read and that is an upload or too large: compared by their
        facts alone."""

    @property
    def revision(self) -> str:
        """The candidate's revision; empty without one."""
        return "" if self._candidate is None else self._candidate.revision

    def accept(self, candidate: Snapshot) -> None:
        """Compare this candidate from now on; the report begins anew."""
        self._candidate = candidate
        self.trouble = ""
        self._begin_anew()

    def ended(self, exchange: Exchange) -> None:
        """Queue an exchange that has ended. Called for every exchange, so it does next to nothing."""
        body = exchange.inbound.body
        size = len(body) if type(body) is bytes else 0
        if len(self._queue) >= self._max_waiting or self._held_bytes + size > MAX_HELD_BYTES:
            self.dropped += 1
            return
        self._held_bytes += size
        self._queue.append(exchange)

    async def run(self) -> None:
        """Compare what is queued, in slices, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            while self._queue:
                self.work(self._now_s() + SLICE_S)
                await asyncio.sleep(0)

    def work(self, until_s: float) -> None:
        """Compare queued exchanges until then; at least one."""
        while self._queue:
            exchange = self._queue.popleft()
            body = exchange.inbound.body
            self._held_bytes -= len(body) if type(body) is bytes else 0
            self._compare(exchange)
            if self._now_s() >= until_s:
                return

    # --- one exchange -----------------------------------------------------------------------------

    def _compare(self, exchange: Exchange) -> None:
        live, candidate, said = self._catalog.snapshot, self._candidate, exchange.facts
        if live is None or candidate is None or said.policy_revision != live.revision:
            self.dropped += 1
            return
        if live is not self._live:
            self._live = live
            self._begin_anew()
        if not said.policy and said.error_code not in DECIDED_CODES:
            self.undecided += 1
            return
        model = said.model_asked or None
        facts = Facts(
            said.app, said.caller, said.user, model, said.path[3:], said.findings, said.response_findings,
            said.unscanned_bytes > 0, exchange.inbound.head.fields, said.method, said.request_bytes,
            noted_rule(said.notes) if said.notes else "",
            groups_of(exchange.inbound.head) if live.asks_more or candidate.asks_more else (),
        )  # fmt: skip
        pair = self._pair(plan_for(live.policies, facts), plan_for(candidate.policies, facts))
        changes = self.changes
        if pair.is_same:
            changes.exchanges += 1
            changes.add_cost(said.cost_usd, said.cost_usd)
            return
        before = decide_plan(pair.live, facts)
        after_facts, is_read = facts, True
        if pair.reads:
            must_scan = pair.redacts_otherwise or bool(before.refusal)  # who refuses may not have looked
            after_facts, is_read = self._seen_by(candidate, pair.candidate, exchange, facts, must_scan=must_scan)
        after = decide_plan(pair.candidate, after_facts)
        partly = not is_read or (not pair.reads and is_partly_known(before, after))
        changes.add(said.id, said.app, differences(before, after), is_partly_known=partly)
        cost_usd = 0.0 if before.refusal else said.cost_usd
        changes.add_cost(cost_usd, cost_under(before, after, cost_usd, said.usage, self._prices()))

    def _pair(self, live: _Plan, candidate: _Plan) -> _Pair:
        key = (id(live), id(candidate))
        found = self._pairs.get(key)
        if found is not None and found.live is live and found.candidate is candidate:
            return found
        if isinstance(live, RoutePlan) and isinstance(candidate, RoutePlan):
            is_same = replace(live, revision="") == replace(candidate, revision="")
            redacts_otherwise = live.redaction != candidate.redaction
            reads = redacts_otherwise or live.access != candidate.access
            pair = _Pair(live, candidate, is_same, reads, redacts_otherwise)
        else:
            is_routed = isinstance(candidate, RoutePlan)
            pair = _Pair(live, candidate, live == candidate, is_routed, is_routed)
        if isinstance(live, RoutePlan) and isinstance(candidate, RoutePlan):
            self._pairs[key] = pair
        return pair

    def _seen_by(
        self, candidate: Snapshot, plan: _Plan, exchange: Exchange, facts: Facts, *, must_scan: bool
    ) -> tuple[Facts, bool]:
        """Return the facts as the candidate itself sees them; False: it could not look, or not at everything."""
        assert isinstance(plan, RoutePlan)
        must_parse = plan.access is not None and plan.access.reads_params
        if not must_parse and not must_scan:
            return facts, True
        body = exchange.inbound.body
        if type(body) is not bytes or len(body) > OFFLOAD_ABOVE_BYTES:
            self.unread += 1
            return facts, False
        if must_parse:
            facts = facts._replace(document=parsed(body) if body and exchange.dialect is not Dialect.OTHER else None)
        is_parsed = not must_parse or facts.document is not None or not body
        if not must_scan:
            return facts, is_parsed
        content_type = exchange.inbound.head.fields.get(b"content-type", b"")
        seen = look_again(candidate.route_of(plan).redactor, plan.redaction, body, exchange.dialect, content_type)
        if seen is None:
            return facts, False
        return facts._replace(findings=seen.findings, has_unscanned=seen.has_unscanned), is_parsed

    def _begin_anew(self) -> None:
        self._pairs = {}
        self.changes = Changes()
        self.dropped = self.undecided = self.unread = 0
        self._since_ms = self._unix_ms()

    # --- the report -------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """Return the report as plain data."""
        live = self._catalog.snapshot
        return {
            "revision": self.revision or None,
            "against": None if live is None else live.revision,
            "since_ms": self._since_ms,
            "trouble": self.trouble,
            **self.changes.document(),
            "undecided": self.undecided,
            "dropped": self.dropped,
            "unread": self.unread,
            "waiting": len(self._queue),
        }

    def routes(self) -> tuple[AdminRoute, ...]:
        """Return the admin calls."""
        return (
            AdminRoute(
                "GET",
                "/policy/shadow",
                Role.VIEWER,
                self._show,
                doc="What the candidate of `shadow` would do otherwise with the traffic since it was loaded.",
            ),
        )

    async def _show(self, call: AdminCall) -> AdminAnswer:
        return 200, self.document()
