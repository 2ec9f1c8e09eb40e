"""What budgets need to know of one exchange: whose it is, what it may use, what it used.

Owns the estimate of a request and the hiding of what the caller did not ask for. Bodies are rewritten (``fitting``) only
where a budget or a cap of the route needs it.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from proxy.core.budget.estimate import measure, output_tokens, prompt_tokens
from proxy.core.dialect import OTHER, Dialect
from proxy.core.sse import EventDecoder
from proxy.flow.booking import Plan
from proxy.flow.catalog import Route
from proxy.flow.exchange import Exchange
from proxy.flow.fitting import ASKS_USAGE, ask_usage, cap_output
from proxy.flow.intake import Request
from proxy.flow.ports import BodySource
from proxy.flow.verdicts import Who
from proxy.terms.exchange import Usage

_EMBEDDINGS: Final = Dialect.EMBEDDINGS
_NO_USAGE: Final = re.compile(rb',\s*"usage"\s*:\s*null')
_COMPACT_NULL: Final = b',"usage":null'
_BYTES_PER_TOKEN: Final = 4
_MAX_EVENT_BYTES: Final = 4 * 1024 * 1024


def plan_of(exchange: Exchange, route: Route, request: Request) -> Plan:
    """Settle what every attempt of this exchange shares; the request leaves as budgets need it."""
    body: bytes | BodySource = request.body
    if not body:
        source = request.upload if request.upload is not None else exchange.inbound.body
        if type(source) is not bytes:
            body = source
    plan = Plan()
    plan.route, plan.request, plan.body = route, request, body
    if not route.budgets and route.plan.output_cap is None:
        return plan
    if exchange.dialect is OTHER:
        return _with_who(plan, exchange) if route.knows_who else plan
    # A cap of ours, or none at all, is cut to the limit; only the caller's own word can be too large for ever.
    plan.is_explicit = request.max_tokens is not None
    large = request.large
    if type(body) is bytes and type(request.document) is dict:
        if (request.is_stream and route.asks_usage) or route.plan.output_cap is not None:
            body = plan.body = _fit(exchange, route, request)
    elif large is not None and large.fitted is not None:
        request.max_tokens, exchange.hides_usage = large.fitted
    if large is not None:
        size, images = large.size
    elif type(body) is bytes:
        size, images = measure(body)
    else:
        size, images = exchange.inbound.head.content_length or 0, 0
    # Embeddings have no answer in tokens.
    output = output_tokens(0 if exchange.dialect is _EMBEDDINGS else request.max_tokens, request.choices)
    plan.output_tokens = output
    plan.tokens = prompt_tokens(size, request.messages, images) + output
    return _with_who(plan, exchange) if route.knows_who else plan


def _fit(exchange: Exchange, route: Route, request: Request) -> bytes:
    """Let the request ask for no more than policy allows, and for its usage; return its body."""
    if route.plan.output_cap is not None and not route.plan.observe_only:
        cap_output(exchange.dialect, request, route.plan.output_cap)
    if route.asks_usage and request.is_stream and exchange.dialect in ASKS_USAGE:
        exchange.hides_usage = ask_usage(request)
    return request.body


def _with_who(plan: Plan, exchange: Exchange) -> Plan:
    """Say whose exchange it is, where a budget asks."""
    facts = exchange.facts
    plan.who = Who("", plan.route.plan.name, facts.app, facts.caller, facts.user)
    return plan


# --- what comes back ---------------------------------------------------------------------------------


class UsageHider:
    """Takes the usage that we asked for out of a stream: its own event, and the ``null`` in the others.

    Works on whole events. A ``"usage"`` key in the raw bytes is always a key: inside text its quotes are escaped.
    """

    __slots__ = ()

    def feed(self, data: bytes) -> bytes:
        """Return the events the caller asked for."""
        if data.find(b'"usage"') < 0:
            return data
        # Most events carry a ``null`` only; those need no parsing.
        rest = data.replace(_COMPACT_NULL, b"")
        if rest.find(b'"usage"') < 0:
            return rest
        return b"".join(map(_without_usage, EventDecoder(_MAX_EVENT_BYTES).feed(data)))

    def finish(self, broken: bool = False) -> bytes:
        """Nothing is held."""
        return b""


def _without_usage(event: Any) -> bytes:
    raw: bytes = event.raw
    if event.data is None or raw.find(b'"usage"') < 0:
        return raw
    try:
        document = orjson.loads(event.data)
    except orjson.JSONDecodeError:
        return raw
    if not isinstance(document, dict) or "usage" not in document:
        return raw
    if document["usage"] is None:
        return _NO_USAGE.sub(b"", raw, count=1)
    return b"" if document.get("choices") == [] else raw


def estimated_whole(exchange: Exchange, body: bytes) -> Usage:
    """Count what passed, for an answer whose provider reported no usage."""
    output = 0 if exchange.dialect is Dialect.EMBEDDINGS else -(-len(body) // _BYTES_PER_TOKEN)
    return Usage(-(-exchange.facts.request_bytes // _BYTES_PER_TOKEN), output, is_estimated=True)
