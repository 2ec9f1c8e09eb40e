"""The upstream hand: one endpoint per provider, its pool and its credential, and attempts sent through them.

Owns every provider connection and the sweep that enforces attempt deadlines. Upstream addresses come from
settings alone, never from a request. Knows no chain: one ``send`` is one attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol
from urllib.parse import quote

from yarl import URL

from proxy.core.config.settings import ProviderKind, ProviderSettings, endpoints_of
from proxy.flow.answer_shapes import AnswerShapes
from proxy.flow.ports import Answer, AttemptFailed, BodySource, Call
from proxy.terms.outcomes import Outcome
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.dialer import Address, Dialer

SWEEP_EVERY_S: Final = 0.05
IDLE_SWEEP_EVERY_S: Final = 1.0
"""How often connections are looked at while none of them carries an attempt."""
JOIN_BELOW_BYTES: Final = 64 * 1024
WRITE_BYTES: Final = 256 * 1024
"""A body is written in slices of so much."""
STARTS_MAX: Final = 64


class Credentials(Protocol):
    """Where provider keys come from; the values are never logged by anyone."""

    def current(self, provider: str) -> str | None:
        """Return the provider's key now, or None when it has none."""
        ...

    async def refresh(self, provider: str) -> bool:
        """Re-read the key; True when it changed."""
        ...


class Endpoint:
    """One provider: its address, its fixed header lines, its idle connections (newest first)."""

    __slots__ = (
        "_line_key",
        "_lines",
        "_starts",
        "address",
        "base_path",
        "busy",
        "idle",
        "owned",
        "settings",
        "shapes",
    )

    def __init__(self, settings: ProviderSettings) -> None:
        url = URL(settings.base_url)
        self.settings = settings
        self.address = Address(
            url.origin(),
            str(settings.ca_file) if settings.ca_file else None,
            URL(settings.egress_proxy) if settings.egress_proxy else None,
        )
        self.base_path = url.raw_path.rstrip("/").encode("ascii")
        self.idle: list[UpstreamConnection] = []
        self.shapes = AnswerShapes()
        self.busy = 0
        self._line_key: str | None = None
        self._starts: dict[tuple[str, bytes, str], bytes] = {}
        self._lines = b""
        names = [*settings.headers, *([settings.auth_header.name] if settings.api_key is not None else [])]
        self.owned = frozenset(name.lower().encode("latin-1") for name in names)

    def own_lines(self, key: str | None) -> bytes:
        """Return the rendered Host, credential and fixed header lines; rendered anew when the key changes."""
        if not self._lines or key != self._line_key:
            auth = self.settings.auth_header
            rows = [("host", self.address.url.authority), *self.settings.headers.items()]
            if key is not None:
                rows.append((auth.name, auth.prefix + key))
            self._lines = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in rows)
            self._line_key = key
        return self._lines

    def start_for(self, call: Call, key: str | None) -> bytes:
        """Return request line and own header lines; those of the last few kinds of call are remembered."""
        kind = (call.head.method, call.target, call.model)
        if key != self._line_key:
            self._starts.clear()
        start = self._starts.get(kind)
        if start is None:
            line = b"%b %b HTTP/1.1\r\n" % (call.head.method.encode("ascii"), self.path_for(call))
            start = line + self.own_lines(key)
            if len(self._starts) < STARTS_MAX and len(start) < JOIN_BELOW_BYTES // 16:
                self._starts[kind] = start
        return start

    def path_for(self, call: Call) -> bytes:
        """Return the raw target at the provider; Azure's deployment paths are made here."""
        settings = self.settings
        if settings.kind is not ProviderKind.AZURE or settings.api_version is None:
            return self.base_path + call.target
        path, _, query = call.target.partition(b"?")
        version = b"api-version=" + settings.api_version.encode("ascii")
        if b"api-version=" not in query:
            query = query + b"&" + version if query else version
        if call.model:
            deployment = settings.deployments.get(call.model, call.model)
            path = b"/deployments/" + quote(deployment, safe="").encode("ascii") + path
        return self.base_path + path + b"?" + query


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
        self._is_closed = False

    @property
    def open_connections(self) -> int:
        """Provider connections now, idle and busy."""
        return len(self._connections)

    def lacks_key(self, provider: str) -> bool:
        """True when settings name a key for this provider and it is not set."""
        return self._endpoints[provider].settings.api_key is not None and self._credentials.current(provider) is None

    def uses_own_key(self, provider: str) -> bool:
        """True when a key of ours goes to this provider."""
        if self._credentials.current(provider) is not None:
            return True
        several = self._keys_of.get(provider, ())
        return len(several) > 1 and any(self._credentials.current(endpoint) is not None for endpoint in several)

    def mask(self, provider: str, data: bytes) -> bytes:
        """Star out every key that this provider may have been sent."""
        for endpoint in self._keys_of[provider]:
            key = self._credentials.current(endpoint)
            if key is not None:
                secret = key.encode("latin-1")
                if data.find(secret) >= 0:
                    data = data.replace(secret, b"***")
        return data

    def owned_headers(self, provider: str) -> frozenset[bytes]:
        """Return the lower-case names of the header lines we set for this provider ourselves."""
        return self._endpoints[provider].owned

    async def refresh_credential(self, provider: str) -> bool:
        """Re-read the provider's key; True when it changed."""
        return await self._credentials.refresh(provider)

    # --- one attempt ------------------------------------------------------------------------------

    async def send(self, call: Call) -> Answer:
        """Send one attempt; see ``flow.ports.Upstream.send``."""
        endpoint = self._endpoints[call.provider]
        key = self._credentials.current(call.provider)
        head = self._render_head(endpoint, call, key)
        connection = None if call.must_be_fresh or call.head.is_websocket else self._take_idle(endpoint)
        if connection is None:
            connection = await self._dial(endpoint, call)
        waiter = connection.begin(call, self._now_s())
        use = connection.uses
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP_EVERY_S, self._expire_all)
        try:
            body = call.body
            if isinstance(body, bytes):
                if len(body) <= JOIN_BELOW_BYTES:
                    connection.write(head + body)
                elif len(body) <= WRITE_BYTES:
                    connection.write(head)
                    connection.write(body)
                else:
                    connection.write(head)
                    upload = self._loop.create_task(self._send_sliced(connection, body))
                    connection.upload_runs(upload, is_ours=True)
            else:
                connection.write(head)
                upload = self._loop.create_task(self._upload(connection, body, call.head.content_length is None))
                connection.upload_runs(upload)
            return await waiter
        except asyncio.CancelledError:
            # The answer may have come in this very turn, and the connection may already serve another attempt.
            if connection.uses == use and connection.is_busy:
                connection.abort()
            raise

    async def _dial(self, endpoint: Endpoint, call: Call) -> UpstreamConnection:
        if endpoint.busy >= endpoint.settings.max_connections:
            raise AttemptFailed(Outcome.CONNECT_ERROR)
        connection = UpstreamConnection(self._now_s, self._became_idle, self._was_closed, endpoint.shapes)
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

    def _render_head(self, endpoint: Endpoint, call: Call, key: str | None) -> bytes:
        start = endpoint.start_for(call, key)
        headers = call.headers
        if key is None and call.passes_caller_key:
            own = call.head.fields.get(b"authorization")
            if own is not None:
                headers = b"authorization: %b\r\n%b" % (own, headers)
        body = call.body
        if type(body) is bytes:
            if call.head.is_websocket:
                return b"%b%bconnection: Upgrade\r\nupgrade: websocket\r\n\r\n" % (start, headers)
            if body or call.head.method in ("POST", "PUT", "PATCH"):
                return b"%b%bcontent-length: %d\r\n\r\n" % (start, headers, len(body))
            return b"%b%b\r\n" % (start, headers)
        if call.head.content_length is None:
            return b"%b%btransfer-encoding: chunked\r\n\r\n" % (start, headers)
        return b"%b%bcontent-length: %d\r\n\r\n" % (start, headers, call.head.content_length)

    # --- the pool ---------------------------------------------------------------------------------

    def _take_idle(self, endpoint: Endpoint) -> UpstreamConnection | None:
        idle, limit_s = endpoint.idle, endpoint.settings.keepalive_s
        while idle:
            connection = idle.pop()
            if connection.transport.is_closing():
                continue
            if self._now_s() - connection.idle_since_s > limit_s:
                connection.transport.close()
                continue
            endpoint.busy += 1
            return connection
        return None

    def _became_idle(self, connection: UpstreamConnection) -> None:
        endpoint = self._connections.get(connection)
        if endpoint is None or self._is_closed:
            connection.transport.close()
            return
        endpoint.busy -= 1
        endpoint.idle.append(connection)

    def _was_closed(self, connection: UpstreamConnection) -> None:
        endpoint = self._connections.pop(connection, None)
        if endpoint is None:
            return
        if connection in endpoint.idle:
            endpoint.idle.remove(connection)
        else:
            endpoint.busy -= 1

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
        self._is_closed = True
        self._stop_sweeps()
        for connection in tuple(self._connections):
            connection.abort()
        await self._dialer.close()
