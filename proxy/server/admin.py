"""The admin door: probes, health, providers, metrics and the status page, on a port of its own.

Owns its listener and the access check. Knows nothing of what it shows: it asks ``Vitals``. Rare traffic, so
aiohttp's application layer is right here. With ``admin_token`` set everything but the probes demands it.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any, Final, Protocol

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from proxy.core.config.settings import Listen
from proxy.server.gate import allowed_host_names, host_name, is_allowed_host

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_PROBES: Final = frozenset({"/livez", "/readyz", "/startupz", "/healthz", "/ready", "/startup"})
_SECURITY_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Vitals(Protocol):
    """What the admin door shows; every method is cheap and answers from memory."""

    def live(self) -> tuple[bool, dict[str, Any]]: ...

    def ready(self) -> tuple[bool, dict[str, Any]]: ...

    def started(self) -> tuple[bool, dict[str, Any]]: ...

    def health(self) -> dict[str, Any]: ...

    def providers(self) -> dict[str, Any]: ...

    def summary(self) -> dict[str, Any]: ...


class AdminDoor:
    """Owner of the admin listener."""

    def __init__(
        self, listen: Listen, vitals: Vitals, registry: CollectorRegistry, token: Callable[[], str | None]
    ) -> None:
        self._listen = listen
        self._host_names = allowed_host_names(listen.host, ())
        self._vitals = vitals
        self._registry = registry
        self._token = token
        self._runner: web.AppRunner | None = None

    async def open(self) -> None:
        """Start to listen. Raises OSError when the address cannot be bound."""
        app = web.Application(middlewares=[self._guard])
        app.add_routes(
            [
                *[web.get(path, self._probe(self._vitals.live)) for path in ("/livez", "/healthz")],
                *[web.get(path, self._probe(self._vitals.ready)) for path in ("/readyz", "/ready")],
                *[web.get(path, self._probe(self._vitals.started)) for path in ("/startupz", "/startup")],
                web.get("/health", self._json(self._vitals.health)),
                web.get("/providers", self._json(self._vitals.providers)),
                web.get("/summary", self._json(self._vitals.summary)),
                web.get("/metrics", self._metrics),
                web.get("/", self._asset("status.html", "text/html")),
                web.get("/status.js", self._asset("status.js", "text/javascript")),
                web.get("/status.css", self._asset("status.css", "text/css")),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=15.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._listen.host, self._listen.port, reuse_address=True)
        await site.start()

    @property
    def port(self) -> int:
        """The bound port."""
        assert self._runner is not None
        address: tuple[str, int] = self._runner.addresses[0]
        return address[1]

    async def close(self) -> None:
        """Stop to listen."""
        if self._runner is not None:
            await self._runner.cleanup()

    # --- access -----------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        name = host_name(request.headers.get("Host", "").encode("latin-1", "replace"))
        if name is None:
            return _error(400, "bad_request", "The Host header is not a host name.")
        if not is_allowed_host(name, self._host_names):
            return _error(421, "bad_request", "This sidecar does not answer for that Host.")
        token = self._token()
        if token is not None and request.path not in _PROBES and not _carries(request, token):
            response: web.StreamResponse = _error(401, "invalid_admin_token", "This needs the admin token.")
            response.headers["www-authenticate"] = "Bearer"
        else:
            try:
                response = await handler(request)
            except web.HTTPException as exc:
                response = _error(exc.status, _CODES.get(exc.status, "bad_request"), exc.reason)
        response.headers.update(_SECURITY_HEADERS)
        return response

    # --- pages ------------------------------------------------------------------------------------

    @staticmethod
    def _probe(ask: Callable[[], tuple[bool, dict[str, Any]]]) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            is_well, detail = ask()
            return _json(detail, 200 if is_well else 503)

        return answer

    @staticmethod
    def _json(ask: Callable[[], dict[str, Any]]) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            return _json(ask(), 200)

        return answer

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST})

    @staticmethod
    def _asset(name: str, content_type: str) -> Handler:
        body = (resources.files("proxy.server") / "pages" / name).read_bytes()

        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(body=body, content_type=content_type, charset="utf-8")

        return answer


_CODES: Final = {404: "not_found", 405: "method_not_allowed"}


def _carries(request: web.Request, token: str) -> bool:
    scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(presented.strip().encode(), token.encode())


def _json(document: dict[str, Any], status: int) -> web.Response:
    body = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE, default=str)
    return web.Response(body=body, status=status, content_type="application/json")


def _error(status: int, code: str, message: str) -> web.Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return _json({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)
