"""``/api/v1``: turns requests into ``AdminCall`` and answers into HTTP, for a table of routes it is given.

Owns the rules that hold for every call: role, rate, proof that no foreign web page sent it, bounded JSON body,
declared query names, a time limit, a record of every write, errors of one shape. Knows nothing of what a call does.

A page of another origin can make a browser send simple requests here, so a write must carry what such a page cannot
send without asking first (a JSON content type or ``x-readygate-admin``), and whatever says that it came from another
origin is refused. Nothing here reads a cookie.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import orjson
from aiohttp import web

from proxy.core.config.schema import closest
from proxy.server.admin_access import Access, Rejected, refuse_role
from proxy.terms.admin import Actor, AdminAnswer, AdminCall, AdminRoute, AdminWrite, Download, Refused

PREFIX: Final = "/api/v1"
PROOF_HEADER: Final = "x-readygate-admin"
BODY_TIMEOUT_S: Final = 10.0
ACTOR: Final = web.RequestKey("readygate.actor", Actor)
CALL_ID: Final = web.RequestKey("readygate.call_id", str)

SECURITY_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
    "server": "readygate",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminApi:
    """Serves a table of routes behind the door's access check."""

    def __init__(
        self,
        routes: Iterable[AdminRoute],
        access: Access,
        *,
        on_write: Callable[[AdminWrite], None],
        on_fault: Callable[[str, str], None],
    ) -> None:
        """Take the table and two ears: one for the record of each write, one for a handler's own fault (path, type)."""
        self._routes = tuple(routes)
        self._access = access
        self._on_write = on_write
        self._on_fault = on_fault

    def resources(self) -> list[web.RouteDef]:
        """Return what the web application has to serve."""
        return [
            web.route(route.method, PREFIX + route.path, self._serve(route), allow_head=False)
            if route.method == "GET"
            else web.route(route.method, PREFIX + route.path, self._serve(route))
            for route in self._routes
        ]

    def tell_fault(self, path: str, exc: Exception) -> None:
        """Report a fault of ours by its type; its text may quote what was being read."""
        self._on_fault(path, type(exc).__name__)

    def _serve(self, route: AdminRoute) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            actor = request[ACTOR]
            rejected = (
                refuse_role(actor, route.role)
                or self._access.count_call(actor, request.remote or "")
                or _refuse_foreign(request, actor, route)
            )
            if rejected is not None:
                return rejection(rejected, request)
            call = await self._read(request, route)
            if isinstance(call, Refused):
                return _refusal(call, request)
            return await self._carry_out(request, route, call)

        return answer

    async def _carry_out(self, request: web.Request, route: AdminRoute, call: AdminCall) -> web.StreamResponse:
        status = 500
        try:
            answer = await self._run(route, call)
            response: web.StreamResponse
            if isinstance(answer, Download):
                status = 200
                response = await self._download(request, route, answer)
            elif isinstance(answer, Refused):
                status = answer.status
                response = _refusal(answer, request)
            else:
                status = answer[0]
                response = document(answer[1], status, request)
            return response
        finally:
            if route.is_write:
                self._on_write(_record(route, call, status))

    async def _run(self, route: AdminRoute, call: AdminCall) -> AdminAnswer:
        try:
            async with asyncio.timeout(route.timeout_s):
                return await route.handler(call)
        except TimeoutError:
            return Refused(504, "timeout", f"This took longer than {route.timeout_s:g} s.")
        except Exception as exc:  # noqa: BLE001 - a bug in a rare call must not end the connection without an answer
            self.tell_fault(f"{route.method} {route.path}", exc)
            return Refused(500, "internal_error", "The sidecar failed to carry this out.")

    async def _download(self, request: web.Request, route: AdminRoute, download: Download) -> web.StreamResponse:
        headers = {"content-type": download.content_type, "x-request-id": request[CALL_ID], **SECURITY_HEADERS}
        response = web.StreamResponse(headers=headers)
        if download.file_name:
            response.headers["content-disposition"] = f'attachment; filename="{download.file_name}"'
        await response.prepare(request)
        try:
            async for piece in download.pieces:
                await response.write(piece)
        except ConnectionError:
            raise
        except Exception as exc:  # noqa: BLE001 - the head is out: only a cut says that this is not all
            self.tell_fault(f"{route.method} {route.path}", exc)
            if request.transport is not None:
                request.transport.abort()
            return response
        await response.write_eof()
        return response

    async def _read(self, request: web.Request, route: AdminRoute) -> AdminCall | Refused:
        for name in request.query:
            if name not in route.query:
                hint = closest(name, route.query) or f"known here: {', '.join(route.query) or 'none'}"
                return Refused(400, "unknown_parameter", f"No parameter {name[:60]!r}: {hint}", name[:60])
            if len(request.query.getall(name)) > 1:
                return Refused(400, "bad_request", f"The parameter {name!r} is given twice.", name)
        body = await _body(request, route)
        if isinstance(body, Refused):
            return body
        return AdminCall(request[ACTOR], dict(request.match_info), dict(request.query), body, request[CALL_ID])


# --- reading ------------------------------------------------------------------------------------


def _refuse_foreign(request: web.Request, actor: Actor, route: AdminRoute) -> Rejected | None:
    """Refuse what a page of another origin could have made a browser send."""
    headers = request.headers
    origin = headers.get("Origin")
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") or (
        origin is not None and origin != f"http://{request.host}" and origin != f"https://{request.host}"
    ):
        return Rejected(403, "foreign_origin", "This was sent by a page of another origin.")
    if not route.is_write:
        return None
    is_json = request.content_type == "application/json" and "Content-Type" in headers
    if PROOF_HEADER in headers or (is_json and actor.is_named):
        return None
    text = f"A call that changes something needs the header `{PROOF_HEADER}: 1`"
    return Rejected(403, "proof_missing", text + (" or a JSON body." if actor.is_named else "."))


async def _body(request: web.Request, route: AdminRoute) -> Any | Refused:
    """Return the parsed body, None when there is none, or why it cannot be read."""
    if not request.can_read_body:
        return None
    if not route.is_write:
        return Refused(400, "bad_request", "This call takes no body.")
    if request.content_type != "application/json":
        return Refused(415, "unsupported_media_type", "The body must be application/json.")
    if "Content-Encoding" in request.headers:
        return Refused(415, "unsupported_media_type", "The body must not be compressed.")
    limit = route.max_body_bytes
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            if (request.content_length or 0) <= limit:
                async for piece in request.content.iter_any():
                    data += piece
                    if len(data) > limit:
                        break
    except TimeoutError:
        return Refused(408, "request_timeout", "The body did not come in time.")
    if len(data) > limit or (request.content_length or 0) > limit:
        return Refused(413, "request_too_large", f"The body is larger than {limit} bytes.")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return Refused(400, "invalid_json", "The body is not JSON.")


# --- answering ----------------------------------------------------------------------------------


def document(value: Any, status: int, request: web.Request | None = None) -> web.Response:
    """Return a JSON answer."""
    body = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z, default=str)
    response = web.Response(body=body, status=status, content_type="application/json")
    if request is not None and CALL_ID in request:
        response.headers["x-request-id"] = request[CALL_ID]
    return response


def error(status: int, code: str, message: str, request: web.Request | None, param: str | None = None) -> web.Response:
    """Return an OpenAI-shaped error."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    shown = {"message": message, "type": kind, "param": param, "code": code}
    if request is not None and CALL_ID in request:
        shown["request_id"] = request[CALL_ID]
    return document({"error": shown}, status, request)


def rejection(rejected: Rejected, request: web.Request) -> web.Response:
    """Return the answer to a call that was not let in."""
    response = error(rejected.status, rejected.code, rejected.message, request)
    if rejected.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    if rejected.retry_after_s > 0:
        response.headers["retry-after"] = str(max(1, round(rejected.retry_after_s + 0.5)))
    return response


def _refusal(refused: Refused, request: web.Request) -> web.Response:
    response = error(refused.status, refused.code, refused.message, request, refused.param)
    if refused.status in (408, 413):
        # What is left of the body would be read as the next request.
        response.force_close()
    return response


def _record(route: AdminRoute, call: AdminCall, status: int) -> AdminWrite:
    path = PREFIX + route.path
    for name in route.shown:
        path = path.replace(f"{{{name}}}", call.params.get(name, "")[:200])
    return AdminWrite(call.id, call.actor.name, call.actor.role.value, route.method, path, status)
