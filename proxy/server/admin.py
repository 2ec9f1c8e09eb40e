"""The admin door: health, providers, metrics, the admin API and the status page, on a port of its own.

Owns its listener and asks ``Access`` who calls. Knows nothing of what it shows: it asks ``Vitals`` and the routes of
the ``AdminApi``. Connections come from ``ProbeDoor``, which owns the port and answers probes itself; those that come on a
connection in use are answered here. Rare traffic, so aiohttp's application layer is right here. Once a token is configured everything but
the probes and the status page's own files, which hold no data, demands one.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any, Final, Protocol, cast

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from proxy.core.config.settings import Listen
from proxy.server.admin_access import Access, Rejected, refuse_role
from proxy.server.admin_api import ACTOR, CALL_ID, PREFIX, SECURITY_HEADERS, AdminApi, document, error, rejection
from proxy.server.gate import allowed_host_names, host_name, is_allowed_host
from proxy.server.probes import PROBES, ProbeDoor
from proxy.terms.admin import Role

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_OPEN: Final = PROBES | {"/", "/status.js", "/status.css"}
"""What holds no data and is shown to everyone; the page asks for a token itself."""


_LIMITS: Final[dict[str, Any]] = {"access_log": None, "keepalive_timeout": 15.0}


class Vitals(Protocol):
    """What the admin door shows; every method is cheap and answers from memory."""

    def health(self) -> dict[str, Any]: ...

    def providers(self) -> dict[str, Any]: ...

    def summary(self) -> dict[str, Any]: ...


class AdminDoor:
    """Owner of the admin listener."""

    def __init__(
        self,
        listen: Listen,
        probes: ProbeDoor,
        vitals: Vitals,
        registry: CollectorRegistry,
        access: Access,
        api: AdminApi,
    ) -> None:
        self._probes = probes
        self._host_names = allowed_host_names(listen.host, ())
        self._vitals = vitals
        self._registry = registry
        self._access = access
        self._api = api
        self._runner: web.AppRunner | None = None
        self._arrivals: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Serve what the probe door passes on."""
        app = web.Application(middlewares=[self._guard])
        app.add_routes(
            [
                *[web.get(path, self._probe(path)) for path in sorted(PROBES)],
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
        self._runner = web.AppRunner(app, **_LIMITS)
        await self._runner.setup()
        loop = asyncio.get_running_loop()

        def take(sock: socket.socket, data: bytes) -> None:
            loop.call_soon_threadsafe(self._take, sock, data)

        self._probes.hand_to(take)

    async def close(self) -> None:
        """End every connection and stop to listen."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._probes.close()

    def _take(self, sock: socket.socket, data: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self._attach(sock, data), name="admin-connection")
        self._arrivals.add(task)
        task.add_done_callback(self._arrivals.discard)

    async def _attach(self, sock: socket.socket, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        server = self._runner.server if self._runner is not None else None
        if server is None:
            sock.close()
            return
        try:
            await loop.connect_accepted_socket(
                lambda: _Starter(_AdminProtocol(server, loop=loop, **_LIMITS), data), sock
            )
        except OSError:
            sock.close()

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
            refused = None if request.path.startswith(PREFIX) else refuse_role(actor, Role.VIEWER)
            if refused is not None:
                return rejection(refused, request)
            request[ACTOR] = actor
        try:
            return await handler(request)
        except web.HTTPException as exc:
            response = error(exc.status, _CODES.get(exc.status, "bad_request"), exc.reason, request)
            if "Allow" in exc.headers:
                response.headers["allow"] = exc.headers["Allow"]
            return response
        except Exception as exc:  # noqa: BLE001 - a page that fails says so in the one shape, and the log names it
            self._api.tell_fault(f"GET {request.path}"[:200], exc)
            return error(500, "internal_error", "The sidecar failed to make this page.", request)

    # --- pages ------------------------------------------------------------------------------------

    def _probe(self, path: str) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            is_well, detail = self._probes.verdict(path, asyncio.get_running_loop().time())
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


class _AdminProtocol(web.RequestHandler):
    """Answers what is not HTTP without repeating it: a broken head may hold a token."""

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer in the one shape."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way")
        response = error(status, "bad_request" if status < 500 else "internal_error", "This is not understood.", None)
        response.headers.update(SECURITY_HEADERS)
        response.force_close()
        return response


class _Starter(asyncio.Protocol):
    """Gives a connection that was begun elsewhere to the web server, with the bytes that were read there."""

    def __init__(self, protocol: asyncio.Protocol, data: bytes) -> None:
        self._protocol = protocol
        self._data = data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Change places before anything else can arrive."""
        protocol = self._protocol
        cast("asyncio.Transport", transport).set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(self._data)
