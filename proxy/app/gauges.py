"""Gauges of state that others own, read when somebody scrapes.

Owns their names and meanings. Nothing is computed between two scrapes; label values come from configuration only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from proxy.flow.pricing import Pricing
from proxy.telemetry.metrics import Sample

if TYPE_CHECKING:
    from proxy.app.assembly import Assembly
    from proxy.flow.key_source import KeySource
    from proxy.flow.names import Names
    from proxy.flow.shadow import Shadow

One = Callable[[Callable[[], float]], Callable[[], list[Sample]]]


def add_gauges(app: Assembly) -> None:
    """Let the scrape read state that others own."""
    add = app.metrics.add_gauges

    def one(read: Callable[[], float]) -> Callable[[], list[Sample]]:
        return lambda: [((), read())]

    add("live_exchanges", "Exchanges now.", (), one(lambda: app.door.live_exchanges))
    add("caller_connections", "Caller connections now.", (), one(lambda: app.door.open_connections))
    add("provider_connections", "Provider connections now.", (), one(lambda: app.upstream.open_connections))
    add("open_reservations", "Budget reservations now.", (), one(lambda: app.budgets.open_reservations))
    _add_budget_gauges(app, one)
    if app.shadow is not None:
        _add_shadow_gauges(app, app.shadow, one)
    if app.names is not None:
        _add_names_gauges(app, one, app.names)
    _add_value_gauges(app, one)
    _add_rollout_gauges(app, one)
    if app.vitals.key_sources:
        _add_key_gauges(app)
    add("policy_generation", "Policy snapshots put in force.", (), one(lambda: app.catalog.generation))
    add("audit_waiting_rows", "Rows not yet in the store.", (), one(lambda: app.rows.state().lag.rows))
    add("audit_waiting_bytes", "Bytes not yet in the store.", (), one(lambda: app.rows.state().lag.bytes))
    add("audit_waiting_seconds", "Age of the oldest such row.", (), one(lambda: app.rows.state().lag.seconds))
    add("audit_spool_bytes", "Bytes of the spool on disk.", (), one(lambda: app.outbox.state().spool.used_bytes))
    add("audit_rows_kept", "Rows spooled.", (), one(lambda: app.outbox.state().kept_rows), is_counter=True)
    add("audit_rows_shed", "Rows given up.", (), one(lambda: app.outbox.state().shed_rows), is_counter=True)
    add(
        "audit_rows_delivered",
        "Rows the store has taken.",
        (),
        one(lambda: app.rows.state().delivered_rows),
        is_counter=True,
    )
    add(
        "audit_dead_letters",
        "Rows the store refused for what they hold.",
        (),
        one(lambda: app.rows.state().dead_letters),
        is_counter=True,
    )
    words = app.contents.state
    add("audit_content_waiting", "Exchanges whose kept words wait.", (), one(lambda: words().waiting))
    add("audit_content_waiting_bytes", "Disk they take.", (), one(lambda: words().waiting_bytes))
    add("audit_content_unreadable", "Of them sealed with another key.", (), one(lambda: words().unreadable))
    add("audit_content_kept", "Exchanges whose words were kept.", (), one(lambda: words().kept), is_counter=True)
    add("audit_content_lost", "Whose words could not be.", (), one(lambda: words().lost), is_counter=True)
    add("breaker_open", "1 while a deployment's breaker is not closed.", ("deployment",), app.vitals.open_breakers)
    add("breaker_opened", "Times it opened.", ("deployment",), app.vitals.opened_breakers, is_counter=True)
    add("loop_lag_seconds", "How late the event loop's last beat was.", (), one(lambda: app.heartbeat.lag_s))
    add("loop_stalls", "Beats over 0.1 s late.", (), one(lambda: app.heartbeat.stalls), is_counter=True)
    add(
        "loop_stalled_seconds",
        "Time lost in such stalls.",
        (),
        one(lambda: app.heartbeat.stalled_s),
        is_counter=True,
    )
    add("component_ok", "1 while a component is ok.", ("component",), partial(_component_samples, app))


def _add_key_gauges(app: Assembly) -> None:
    """Show where callers' keys come from."""
    add, sources, label = app.metrics.add_gauges, app.vitals.key_sources, ("source",)

    def each(read: Callable[[KeySource], float]) -> Callable[[], list[Sample]]:
        return lambda: [((name,), read(source)) for name, source in sources.items()]

    add("caller_key_source_keys", "Keys in force, by where they come from.", label, each(lambda one: one.keys))
    add(
        "caller_key_source_age_seconds",
        "Since they were last read well.",
        label,
        each(lambda one: one.age_s(monotonic())),
    )
    add(
        "caller_key_source_refused",
        "Looks that could not be used.",
        label,
        each(lambda one: one.refused),
        is_counter=True,
    )


def _add_names_gauges(app: Assembly, one: One, names: Names) -> None:
    """Show how the names service does."""
    add = app.metrics.add_gauges
    add("names_calls", "Calls to the names service.", (), one(lambda: names.calls), is_counter=True)
    add("names_failures", "Requests it did not answer for.", (), one(lambda: names.failures), is_counter=True)
    add("names_passed", "Requests that passed without it.", (), one(lambda: names.passed), is_counter=True)
    add("names_refused", "Requests refused without it.", (), one(lambda: names.refused), is_counter=True)
    add(
        "names_remembered",
        "Texts it was not asked about again.",
        (),
        one(lambda: names.remembered),
        is_counter=True,
    )
    add("names_wait_seconds", "Time requests waited for it.", (), one(lambda: names.seconds), is_counter=True)
    add("names_open", "1 while it is left alone after failures.", (), one(lambda: float(names.is_open)))


def _add_value_gauges(app: Assembly, one: One) -> None:
    """Show how values fare between the turns of conversations."""
    add, values = app.metrics.add_gauges, app.values
    kept, recalled, failures = one(lambda: values.kept), one(lambda: values.recalled), one(lambda: values.failures)
    add("values_kept", "Values given to the store for later turns.", (), kept, is_counter=True)
    add("values_recalled", "Values of earlier turns that came from it.", (), recalled, is_counter=True)
    add("values_failures", "Times it did not answer, or there were too many.", (), failures, is_counter=True)
    add("values_open", "1 while it is left alone after failures.", (), one(lambda: float(values.is_open)))


def _add_budget_gauges(app: Assembly, one: One) -> None:
    """Show the budgets, and their store where there is one."""
    add, store, budgets = app.metrics.add_gauges, app.budget_store, app.budgets
    labels = ("budget", "dimension")
    add("budget_limit", "Limit of a budget.", labels, lambda: app.vitals.budget_samples("limit"))
    add("budget_used", "Used of it, as last heard of.", labels, lambda: app.vitals.budget_samples("used"))
    unpriced, unbounded = one(lambda: budgets.unpriced), one(lambda: budgets.unbounded)
    add("budget_unpriced", "Attempts without a price, under a limit of cost.", (), unpriced, is_counter=True)
    add("budget_unbounded", "Attempts let pass uncounted in an outage.", (), unbounded, is_counter=True)
    observed = one(lambda: budgets.observed)
    add(
        "budget_observed",
        "Attempts a budget would have refused, under mode: observe.",
        (),
        observed,
        is_counter=True,
    )
    add("budget_waiting", "Exchanges that wait in line now.", (), one(lambda: app.waiting.waiting))
    waited, gave_up = one(lambda: app.waiting.waited), one(lambda: app.waiting.gave_up)
    add("budget_waited", "Exchanges that waited and got room.", (), waited, is_counter=True)
    add("budget_waited_in_vain", "Exchanges whose wait was in vain.", (), gave_up, is_counter=True)
    if app.pricing is not None:
        _add_price_gauges(app, app.pricing)
    if store is None:
        return
    add("budget_store_members", "Sidecars that share the budgets.", (), one(lambda: store.members))
    add("budget_store_up", "1 while the budget store is asked.", (), one(lambda: not store.is_open))
    add("budget_store_round_trips", "Commands sent.", (), one(lambda: store.round_trips), is_counter=True)
    add("budget_store_operations", "Operations in them.", (), one(lambda: store.operations), is_counter=True)
    add("budget_store_given_up", "Settlements lost in an outage.", (), one(lambda: store.given_up), is_counter=True)
    add("budget_store_failures", "Commands without an answer.", (), one(lambda: store.failures), is_counter=True)


def _add_rollout_gauges(app: Assembly, one: One) -> None:
    """Show the canary beside the revision before it; the counts begin anew with each step."""
    add, rollouts = app.metrics.add_gauges, app.rollouts
    add("rollout_share", "Share of exchanges that use the canary; 0 without one.", (), one(lambda: rollouts.share))
    add(
        "rollout_exchanges", "Exchanges of this step, by `canary` and `stable`.", ("revision",),
        lambda: [((whose,), float(counts.exchanges)) for whose, counts in rollouts.counts().items()],
    )  # fmt: skip
    add(
        "rollout_errors", "Of these, errors.", ("revision",),
        lambda: [((whose,), float(counts.errors)) for whose, counts in rollouts.counts().items()],
    )  # fmt: skip
    add(
        "rollout_refusals", "Of these, refusals by policy.", ("revision",),
        lambda: [((whose,), float(counts.refusals)) for whose, counts in rollouts.counts().items()],
    )  # fmt: skip
    add(
        "rollouts", "Rollouts `started`, and how they ended: `promoted`, `taken_back`, `replaced`.", ("result",),
        lambda: [((result,), float(count)) for result, count in rollouts.results.items()], is_counter=True,
    )  # fmt: skip


def _add_shadow_gauges(app: Assembly, shadow: Shadow, one: One) -> None:
    """Show what the candidate would change; the counts begin anew with each candidate."""
    add = app.metrics.add_gauges
    add("shadow_exchanges", "Exchanges compared.", (), one(lambda: shadow.changes.exchanges))
    add("shadow_changed", "Of these, those that would differ.", (), one(lambda: shadow.changes.changed))
    add("shadow_dropped", "Exchanges not compared, for want of room.", (), one(lambda: shadow.dropped))
    add(
        "shadow_unread",
        "Exchanges compared by their facts alone: uploads and large bodies.",
        (),
        one(lambda: shadow.unread),
    )


def _add_price_gauges(app: Assembly, pricing: Pricing) -> None:
    add = app.metrics.add_gauges
    labels = ("provider",)
    add(
        "spent_usd", "US dollars spent, by the price table.", labels,
        lambda: [((name,), pricing.spent_usd(name)) for name in pricing.spent], is_counter=True,
    )  # fmt: skip
    add(
        "unknown_price", "Attempts whose model has no price.", labels,
        lambda: [((name,), float(count)) for name, count in pricing.unknown.items()], is_counter=True,
    )  # fmt: skip


def _component_samples(app: Assembly) -> list[Sample]:
    components = app.vitals.health()["components"]
    return [((name,), float(row["state"] == "ok")) for name, row in components.items()]
