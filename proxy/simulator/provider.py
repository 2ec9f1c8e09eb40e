"""The simulated provider as a whole: listeners, the keep-alive clock, start and stop.

Owns the sockets. What is said on them is the connections' affair.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from proxy.simulator.admin import close_idle
from proxy.simulator.bench import BenchConnection, BenchScript
from proxy.simulator.connection import Connection
from proxy.simulator.faults import FaultBoard, parse_fault, parse_step
from proxy.simulator.journal import Journal
from proxy.simulator.settings import Settings
from proxy.simulator.world import World

_BACKLOG = 1024


class SimulatedProvider:
    """A provider on a loopback port; use as an async context manager or with ``start`` and ``stop``.

    Raises:
        BadSetting: ``settings.fault`` is no fault.
        OSError: The port is taken (from ``start``), or the journal file cannot be opened.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        self.settings = settings
        sink = open(settings.journal_path, "ab", buffering=0) if settings.journal_path else None  # noqa: SIM115 - closed by stop()
        journal = Journal(settings.journal_entries, settings.journal_body_bytes, settings.journal_total_bytes, sink)
        self.world = World(settings, settings.speech, journal, FaultBoard(parse_fault(settings.fault)))
        self.world.close_listener = self.close_listener
        self.journal = journal
        self.board = self.world.board
        self.port = settings.port
        self.admin_port: int | None = None
        self._server: asyncio.Server | None = None
        self._admin: asyncio.Server | None = None
        self._reopening: asyncio.TimerHandle | None = None
        self._reaper: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None

    @property
    def origin(self) -> str:
        """``http://host:port``."""
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"http://{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """The base URL of the OpenAI-shaped API."""
        return f"{self.origin}/v1"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None,
                        trace: TracebackType | None) -> None:  # fmt: skip
        await self.stop()

    async def start(self) -> None:
        """Open the listeners; afterwards ``port`` is the real one."""
        await self.open_listener()
        if self.settings.admin_port is not None:
            self._admin = await self._listen(lambda: Connection(self.world, "admin"), self.settings.admin_port)
            self.admin_port = _port_of(self._admin)
        self._look_for_idle()

    async def stop(self) -> None:
        """Close listeners and connections and wait until the connections are gone (at most a second)."""
        for timer in (self._reaper, self._reopening):
            if timer is not None:
                timer.cancel()
        if self._opening is not None:
            self._opening.cancel()
        for server in (self._server, self._admin):
            if server is not None:
                server.close()
        self._server = self._admin = None
        for connection in list(self.world.connections):
            connection.close_now("reset")
        until_s = time.monotonic() + 1.0
        while self.world.connections and time.monotonic() < until_s:  # noqa: ASYNC110 - at most a second, at the end
            await asyncio.sleep(0.005)
        self.journal.close()

    async def open_listener(self) -> None:
        """Accept connections (again), on the port used before."""
        if self._server is None:
            self._server = await self._listen(self._protocol_factory(), self.port)
            self.port = _port_of(self._server)

    def close_listener(self, for_s: float = 0.0) -> None:
        """Refuse new connections; after ``for_s`` seconds accept them again (0: until ``open_listener``)."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if for_s > 0:
            self._reopening = asyncio.get_running_loop().call_later(for_s, self._reopen)

    def close_idle(self, how: str = "fin") -> int:
        """Close every connection with no request under way (``fin`` or ``reset``); returns how many."""
        return close_idle(self.world, how)

    def add_steps(self, *steps: object) -> None:
        """Append steps to the script: fault texts or the objects of ``parse_step``."""
        self.board.add(*(parse_step(step) for step in steps))

    def _reopen(self) -> None:
        loop = asyncio.get_running_loop()
        self._opening = loop.create_task(self.open_listener(), name="simulator-reopens")

    def _protocol_factory(self) -> Callable[[], asyncio.Protocol]:
        if self.settings.bench:
            script = BenchScript(self.world)
            return lambda: BenchConnection(script)
        serves = "api" if self.settings.admin_port is not None else "both"
        return lambda: Connection(self.world, serves)

    async def _listen(self, factory: Callable[[], asyncio.Protocol], port: int) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(factory, self.settings.host, port, backlog=_BACKLOG)

    def _look_for_idle(self) -> None:
        limit_s = self.settings.keepalive_s
        if not limit_s:
            return
        now_s = time.monotonic()
        for connection in list(self.world.connections):
            if 0 <= connection.idle_since_s < now_s - limit_s:
                connection.close_now("fin")
        self._reaper = asyncio.get_running_loop().call_later(min(1.0, limit_s / 4), self._look_for_idle)


def _port_of(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])
