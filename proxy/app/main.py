"""Assembly: builds each object once, joins them, runs them, and takes them down in order.

Owns the settings, the task group and the clock of the process. Every other room is given what it needs here.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
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
from proxy.flow.drain import drain
from proxy.flow.exchange import Exchange
from proxy.flow.fleet import Fleet
from proxy.flow.free_checks import FreeChecks
from proxy.flow.heartbeat import Heartbeat
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
from proxy.sources.secrets import Secrets, references, usable_providers
from proxy.telemetry.log import set_up
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.witness import Telemetry
from proxy.terms.admin import AdminRoute, AdminWrite
from proxy.upstream.providers import Providers

if TYPE_CHECKING:
    from proxy.flow.shadow import Shadow

SECRET_LOOK_EVERY_S = 5.0
WALL_CLOCK_STEP_S = 0.5
BACKGROUND_PAUSE_S = 1.0


@dataclass(slots=True)
class Started:
    """What is told when the sidecar accepts traffic."""

    data_port: int
    admin_port: int
    seconds: float
    model: str
    """A model that some route takes, for an example."""


class App:
    """One sidecar process."""

    def __init__(
        self,
        settings: Settings,
        secrets: Secrets,
        policies: FolderSnapshot,
        *,
        simulated: frozenset[str] = frozenset(),
        on_started: Callable[[Started], None] | None = None,
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._policies = policies
        self._simulated = simulated
        self._on_started = on_started
        self._began_s = time.monotonic()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
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

    # --- running ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until a signal, then drain. Raises OSError when an address cannot be bound."""
        self._note_unusable()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        beats = loop.create_task(self._keep_up("heartbeat", self.heartbeat.run), name="heartbeat")
        if self.catalog.snapshot is None:
            await self.texts.load_first()
        try:
            if self.budget_store is not None:
                await self.budget_store.greet()
            if self._caller_file is not None:
                await self._caller_file.load()
            if self.tokens is not None:
                await self.tokens.refresh()
            await self.admin.open()
            await self.door.open()
            self.vitals.is_started = True
            self._publish()
            if self._on_started is not None:
                self._on_started(
                    Started(self.door.port, self.probes.port, time.monotonic() - self._began_s, self._example_model())
                )
            async with asyncio.TaskGroup() as tasks:
                keeper = self._keep_budget_store(tasks)
                background = [
                    tasks.create_task(self._keep_up(name, work), name=name.replace("_", "-"))
                    for name, work in self._background().items()
                ]
                await self._stop.wait()
                for task in background:
                    task.cancel()
                await self._drain()
                if keeper is not None:
                    keeper.cancel()
        finally:
            beats.cancel()
            await self.close()

    def _background(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """Return what runs beside the exchanges until the drain, by name; what is not switched on is not there."""
        works: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "audit_delivery": self.rows.run,
            "audit_retention": partial(self.record.prune, self.catalog),
            "policy_watch": self.texts.watch,
            "policy_rollout": self.rollouts.run,
            "secret_watch": self._watch_secrets,
        }
        if self.record.words is not None:
            works["audit_content"] = self.record.words.run
        if self.shadow is not None:
            works |= {"shadow_watch": partial(self.texts.watch_candidate, self.shadow), "shadow": self.shadow.run}
        if self._prices is not None:
            works["price_watch"] = self._prices.watch
        if self._caller_file is not None:
            works["caller_watch"] = self._caller_file.watch
        if self.tokens is not None:
            works["jwt_keys"] = self.tokens.run
        if self.checks.is_wanted:
            works["free_checks"] = self.checks.run
        return works

    async def _drain(self) -> None:
        server = self._settings.server
        await drain(
            self.door,
            self.rows,
            self.vitals,
            self.clock,
            self.witness,
            grace_s=server.drain_grace_s,
            deadline_s=server.drain_deadline_s,
            hurry=self._hurry,
        )
        await self.record.last_words()

    def _keep_budget_store(self, tasks: asyncio.TaskGroup) -> asyncio.Task[None] | None:
        """Keep the shared counters until the last exchange has settled."""
        store = self.budget_store
        if store is None:
            return None
        return tasks.create_task(self._keep_up("budget_store", store.run), name="budget-store")

    async def _keep_up(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run background work for ever: a bug in it is reported and must not end the sidecar."""
        while True:
            try:
                await work()
            except Exception as exc:  # noqa: BLE001 - whatever it is, exchanges go on
                self.witness.fault(name, error=type(exc).__name__)
            await asyncio.sleep(BACKGROUND_PAUSE_S)

    def _example_model(self) -> str:
        snapshot = self.catalog.snapshot
        names = snapshot.policies.models("").names if snapshot is not None else ()
        return "gpt-4o-mini" if "gpt-4o-mini" in names or not names else names[0]

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()
        self.vitals.is_draining = True
        self._publish()

    def _note_unusable(self) -> None:
        usable = usable_providers(self._settings, self._secrets)
        self.vitals.unusable = {
            name: f"key not set: {provider.api_key}"
            for name, provider in self._settings.providers.items()
            if name not in usable and name not in self._simulated
        }

    async def _watch_secrets(self) -> None:
        self._secrets.load(references(self._settings), time.monotonic())
        self.upstream.read_keys()
        while True:
            await asyncio.sleep(SECRET_LOOK_EVERY_S)
            offset_s = time.time() - time.monotonic()  # noqa: TID251 - this is its one owner
            if abs(offset_s - self.wall.offset_s) > WALL_CLOCK_STEP_S:
                self.wall.offset_s = offset_s
            changed = await asyncio.to_thread(self._secrets.poll, time.monotonic())
            if changed:
                self.upstream.read_keys()
                self._note_unusable()
                self.witness.notice("secrets_changed", count=len(changed))

    async def close(self) -> None:
        """Take everything down; rows that are not in the store stay in the spool."""
        self.vitals.is_draining = True
        await self.door.close()
        await self.upstream.close()
        if self.names is not None:
            await self.names.close()
        if self.budget_store is not None:
            await self.budget_store.close()
        await self.record.close()
        await self.admin.close()
        self._large.close()
        self._reader.shutdown(wait=False, cancel_futures=True)
