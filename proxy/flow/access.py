"""``access`` of a policy, carried out on one exchange: judged, noted, refused or cut to what is allowed.

Owns nothing; ``core.policy.access`` decides. Called only where the policy has rules that ask about requests.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from proxy.core.dialect import Dialect
from proxy.core.dialect.seam import dumps_any
from proxy.core.policy.access import LENGTH_KEYS, AccessPlan, Asked, clamped, judge
from proxy.core.routing.problems import Problem
from proxy.flow.catalog import Route
from proxy.flow.exchange import Exchange
from proxy.flow.intake import OFFLOAD_ABOVE_BYTES, Request, parsed
from proxy.flow.ports import Offload

_LENGTH_IN_BYTES: Final = tuple(f'"{key}"'.encode() for key in LENGTH_KEYS)


async def may_ask(
    exchange: Exchange, route: Route, access: AccessPlan, request: Request, offload: Offload
) -> Problem | None:
    """Return why policy does not let this request be asked; with ``clamp`` the request is cut to the limit instead."""
    body = request.body
    is_over = access.max_body_bytes is not None and len(body) > access.max_body_bytes
    if access.reads_params and len(body) > OFFLOAD_ABOVE_BYTES and request.document is None and not is_over:
        request.document = await offload(partial(parsed, body))
    denied = judge(access, asked_of(exchange, request))
    facts = exchange.facts
    if route.plan.observe_only:
        if denied is not None:
            facts.notes.append(f"would_refuse:access:{denied.key}")
        return None
    if denied is not None:
        facts.notes.append(f"access:{denied.key}")
        return denied.refusal
    if access.max_tokens is not None and isinstance(request.document, dict):
        _hold_to_limit(exchange, access, request)
    return None


def asked_of(exchange: Exchange, request: Request) -> Asked:
    """Return the request of an exchange as rules see it."""
    head, source = exchange.inbound.head, exchange.inbound.body
    size = len(source) if isinstance(source, bytes) else head.content_length
    _, _, query = head.target.partition(b"?")
    return Asked(
        head.method,
        head.path[3:],
        request.model,
        query.decode("latin-1"),
        size,
        request.document,
        _is_readable(exchange, request),
    )


def _is_readable(exchange: Exchange, request: Request) -> bool:
    """Say whether every parameter of the request has been seen; the fields of a form are none of these."""
    head = exchange.inbound.head
    if head.is_websocket:
        return False
    if request.document is not None or exchange.dialect is not Dialect.OTHER:
        return True
    has_body = bool(request.body) or not isinstance(exchange.inbound.body, bytes)
    return not has_body or head.fields.get(b"content-type", b"")[:20].lower().startswith(b"multipart/form-data")


def _hold_to_limit(exchange: Exchange, access: AccessPlan, request: Request) -> None:
    """Cut longer answers; a body in which two parsers could read different limits leaves as it was read."""
    body = request.body
    cut = clamped(access, request.document)
    is_doubtful = b"\\u" in body or any(body.count(key) > 1 for key in _LENGTH_IN_BYTES)
    if cut is None and not (is_doubtful and any(key in request.document for key in LENGTH_KEYS)):
        return
    if cut is not None:
        exchange.facts.notes.append("clamped:max_tokens")
        request.document = cut
        if request.max_tokens is not None and access.max_tokens is not None:
            request.max_tokens = min(request.max_tokens, access.max_tokens)
    request.body = dumps_any(request.document)
