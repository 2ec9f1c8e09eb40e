"""What budgets need to know of one exchange: whose it is, what it may use, what it used.

Owns what is asked of a provider for the sake of budgets (its usage in a stream, the longest answer) and the
hiding of what the caller did not ask for. Rewrites a body only where a budget or a cap of the route needs it.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from proxy.core.budget.estimate import Prompt, estimate_tokens, measure, output_tokens
from proxy.core.dialect import CHAT, OTHER, Dialect
from proxy.core.dialect.seam import dumps_any
from proxy.core.sse import EventDecoder
from proxy.flow.booking import Plan
from proxy.flow.catalog import Route
from proxy.flow.exchange import Exchange
from proxy.flow.intake import Request
from proxy.flow.verdicts import Who
from proxy.terms.exchange import Usage

_ASKS_USAGE: Final = frozenset({CHAT, Dialect.COMPLETIONS})
"""Dialects whose streams report usage only when asked; the others always do."""
_LENGTH_KEYS: Final = {
    CHAT: ("max_completion_tokens", "max_tokens"),
    Dialect.COMPLETIONS: ("max_tokens",),
    Dialect.RESPONSES: ("max_output_tokens",),
    Dialect.MESSAGES: ("max_tokens",),
}
"""Names of the longest answer; the first is written where the caller wrote none."""
_NO_USAGE: Final = re.compile(rb',\s*"usage"\s*:\s*null')
_COMPACT_NULL: Final = b',"usage":null'
_BYTES_PER_TOKEN: Final = 4
_MAX_EVENT_BYTES: Final = 4 * 1024 * 1024


def plan_of(exchange: Exchange, route: Route, request: Request) -> Plan:
    """Settle what every attempt of this exchange shares; the request leaves as budgets need it."""
    source = request.upload if request.upload is not None else exchange.inbound.body
    body = request.body if request.body or type(source) is bytes else source
    if not route.budgets and route.plan.output_cap is None:
        return Plan(route, request, body, 0, False)
    if exchange.dialect is OTHER:
        return _with_who(Plan(route, request, body, 0, False), exchange)
    is_named = request.max_tokens is not None
    is_whole = type(body) is bytes
    if is_whole and isinstance(request.document, dict):
        if route.plan.output_cap is not None and not route.plan.observe_only:
            _cap_output(exchange.dialect, request, route.plan.output_cap)
        if route.asks_usage and request.is_stream and exchange.dialect in _ASKS_USAGE:
            exchange.hides_usage = _ask_usage(request)
        body = request.body
    size, images = request.size or (
        measure(request.body) if is_whole else Prompt(exchange.inbound.head.content_length or 0)
    )
    longest = _output_limit(exchange, request)
    estimate = estimate_tokens(size, request.messages, longest, choices=request.choices, images=images)
    # A cap of ours, or none at all, is cut to the limit; only the caller's own word can be too large for ever.
    plan = Plan(route, request, body, estimate.tokens, is_named)
    if route.counts_apart:
        plan.output_tokens = output_tokens(longest, choices=request.choices)
    return _with_who(plan, exchange)


def _with_who(plan: Plan, exchange: Exchange) -> Plan:
    if plan.route.knows_who:
        facts = exchange.facts
        plan.who = Who("", plan.route.plan.name, facts.app, facts.caller, facts.user)
    return plan


def _output_limit(exchange: Exchange, request: Request) -> int | None:
    """Return the longest answer; embeddings have none in tokens."""
    return 0 if exchange.dialect is Dialect.EMBEDDINGS else request.max_tokens


# --- what leaves -------------------------------------------------------------------------------------


def _ask_usage(request: Request) -> bool:
    """Have the provider report usage at the end of the stream; True when the caller did not ask for it itself."""
    document = request.document
    options = document.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage") is True:
        return False
    wanted = {**options, "include_usage": True} if isinstance(options, dict) else {"include_usage": True}
    _put(request, "stream_options", wanted)
    return True


def _cap_output(dialect: Dialect, request: Request, cap: int) -> None:
    """Bound the answer: with the caller's own word for it where there is one, never upwards."""
    keys = _LENGTH_KEYS.get(dialect)
    if keys is None or (request.max_tokens is not None and request.max_tokens <= cap):
        return
    written = [key for key in keys if request.document.get(key) is not None]
    for key in written or keys[:1]:
        _put(request, key, cap)
    request.max_tokens = cap


def _put(request: Request, key: str, value: Any) -> None:
    """Set one key at the top of the body; every other byte stays where the key is new."""
    document, body = request.document, request.body.rstrip()
    request.document = {**document, key: value}
    if key in document or not document or body[-1:] != b"}":
        request.body = dumps_any(request.document)
    else:
        request.body = b"%b,%b:%b}" % (body[:-1], orjson.dumps(key), orjson.dumps(value))


# --- what comes back ---------------------------------------------------------------------------------


class UsageHider:
    """Takes the usage that we asked for out of a stream: its own event, and the ``null`` in the others.

    Works on whole events. A ``"usage"`` key in the raw bytes is always a key: inside text its quotes are escaped.
    """

    __slots__ = ()

    def feed(self, data: bytes) -> bytes:
        """Return the events the caller asked for."""
        if b'"usage"' not in data:
            return data
        # Most events carry a ``null`` only; those need no parsing.
        rest = data.replace(_COMPACT_NULL, b"")
        if b'"usage"' not in rest:
            return rest
        return b"".join(map(_without_usage, EventDecoder(_MAX_EVENT_BYTES).feed(data)))

    def finish(self, broken: bool = False) -> bytes:
        """Nothing is held."""
        return b""


def _without_usage(event: Any) -> bytes:
    raw: bytes = event.raw
    if event.data is None or b'"usage"' not in raw:
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
