"""How the sidecar is: its components, whether it is live, ready and started.

Owns since-when each component has been in its state, and the settling of readiness. Asks the other owners
and remembers only that. Liveness is the probe door's: it must not need the loop that this runs on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxy import __version__
from proxy.core.health.breaker import BreakerState
from proxy.core.health.settle import Settled
from proxy.core.policy.model import ReadinessRule
from proxy.flow.audit_ports import Condition, DeliveryState
from proxy.flow.budget_ports import BudgetStore
from proxy.flow.budgets import Budgets
from proxy.flow.catalog import Catalog, Snapshot
from proxy.flow.fleet import Fleet
from proxy.flow.free_checks import FreeChecks
from proxy.flow.heartbeat import TOLD_FROM_S, Heartbeat
from proxy.flow.key_source import KeySource
from proxy.flow.outbox import Outbox
from proxy.flow.pricing import Pricing
from proxy.flow.rollouts import Rollouts

_WORSE = {"ok": 0, "degraded": 1, "failed": 2}


class Vitals:
    """Implements what the admin door shows."""

    def __init__(
        self,
        catalog: Catalog,
        fleet: Fleet,
        budgets: Budgets,
        outbox: Outbox,
        delivery_state: Callable[[], DeliveryState],
        totals: Callable[[], dict[str, Any]],
        now_s: Callable[[], float],
        heartbeat: Heartbeat,
    ) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._budgets = budgets
        self._outbox = outbox
        self._delivery_state = delivery_state
        self._totals = totals
        self._now_s = now_s
        self._heartbeat = heartbeat
        self._since: dict[str, tuple[str, float]] = {}
        self._settled = Settled()
        self.started_at_s = now_s()
        self.is_started = False
        self.is_draining = False
        self.policy_trouble = ""
        """Why the newest policy text was refused; empty when it is in force."""
        self.unusable: dict[str, str] = {}
        """Provider -> why it cannot be used (an unset key)."""
        self.rollouts: Rollouts | None = None
        self.pricing: Pricing | None = None
        self.budget_store: BudgetStore | None = None
        """The store that shared budgets are kept in; None: they are counted in process."""
        self.simulated: frozenset[str] = frozenset()
        """Providers that the simulated provider stands in for."""
        self.checks: FreeChecks | None = None
        self.key_sources: dict[str, KeySource] = {}
        """Where callers' keys come from, by the component's name."""

    # --- probes -----------------------------------------------------------------------------------

    def started(self) -> tuple[bool, dict[str, Any]]:
        """Recovery is done and the listener is bound."""
        return self.is_started, {"status": "started" if self.is_started else "starting"}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether callers should be sent here, by the policy's readiness rule; to be asked regularly.

        What is ours (start, drain, policy, spool) acts at once. What depends on others acts when it has lasted.
        """
        snapshot = self._catalog.snapshot
        missing = self._missing_here()
        away: list[str] = []
        if snapshot is not None:
            rule = snapshot.policies.readiness
            if rule.depends_on_others:
                away = self._missing_elsewhere(snapshot, rule)
                if not self._settled.follow(not away, rule.settle_s, self._now_s()):
                    missing = [*missing, *(away or ["settling"])]
        detail: dict[str, Any] = {"status": "not ready" if missing else "ready"}
        if missing:
            detail["missing"] = missing
        elif away:
            detail["unsettled"] = away
        return not missing, detail

    def _missing_here(self) -> list[str]:
        if self.is_draining:
            return ["draining"]
        if not self.is_started:
            return ["starting"]
        snapshot = self._catalog.snapshot
        if snapshot is None:
            return ["policy"]
        is_spool_needed = "spool" in snapshot.policies.readiness.components
        return ["spool"] if is_spool_needed and self._outbox.state().condition is Condition.FAILED else []

    def _missing_elsewhere(self, snapshot: Snapshot, rule: ReadinessRule) -> list[str]:
        """Name what readiness requires of stores, providers and routes and is not well now."""
        missing = []
        if "audit_store" in rule.components and self._delivery_state().condition is not Condition.OK:
            missing.append("audit_store")
        now_s = self._now_s()
        down = self._fleet.unavailable(now_s)
        for name in sorted(rule.providers):
            own = {deployment for deployment in snapshot.deployments() if _provider_of(deployment) == name}
            if name in self.unusable or (own and own <= down) or self._failed_checks(name):
                missing.append(f"provider:{name}")
        for route in rule.routes:
            well = sum(
                deployment.provider not in self.unusable
                and deployment.name not in down
                and not self._failed_checks(deployment.provider)
                for deployment in snapshot.route_named(route.policy, route.route).deployments
            )
            if well < route.healthy:
                missing.append(f"route:{route.route} ({well} of {route.healthy} healthy)")
        return missing

    def _failed_checks(self, provider: str) -> str:
        """Why a provider is failed by its free checks; empty when it is not."""
        return "" if self.checks is None else self.checks.failed(provider)

    # --- pages ------------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """Every component with state, since when, and a reason; one aggregate."""
        components = self._components()
        worst = max((component["state"] for component in components.values()), key=_WORSE.__getitem__)
        required = {"policy", "spool"}
        is_failed = any(components[name]["state"] == "failed" for name in required)
        status = "failed" if is_failed else "ok" if worst == "ok" else "degraded"
        return {"status": status, "version": __version__, "draining": self.is_draining, "components": components}

    def _components(self) -> dict[str, dict[str, Any]]:
        rows: dict[str, dict[str, Any]] = {}
        snapshot = self._catalog.snapshot
        if snapshot is None:
            rows["policy"] = self._row("policy", "failed", self.policy_trouble or "no policy loaded")
        else:
            rows["policy"] = self._policy_row(snapshot)
        outbox = self._outbox.state()
        spool = outbox.spool
        rows["spool"] = self._row(
            "spool", outbox.condition.value, outbox.reason, used_bytes=spool.used_bytes, limit_bytes=spool.limit_bytes
        )
        delivery = self._delivery_state()
        store_state = "ok" if delivery.condition is Condition.OK else "degraded"
        rows["audit_store"] = self._row(
            "audit_store",
            store_state,
            delivery.reason,
            latency_ms=round(delivery.last_insert_ms, 2),
            waiting_rows=delivery.lag.rows,
            waiting_s=round(delivery.lag.seconds, 1),
        )
        rows["budget_store"] = self._budget_store_row()
        worst_s = self._heartbeat.worst_s()
        stalled = f"stalled for {worst_s:.1f} s in the last minute" if worst_s >= TOLD_FROM_S else ""
        rows["event_loop"] = self._row(
            "event_loop", "degraded" if stalled else "ok", stalled, latency_ms=round(self._heartbeat.lag_s * 1000, 2)
        )
        for name, source in self.key_sources.items():
            state, reason, numbers = source.row(self._now_s())
            rows[name] = self._row(name, state, reason, **numbers)
        by_provider: dict[str, list[dict[str, Any]]] = {}
        for view in self.deployments():
            by_provider.setdefault(view["provider"], []).append(view)
        for name in self._catalog.providers:
            rows[f"provider:{name}"] = self._provider_row(name, by_provider.get(name, []))
        return rows

    def _policy_row(self, snapshot: Snapshot) -> dict[str, Any]:
        rollouts = self.rollouts
        taken_back = "" if rollouts is None else rollouts.trouble
        state = "degraded" if self.policy_trouble or taken_back else "ok"
        more = {} if rollouts is None or rollouts.canary is None else {"rollout": rollouts.document()}
        told = (self.policy_trouble, taken_back, "" if rollouts is None else rollouts.summary)
        return self._row("policy", state, "; ".join(filter(None, told)), revision=snapshot.revision, **more)

    def _budget_store_row(self) -> dict[str, Any]:
        store = self.budget_store
        if store is None:
            return self._row("budget_store", "ok", "in process")
        state, reason = ("degraded", store.trouble) if store.is_open else ("ok", "")
        if store.members > store.max_sidecars:
            state, reason = (
                "degraded",
                f"members_exceed_max: {store.members} sidecars, {store.max_sidecars} allowed for",
            )
        latency_ms = round(store.latency_s * 1000.0, 2)
        return self._row("budget_store", state, reason, members=store.members, latency_ms=latency_ms)

    def budget_samples(self, what: str) -> list[tuple[tuple[str, str], float]]:
        """One sample per limit of every budget that is not counted apart."""
        return [
            ((view.budget_id, row.dimension.value), float(getattr(row, what)))
            for view in self._budgets.snapshot(self._now_s())
            if not view.partition
            for row in view.dimensions
        ]

    def _provider_row(self, name: str, views: list[dict[str, Any]]) -> dict[str, Any]:
        key = f"provider:{name}"
        if name in self.unusable:
            return self._row(key, "degraded", self.unusable[name])
        busiest = max(views, key=lambda view: int(view["attempts"]), default=None)
        more = {"latency_ms": busiest["p50_ms"]} if busiest is not None and busiest["p50_ms"] is not None else {}
        if reason := self._failed_checks(name):
            return self._row(key, "failed", reason, **more)
        is_open = [view for view in views if view["state"] == "open"]
        if views and len(is_open) == len(views):
            return self._row(key, "failed", f"circuit breaker open after {is_open[0]['last_outcome']}", **more)
        troubled = next((view for view in views if view["state"] != "closed" or view["alarm"]), None)
        if troubled is not None:
            reason = f"{troubled['deployment']}: {troubled['alarm'] or troubled['state']}"
            return self._row(key, "degraded", reason, **more)
        return self._row(key, "ok", "simulated provider" if name in self.simulated else "", **more)

    def _row(self, name: str, state: str, reason: str, **more: Any) -> dict[str, Any]:
        known = self._since.get(name)
        now_s = self._now_s()
        if known is None or known[0] != state:
            # What is seen for the first time has been so since the start, as far as anybody knows.
            known = self._since[name] = (state, self.started_at_s if known is None else now_s)
        row: dict[str, Any] = {"state": state, "for_s": round(now_s - known[1], 1)}
        if reason:
            row["reason"] = reason
        row.update(more)
        return row

    def providers(self) -> dict[str, Any]:
        """Per provider: breaker, success, latency, budgets left, last 429."""
        now_s = self._now_s()
        budgets: dict[str, list[dict[str, Any]]] = {}
        for budget in self._budgets.snapshot(now_s):
            if budget.partition:
                continue
            for dimension in budget.dimensions:
                budgets.setdefault(budget.provider or "*", []).append(
                    {
                        "budget": budget.budget_id,
                        "dimension": dimension.dimension.value,
                        "limit": dimension.limit,
                        "used": dimension.used,
                        "remaining": dimension.remaining,
                        "reset_s": round(dimension.reset_s, 1),
                        "when_exhausted": budget.when_exhausted,
                    }
                )
        rows: dict[str, Any] = {}
        views = self.deployments()
        for name in self._catalog.providers:
            own = [view for view in views if view["provider"] == name]
            busiest = max(own, key=lambda view: int(view["attempts"]), default=None)
            rows[name] = {
                "state": self._provider_row(name, own)["state"] if busiest is None else busiest["state"],
                "usable": name not in self.unusable,
                "simulated": name in self.simulated,
                "success_ratio": busiest["success_ratio"] if busiest else None,
                "p50_ms": busiest["p50_ms"] if busiest else None,
                "p95_ms": busiest["p95_ms"] if busiest else None,
                "last_outcome": busiest["last_outcome"] if busiest else None,
                "deployments": own,
                "budgets": budgets.get(name, []),
                "spent_usd": round(self.pricing.spent_usd(name), 6) if self.pricing is not None else None,
            }
            if name in self.unusable:
                rows[name]["reason"] = self.unusable[name]
            check = self.checks.shown(name) if self.checks is not None else None
            if check is not None:
                rows[name]["check"] = check
        return {"providers": rows, "budgets": budgets.get("*", [])}

    def deployments(self) -> list[dict[str, Any]]:
        """Every deployment as it stands."""
        now_s = self._now_s()
        rows = []
        for view in self._fleet.view(now_s):
            is_cooling = view.cooling_until_s is not None and view.cooling_until_s > now_s
            state = "cooling" if is_cooling and view.state is BreakerState.CLOSED else view.state.value
            retry_at_s = view.retry_at_s or (view.cooling_until_s if is_cooling else None)
            rows.append(
                {
                    "deployment": view.deployment,
                    "provider": _provider_of(view.deployment),
                    "state": state,
                    "for_s": round(now_s - view.since_s, 1) if view.since_s else None,
                    "retry_in_s": None if retry_at_s is None else round(max(0.0, retry_at_s - now_s), 2),
                    "attempts": view.attempts,
                    "success_ratio": view.success_ratio,
                    "p50_ms": view.p50_ms,
                    "p95_ms": view.p95_ms,
                    "last_429_s_ago": None if view.last_429_s is None else round(now_s - view.last_429_s, 1),
                    "consecutive_failures": view.consecutive_failures,
                    "last_outcome": view.last_outcome.value if view.last_outcome else None,
                    "alarm": view.alarm.value if view.alarm else None,
                    **({"variant_of": view.variant_of} if view.variant_of else {}),
                }
            )
        return rows

    def open_breakers(self) -> list[tuple[tuple[str], float]]:
        """One sample per deployment: 1 while its breaker, or that of one of its models, is not closed."""
        is_open: dict[str, bool] = {}
        for view in self._fleet.view(self._now_s()):
            name = view.variant_of or view.deployment
            is_open[name] = is_open.get(name, False) or view.state is not BreakerState.CLOSED
        return [((name,), float(value)) for name, value in is_open.items()]

    def opened_breakers(self) -> list[tuple[tuple[str], float]]:
        """One sample per deployment: how often its breaker, or that of one of its models, has opened."""
        opened: dict[str, float] = {}
        for view in self._fleet.view(self._now_s()):
            name = view.variant_of or view.deployment
            opened[name] = opened.get(name, 0.0) + view.opened_count
        return [((name,), count) for name, count in opened.items()]

    def summary(self) -> dict[str, Any]:
        """What the status page shows on top."""
        snapshot = self._catalog.snapshot
        revision = snapshot.revision if snapshot is not None else "none"
        uptime_s = int(self._now_s() - self.started_at_s)
        about = f"version {__version__}, policy revision {revision}, up {uptime_s} s"
        return {"about": about, "traffic": self._totals()}


def _provider_of(deployment: str) -> str:
    """Return the provider of ``provider:model`` or ``provider/key:model``."""
    return deployment.partition(":")[0].partition("/")[0]
