"""The admin call that shows budgets: limit, used, held, left, reset, who used it; all of them, or an app's own.

Owns no state: sums belong to ``Budgets``, the shared ones to its store, and who used what is read from the audit.
Knows no HTTP; the admin door turns answers into it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final

from proxy.core.audit.query import RowFilter, parse_filter
from proxy.core.budget.dimensions import NANO_USD, UNITS, Dimension, Unit
from proxy.core.policy.globs import compile_glob, is_glob
from proxy.core.policy.model import BudgetRule
from proxy.flow.audit_reading import AuditReader, Record
from proxy.flow.budgets import Budgets, BudgetView, DimensionView
from proxy.flow.ports import Clock
from proxy.terms.admin import Actor, AdminAnswer, AdminCall, AdminRoute, Refused, Role
from proxy.terms.errors import QueryTooSlow, SinkUnavailable

MOST_SHOWN: Final = 1000
"""Budgets in one answer; a rule that counts users apart may have more."""
MOST_APPS: Final = 10
OTHERS: Final = "(others)"
_MOST_WHO: Final = 31 * 86_400.0
_GROUPS: Final = ("policy", "provider", "model_served", "route", "app")


class BudgetCalls:
    """Answers ``GET /api/v1/budgets``."""

    def __init__(
        self,
        budgets: Budgets,
        store: Callable[[], dict[str, Any]],
        policy_of: Callable[[str], str | None],
        open_reader: Callable[[], AuditReader] | None,
        clock: Clock,
    ) -> None:
        """Take the owner of the sums, and the ways to what belongs to others.

        Args:
            budgets: The owner.
            store: Says how the store of shared budgets is.
            policy_of: The name of the policy that an app is under.
            open_reader: Makes a reader of the audit; None where the store cannot be read back.
            clock: The time.
        """
        self._budgets = budgets
        self._store = store
        self._policy_of = policy_of
        self._open_reader = open_reader
        self._clock = clock
        self._one_reader = asyncio.Lock()

    def routes(self) -> tuple[AdminRoute, ...]:
        """Return the table of calls."""
        return (
            AdminRoute(
                "GET",
                "/budgets",
                Role.CALLER,
                self._list,
                ("budget", "provider", "who"),
                doc="Budgets with limit, used, held, left and reset; a caller key sees its own app's.",
            ),
        )

    async def _list(self, call: AdminCall) -> AdminAnswer:
        asked = call.query
        since: RowFilter | Refused | None = None
        if "who" in asked:
            since = _since(asked["who"], datetime.fromtimestamp(self._clock.unix_ms() / 1000, UTC))
        if isinstance(since, Refused):
            return since
        await self._budgets.refresh()
        rules = {rule.id: rule for rule in self._budgets.rules()}
        wanted = [
            view
            for view in self._budgets.snapshot(self._clock.monotonic_s())
            if asked.get("budget", view.budget_id) == view.budget_id
            and asked.get("provider", view.provider) == view.provider
            and self._may_see(call.actor, rules[view.budget_id], view)
        ]
        shown = wanted[:MOST_SHOWN]
        used = await self._used_by(since) if since is not None else None
        if isinstance(used, Refused):
            return used
        held = self._budgets.held()
        budgets = [_budget(view, rules[view.budget_id], held, used, call.actor) for view in shown]
        document: dict[str, Any] = {"budgets": budgets, "not_shown": len(wanted) - len(shown)}
        if call.actor.role is not Role.CALLER:
            document["store"] = self._store()
        return 200, document

    def _may_see(self, actor: Actor, rule: BudgetRule, view: BudgetView) -> bool:
        """An app sees the budgets of its policy that count for it, and of those that count apart only its own share."""
        if actor.role is not Role.CALLER:
            return True
        if rule.id.partition("/")[0] != self._policy_of(actor.app) or not _fits(rule.app, actor.app):
            return False
        if rule.caller not in (None, actor.name):
            return False
        whose = dict(view.partition)
        if "user" in whose and "app" not in whose:
            return False  # people of other apps are counted here, too
        return whose.get("app", actor.app) == actor.app and whose.get("caller", actor.name) == actor.name

    async def _used_by(self, since: RowFilter) -> list[Record] | Refused:
        """Return what each app used, from the audit."""
        if self._open_reader is None:
            return Refused(503, "audit_store_unavailable", "This audit store cannot be read back, so nobody knows who.")
        async with self._one_reader:
            reader = self._open_reader()
            try:
                return await reader.sums(since, _GROUPS)
            except QueryTooSlow:
                return Refused(504, QueryTooSlow.code, "The audit store did not answer in time; ask for less time.")
            except SinkUnavailable:
                return Refused(503, "audit_store_unavailable", "The audit store does not answer; /health says why.")
            finally:
                await reader.close()


def _since(text: str, now: datetime) -> RowFilter | Refused:
    try:
        wanted = parse_filter({"since": text}, now)
    except ValueError as exc:
        return Refused(400, "bad_request", f"who: {str(exc).partition(': ')[2]}", "who")
    moment = wanted.conditions[0].value
    if not isinstance(moment, datetime) or (now - moment).total_seconds() > _MOST_WHO:
        return Refused(400, "bad_request", "who: expected at most 31d", "who")
    return wanted


def _fits(pattern: str | None, name: str) -> bool:
    if pattern is None or pattern == name:
        return True
    return is_glob(pattern) and compile_glob(pattern).match(name) is not None


def _budget(
    view: BudgetView,
    rule: BudgetRule,
    held: dict[tuple[str, tuple[tuple[str, str], ...], Dimension], int],
    used: list[Record] | None,
    actor: Actor,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "budget": view.budget_id,
        "provider": view.provider,
        "for": dict(view.partition),
        "when_exhausted": view.when_exhausted,
        "limits": [
            _limit(one, held.get((view.budget_id, view.partition, one.dimension), 0)) for one in view.dimensions
        ],
    }
    if used is not None:
        whose = dict(view.partition)
        only = actor.app if actor.role is Role.CALLER else whose.get("app")
        row["used_by"] = _top(record for record in used if _counts(rule, record, whose, only))
    return row


def _limit(one: DimensionView, held: int) -> dict[str, Any]:
    """Return a limit as JSON. Cost is in US dollars; everything else in whole requests, tokens or slots."""
    scale = NANO_USD if UNITS[one.dimension] is Unit.COST else 1

    def shown(amount: int) -> float:
        return amount / scale if scale > 1 else amount

    return {
        "dimension": one.dimension.value,
        "limit": shown(one.limit),
        "used": shown(one.used),
        "reserved": shown(held),
        "remaining": shown(one.remaining),
        "reset_s": round(one.reset_s, 3),
    }


def _counts(rule: BudgetRule, record: Record, whose: dict[str, str], app: str | None) -> bool:
    return (
        record["policy"] == rule.id.partition("/")[0]
        and rule.provider in (None, record["provider"])
        and rule.route in (None, record["route"])
        and _fits(rule.app, record["app"] or "")
        and _fits(rule.model, record["model_served"] or "")
        and whose.get("provider", record["provider"]) == record["provider"]
        and whose.get("route", record["route"]) == record["route"]
        and whose.get("model", record["model_served"]) == record["model_served"]
        and app in (None, record["app"] or "")
    )


def _top(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Return what the busiest apps used, and all others together."""
    by_app: dict[str, dict[str, Any]] = {}
    for record in records:
        row = by_app.setdefault(record["app"] or "", {"requests": 0, "tokens": 0, "cost_usd": 0.0})
        row["requests"] += record["exchanges"]
        row["tokens"] += record["tokens_in"] + record["tokens_out"]
        row["cost_usd"] += float(record["cost_usd"])
    ordered = sorted(by_app.items(), key=lambda item: (-item[1]["tokens"], -item[1]["requests"], item[0]))
    rows = [{"app": app, **figures} for app, figures in ordered[:MOST_APPS]]
    rest = [figures for _, figures in ordered[MOST_APPS:]]
    if rest:
        rows.append({"app": OTHERS, **{name: sum(one[name] for one in rest) for name in rest[0]}})
    return rows
