"""Assembly: builds each object of a process once and joins them; nothing here waits or touches the network.

Owns the settings and the clock of the process. Every other room is given what it needs here; what runs them, and takes
them down in order, is ``main``.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from proxy.app.gauges import add_gauges
from proxy.app.parts import (
    CALLER_KEYS,
    ProviderKeys,
    admin_credentials,
    budget_store_shown,
    key_sources,
    names_service,
    shared_budget_store,
    token_verifier,
    value_store,
)
from proxy.app.policy_texts import PolicyTexts
from proxy.app.record import AuditRecord
from proxy.app.watched_files import CallersFile, PriceFile
from proxy.core.budget.calendar import WallClock
from proxy.core.budget.prices import PriceTable
from proxy.core.config.settings import Durability, Settings, endpoints_of
from proxy.flow.attempts import Attempts
from proxy.flow.breaker_calls import breaker_routes
from proxy.flow.budget_calls import BudgetCalls
from proxy.flow.budgets import Budgets
from proxy.flow.callers import CallerBook
from proxy.flow.catalog import Catalog
from proxy.flow.clock import SystemClock
from proxy.flow.delivering import Delivery
from proxy.flow.exchange import Exchange
from proxy.flow.fleet import Fleet
from proxy.flow.free_checks import FreeChecks
from proxy.flow.heartbeat import Heartbeat
from proxy.flow.kept_values import KeptValues
from proxy.flow.policy_life import PolicyLife
from proxy.flow.pricing import Pricing
from proxy.flow.redactors import Redactors
from proxy.flow.relay import Relay
from proxy.flow.rollout_calls import RolloutCalls
from proxy.flow.rollouts import Rollouts
from proxy.flow.vitals import Vitals
from proxy.flow.waiting import WaitingLines
from proxy.server.admin import AdminDoor
from proxy.server.admin_access import Access, is_loopback_host
from proxy.server.admin_api import AdminApi
from proxy.server.body_worker import BodyWorker
from proxy.server.door import DataDoor
from proxy.server.probes import ProbeDoor, Published
from proxy.sources.files import FolderSnapshot
from proxy.sources.policy_history import PolicyHistory
from proxy.sources.secrets import Secrets
from proxy.telemetry.log import set_up
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.witness import Telemetry
from proxy.terms.admin import AdminRoute, AdminWrite
from proxy.upstream.providers import Providers

if TYPE_CHECKING:
    from proxy.flow.shadow import Shadow


class Assembly:
    """The objects of one sidecar process."""

    def __init__(
        self, settings: Settings, secrets: Secrets, policies: FolderSnapshot, *, simulated: frozenset[str] = frozenset()
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._policies = policies
        self._simulated = simulated
        set_up(settings.log)
        # From here on probes have somebody to ask: what a spool holds after a crash may take long to go through.
        self.probes = ProbeDoor(settings.server.admin)
        self.probes.open()
        self.names = names_service(settings, self._secrets)
        try:
            self._build()
        except BaseException:
            self.probes.close()
            raise

    def _build(self) -> None:
        """Make every object; nothing here touches the network."""
        self._build_owners()
        self._build_data_path()
        self._build_surroundings()

    def _build_owners(self) -> None:
        """Make the owners of live state: policies, budgets, health, provider connections, the spool."""
        settings = self._settings
        self.clock = clock = SystemClock(time.monotonic, time.time, os.urandom)  # noqa: TID251 - this is its one owner
        self.metrics = Metrics()
        self.witness = witness = Telemetry(self.metrics)
        self.catalog = Catalog(settings.providers)
        self.wall = WallClock(time.time() - time.monotonic())  # noqa: TID251 - this is its one owner
        self.budget_store = shared_budget_store(settings, self._secrets, clock.stamp()[0], witness.notice)
        self.budgets = Budgets(
            central=self.budget_store,
            shares=settings.budgets.shares,
            wall=self.wall,
            started_s=time.monotonic(),
            boost_after_s=settings.budgets.boost_after_s,
        )
        if self.budget_store is not None:
            self.budget_store.on_back = self.budgets.store_is_back
        self.fleet = Fleet(random.random)
        secret = None if settings.redaction_key is None else self._secrets.current(settings.redaction_key)
        self._hash_key = os.urandom(32) if secret is None else secret.reveal().encode()
        self.values = KeptValues(
            value_store(settings, self._secrets, self._hash_key), self._hash_key, time.monotonic, random.random
        )
        self.pricing = Pricing(PriceTable()) if settings.prices is not None else None
        self._make_life()
        keys = ProviderKeys(
            self._secrets, {name: p.api_key for name, p in endpoints_of(settings.providers).items()}, time.monotonic
        )
        self.upstream = Providers(settings.providers, keys, time.monotonic)
        self.record = record = AuditRecord(settings, self._secrets, clock, witness)
        self.probes.watch(lambda: "" if record.spool.is_alive else "spool writer is dead")
        self.outbox, self.rows, self.contents = record.outbox, record.rows, record.contents
        self.callers = self._caller_book()
        self.shadow = self._make_shadow()
        self._prices: PriceFile | None = None
        if settings.prices is not None and self.pricing is not None:
            self._prices = PriceFile(settings.prices, self.pricing, witness)
            self._prices.load()
        self.waiting = WaitingLines(time.monotonic)

    def _build_data_path(self) -> None:
        """Join the owners into what carries an exchange, from the socket to its row."""
        settings, clock, witness, callers = self._settings, self.clock, self.witness, self.callers
        # Large bodies are read one at a time: several at once would only fight for the interpreter and for memory.
        self._reader = ThreadPoolExecutor(1, "read-large-body")
        offload = partial(asyncio.get_running_loop().run_in_executor, self._reader)
        self._large = BodyWorker(self._hash_key, lambda error: witness.fault("body_worker", error=error))
        is_fsync = settings.audit.durability is Durability.FSYNC
        delivery = Delivery(
            self.upstream,
            self.outbox,
            time.monotonic,
            callers.demands_key,
            is_fsync,
            settings.server.max_body_bytes,
            offload,
            self._large,
        )
        self.attempts = Attempts(
            self.fleet,
            self.budgets,
            self.upstream,
            delivery,
            clock,
            witness,
            random.random,
            settings.server.max_body_bytes,
            self.waiting,
            self.pricing,
        )
        relay = Relay(
            self.catalog,
            callers,
            self.attempts,
            self.outbox,
            clock,
            witness,
            self._large,
            is_fsync,
            self.contents,
            values=self.values,
            names=self.names,
        )
        self._heed_ends(relay)
        self.door = DataDoor(settings.server, relay, clock, witness)

    def _build_surroundings(self) -> None:
        """Make what watches, shows and commands the rest: checks, heartbeat, metrics, the admin door."""
        settings, witness = self._settings, self.witness
        self.checks = FreeChecks(settings.providers, self.upstream, self.fleet, witness, time.monotonic, random.random)
        self.heartbeat = Heartbeat(time.monotonic, self._publish, witness)
        self.vitals = self._make_vitals()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self.metrics)
        add_gauges(self)
        access = Access(
            partial(admin_credentials, settings, self._secrets),
            is_loopback_host(settings.server.admin.host),
            time.monotonic,
            self.callers.holder,
        )
        api = AdminApi(
            self._admin_routes(),
            access,
            on_write=self._note_write,
            on_fault=lambda path, kind: witness.fault("admin_call", path=path, error=kind),
        )
        self.admin = AdminDoor(settings.server.admin, self.probes, self.vitals, self._registry, access, api)

    def _caller_book(self) -> CallerBook:
        """Return the book of callers; keys of a file come into it when the process runs."""
        self.tokens = token_verifier(self._settings, self.witness.notice)
        book = CallerBook(
            self._settings.callers,
            demands_key=self._settings.knows_callers,
            unix_s=time.time,  # noqa: TID251 - this is its one owner
            tokens=self.tokens,
        )
        if self.tokens is not None:
            self.tokens.on_change = book.forget
        return book

    def _make_life(self) -> None:
        """Make what knows the revisions: the rollout, and the pin."""
        history = PolicyHistory(self._settings.history_folder)
        clock, witness = self.clock, self.witness
        self.rollouts = Rollouts(
            self.catalog, self.budgets, self.fleet, history, witness, time.monotonic, clock.unix_ms
        )
        self.texts = texts = PolicyTexts(
            self._settings,
            self._policies,
            Redactors(self._hash_key),
            self.pricing,
            self.rollouts,
            witness,
            self._note_policy_trouble,
        )
        self.life = texts.life = PolicyLife(
            self.catalog, history, texts.apply_kept, texts.follow, clock.unix_ms, witness, self.rollouts.document
        )

    def _note_policy_trouble(self, words: str) -> None:
        self.vitals.policy_trouble = words

    def _heed_ends(self, relay: Relay) -> None:
        """Tell whoever is there of the ends of exchanges: the candidate always, the rollout while one is under way.

        The candidate is held against the revision in force for everybody; what the canary has decided is not told to it.
        """
        rollouts, shadow = self.rollouts, self.shadow
        told_shadow = None if shadow is None else shadow.ended

        def told_both(exchange: Exchange) -> None:
            if rollouts.ended(exchange) and told_shadow is not None:
                told_shadow(exchange)

        def heed(is_on: bool) -> None:
            relay.ended = told_both if is_on else told_shadow

        rollouts.heed = heed
        heed(False)

    def _make_shadow(self) -> Shadow | None:
        if self._settings.shadow is None:
            return None
        from proxy.flow.shadow import Shadow  # noqa: PLC0415 - only who compares policies pays for it

        pricing = self.pricing
        return Shadow(
            self.catalog, lambda: None if pricing is None else pricing.table, time.monotonic, self.clock.unix_ms
        )

    def _make_vitals(self) -> Vitals:
        vitals = Vitals(
            self.catalog,
            self.fleet,
            self.budgets,
            self.outbox,
            self.rows.state,
            self._totals,
            time.monotonic,
            self.heartbeat,
        )
        vitals.checks = self.checks
        vitals.simulated = self._simulated
        vitals.budget_store = self.budget_store
        vitals.pricing = self.pricing
        vitals.rollouts = self.rollouts
        sources = vitals.key_sources = key_sources(self._settings, self.tokens)
        path = self._settings.callers_file
        self._caller_file = (
            None if path is None else CallersFile(path, self.callers, sources[CALLER_KEYS], self.witness, self.clock)
        )
        return vitals

    def _admin_routes(self) -> list[AdminRoute]:
        """The calls of the admin API; each owner of a state brings its own."""
        return [
            *self.life.routes(),
            *RolloutCalls(self.rollouts).routes(),
            *(() if self.shadow is None else self.shadow.routes()),
            *breaker_routes(self.fleet, self.vitals.deployments, self.witness, time.monotonic),
            *self.record.routes(),
            *BudgetCalls(
                self.budgets,
                partial(budget_store_shown, self.budget_store, self._settings.budgets.shares),
                self._policy_of,
                self.record.open_reader,
                self.clock,
            ).routes(),
        ]

    def _policy_of(self, app: str) -> str | None:
        snapshot = self.catalog.snapshot
        return None if snapshot is None else snapshot.policies.policy_of(app)

    def _note_write(self, write: AdminWrite) -> None:
        """Every admin call that was to change something leaves a trace."""
        self.witness.notice("admin_write", **asdict(write))

    def _publish(self) -> None:
        """Tell the probe thread how things are, and that the loop turns."""
        self.probes.publish(Published(self.vitals.ready(), self.vitals.started(), time.monotonic()))

    def _totals(self) -> dict[str, Any]:
        return {
            **self.metrics.totals(),
            "live": self.door.live_exchanges,
            "callers_connected": self.door.open_connections,
            "own_p95_ms": self.metrics.own_quantile_ms(0.95),
        }
