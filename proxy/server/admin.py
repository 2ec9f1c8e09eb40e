"""The admin door: probes, health, providers, metrics, the admin API and the status page, on a port of its own.

Owns its listener and asks ``Access`` who calls. Knows nothing of what it shows: it asks ``Vitals`` and the routes of
the ``AdminApi``. Rare traffic, so aiohttp's application layer is right here. Once a token is configured everything but
the probes and the status page's own files, which hold no data, demands one.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any, Final, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from proxy.core.config.settings import Listen
from proxy.server.admin_access import Access, Rejected
from proxy.server.admin_api import ACTOR, CALL_ID, SECURITY_HEADERS, AdminApi, document, error, rejection
from proxy.server.gate import allowed_host_names, host_name, is_allowed_host

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_PROBES: Final = frozenset({"/livez", "/readyz", "/startupz", "/healthz", "/ready", "/startup"})
_OPEN: Final = _PROBES | {"/", "/status.js", "/status.css"}
"""What holds no data and is shown to everyone; the page asks for a token itself."""


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
        self, listen: Listen, vitals: Vitals, registry: CollectorRegistry, access: Access, api: AdminApi
    ) -> None:
        self._listen = listen
        self._host_names = allowed_host_names(listen.host, ())
        self._vitals = vitals
        self._registry = registry
        self._access = access
        self._api = api
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
                *self._api.resources(),
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
        request[CALL_ID] = os.urandom(16).hex()
        response = await self._answer(request, handler)
        if not response.prepared:
            response.headers.update(SECURITY_HEADERS)
        return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        name = host_name(request.headers.get("Host", "").encode("latin-1", "replace"))
        if name is None:
            return error(400, "bad_request", "The Host header is not a host name.", request)
        if not is_allowed_host(name, self._host_names):
            return error(421, "bad_request", "This sidecar does not answer for that Host.", request)
        if request.path not in _OPEN:
            actor = self._access.identify(request.headers.get("Authorization", ""), request.remote or "")
            if isinstance(actor, Rejected):
                return rejection(actor, request)
            request[ACTOR] = actor
        try:
            return await handler(request)
        except web.HTTPException as exc:
            response = error(exc.status, _CODES.get(exc.status, "bad_request"), exc.reason, request)
            if "Allow" in exc.headers:
                response.headers["allow"] = exc.headers["Allow"]
            return response

    # --- pages ------------------------------------------------------------------------------------

    @staticmethod
    def _probe(ask: Callable[[], tuple[bool, dict[str, Any]]]) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            is_well, detail = ask()
            return document(detail, 200 if is_well else 503)

        return answer

    @staticmethod
    def _json(ask: Callable[[], dict[str, Any]]) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            return document(ask(), 200)

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
