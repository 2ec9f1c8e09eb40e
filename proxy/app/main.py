"""The process: starts what ``assembly`` has joined, keeps it up, heeds signals, drains, takes everything down in order.

Owns the task group and the signals.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from proxy.app.assembly import Assembly
from proxy.core.config.settings import Settings
from proxy.flow.drain import drain
from proxy.sources.files import FolderSnapshot
from proxy.sources.secrets import Secrets, references, usable_providers

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


class App(Assembly):
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
        self._began_s = time.monotonic()
        self._on_started = on_started
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        super().__init__(settings, secrets, policies, simulated=simulated)

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
        await self.values.close()
        if self.budget_store is not None:
            await self.budget_store.close()
        await self.record.close()
        await self.admin.close()
        self._large.close()
        self._reader.shutdown(wait=False, cancel_futures=True)
