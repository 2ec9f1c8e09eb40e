"""One endpoint of a provider: its address, its key, the heads of requests to it, its idle connections.

Owns what every attempt at it has in common. Knows no attempt beyond the call that it renders a head for, and
dials nobody.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from yarl import URL

from proxy.core.config.settings import ProviderKind, ProviderSettings
from proxy.flow.answer_shapes import AnswerShapes
from proxy.flow.ports import Call
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.dialer import Address

STARTS_MAX: Final = 64
START_MAX_BYTES: Final = 4 * 1024


class Endpoint:
    """One provider, or one key of a provider that has several; idle connections newest first."""

    __slots__ = (
        "_own_lines",
        "_starts",
        "address",
        "base_path",
        "busy",
        "idle",
        "is_closed",
        "key",
        "owned",
        "settings",
        "shapes",
    )

    def __init__(self, settings: ProviderSettings, key: str | None = None) -> None:
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
        self.is_closed = False
        names = [*settings.headers, *([settings.auth_header.name] if settings.api_key is not None else [])]
        self.owned = frozenset(name.lower().encode("latin-1") for name in names)
        self._starts: dict[tuple[str, bytes, str], bytes] = {}
        self.take_key(key)

    def take_key(self, key: str | None) -> None:
        """Send this key from now on: Host, credential and fixed header lines are rendered once for it."""
        auth = self.settings.auth_header
        rows = [("host", self.address.url.authority), *self.settings.headers.items()]
        if key is not None:
            rows.append((auth.name, auth.prefix + key))
        self.key = key
        self._own_lines = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in rows)
        self._starts.clear()

    # --- heads ------------------------------------------------------------------------------------

    def head_for(self, call: Call) -> bytes:
        """Return the head of the request that is this attempt."""
        head, body = call.head, call.body
        start = self._starts.get((head.method, call.target, call.model)) or self._start_for(call)
        if self.key is None and call.passes_caller_key and b"authorization" in head.fields:
            start = b"%bauthorization: %b\r\n" % (start, head.fields[b"authorization"])
        if type(body) is bytes:
            if body and not head.is_websocket:
                return b"%b%bcontent-length: %d\r\n\r\n" % (start, call.headers, len(body))
            return self._bodiless(start, call)
        if head.content_length is None:
            return b"%b%btransfer-encoding: chunked\r\n\r\n" % (start, call.headers)
        return b"%b%bcontent-length: %d\r\n\r\n" % (start, call.headers, head.content_length)

    @staticmethod
    def _bodiless(start: bytes, call: Call) -> bytes:
        if call.head.is_websocket:
            return b"%b%bconnection: Upgrade\r\nupgrade: websocket\r\n\r\n" % (start, call.headers)
        if call.head.method in ("POST", "PUT", "PATCH"):
            return b"%b%bcontent-length: 0\r\n\r\n" % (start, call.headers)
        return b"%b%b\r\n" % (start, call.headers)

    def _start_for(self, call: Call) -> bytes:
        """Return request line and own header lines; those of the last few kinds of call are remembered."""
        method = call.head.method
        start = b"%b %b HTTP/1.1\r\n%b" % (method.encode("ascii"), self.path_for(call), self._own_lines)
        if len(self._starts) < STARTS_MAX and len(start) < START_MAX_BYTES:
            self._starts[method, call.target, call.model] = start
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

    # --- connections ------------------------------------------------------------------------------

    def take_idle(self, now_s: float) -> UpstreamConnection | None:
        """Return the connection that became idle last, if one is still good; the caller has it until it comes back."""
        while self.idle:
            connection = self.idle.pop()
            if connection.transport.is_closing():
                continue
            if now_s - connection.idle_since_s > self.settings.keepalive_s:
                connection.transport.close()
                continue
            self.busy += 1
            return connection
        return None

    def take_back(self, connection: UpstreamConnection) -> None:
        """Take a connection whose attempt is over."""
        if self.is_closed:
            connection.transport.close()
            return
        self.busy -= 1
        self.idle.append(connection)

    def lose(self, connection: UpstreamConnection) -> None:
        """Forget a connection that was closed."""
        if connection in self.idle:
            self.idle.remove(connection)
        else:
            self.busy -= 1
