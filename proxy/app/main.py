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
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
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
from proxy.core.audit.pruning import Ages
from proxy.core.audit.records import CHECKPOINT, Record
from proxy.core.budget.calendar import WallClock
from proxy.core.budget.prices import PriceTable
from proxy.core.config.caller_keys import CallerKeysResult
from proxy.core.config.price_table import PriceResult
from proxy.core.config.problem import CASE_FAILED, Problem, has_errors
from proxy.core.config.settings import Durability, SecretRef, Settings, endpoints_of
from proxy.core.policy.revisions import Kept, Pin, Step
from proxy.core.policy.rollout import Start
from proxy.core.redaction.detect import KNOWN_KINDS
from proxy.flow.attempts import Attempts
from proxy.flow.audit_calls import QUERY_S, AuditCalls
from proxy.flow.breaker_calls import breaker_routes
from proxy.flow.budget_calls import BudgetCalls
from proxy.flow.budgets import Budgets
from proxy.flow.callers import CallerBook
from proxy.flow.catalog import Catalog, Snapshot
from proxy.flow.checkpoints import Checkpoints
from proxy.flow.clock import SystemClock
from proxy.flow.content import ContentDelivery
from proxy.flow.delivering import Delivery
from proxy.flow.delivery import Delivery as RowDelivery
from proxy.flow.delivery import DeliveryPace
from proxy.flow.drain import drain
from proxy.flow.exchange import Exchange
from proxy.flow.fleet import Fleet
from proxy.flow.free_checks import FreeChecks
from proxy.flow.heartbeat import Heartbeat
from proxy.flow.outbox import Outbox
from proxy.flow.people import people_routes
from proxy.flow.policy_life import PolicyLife
from proxy.flow.pricing import Pricing
from proxy.flow.redactors import Redactors
from proxy.flow.relay import Relay
from proxy.flow.reload import compile_snapshot
from proxy.flow.retention import Pruner, ages_of, keep_pruning
from proxy.flow.rollout_calls import RolloutCalls
from proxy.flow.rollouts import Past, Rollouts
from proxy.flow.vitals import Vitals
from proxy.flow.waiting import WaitingLines
from proxy.server.admin import AdminDoor
from proxy.server.admin_access import Access, is_loopback_host
from proxy.server.admin_api import AdminApi
from proxy.server.body_worker import BodyWorker
from proxy.server.door import DataDoor
from proxy.server.probes import ProbeDoor, Published
from proxy.sources.caller_keys import read_caller_keys, watch_caller_keys
from proxy.sources.files import FolderSnapshot, read_policies, read_prices, watch_policies, watch_prices
from proxy.sources.policy_history import PolicyHistory
from proxy.sources.secrets import Secrets, references, usable_providers
from proxy.stores.audit_keys import content_keys
from proxy.stores.audit_reader import readers
from proxy.stores.audit_stores import dead_letters, make_signer, make_sink, open_spool
from proxy.stores.content_spool import FOLDER, ContentFolder
from proxy.stores.content_store import open_contents
from proxy.stores.memory import MemorySpool
from proxy.stores.people import open_people
from proxy.stores.retention import open_pruner
from proxy.stores.stdout_sink import plain_record
from proxy.telemetry.log import set_up
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.witness import Telemetry
from proxy.terms.admin import AdminRoute, AdminWrite
from proxy.upstream.providers import Providers

if TYPE_CHECKING:
    from proxy.flow.shadow import Shadow

POLICY_LOOK_EVERY_S = 0.5
SECRET_LOOK_EVERY_S = 5.0
WALL_CLOCK_STEP_S = 0.5
BACKGROUND_PAUSE_S = 1.0
_LAST_WORDS_S = 2.0


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
        self._loading = asyncio.Lock()
        self.wall = WallClock(time.time() - time.monotonic())  # noqa: TID251 - this is its one owner
        self.budget_store = shared_budget_store(settings, self._secrets, clock.new_id(), witness.notice)
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
        self._make_life()
        self._keys = ProviderKeys(
            self._secrets, {name: p.api_key for name, p in endpoints_of(settings.providers).items()}, time.monotonic
        )
        self.upstream = Providers(settings.providers, self._keys, time.monotonic)
        self._spool = spool = open_spool(settings.audit)
        self.probes.watch(lambda: "" if spool.is_alive else "spool writer is dead")
        self.outbox = Outbox(self._spool, settings.audit.when_full, clock.unix_ms)
        self.callers = self._caller_book()
        self.pricing = Pricing(PriceTable()) if settings.prices is not None else None
        self.shadow = self._make_shadow()
        self._load_prices()
        self.waiting = WaitingLines(time.monotonic)

    def _build_data_path(self) -> None:
        """Join the owners into what carries an exchange, from the socket to its row."""
        settings, clock, witness, callers = self._settings, self.clock, self.witness, self.callers
        # Large bodies are read one at a time: several at once would only fight for the interpreter and for memory.
        self._reader = ThreadPoolExecutor(1, "read-large-body")
        offload = partial(asyncio.get_running_loop().run_in_executor, self._reader)
        secret = None if settings.redaction_key is None else self._secrets.current(settings.redaction_key)
        hash_key = os.urandom(32) if secret is None else secret.reveal().encode()
        self._redactors = Redactors(hash_key)
        self._large = BodyWorker(hash_key, lambda error: witness.fault("body_worker", error=error))
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
            self._content_spool(),
            names=self.names,
        )
        self._heed_ends(relay)
        self.door = DataDoor(settings.server, relay, clock, witness)
        self.rows = self._row_delivery()

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
        self._caller_keys: CallerKeysResult | None = None
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
        self.life = PolicyLife(
            self.catalog,
            history,
            self._apply_kept,
            self._follow_folder,
            clock.unix_ms,
            witness,
            self.rollouts.document,
        )

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
        vitals.key_sources = key_sources(self._settings, self.tokens)
        return vitals

    def _load_prices(self) -> None:
        """Read the price table for the first time; what is wrong with it is said, and nothing has a price then."""
        if self.pricing is not None and self._settings.prices is not None:
            self._accept_prices(read_prices(self._settings.prices))

    def _accept_prices(self, result: PriceResult) -> None:
        assert self.pricing is not None
        if result.table is None:
            self.witness.notice("prices_refused", problems=[str(p) for p in result.problems if p.is_error][:5])
        else:
            self.pricing.accept(result.table)
            self.witness.notice("prices_in_force", revision=result.table.revision, rows=len(result.table.rows))

    async def _watch_prices(self) -> None:
        path = self._settings.prices
        assert path is not None
        async for result in watch_prices(path, POLICY_LOOK_EVERY_S):
            self._accept_prices(result)

    def _row_delivery(self) -> RowDelivery:
        audit = self._settings.audit
        store = audit.store
        if isinstance(store, SecretRef):
            secret = self._secrets.current(store)
            store = secret.reveal() if secret is not None else ""
        pace = DeliveryPace(max_rows=audit.sink_batch_rows, max_age_s=audit.sink_batch_wait_s)
        self._store_url = store
        self._sink = make_sink(store, may_migrate=audit.may_migrate)
        self._pruner: Pruner | None = None
        key = self._secrets.current(audit.key) if audit.key is not None else None
        signer = make_signer(audit, None if key is None else key.reveal())
        with suppress(ValueError):  # standard output keeps no rows
            self._pruner = open_pruner(store, signer)
        self.witness.notice("audit_key", key=signer.key, public=getattr(signer, "public", b"").hex())
        checkpoints = Checkpoints(signer, self.clock, self._tell_checkpoint)
        self.words = self._word_delivery()
        letters = dead_letters(audit)
        return RowDelivery(self._spool, self._sink, letters, self.clock, random.random, pace, checkpoints)

    def _content_spool(self) -> ContentFolder:
        """Return where kept words wait. Without ``audit.key`` it keeps none, and says so."""
        audit = self._settings.audit
        key = self._secrets.current(audit.key) if audit.key is not None else None
        self._content_keys = None if key is None else content_keys(key.reveal())
        self.contents = ContentFolder(audit.spool / FOLDER, self._content_keys, audit.content_max_bytes)
        return self.contents

    def _word_delivery(self) -> ContentDelivery | None:
        try:
            self._content_store = open_contents(self._store_url, self._content_keys)
        except ValueError:  # standard output: `check` refuses a policy that wants words kept
            return None
        return ContentDelivery(self.contents, self._content_store, self.clock, self.witness)

    def _tell_checkpoint(self, record: Record) -> None:
        """Say outside the store how far a chain stood: who can write there cannot take this back."""
        if record.kind == CHECKPOINT:
            self.witness.notice("audit_checkpoint", record=plain_record(record))

    def _admin_routes(self) -> list[AdminRoute]:
        """The calls of the admin API; each owner of a state brings its own."""
        routes = [
            *self.life.routes(),
            *RolloutCalls(self.rollouts).routes(),
            *(() if self.shadow is None else self.shadow.routes()),
            *breaker_routes(self.fleet, self.vitals.deployments, self.witness, time.monotonic),
            *AuditCalls(readers(self._store_url, QUERY_S), self.clock).routes(),
            *BudgetCalls(
                self.budgets,
                partial(budget_store_shown, self.budget_store, self._settings.budgets.shares),
                self._policy_of,
                readers(self._store_url, QUERY_S),
                self.clock,
            ).routes(),
        ]
        with suppress(ValueError):  # rows on standard output are whoever's who collects them
            people, contents = open_people(self._store_url), open_contents(self._store_url, self._content_keys)
            routes += people_routes(people, self.clock.unix_ms, contents)
        return routes

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

    async def load_policies(
        self, folder: FolderSnapshot, pin: Pin | None = None, by: str = "folder", why: str = ""
    ) -> list[Problem]:
        """Compile policy texts and put them in force; on any error the last good ones stay.

        ``pin`` says that these are the texts of an older revision rather than those of the policy folder.
        """
        async with self._loading:
            snapshot, problems, past, base = await asyncio.to_thread(self._compile_with_base, folder, pin)
            if snapshot is None:
                errors = _causes_first(problems)
                if pin is None:
                    self.vitals.policy_trouble = errors[0] if errors else "no policy"
                self.witness.notice("policy_refused", problems=errors[:5], more=max(0, len(errors) - 5))
                return problems
            start = self.rollouts.accept(snapshot, base, was_whole=past.was_whole, is_pinned=pin is not None, by=by)
            self.vitals.policy_trouble = ""
            failed = [str(problem) for problem in problems if problem.code == CASE_FAILED]
            if failed:
                self.witness.notice("policy_case_failed", problems=failed[:5], more=max(0, len(failed) - 5))
            await self.life.set_pin(pin)
            if start in (Start.WHOLE, Start.CANARY):
                step = Step.CANARY if start is Start.CANARY else Step.IN_FORCE
                await self.life.took(snapshot.revision, folder.files, folder.cases, by, why, step)
            await self.rollouts.keep()
            return problems

    def _compile_with_base(
        self, folder: FolderSnapshot, pin: Pin | None
    ) -> tuple[Snapshot | None, list[Problem], Past, Snapshot | None]:
        """Compile texts, and the kept revision that has to stand behind them where they are a canary."""
        snapshot, problems = self._compile(folder)
        past = Past() if snapshot is None else self.rollouts.look_back(snapshot, is_pinned=pin is not None)
        if past.base is None:
            return snapshot, problems, past, None
        kept = self.life.find(past.base)
        # Its cases held when it was put in force; one that depends on the day must not leave everybody to the canary.
        base, found = (None, []) if kept is None else self._compile(replace(self._kept_folder(kept, ""), cases=()))
        if base is None:
            errors = _causes_first(found) or ["its texts are not kept"]
            self.witness.notice("policy_base_refused", revision=past.base, problems=errors[:5])
        return snapshot, problems, past, base

    async def _apply_kept(self, kept: Kept, pin: Pin) -> list[Problem]:
        """Put an older revision in force in place of what the policy folder holds."""
        return await self.load_policies(self._kept_folder(kept, pin.digest), pin, pin.by, pin.why or "pinned")

    def _kept_folder(self, kept: Kept, digest: str) -> FolderSnapshot:
        shown = f"{self._settings.history_folder.name}/{kept.revision}"
        files, cases = ([(f"{shown}/{name}", text) for name, text in part] for part in (kept.files, kept.cases))
        return FolderSnapshot(tuple(files), digest, (), tuple(cases))

    async def _follow_folder(self, by: str, why: str) -> list[Problem]:
        folder = await asyncio.to_thread(read_policies, self._settings.policies)
        return await self.load_policies(folder, None, by, why)

    async def load_first(self) -> list[Problem]:
        """Put in force what was pinned before a restart, else what the policy folder holds."""
        remembered = await asyncio.to_thread(self.life.remembered, self._policies.digest)
        if remembered is not None:
            problems = await self._apply_kept(*remembered)
            if not has_errors(problems):
                return problems
        return await self.load_policies(self._policies, why="start")

    def _compile(self, folder: FolderSnapshot) -> tuple[Snapshot | None, list[Problem]]:
        settings, made = self._settings, self._redactors
        snapshot, problems = compile_snapshot(
            folder.files, folder.problems, settings, KNOWN_KINDS, made.build, made.build_answers
        )
        if snapshot is not None and folder.cases:
            from proxy.flow.self_test import prove  # noqa: PLC0415 - only who has cases pays for the stage

            problems += prove(
                settings, snapshot, folder.cases, MemorySpool, None if self.pricing is None else self.pricing.table
            )
        return (None if has_errors(problems) else snapshot), problems

    async def run(self) -> None:
        """Serve until a signal, then drain. Raises OSError when an address cannot be bound."""
        self._note_unusable()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        beats = loop.create_task(self._keep_up("heartbeat", self.heartbeat.run), name="heartbeat")
        if self.catalog.snapshot is None:
            await self.load_first()
        try:
            if self.budget_store is not None:
                await self.budget_store.greet()
            await self._meet_callers()
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
            "audit_retention": self._prune,
            "policy_watch": self._watch_policies,
            "policy_rollout": self.rollouts.run,
            "secret_watch": self._watch_secrets,
        }
        if self.words is not None:
            works["audit_content"] = self.words.run
        if self.shadow is not None:
            works |= {"shadow_watch": self._watch_shadow, "shadow": self.shadow.run}
        if self.pricing is not None:
            works["price_watch"] = self._watch_prices
        if self._settings.callers_file is not None:
            works["caller_watch"] = self._watch_callers
        if self.tokens is not None:
            works["jwt_keys"] = self.tokens.run
        if self.checks.is_wanted:
            works["free_checks"] = self.checks.run
        return works

    async def _drain(self) -> None:
        server = self._settings.server
        words = self.words
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
        if words is not None:
            with suppress(TimeoutError):  # what is left waits for the next start
                async with asyncio.timeout(_LAST_WORDS_S):
                    await words.flush()

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

    async def _prune(self) -> None:
        if self._pruner is None:
            await asyncio.Event().wait()
        else:
            await keep_pruning(self._pruner, self._ages, self.clock.unix_ms, self.witness, random.random)

    def _ages(self) -> Ages:
        """How long rows stay, by the policies in force."""
        snapshot = self.catalog.snapshot
        return ages_of(() if snapshot is None else snapshot.policies.policies)

    async def _watch_policies(self) -> None:
        async for folder in watch_policies(self._settings.policies, POLICY_LOOK_EVERY_S, self._policies.digest):
            self.life.folder_digest = folder.digest
            await self.load_policies(folder)

    async def _meet_callers(self) -> None:
        """Learn before the first request who may call."""
        if self._settings.callers_file is not None:
            self._accept_callers(await asyncio.to_thread(read_caller_keys, self._settings.callers_file))
        if self.tokens is not None:
            await self.tokens.refresh()

    def _accept_callers(self, result: CallerKeysResult) -> None:
        """Put caller keys in force; when something is wrong with their file the last good ones stay."""
        self._caller_keys = result
        source = self.vitals.key_sources[CALLER_KEYS]
        if result.keys is None:
            problems = [str(p) for p in result.problems if p.is_error][:5]
            source.bad(problems[0])
            self.witness.notice("callers_refused", problems=problems)
        else:
            self.callers.accept(key.as_caller() for key in result.keys)
            source.good(len(result.keys), time.monotonic())
            self.witness.notice("callers_in_force", keys=len(result.keys))

    async def _watch_callers(self) -> None:
        path = self._settings.callers_file
        assert path is not None
        async for result in watch_caller_keys(path, POLICY_LOOK_EVERY_S, self._caller_keys):
            self._accept_callers(result)

    async def _watch_shadow(self) -> None:
        shadow, folder = self.shadow, self._settings.shadow
        assert shadow is not None
        assert folder is not None
        async for found in watch_policies(folder, POLICY_LOOK_EVERY_S):
            snapshot, problems = await asyncio.to_thread(self._compile, found)
            if snapshot is None:
                errors = _causes_first(problems)
                shadow.trouble = errors[0] if errors else "no policy"
                self.witness.notice("shadow_refused", problems=errors[:5], more=max(0, len(errors) - 5))
            else:
                shadow.accept(snapshot)
                self.witness.notice("shadow_compared", revision=snapshot.revision)

    async def _watch_secrets(self) -> None:
        self._secrets.load(references(self._settings), time.monotonic())
        while True:
            await asyncio.sleep(SECRET_LOOK_EVERY_S)
            offset_s = time.time() - time.monotonic()  # noqa: TID251 - this is its one owner
            if abs(offset_s - self.wall.offset_s) > WALL_CLOCK_STEP_S:
                self.wall.offset_s = offset_s
            changed = await asyncio.to_thread(self._secrets.poll, time.monotonic())
            if changed:
                self._keys.forget()
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
        self.outbox.close_gap()
        await self._sink.close()
        self._spool.close()
        await self.admin.close()
        self._large.close()
        self._reader.shutdown(wait=False, cancel_futures=True)


def _causes_first(problems: list[Problem]) -> list[str]:
    """Return the errors; what is missing is often the consequence of what is misspelt, so that is named first."""
    return [str(p) for p in sorted(problems, key=lambda p: not p.code.startswith("unknown")) if p.is_error]
