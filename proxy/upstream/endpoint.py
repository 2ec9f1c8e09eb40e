"""One endpoint of a provider: its address, its key, the heads of requests to it, its idle connections.

Owns what every attempt at it has in common. Knows no attempt beyond the call that it renders a head for, and
dials nobody.
"""

from __future__ import annotations

from urllib.parse import quote

from yarl import URL

from proxy.core.config.settings import ProviderKind, ProviderSettings
from proxy.flow.answer_shapes import AnswerShapes
from proxy.flow.ports import Call, CallKind
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.dialer import Address


class Endpoint:
    """One provider, or one key of a provider that has several; idle connections newest first."""

    __slots__ = (
        "_own_lines",
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
        self.take_key(key)

    def take_key(self, key: str | None) -> None:
        """Send this key from now on: Host, credential and fixed header lines are rendered once for it."""
        auth = self.settings.auth_header
        rows = [("host", self.address.url.authority), *self.settings.headers.items()]
        if key is not None:
            rows.append((auth.name, auth.prefix + key))
        self.key = key
        self._own_lines = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in rows)

    # --- heads ------------------------------------------------------------------------------------

    def head_for(self, call: Call) -> bytes:
        """Return the head of the request that is this attempt."""
        kind, body = call.kind, call.body
        start = kind.start if kind.start_is_of is self._own_lines else self._start_for(kind)
        if type(body) is bytes:
            if body and not kind.head.is_websocket:
                return b"%bcontent-length: %d\r\n\r\n" % (start, len(body))
            return start + self._end_of_bodiless(kind)
        if kind.head.content_length is None:
            return start + b"transfer-encoding: chunked\r\n\r\n"
        return b"%bcontent-length: %d\r\n\r\n" % (start, kind.head.content_length)

    @staticmethod
    def _end_of_bodiless(kind: CallKind) -> bytes:
        if kind.head.is_websocket:
            return b"connection: Upgrade\r\nupgrade: websocket\r\n\r\n"
        return b"content-length: 0\r\n\r\n" if kind.head.method in ("POST", "PUT", "PATCH") else b"\r\n"

    def _start_for(self, kind: CallKind) -> bytes:
        """Return request line, own header lines and the caller's; remembered with the kind until the key changes."""
        head = kind.head
        lines = [b"%b %b HTTP/1.1\r\n" % (head.method.encode("ascii"), self.path_for(kind)), self._own_lines]
        if self.key is None and kind.passes_caller_key and b"authorization" in head.fields:
            lines.append(b"authorization: %b\r\n" % head.fields[b"authorization"])
        lines.append(kind.headers)
        kind.start, kind.start_is_of = b"".join(lines), self._own_lines
        return kind.start

    def path_for(self, kind: CallKind) -> bytes:
        """Return the raw target at the provider; Azure's deployment paths are made here."""
        settings = self.settings
        if settings.kind is not ProviderKind.AZURE or settings.api_version is None:
            return self.base_path + kind.target
        path, _, query = kind.target.partition(b"?")
        version = b"api-version=" + settings.api_version.encode("ascii")
        if b"api-version=" not in query:
            query = query + b"&" + version if query else version
        if kind.model:
            deployment = settings.deployments.get(kind.model, kind.model)
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
