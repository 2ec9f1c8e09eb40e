"""The data door: listens, bounds and sweeps caller connections, and starts exchanges.

Owns the set of caller connections and of running exchanges, the drain switch and the once-a-second sweep
that enforces caller-side deadlines. Knows no policy: paths other than ``/v1/*`` end here, the rest goes to
the handler that app joined.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from proxy.core.config.settings import ServerSettings
from proxy.core.dialect import Dialect, dialect_of
from proxy.core.routing.problems import Code, Problem, problem
from proxy.flow.live_answers import DRAINING
from proxy.flow.ports import Clock, Inbound, Responder, Witness
from proxy.server import gate
from proxy.server.front import FrontProtocol
from proxy.server.refusals import render_refusal
from proxy.terms.http import RequestHead

SWEEP_EVERY_S = 1.0
MAX_KNOWN_HOSTS = 64
_TEXTUAL = (b"text/", b"application/x-www-form-urlencoded")
_BYTES = (
    b"multipart/", b"image/", b"audio/", b"video/", b"application/octet-stream", b"application/pdf", b"application/zip",
    b"application/gzip",
)  # fmt: skip
"""Media types that are no text, whatever else is in them."""


class ExchangeHandler(Protocol):
    """What flow offers the door."""

    async def handle(self, inbound: Inbound, responder: Responder) -> None:
        """Carry one exchange from its request to the last byte of its answer."""
        ...

    def preflight(self, head: RequestHead) -> Problem | None:
        """Say from the head alone why this request would be refused, before its body is asked for."""
        ...

    def refused_early(self, head: RequestHead | None, refusal: Problem, target: bytes) -> tuple[str, bytes]:
        """Record a request that was refused before it became an exchange; return its id and our header lines."""
        ...


class DataDoor:
    """Owner of every caller connection on the data port."""

    def __init__(self, settings: ServerSettings, handler: ExchangeHandler, clock: Clock, witness: Witness) -> None:
        self.handler = handler
        self.max_head_bytes = settings.max_head_bytes
        self.max_body_bytes = settings.max_body_bytes
        self.max_upload_bytes = settings.max_upload_bytes
        self.head_timeout_s = settings.head_timeout_s
        self.body_timeout_s = settings.body_timeout_s
        self.write_stall_s = settings.write_stall_s
        self.keepalive_s = settings.keepalive_s
        self.is_draining = False
        self.is_closed_to_new = False
        self._settings = settings
        self._clock = clock
        self._witness = witness
        self.now_s = clock.monotonic_s
        self._loop = asyncio.get_running_loop()
        self._connections: set[FrontProtocol] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._known_hosts: set[bytes] = set()
        self._host_names = gate.allowed_host_names(settings.data.host, settings.allowed_hosts)

    async def open(self) -> None:
        """Start to listen. Raises OSError when the address cannot be bound."""
        listen = self._settings.data
        self._server = await self._loop.create_server(
            lambda: FrontProtocol(self), listen.host, listen.port, backlog=1024, reuse_address=True
        )

    @property
    def port(self) -> int:
        """The bound port (of interest when the configured one is 0)."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def open_connections(self) -> int:
        """Caller connections now."""
        return len(self._connections)

    @property
    def live_exchanges(self) -> int:
        """Exchanges now."""
        return len(self._busy())

    def _busy(self) -> list[FrontProtocol]:
        """Return the connections with a running exchange."""
        return [connection for connection in self._connections if connection.is_busy]

    # --- what a connection asks -------------------------------------------------------------------

    def opened(self, connection: FrontProtocol) -> None:
        """Take a connection into the set, or close it when the set is full or the door is."""
        self._connections.add(connection)
        if len(self._connections) > self._settings.max_connections or self.is_closed_to_new:
            self._witness.notice("connection_refused", open_connections=len(self._connections))
            connection.cut()
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP_EVERY_S, self._expire_all)

    def closed(self, connection: FrontProtocol) -> None:
        """Forget a connection."""
        self._connections.discard(connection)

    def start(self, serving: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a connection's task, which the door keeps hold of."""
        task = self._loop.create_task(serving)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def check_head(self, head: RequestHead) -> Problem | None:
        """Refuse a foreign Host, a coded body and every path that is not the provider API's."""
        host = head.fields.get(b"host")
        if host is not None and host not in self._known_hosts:
            refusal = self._check_host(host)
            if refusal is not None:
                return refusal
        if not head.path.startswith("/v1/") and head.path != "/v1":
            return problem(
                Code.NOT_FOUND,
                message="Only /v1/* is served here; point the OpenAI base URL at this address with /v1 at its end.",
            )
        return gate.check_coding(head)

    def _check_host(self, host: bytes) -> Problem | None:
        name = gate.host_name(host)
        if name is None:
            return problem(Code.BAD_REQUEST, message="The Host header is not a host name.")
        if not gate.is_allowed_host(name, self._host_names):
            return problem(
                Code.BAD_REQUEST,
                message="This sidecar does not answer for that Host; list it under server.allowed_hosts if it should.",
                status=421,
            )
        if len(self._known_hosts) < MAX_KNOWN_HOSTS:
            self._known_hosts.add(host)
        return None

    def collects_body(self, head: RequestHead) -> bool:
        """True when the body is gathered whole because policy has to read it.

        That is JSON, text and forms anywhere, and whatever is posted where a model is asked: a wrong content type
        is no way past policy.
        """
        content_type = head.fields.get(b"content-type", b"")
        if content_type == b"application/json":
            return True
        if head.method == "POST" and dialect_of(head.path) is not Dialect.OTHER:
            return True
        lower = content_type.lower()
        if not lower:
            return head.content_length is None or head.content_length <= self.max_body_bytes
        if b"json" in lower or b"xml" in lower or b"yaml" in lower or lower.startswith(_TEXTUAL):
            return True
        # What nobody knows is looked at too where its size is announced; sound, pictures and files stream by.
        return not lower.startswith(_BYTES) and (head.content_length or self.max_body_bytes + 1) <= self.max_body_bytes

    def preflight(self, head: RequestHead) -> Problem | None:
        """Ask flow whether the request would be refused for its head alone."""
        return self.handler.preflight(head)

    def refused_early(
        self, head: RequestHead | None, refusal: Problem, target: bytes
    ) -> tuple[int, bytes, bytes, bytes]:
        """Record and render a refusal that happened before an exchange began."""
        exchange_id, lines = self.handler.refused_early(head, refusal, target)
        return render_refusal(refusal, exchange_id, lines, head.path if head is not None else "")

    def report_fault(self, where: str, exc: BaseException) -> None:
        """Report a bug of ours by its type and place, without its text."""
        self._witness.fault(where, error=type(exc).__name__)

    # --- time and the end -------------------------------------------------------------------------

    def _expire_all(self) -> None:
        now_s = self.now_s()
        for connection in tuple(self._connections):
            connection.expire(now_s)
        again = bool(self._connections)
        self._sweep = self._loop.call_later(SWEEP_EVERY_S, self._expire_all) if again else None

    def begin_drain(self) -> None:
        """From now on every answer closes its connection; new requests are still taken."""
        self.is_draining = True

    def refuse_new(self) -> None:
        """Stop listening and close idle connections; running exchanges go on."""
        self.is_closed_to_new = True
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.drain()

    async def wait_until_idle(self, deadline_s: float, hurry: asyncio.Event) -> bool:
        """Wait for the running exchanges until a monotonic deadline or ``hurry``; True when none is left."""
        while self._busy() and self.now_s() < deadline_s and not hurry.is_set():  # noqa: ASYNC110 - two events and a deadline
            await asyncio.sleep(max(0.0, min(0.05, deadline_s - self.now_s())))
        return not self._busy()

    async def close(self) -> None:
        """Cancel what still runs, let it write its last row, and cut every connection."""
        self.refuse_new()
        for connection in self._busy():
            connection.cancel_exchange(DRAINING)
        patience_s = self.now_s() + 2.0
        while self._busy() and self.now_s() < patience_s:  # noqa: ASYNC110 - a bounded wait at the very end
            await asyncio.sleep(0.01)
        for connection in tuple(self._connections):
            connection.cut()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=1.0)
        if self._sweep is not None:
            self._sweep.cancel()
