"""The upstream hand: one endpoint per provider, its pool and its credential, and attempts sent through them.

Owns every provider connection and the sweep that enforces attempt deadlines. Upstream addresses come from
settings alone, never from a request. Knows no chain: one ``send`` is one attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from proxy.core.config.settings import ProviderSettings, endpoints_of
from proxy.flow.ports import Answer, AttemptFailed, BodySource, Call
from proxy.terms.outcomes import Outcome
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.dialer import Dialer
from proxy.upstream.endpoint import Endpoint

SWEEP_EVERY_S: Final = 0.05
IDLE_SWEEP_EVERY_S: Final = 1.0
"""How often connections are looked at while none of them carries an attempt."""
JOIN_BELOW_BYTES: Final = 64 * 1024
WRITE_BYTES: Final = 256 * 1024
"""A body is written in slices of so much."""


class Credentials(Protocol):
    """Where provider keys come from; the values are never logged by anyone."""

    def current(self, provider: str) -> str | None:
        """Return the provider's key now, or None when it has none."""
        ...

    async def refresh(self, provider: str) -> bool:
        """Re-read the key; True when it changed."""
        ...


class Providers:
    """Implements ``flow.ports.Upstream`` over pooled connections."""

    def __init__(
        self, settings: Mapping[str, ProviderSettings], credentials: Credentials, now_s: Callable[[], float]
    ) -> None:
        self._endpoints = {name: Endpoint(provider) for name, provider in endpoints_of(settings).items()}
        self._keys_of = {
            name: (name, *(f"{name}/{key}" for key in provider.api_keys)) for name, provider in settings.items()
        }
        self._credentials = credentials
        self._now_s = now_s
        self._loop = asyncio.get_running_loop()
        self._dialer = Dialer()
        self._connections: dict[UpstreamConnection, Endpoint] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._idle_sweep: asyncio.TimerHandle | None = None
        self._keyless: frozenset[str] = frozenset()
        self._with_own_key: frozenset[str] = frozenset()
        self._secrets: dict[str, list[bytes]] = {}
        self.read_keys()

    @property
    def open_connections(self) -> int:
        """Provider connections now, idle and busy."""
        return len(self._connections)

    def read_keys(self) -> None:
        """Look every key up; whoever changes one says so here."""
        current = self._credentials.current
        for name, endpoint in self._endpoints.items():
            key = current(name)
            if key != endpoint.key:
                endpoint.take_key(key)
        keys = {name: endpoint.key for name, endpoint in self._endpoints.items()}
        self._keyless = frozenset(
            name
            for name, endpoint in self._endpoints.items()
            if endpoint.key is None and endpoint.settings.api_key is not None
        )
        self._secrets = {
            provider: [key.encode("latin-1") for name in names if (key := keys.get(name)) is not None]
            for provider, names in self._keys_of.items()
        }
        self._with_own_key = frozenset(
            [name for name, key in keys.items() if key is not None]
            + [provider for provider, secrets in self._secrets.items() if secrets]
        )

    def lacks_key(self, provider: str) -> bool:
        """True when settings name a key for this provider and it is not set."""
        return provider in self._keyless

    def uses_own_key(self, provider: str) -> bool:
        """True when a key of ours goes to this provider."""
        return provider in self._with_own_key

    def mask(self, provider: str, data: bytes) -> bytes:
        """Star out every key that this provider may have been sent."""
        for secret in self._secrets[provider]:
            if data.find(secret) >= 0:
                data = data.replace(secret, b"***")
        return data

    def owned_headers(self, provider: str) -> frozenset[bytes]:
        """Return the lower-case names of the header lines we set for this provider ourselves."""
        return self._endpoints[provider].owned

    async def refresh_credential(self, provider: str) -> bool:
        """Re-read the provider's key; True when it changed."""
        try:
            return await self._credentials.refresh(provider)
        finally:
            self.read_keys()

    # --- one attempt ------------------------------------------------------------------------------

    async def send(self, call: Call) -> Answer:
        """Send one attempt; see ``flow.ports.Upstream.send``."""
        kind = call.kind
        endpoint = self._endpoints[kind.provider]
        head, now_s = endpoint.head_for(call), self._now_s()
        connection = None if call.must_be_fresh or kind.head.is_websocket else endpoint.take_idle(now_s)
        if connection is None:
            connection = await self._dial(endpoint, call)
            now_s = self._now_s()
        waiter = connection.begin(call, now_s)
        use = connection.uses
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP_EVERY_S, self._expire_all)
        try:
            body = call.body
            if type(body) is bytes and len(body) <= JOIN_BELOW_BYTES:
                connection.transport.write(head + body)
            else:
                connection.write(head)
                self._begin_upload(connection, call, body)
            return await waiter
        except asyncio.CancelledError:
            # The answer may have come in this very turn, and the connection may already serve another attempt.
            if connection.uses == use and connection.is_busy:
                connection.abort()
            raise

    def _begin_upload(self, connection: UpstreamConnection, call: Call, body: bytes | BodySource) -> None:
        """Send a body that does not go out with its head."""
        if not isinstance(body, bytes):
            upload = self._loop.create_task(self._upload(connection, body, call.kind.head.content_length is None))
            connection.upload_runs(upload)
        elif len(body) <= WRITE_BYTES:
            connection.write(body)
        else:
            connection.upload_runs(self._loop.create_task(self._send_sliced(connection, body)), is_ours=True)

    async def _dial(self, endpoint: Endpoint, call: Call) -> UpstreamConnection:
        if endpoint.busy >= endpoint.settings.max_connections:
            raise AttemptFailed(Outcome.CONNECT_ERROR)
        connection = UpstreamConnection(self._now_s, endpoint.take_back, self._was_closed, endpoint.shapes)
        left_s = call.deadline_s - self._now_s()
        if left_s <= 0:
            raise AttemptFailed(Outcome.TOTAL_TIMEOUT)
        endpoint.busy += 1
        try:
            await self._dialer.dial(endpoint.address, connection, min(call.timeouts.connect_s, left_s))
        except BaseException:
            endpoint.busy -= 1
            raise
        if connection.transport.is_closing():
            endpoint.busy -= 1
            raise AttemptFailed(Outcome.NO_RESPONSE)
        self._connections[connection] = endpoint
        return connection

    async def _upload(self, connection: UpstreamConnection, body: BodySource, is_chunked: bool) -> None:
        """Send a streamed request body as it comes, no faster than the provider takes it."""
        try:
            while piece := await body.next_piece():
                connection.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
                await connection.drain()
            if is_chunked:
                connection.write(b"0\r\n\r\n")
        except ConnectionError:
            connection.fail(Outcome.CLIENT_CANCELLED)
        else:
            connection.upload_ended()

    async def _send_sliced(self, connection: UpstreamConnection, body: bytes) -> None:
        """Send a large body a slice at a time: TLS would encrypt all of it in one go, 20 MB in 20 to 70 ms."""
        whole = memoryview(body)
        for at in range(0, len(body), WRITE_BYTES):
            connection.write(whole[at : at + WRITE_BYTES])
            await connection.drain()
            await asyncio.sleep(0)
            connection.slice_sent()
        connection.upload_ended()

    # --- the pool ---------------------------------------------------------------------------------

    def _was_closed(self, connection: UpstreamConnection) -> None:
        endpoint = self._connections.pop(connection, None)
        if endpoint is not None:
            endpoint.lose(connection)

    def _expire_all(self) -> None:
        now_s = self._now_s()
        busy = idle = False
        self._stop_sweeps()
        for connection, endpoint in tuple(self._connections.items()):
            if connection.is_busy:
                busy = True
                connection.expire(now_s)
            elif now_s - connection.idle_since_s > endpoint.settings.keepalive_s:
                connection.transport.close()
            else:
                idle = True
        self._sweep = self._loop.call_later(SWEEP_EVERY_S, self._expire_all) if busy else None
        if idle and not busy:
            # Nothing has a deadline until the next attempt begins, which starts the quick sweep again.
            self._idle_sweep = self._loop.call_later(IDLE_SWEEP_EVERY_S, self._expire_all)

    def _stop_sweeps(self) -> None:
        for sweep in (self._sweep, self._idle_sweep):
            if sweep is not None:
                sweep.cancel()
        self._sweep = self._idle_sweep = None

    async def close(self) -> None:
        """Close every connection."""
        for endpoint in self._endpoints.values():
            endpoint.is_closed = True
        self._stop_sweeps()
        for connection in tuple(self._connections):
            connection.abort()
        await self._dialer.close()
